"""Where a master takes commands from outside: the control socket, and in development the files of the application."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoop
from hoop.cluster.changes import Changes
from hoop.cluster.channel import ChannelFull
from hoop.cluster.control import ControlServer, Json, default_path, identity_of, open_control
from hoop.cluster.looks import Looks, Sample
from hoop.cluster.stacks import cpu_of, rss_of

LOOK_S = 1.0  # between two looks at the files
ANSWER_S = 2.0  # in which a worker answers, unless something holds its loop

logger: logging.Logger = logging.getLogger("hoop.cluster")


class Desk:
    """One for a master: open() before the first worker, start() with its loop, close() at the end. The other methods
    are what hoop.cluster.control.Commands asks for."""

    def __init__(self, master: Any) -> None:
        self._master = master
        self._began = time.monotonic()
        self._path: Path | None = None
        self._identity: tuple[int, int] | None = None
        self._server: ControlServer | None = None
        self._questions: dict[int, tuple[int, asyncio.Future[Any]]] = {}  # by their numbers: the worker's, its answer
        self._asked = 0
        self._listeners: list[Callable[[Json], None]] = []
        self._changes: Changes | None = Changes() if master.options.reload_on_change else None
        self._timer: Any = None
        self._last_failure: str | None = None
        self._exits: dict[str, Json] = {}  # the last one of each slot and role, by its name

    def open(self) -> None:
        """OSError if another master has the control socket, or if a path that was asked for cannot be had."""
        wanted = self._master.options.control
        if wanted is False:
            return
        try:
            path = default_path(self._master.listeners.addresses()) if wanted is None else Path(wanted)
            self._server = ControlServer(open_control(path), self)
        except OSError as error:
            if wanted is not None or error.errno == errno.EADDRINUSE:
                raise
            logger.warning("%s: `hoop ctl` will not find this cluster", error.strerror or error)
            return
        self._path = path
        self._identity = identity_of(path)

    def start(self) -> None:
        """Answer from now on, as long as the master's loop runs."""
        loop = self._master.loop
        if self._server is not None:
            loop.run_until_complete(self._server.start(loop))
        if self._changes is not None:
            self._timer = loop.call_later(LOOK_S, self._look)

    def close(self) -> None:
        """Idempotent. The file goes, unless another socket has its name by now."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if identity_of(self._path) == self._identity:
                    self._path.unlink()
            self._path = None

    # ---- what workers say -------------------------------------------------------------------------------------------

    def hear(self, record: Any, message: Json) -> None:
        """A message of a worker, whatever it is about."""
        match message:
            case {"kind": "message", "message": text}:
                for listener in list(self._listeners):
                    listener({"slot": record.slot, "pid": record.pid, "message": text})
            case {"kind": "blocked", "question": question, "found": found}:
                number, answer = self._questions.get(question, (-1, None))
                if answer is not None and number == record.number and not answer.done():
                    answer.set_result(found)
            case {"kind": "files", "files": files} if self._changes is not None:
                self._changes.follow(files)

    def _look(self) -> None:
        self._timer = self._master.loop.call_later(LOOK_S, self._look)
        changed = self._changes.look() if self._changes is not None else ()
        if changed:
            others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            logger.info("%s has changed%s", os.path.relpath(changed[0]), others)
            self._master.begin_reload()

    # ---- commands ---------------------------------------------------------------------------------------------------

    def status(self, looks: Looks | None = None) -> Json:
        master = self._master
        records = sorted(master.records.values(), key=rank)
        supervisor = master.supervisor
        state = "stopping" if supervisor.is_stopping else "reloading" if supervisor.is_reloading else "serving"
        return {
            "pid": os.getpid(),
            "state": state if supervisor.has_started or supervisor.is_stopping else "starting",
            "age": round(time.monotonic() - self._began, 3),
            "generation": supervisor.generation,
            "addresses": master.listeners.addresses(),
            "hoop": hoop.__version__,
            "python": platform.python_version(),
            "last_failure": self._last_failure,
            "subscribers": len(self._listeners),
            "workers": [self._status_of(record, looks) for record in records],
        }

    def look(self, looks: Looks) -> Json:
        """Of the board, as status(): no worker is asked. utilization is that since the last look."""
        status = self.status(looks)
        status["workers"] = sorted([*status["workers"], *self._empty_slots()], key=lambda one: one.get("slot", 1 << 30))
        looks.keep(self._master.records.keys())
        return status

    def _empty_slots(self) -> list[Json]:
        """Rows for slots that wait for their next process: how the last one has ended is what one looks for."""
        supervisor, now = self._master.supervisor, self._master.loop.time()
        filled = {record.slot for record in self._master.records.values()}
        rows: list[Json] = []
        for slot in supervisor.all_slots():
            name = supervisor.name_of(slot.number)
            if slot.number not in filled and name in self._exits:
                who = {"slot": slot.number} if slot.number >= 0 else {"role": name}
                rows.append(
                    {**who, "pid": None, "state": "waiting", "age": None, "last_exit": self._last_exit(name, now)}
                )
        return rows

    def note_exit(self, record: Any, how: str) -> None:
        """A worker has ended."""
        former = self._exits.get(record.name, {"count": 0})
        self._exits[record.name] = {
            "how": how, "pid": record.pid, "generation": record.generation, "count": former["count"] + 1,
            "at": self._master.loop.time(),
        }  # fmt: skip

    def _last_exit(self, name: str, now: float) -> Json | None:
        found = self._exits.get(name)
        if found is None:
            return None
        return {**{key: value for key, value in found.items() if key != "at"}, "ago": round(now - found["at"], 3)}

    def _status_of(self, record: Any, looks: Looks | None) -> Json:
        worker = self._master.supervisor.workers.get(record.number)
        reading = record.post.read()
        now = self._master.loop.time()
        age = now - record.began  # the sleep that a loop is in is in none of its figures yet
        status = {
            **({"slot": record.slot} if record.slot >= 0 else {"role": record.name}),
            "pid": record.pid,
            "generation": record.generation,
            "state": "ending" if worker is None else worker.stage.name.lower(),
            "age": round(age, 3),
            "requests": reading.requests,
            "connections": reading.connections,
            "accepts": reading.accepts,
            "utilization": round(min(reading.busy_ns / 1e9 / max(age, 1e-3), 1.0), 4),
            "rss": rss_of(record.pid),
        }
        if looks is not None:
            sample = Sample(time.monotonic(), reading, cpu_of(record.pid))
            status |= looks.figures(record.number, sample, time.monotonic() - age)
            status["last_exit"] = self._last_exit(record.name, now)
        return status

    async def blocked(self) -> Json:
        records = sorted(self._master.records.values(), key=rank)
        answers = [self._ask_what_blocked(record) for record in records]
        try:
            if answers:
                await asyncio.wait(answers, timeout=ANSWER_S)
            told = [answer.result() for answer in answers if answer.done()]
            if told and all(found is None for found in told):
                raise LookupError("no worker is monitored: start the cluster with HOOP_MONITOR=50ms in its environment")
            pairs = zip(records, answers, strict=True)
            return {"workers": [self._blocked_of(record, answer) for record, answer in pairs]}
        finally:
            for answer in answers:
                answer.cancel()

    def _blocked_of(self, record: Any, answer: asyncio.Future[Any]) -> Json:
        worker = {"slot": record.slot} if record.slot >= 0 else {"role": record.name}
        busy_since = record.post.read().busy_since
        return {
            **worker,
            "pid": record.pid,
            "answers": answer.done(),
            "held": None if busy_since is None else round(self._master.loop.time() - busy_since, 3),
            "found": answer.result() if answer.done() else None,
        }

    def _ask_what_blocked(self, record: Any) -> asyncio.Future[Any]:
        """The worker's answer, if it comes."""
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[Any] = self._master.loop.create_future()
        self._questions[number] = record.number, answer
        answer.add_done_callback(lambda _: self._questions.pop(number))
        with contextlib.suppress(ChannelFull, ConnectionError):  # it does not read, or ends: that shows
            record.channel.send({"kind": "blocked", "question": number})
        return answer

    async def reload(self) -> None:
        try:
            await self._master.reload()
        except Exception as error:
            self._last_failure = str(error)
            raise
        self._last_failure = None

    async def upgrade(self) -> None:
        await self._master.handover.upgrade()

    def scale(self, workers: int) -> None:
        self._master.scale(workers)

    def stop(self) -> None:
        if not self._master.supervisor.is_stopping:  # twice would be at once
            self._master.stop()

    def subscribe(self, listener: Callable[[Json], None]) -> Callable[[], object]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def rank(record: Any) -> tuple[bool, int, int]:
    """Workers by their slots, then roles in the order in which they were given."""
    return record.slot < 0, abs(record.slot), record.generation
