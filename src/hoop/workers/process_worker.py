"""One worker process, as the pool sees it: a socket of the loop, and a process that is killed, not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Protocol

from hoop_worker import (
    HEAD,
    LAST_ERROR,
    LAST_RESULT,
    MOST_FUNCTIONS,
    READY,
    RESULT,
    SET_UP,
    SIZE,
    TASK,
    Aside,
    head_of,
    pack,
    unpack,
)

from hoop.core.other_loops import unref

LONGEST_END = 5.0  # seconds that an idle worker may take to end
LAST_WORDS = 0.1  # seconds in which the end of the socket follows the end of the process
CODE = "import sys, hoop_worker; hoop_worker.main(*map(int, sys.argv[1:]))"


class WorkerDied(RuntimeError):
    """The process that ran a task ended. status: its exit status, or None; signal: what killed it, or None."""

    def __init__(self, message: str, status: int | None = None, signal: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.signal = signal


class RemoteTraceback(Exception):
    """The cause of an error that came from a worker: the traceback, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def new_memory(name: str) -> int:
    """A file in memory that both processes have, -1 where the system has none. It cannot shrink under a reader."""
    if not hasattr(os, "memfd_create"):
        return -1
    import fcntl

    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


pickled_functions: dict[Any, bytes] = {}


def pack_call(call: tuple[Any, tuple[Any, ...], dict[str, Any]], aside: Aside) -> tuple[bytes, list[Any]]:
    """As pack() of (by_name, function, arguments, keywords). To find the name of a function and to look it up again
    costs more than all else of a small task, so a function that has one is pickled once."""
    function, arguments, keywords = call
    kind = type(function)
    if kind is FunctionType or (kind is BuiltinFunctionType and type(function.__self__) is ModuleType):
        pickled = pickled_functions.get(function)
        if pickled is None:
            pickled = pickle.dumps(function, 5)
            if len(pickled_functions) >= MOST_FUNCTIONS:
                pickled_functions.clear()
            pickled_functions[function] = pickled
        return pack((True, pickled, arguments, keywords), aside)
    return pack((False, function, arguments, keywords), aside)


class Owner(Protocol):
    """Whose worker it is: the pool."""

    def on_ready(self, worker: Any) -> None: ...
    def on_outcome(self, worker: Any, is_result: bool, value: Any, is_last: bool) -> None: ...
    def on_end(self, worker: Any, error: BaseException) -> None: ...


class ProcessWorker(asyncio.Protocol):
    """Starts a process, sends it one task after another, and tells its owner what comes back.

    STARTING --READY--> IDLE --run()--> BUSY --outcome--> IDLE; any of them ends with on_end().
    """

    def __init__(self, loop: Any, owner: Owner) -> None:
        self.loop = loop
        self.owner = owner
        self.transport: Any = None
        self.process: subprocess.Popen[bytes] | None = None
        self.opening: asyncio.Task[None] | None = None
        self.tasks: Aside = Aside(-1)
        self.results: Aside = Aside(-1)
        self.life_fd: int = -1  # as long as it is open, the worker lives
        self.unread: bytearray = bytearray()
        self.failure: BaseException | None = None  # why it could not start
        self.is_started: bool = False
        self.is_stopping: bool = False
        self.is_lost: bool = False
        self.pidfd: int = -1
        self.code: int | None = None  # how the process ended, as Popen.returncode

    # ---- for the pool ---------------------------------------------------------------------------------------------

    def start(self, options: dict[str, Any]) -> None:
        """Start the process. OSError if the system has no room for it."""
        ours, theirs = socket.socketpair()
        life_fd, self.life_fd = os.pipe()
        try:
            self.tasks, self.results = Aside(new_memory("hoop-tasks")), Aside(new_memory("hoop-results"))
            fds = [theirs.fileno(), life_fd, self.tasks.fd, self.results.fd]
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child ignores it
            try:
                self.process = subprocess.Popen(
                    [sys.executable, *interpreter_flags(), "-c", CODE, *map(str, fds)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[fd for fd in fds if fd >= 0],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join([path or os.getcwd() for path in sys.path])},
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        except BaseException:
            ours.close()
            self.close_descriptors()
            raise
        finally:
            theirs.close()
            os.close(life_fd)
        ours.setblocking(False)
        self.watch()
        self.opening = self.loop.create_task(self.open(ours, options))

    async def open(self, sock: socket.socket, options: dict[str, Any]) -> None:
        try:
            self.transport, _ = await self.loop.create_connection(lambda: self, sock=sock)
        except BaseException as error:
            sock.close()
            self.failure = error
            self.kill()
            raise
        pickled = pickle.dumps(options, 5)
        self.transport.write(head_of(SET_UP, pickled, []) + pickled)

    def run(self, pickled: bytes, buffers: list[Any]) -> None:
        """Send a task to a worker that is idle."""
        head = head_of(TASK, pickled, buffers)
        if buffers:
            self.tasks.write(buffers)
            self.transport.writelines((head, pickled))
        else:
            self.transport.write(head + pickled)

    def kill(self) -> None:
        """End the process at once. The owner hears on_end()."""
        if self.process is not None and self.code is None:
            self.process.kill()

    def stop(self) -> None:
        """Have a worker that is idle end as programs do, soon. The owner hears on_end()."""
        self.is_stopping = True
        self.transport.close()
        unref(self.loop.call_later(LONGEST_END, self.kill))

    # ---- called by the transport ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        unread = self.unread
        if not unread and len(data) >= HEAD.size:  # mostly a whole message comes, and nothing else
            kind, size, count = HEAD.unpack_from(data)
            if count == 0 and len(data) == HEAD.size + size:
                self.on_message(kind, data[HEAD.size :], [])
                return
        unread += data
        while len(unread) >= HEAD.size:
            kind, size, count = HEAD.unpack_from(unread)
            start = HEAD.size + SIZE.size * count
            if len(unread) < start + size:
                return
            sizes = [SIZE.unpack_from(unread, HEAD.size + SIZE.size * index)[0] for index in range(count)]
            pickled = bytes(unread[start : start + size])
            del unread[: start + size]
            self.on_message(kind, pickled, sizes)

    def on_message(self, kind: int, pickled: bytes, sizes: list[int]) -> None:
        if kind == READY:
            self.is_started = True
            self.owner.on_ready(self)
            return
        is_result = kind in (RESULT, LAST_RESULT)
        is_last = kind in (LAST_RESULT, LAST_ERROR)
        self.is_stopping = self.is_stopping or is_last
        try:
            value = unpack(pickled, sizes, self.results)
        except Exception as error:  # what the worker could pickle, this process cannot make
            is_result, value = False, (error, "")
        if not is_result:
            value, text = value
            value.__cause__ = RemoteTraceback(text)
        if not self.is_started:
            self.failure = value
            return
        self.owner.on_outcome(self, is_result, value, is_last)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if not self.is_stopping:
            self.kill()
        self.end_if_over()

    # ---- the end --------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Have on_exit() called when the process has ended."""
        assert self.process is not None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # a kernel without it, or no descriptor left
                self.pidfd = os.pidfd_open(self.process.pid)
                self.loop.add_reader(self.pidfd, self.on_exit)
                return
        threading.Thread(target=self.wait_in_thread, args=(self.process,), daemon=True).start()

    def wait_in_thread(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            self.loop.call_soon_threadsafe(self.on_exit)

    def on_exit(self) -> None:
        assert self.process is not None
        if self.pidfd >= 0:
            self.loop.remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
        self.code = self.process.wait()
        if (
            self.transport is not None and not self.is_lost
        ):  # its last words are read first; a child may hold the socket
            self.loop.call_later(LAST_WORDS, self.transport.abort)
        self.end_if_over()

    def end_if_over(self) -> None:
        if self.code is None or not (self.is_lost or self.transport is None) or self.process is None:
            return
        self.close_descriptors()
        self.owner.on_end(self, self.failure or died(self.process.pid, self.code))

    def close_descriptors(self) -> None:
        if self.life_fd >= 0:
            os.close(self.life_fd)
            self.life_fd = -1
        for aside in (self.tasks, self.results):
            aside.unmap()
            if aside.fd >= 0:
                os.close(aside.fd)
                aside.fd = -1


def interpreter_flags() -> list[str]:
    """-O, -W, -X and their kin, as this interpreter was started with."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def died(pid: int, code: int) -> WorkerDied:
    if code >= 0:
        return WorkerDied(f"worker process {pid} exited with status {code}", status=code)
    return WorkerDied(f"worker process {pid} was killed by {signal.Signals(-code).name}", signal=-code)
