"""Upgrade in place: the master replaces its program, and nothing else changes.

It runs the command by which it was started once more, up to the point where the cluster would begin: a new interpreter,
a new hoop, new options, or an error, which leaves all as it was. Then it replaces itself by execve(2). The process
stays the same one, so service managers, containers and shells see nothing; its children stay its children, and the
descriptors of sockets and channels stay open. What it knew of them it finds in a file without a name.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hoop.cluster.channel import Rest

CHECK = "HOOP_CLUSTER_CHECK"  # environment of the command: the descriptor that wants to hear GOOD
STATE = "HOOP_CLUSTER_STATE"  # the descriptor of what the master knew
GOOD = b"the cluster could begin"
FAILED = "upgrade failed, the old program goes on"
VERSION = 1  # of the state: another version of hoop may read it
LONGEST_OUTPUT = 1 << 16
# They would end a program that has not got its handlers yet.
HELD = frozenset(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU")
    if hasattr(signal, name)
)

State = dict[str, Any]

logger: logging.Logger = logging.getLogger("hoop.cluster")


class UpgradeError(Exception):
    """The new program would not start. str() is one line; detail is what it has written."""

    def __init__(self, text: str, detail: str | None = None) -> None:
        super().__init__(text)
        self.detail = detail


def command() -> list[str]:
    """By which this process was started."""
    return [sys.executable, *sys.orig_argv[1:]]


# ---- the check ------------------------------------------------------------------------------------------------------


async def check(timeout: float) -> None:
    """Run the command up to the beginning of the cluster. UpgradeError if it does not come so far in that time."""
    heard, says = os.pipe()
    environment = {**os.environ, CHECK: str(says)}
    try:
        child = subprocess.Popen(
            command(),
            env=environment,
            pass_fds=[says],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        os.close(heard)
        raise UpgradeError(f"{FAILED}: {sys.executable} does not start: {error.strerror}") from error
    finally:
        os.close(says)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(timeout):
            output = await read_all(child.stdout.fileno())
            word = await read_all(heard)
    except TimeoutError:
        raise UpgradeError(f"{FAILED}: the new program has not come to its cluster within {timeout:g} s") from None
    finally:
        child.kill()
        child.stdout.close()
        os.close(heard)
        child.wait()
    if word != GOOD:
        lines = output.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it ends without a word")
        raise UpgradeError(
            f"{FAILED}: the new program does not come to its cluster: {last}", output.decode(errors="replace")
        )


async def read_all(fd: int) -> bytes:
    """The last of what is read from a pipe until its end."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    collected = bytearray()
    ended = loop.create_future()

    def on_readable() -> None:
        try:
            data = os.read(fd, LONGEST_OUTPUT)
        except BlockingIOError:
            return
        collected.extend(data)
        del collected[:-LONGEST_OUTPUT]
        if not data and not ended.done():
            ended.set_result(None)

    loop.add_reader(fd, on_readable)
    try:
        await ended
    finally:
        loop.remove_reader(fd)
    return bytes(collected)


def is_check() -> bool:
    """Whether this process is only to show that it comes to its cluster: say_good() then."""
    return CHECK in os.environ


def say_good() -> None:
    """Tell the master, and end this process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os.write(int(os.environ[CHECK]), GOOD)
    os._exit(0)


# ---- failures that end nothing ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """After an upgrade: that something does not open is no reason to end what serves."""
    try:
        yield
    except Exception as error:
        logger.error("the new program goes on without %s: %s", what, error)


def log_failure(task: asyncio.Task[None]) -> None:
    """Of an upgrade that nobody waits for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        detail = getattr(error, "detail", None)
        logger.error("%s%s", error, f"\n{detail.rstrip()}" if detail else "")


# ---- what is kept of a worker ----------------------------------------------------------------------------------------


def state_of(record: Any) -> State:
    """Of a WorkerRecord; its channel stays open."""
    unread, unsent = record.channel.rest
    return {
        "number": record.number,
        "slot": record.slot,
        "generation": record.generation,
        "pid": record.pid,
        "channel": record.process.channel.fileno(),
        "rest": [base64.b64encode(part).decode() for part in (unread, *unsent)],
        "began": record.began,
        "failure": record.failure,
        "detail": record.detail,
    }


def rest_in(known: State) -> Rest:
    """What its channel had received and not delivered, and not sent yet."""
    unread, *unsent = (base64.b64decode(part) for part in known["rest"])
    return unread, unsent


# ---- the exchange ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def signals_held() -> Iterator[list[int]]:
    """No signal of HELD comes meanwhile; the mask of before, for execute()."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield sorted(map(int, mask))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def execute(state: State, mask: list[int], descriptors: Iterable[int], environment: Mapping[str, str]) -> None:
    """Replace the program of this process; the new one gets these descriptors and take()s the state. It returns only
    by an OSError, and then nothing has changed."""
    kept = list(descriptors)
    with new_file() as file:
        file.write(json.dumps({**state, "version": VERSION, "mask": mask}).encode())
        file.flush()
        kept.append(file.fileno())
        try:
            for fd in kept:
                os.set_inheritable(fd, True)
            os.execve(sys.executable, command(), {**os.environ, **environment, STATE: str(file.fileno())})
        finally:
            for fd in kept:
                os.set_inheritable(fd, False)


def new_file() -> Any:
    """In memory, where the system has that; a name it has nowhere."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("hoop-cluster", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def take() -> State | None:
    """What the program before this one knew, if there was one. Once: the environment forgets it. The signals of HELD
    stay blocked until release(). ValueError for a state that this version cannot read."""
    text = os.environ.pop(STATE, None)
    if text is None:
        return None
    with os.fdopen(int(text), "rb") as file:
        file.seek(0)
        state: State = json.load(file)
    if state.get("version") != VERSION:
        raise ValueError(f"the master before the upgrade has left a state of version {state.get('version')!r}")
    return state


def release(state: State) -> None:
    """The handlers are there: let the signals come that were held."""
    signal.pthread_sigmask(signal.SIG_SETMASK, state["mask"])
