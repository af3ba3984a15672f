"""A worker process: what it is to the application that runs in it, and what it does with the master's wishes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl as ssl_module
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import hoop
from hoop import watched
from hoop.adapters.target import TargetError, application_traceback, in_a_line
from hoop.cluster.changes import files_of, imported_files
from hoop.cluster.channel import Channel, ChannelFull, Message
from hoop.cluster.options import Options
from hoop.cluster.post import Post
from hoop.cluster.spawn import EXIT_FAILED
from hoop.drain import Drain

EXIT_ORPHANED = 3  # the master is gone
START_SHARE = 0.9  # of the start_timeout
LEAST_START_S = 0.05
MOST_UNHEARD = 64  # messages kept for a worker.on_message that is not set yet
FLUSH_S = 1.0  # for the last messages of a worker that ends
LONGEST_DETAIL = 1 << 16  # characters of a traceback that the master is told
OF_THE_MASTER = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH")

logger: logging.Logger = logging.getLogger("hoop.cluster")

current: Worker | None = None  # the worker that this process is: a process is none, or one to its end
of_thread: threading.local = threading.local()  # .worker: the one whose loop a thread runs, in a cluster of threads
of_context: ContextVar[Worker] = ContextVar("worker")  # the same for the threads that work for such a loop


def here() -> Worker | None:
    """The worker that the caller belongs to."""
    return current or getattr(of_thread, "worker", None) or of_context.get(None)


@dataclass
class Worker:
    """One process of a cluster: hoop.cluster.worker in the application that runs in it."""

    id: int  # the slot, 0 to N-1: stays when the process is replaced
    generation: int  # reloads before it was made
    sockets: Sequence[socket.socket]  # listening: to be given to servers, which close this process's copies
    options: Options
    post: Post = field(repr=False)  # by which the master watches it
    role: str | None = None  # which, in a process that is none of the workers that serve; id counts its processes
    ssl: ssl_module.SSLContext | None = None  # for servers on all of them: older than the process, see Options
    _began: float = field(default_factory=time.monotonic, repr=False)
    _channel: Channel | None = field(default=None, repr=False)
    _is_ready: bool = field(default=False, repr=False)
    _on_message: Callable[[Any], object] | None = field(default=None, repr=False)
    _unheard: list[Any] = field(default_factory=list, repr=False)
    _on_ready: Callable[[], object] | None = field(default=None, repr=False)

    # ---- for the application ----------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Clients are answered from now on: the master may end the worker before this one. Idempotent."""
        if not self._is_ready:
            self._is_ready = True
            if self._on_ready is not None:
                self._on_ready()
            self._tell({"kind": "ready"})

    def send(self, message: Any) -> None:
        """Send a message, anything that JSON has, to the master: see Cluster.on_message. Errors as Channel.send()."""
        self._tell({"kind": "message", "message": message})

    @property
    def on_message(self) -> Callable[[Any], object] | None:
        """What is called in the loop with each message of the master; a few that came before it is set wait for it."""
        return self._on_message

    @on_message.setter
    def on_message(self, on_message: Callable[[Any], object] | None) -> None:
        self._on_message = on_message
        if on_message is not None:
            unheard, self._unheard = self._unheard, []
            for message in unheard:
                on_message(message)

    def _hear(self, message: Any) -> None:
        if self._on_message is not None:
            self._on_message(message)
        elif len(self._unheard) < MOST_UNHEARD:
            self._unheard.append(message)
            if len(self._unheard) == MOST_UNHEARD:
                logger.warning(
                    "nobody hears the master's messages: worker.on_message is not set; further ones are lost"
                )

    @property
    def draining(self) -> bool:
        """Whether the worker is on its way out. To wait for that: await hoop.draining()."""
        return hoop.is_draining()

    @property
    def requests(self) -> int:
        """Those that count_request() has counted."""
        return self.post.read().requests

    # ---- for the servers that run it --------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        return self.options.backlog

    @property
    def drain(self) -> Drain:
        """How the worker will end."""
        return self.options.drain

    @property
    def start_timeout(self) -> float:
        """Seconds from now on: a little less than the master waits, so that the worker can say what it waits for."""
        return max(LEAST_START_S, (self._began + self.options.start_timeout - time.monotonic()) * START_SHARE)

    @property
    def access_log(self) -> bool:
        return self.options.access_log

    @property
    def count_request(self) -> Callable[[], object]:
        """To be called when the application begins to answer one more request. (Servers keep what this returns.)"""
        return self.post.count_request

    def _tell(self, message: Message) -> None:
        if self._channel is None:
            raise ConnectionError("the worker is not connected to its master")
        self._channel.send(message)


class Course:
    """The course of a worker: serve until it is to end, drain, end. Made by its loop."""

    def __init__(self, worker: Worker, application: asyncio.Task[Any]) -> None:
        self.loop: Any = asyncio.get_running_loop()
        self._worker = worker
        self._application = application
        self._draining: asyncio.Task[None] | None = None

    def end(self, is_last: bool) -> None:
        """Drain, then have the application end. Once: Ctrl-C and a service manager tell all processes of a group.

        is_last: no other worker takes over, so that balancers must see it before anything is refused (Drain.delay).
        """
        if self._draining is None:
            course = self._worker.drain if is_last else replace(self._worker.drain, delay=0)
            self._draining = self.loop.create_task(self._drain(course))

    async def _drain(self, course: Drain) -> None:
        if not self.loop.is_draining():  # else the application has done it
            cut = sum(len(report.cut) for report in await self.loop.drain(course))
            if cut:
                self._on_cut(cut)
        self._application.cancel()

    def _on_cut(self, connections: int) -> None:
        """The drain's timeout has ended so many."""

    async def outcome(self) -> BaseException | None:
        """Wait for the end of the application; what it has failed with."""
        await asyncio.wait((self._application,))
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait((self._draining,))
            if not self._draining.cancelled():
                self._draining.result()
        if self._application.cancelled():
            return None if self._draining is not None else asyncio.CancelledError("the application was cancelled")
        return self._application.exception()


class Life(Course):
    """The course of a worker process, whose master is at the other end of a channel."""

    def __init__(self, worker: Worker, application: asyncio.Task[None], channel: socket.socket) -> None:
        super().__init__(worker, application)
        self.is_orphaned: bool = False
        self.channel: Channel = Channel(self.loop, channel, self._on_message, self._on_master_gone)
        worker._channel = self.channel
        worker._on_ready = self._on_ready

    def _on_ready(self) -> None:
        self.loop.add_signal_handler(signal.SIGTERM, self.end, True)
        if self._worker.options.reload_on_change:
            self.channel.send({"kind": "files", "files": imported_files()})

    def _on_message(self, message: Message, data: bytes) -> None:
        match message["kind"]:
            case "drain":
                self.end(message["is_last"])
            case "ping":
                pass  # that the loop has turned is the answer: the master sees it on the board
            case "blocked":
                found = None if watched.report is None else watched.report()
                with contextlib.suppress(ChannelFull, ConnectionError):  # then the master waits in vain, and says so
                    self.channel.send({"kind": "blocked", "question": message["question"], "found": found})
            case "message":
                self._worker._hear(message["message"])

    def _on_master_gone(self) -> None:
        self.is_orphaned = True
        logger.warning("the master is gone: the worker drains and ends")
        self.end(True)

    def _on_cut(self, connections: int) -> None:
        if not self.is_orphaned:
            self.channel.send({"kind": "cut", "connections": connections})


def set_up_loop(worker: Worker) -> Any:
    """Give the running loop what the options say of servers, and have it write on the board; it is returned."""
    loop: Any = asyncio.get_running_loop()
    worker.post.attach(loop)
    loop.server_defaults.kept_files = frozenset(
        sock.getsockname() for sock in worker.sockets if sock.family == socket.AF_UNIX
    )
    loop.server_defaults.limits = worker.options.limits
    loop.server_defaults.proxy_protocol = worker.options.proxy_protocol
    return loop


async def live(worker: Worker, channel: socket.socket, run: Callable[[Worker], Coroutine[Any, Any, None]]) -> int:
    """Run the application until it ends, or until the worker is to end; the exit status."""
    loop = set_up_loop(worker)
    life = Life(worker, loop.create_task(run(worker)), channel)
    failure = await life.outcome()
    if failure is not None and not (isinstance(failure, SystemExit) and not failure.code):
        tell_failure(life.channel, failure)
    lost = life.channel.flush(FLUSH_S)
    if lost and not life.is_orphaned:
        logger.warning("%d messages to the master are lost", lost)
    if failure is not None:
        return status_of(failure)
    return EXIT_ORPHANED if life.is_orphaned else 0


def tell_failure(channel: Channel, failure: BaseException) -> None:
    """To the master, which logs it, and whose user may wait for a reload."""
    if isinstance(failure, TargetError):
        reason, detail = str(failure), failure.detail or ""
    else:
        reason, detail = in_a_line(failure), application_traceback(failure)
    try:
        channel.send({"kind": "files", "files": [*imported_files(), *files_of(failure)]})
        channel.send({"kind": "failed", "reason": reason[:LONGEST_DETAIL], "detail": detail[-LONGEST_DETAIL:]})
    except ConnectionError:
        logger.error("the application failed: %s\n%s", reason, detail.rstrip())


def status_of(failure: BaseException) -> int:
    if isinstance(failure, SystemExit):
        return failure.code if isinstance(failure.code, int) else EXIT_FAILED if failure.code else 0
    return EXIT_FAILED


def run_worker(worker: Worker, channel: socket.socket, run: Callable[[Worker], Coroutine[Any, Any, None]]) -> int:
    """The whole of a worker process, after its fork; the exit status. run(worker) loads and serves the application."""
    global current  # noqa: PLW0603
    current = worker
    os.environ.update(worker.options.env or {})
    ignore_signals_of_the_master()
    worker.post.take()
    try:
        with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
            return runner.run(live(worker, channel, run))
    finally:
        if watched.tell is not None:  # the process ends without the functions of atexit
            watched.tell()


def ignore_signals_of_the_master() -> None:
    """Ctrl-C goes to all processes of the terminal, `pkill -HUP` to all of a name: the master tells its workers.

    Handlers that do nothing, since ignored signals would stay so in programs that the application starts. In processes
    that it forks the defaults hold: SIGTERM ends them, though the worker itself drains.
    """
    numbers = [getattr(signal, name) for name in OF_THE_MASTER if hasattr(signal, name)]
    for number in numbers:
        signal.signal(number, do_nothing)
    worker_pid = os.getpid()
    masks = threading.local()  # of threads that fork: a signal in between waits for the defaults

    def hold_signals() -> None:
        masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, (*numbers, signal.SIGTERM))

    def let_signals_in() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.former)

    def restore_defaults() -> None:
        if os.getppid() == worker_pid:
            for number in (*numbers, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        let_signals_in()

    os.register_at_fork(before=hold_signals, after_in_parent=let_signals_in, after_in_child=restore_defaults)


def do_nothing(number: int, frame: Any) -> None:
    pass
