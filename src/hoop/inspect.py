"""Let a person look into one process that runs: what its loop does, and where its tasks are.

    async def main():
        hoop.inspect.serve()
        ...

opens a control socket, which `hoop top`, `hoop ctl status` and `hoop ctl tasks` read, of the same user on the same
machine. The environment variable HOOP_INSPECT=1 does it for a program that does not (hoop.run() and
hoop.new_event_loop() heed it); HOOP_INSPECT=/run/app-%p.sock at a place of your own, %p being the process's number. A
cluster (`hoop serve`) has such a socket anyway.

The loop itself answers, in some 0.1 ms: one that is held answers later.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import platform
import socket
import threading
import time
import weakref
from asyncio.log import logger
from pathlib import Path
from typing import Any, Self

import hoop
from hoop import watched
from hoop.cluster.binds import UnixBind, open_bind
from hoop.cluster.control import (
    BACKLOG,
    LARGEST_REQUEST,
    PROCESS_PREFIX,
    SUFFIX,
    alone_in,
    identity_of,
    is_alive,
    runtime_folder,
)
from hoop.cluster.looks import Looks, Sample
from hoop.cluster.stacks import cpu_of, rss_of
from hoop.core.board import place_of

__all__ = ["Inspector", "serve"]

Json = dict[str, Any]

VARIABLE = "HOOP_INSPECT"
KEY = 0  # of the only process, in Looks
MOST_FRAMES = 64  # of a task's stack
MOST_CLIENTS = 16
MOST_UNSENT = 1 << 24  # bytes of answers that a client may leave unread


def serve(path: str | os.PathLike[str] | None = None) -> Inspector:
    """Answer `hoop top` and `hoop ctl` at path until the loop is closed; call it in the running loop.

    path: of the control socket (mode 0600); None: one in the runtime directory of the user, where the commands look.
    It does not keep loop.run() waiting. RuntimeError without a running loop, TypeError if that is not hoop's; OSError
    if a process answers at the path, or if the file cannot be made. A file that a dead process has left gives way.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, hoop.Loop):
        raise TypeError(f"hoop.inspect looks into hoop's loops, not into {loop!r}")
    return Inspector(Endpoint(loop, default_path() if path is None else Path(os.fspath(path))))


class Inspector:
    """What serve() returns: a context manager that ends it. It ends by itself with the loop, or the process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = weakref.ref(endpoint)  # the loop has it: so it ends with the loop
        self.path: Path = endpoint.path

    def close(self) -> None:
        """Answer no longer, and remove the file; in the loop's thread. Idempotent."""
        endpoint = self._endpoint()
        if endpoint is not None:
            endpoint.close()

    @property
    def is_open(self) -> bool:
        """Whether it answers."""
        endpoint = self._endpoint()
        return endpoint is not None and not endpoint.is_closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def default_path() -> Path:
    """In the runtime directory, by the process's number. What killed processes have left there is removed."""
    folder = runtime_folder()
    with alone_in(folder):
        for path in folder.glob(f"{PROCESS_PREFIX}*{SUFFIX}"):
            if not is_alive(path):
                with contextlib.suppress(OSError):
                    path.unlink()
    return folder / f"{PROCESS_PREFIX}{os.getpid()}{SUFFIX}"


# ---- by the environment ---------------------------------------------------------------------------------------------


def serve_when_running(loop: hoop.Loop) -> None:
    """What HOOP_INSPECT wants of a new loop: to be looked into when it runs, unless another one of the process is."""
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        loop.call_soon(serve_by_environment)


def serve_by_environment() -> None:
    """A program does not fail because nobody can look into it."""
    if threading.current_thread() is not threading.main_thread() or any(not one.is_closed for one in endpoints):
        return
    value = os.environ.get(VARIABLE, "")
    try:
        serve(None if value == "1" else value.replace("%p", str(os.getpid())))
    except (OSError, TypeError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        logger.warning("%s=%s: %s", VARIABLE, value, reason)


# ---- the socket -----------------------------------------------------------------------------------------------------


def open_endpoint(path: Path) -> socket.socket:
    with alone_in(path.parent):
        try:
            return open_bind(UnixBind(str(path), mode=0o600), BACKLOG)[0]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(error.errno, f"another process answers at {path}, or it is no socket") from error
            raise OSError(error.errno, f"no control socket at {path}: {error.strerror or error}") from error


class Endpoint:
    """The listening socket of one loop, and its clients. Watched by add_reader(): so it is none of the servers that
    the loop drains and counts, and that have its limits."""

    def __init__(self, loop: hoop.Loop, path: Path) -> None:
        self.path: Path = path
        self.is_closed: bool = False
        self._socket = open_endpoint(path)
        self._loop: Any = loop
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()  # the loop has them
        self._sockets = {self._socket}  # and the clients'
        self._clean_up = weakref.finalize(self, clean_up, self._sockets, path, identity_of(path), os.getpid())
        self.process: Process = Process(loop)
        loop.add_reader(self._socket, self._accept)
        self._loop._reference_reader(self._socket.fileno(), False)
        endpoints.add(self)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor left: others need it more, but the backlog must not keep the loop awake
            self.close()
            raise
        if len(self._clients) >= MOST_CLIENTS:
            sock.close()
            return
        sock.setblocking(False)
        self._clients.add(Client(self._loop, sock, self.process, self._sockets))

    def close(self) -> None:
        """Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        for client in list(self._clients):
            client.close()
        self._clean_up()

    def leave_to_parent(self) -> None:
        """In a child of fork(2): the socket is the parent's, and it must be seen when the parent ends."""
        self.is_closed = True
        self._clean_up()


def clean_up(sockets: set[socket.socket], path: Path, identity: tuple[int, int], pid: int) -> None:
    """Also when the loop was closed. The file goes, unless another socket has its name by now."""
    while sockets:
        sockets.pop().close()
    if pid == os.getpid():
        with contextlib.suppress(OSError):
            if identity_of(path) == identity:
                path.unlink()


class Client:
    """One connection: lines of JSON in and out, as hoop.cluster.control has them."""

    def __init__(self, loop: Any, sock: socket.socket, process: Process, sockets: set[socket.socket]) -> None:
        self.sock = sock
        self._loop = loop
        self._process = process
        self._sockets = sockets
        self._unread = self._unsent = b""
        self._looks = process.new_looks()
        sockets.add(sock)
        loop.add_reader(sock, self._read)
        loop._reference_reader(sock.fileno(), False)

    def _read(self) -> None:
        try:
            data = self.sock.recv(LARGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data or len(self._unread) > LARGEST_REQUEST:
            self.close()
            return
        for line in lines:
            self._unsent += json.dumps(self._answer(line)).encode() + b"\n"
        self._write()

    def _answer(self, line: bytes) -> Json:
        try:
            request = json.loads(line)
            command = request.get("command") if isinstance(request, dict) else None
            return {"ok": True, "result": self._process.answer(command, self._looks)}
        except Exception as error:
            return {"ok": False, "error": str(error) or repr(error), "detail": None}

    def _write(self) -> None:
        try:
            sent = self.sock.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        if len(self._unsent) > MOST_UNSENT:
            self.close()
        elif self._unsent:
            self._loop.add_writer(self.sock, self._write)
            self._loop._reference_reader(self.sock.fileno(), False)
        else:
            self._loop.remove_writer(self.sock)

    def close(self) -> None:
        """Idempotent."""
        self._sockets.discard(self.sock)
        if self.sock.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self.sock)
            self._loop.remove_writer(self.sock)
        self.sock.close()


# ---- what is answered -----------------------------------------------------------------------------------------------


class Process:
    """This process, as its clients see it: a cluster's answers with one worker."""

    def __init__(self, loop: hoop.Loop) -> None:
        self._loop = weakref.ref(loop)
        self._where: tuple[Any, int] | None = None
        self._first = self._sample()

    def _sample(self) -> Sample:
        """Of the board on which the loop writes now: a worker of a cluster takes to its master's after its start."""
        loop = self._loop()
        assert loop is not None  # it calls this
        board, place = place_of(loop)
        sample = Sample(time.monotonic(), board.read(place), cpu_of(os.getpid()))
        if (board, place) != self._where:
            self._where, self._first = (board, place), sample
        return sample

    def new_looks(self) -> Looks:
        """For a client: its first look is at all that has happened since serve()."""
        self._sample()
        looks = Looks()
        looks.figures(KEY, self._first, self._first.at)
        return looks

    def answer(self, command: object, looks: Looks) -> Any:
        """ValueError for what only a cluster can do."""
        match command:
            case "status":
                return self._status(self.new_looks())
            case "look":
                return self._status(looks)
            case "tasks":
                return tasks_of(self._loop())
            case "blocked" if watched.report is not None:
                return {
                    "workers": [{"role": "program", "pid": os.getpid(), "answers": True, "found": watched.report()}]
                }
            case "blocked":
                raise LookupError("the process is not monitored: start it with HOOP_MONITOR=50ms in its environment")
        known = "status, look, tasks and blocked"
        raise ValueError(f"this is a process without a cluster: it answers {known}, not {command!r}")

    def _status(self, looks: Looks) -> Json:
        loop = self._loop()
        assert loop is not None  # it calls this
        sample = self._sample()
        reading = sample.reading
        pool = loop.metrics().pool
        age = process_age()
        worker = {
            "pid": os.getpid(),
            "state": "running",
            "age": age,
            "requests": reading.requests,
            "connections": reading.connections,
            "accepts": reading.accepts,
            "rss": rss_of(os.getpid()),
            **looks.figures(KEY, sample, self._first.at),
            "held": 0.0,  # by this answer
            "queued": None if pool is None else pool.queued,
            "tasks": len(asyncio.all_tasks(loop)),
        }
        return {
            "kind": "process",
            "pid": os.getpid(),
            "state": "running",
            "age": age,
            "addresses": [],
            "hoop": hoop.__version__,
            "python": platform.python_version(),
            "workers": [worker],
        }


def process_age() -> float:
    """Seconds since the process began, where the system tells; else, since this module was imported."""
    with contextlib.suppress(OSError, IndexError, ValueError, AttributeError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return round(max(time.clock_gettime(time.CLOCK_BOOTTIME) - began, 0.0), 3)
    return round(time.monotonic() - imported_at, 3)


imported_at: float = time.monotonic()


def tasks_of(loop: Any) -> list[Json]:
    """Each task, and where it waits: the outermost coroutine first."""
    found = []
    for task in asyncio.all_tasks(loop):
        stack, awaited = frames_of(task.get_coro())
        name = task.get_name()
        coroutine = getattr(task.get_coro(), "__qualname__", type(task.get_coro()).__name__)
        found.append({"name": name, "coroutine": coroutine, "stack": stack, "awaits": awaited})
    return sorted(found, key=lambda task: (len(task["name"]), task["name"]))


ATTRIBUTES = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def frames_of(awaitable: Any) -> tuple[list[Json], str | None]:
    """The frames of a coroutine and of what it awaits; and the kind of what all of them wait for in the end."""
    stack: list[Json] = []
    while awaitable is not None and len(stack) < MOST_FRAMES:
        names = next((names for names in ATTRIBUTES if hasattr(awaitable, names[0])), None)
        if names is None:
            return stack, type(awaitable).__name__
        frame = getattr(awaitable, names[0])
        if frame is not None:
            code = frame.f_code
            stack.append({"file": code.co_filename, "line": frame.f_lineno, "function": code.co_qualname})
        awaitable = getattr(awaitable, names[1])
    return stack, None


# ---- fork -----------------------------------------------------------------------------------------------------------

endpoints: weakref.WeakSet[Endpoint] = weakref.WeakSet()


def leave_all_to_parent() -> None:
    for endpoint in list(endpoints):
        endpoint.leave_to_parent()


os.register_at_fork(after_in_child=leave_all_to_parent)
