"""Loops in threads of one process, on the same listening sockets; and the main thread, which hears signals for them.

Only for Python without a GIL: elsewhere the threads would take turns. A loop whose main fails may have left what all
share half done, and nothing can end a thread from outside: so the others drain, and the failure is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
import sysconfig
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any

import hoop
from hoop.adapters.target import positional_arguments
from hoop.cluster.channel import Message
from hoop.cluster.listeners import Listeners
from hoop.cluster.options import MOST_WORKERS, Options, check_bounded
from hoop.cluster.thread_worker import Run, ThreadCourse, ThreadPost, ThreadWorker, post_to, run_in_thread
from hoop.core.board import Board
from hoop.core.processors import has_gil
from hoop.drain import Drain

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STATUS_OF_SIGNALS = 128  # a shell's: 128 and the number of the signal that ended the process
FORCED_S = 2.0  # for the end of threads after the second signal

logger: logging.Logger = logging.getLogger("hoop.cluster")


class ThreadRecord:
    """A worker as the main thread knows it: its methods are for that thread."""

    def __init__(self, worker: ThreadWorker, thread: threading.Thread) -> None:
        self.worker = worker
        self.thread = thread
        self.course: ThreadCourse | None = None  # once its loop runs
        self.is_ready = False
        self.has_ended = False
        self.result: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def slot(self) -> int:
        return self.worker.id

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def generation(self) -> int:
        return self.worker.generation

    @property
    def name(self) -> str:
        return f"worker {self.slot}"

    def send(self, message: Any) -> None:
        """Send a message, any object: Worker.on_message gets it, not a copy. ConnectionError when its loop does not
        run."""
        if not self.post("hear", message):
            raise ConnectionError(f"{self.name} does not run")

    def post(self, method: str, *arguments: Any) -> bool:
        """Have the worker's loop call a method of its course. Returns whether that is possible."""
        if self.course is None or self.has_ended:
            return False
        return post_to(self.course.loop, self.course.context, getattr(self.course, method), *arguments)


class Threads:
    """Made, run() once, in the main thread. The methods below are for callbacks in its loop."""

    same_wish: float = 0.0  # seconds in which a second signal is the same wish as the first
    board: Board  # since run()

    def __init__(self, options: Options, run: Run, listeners: Listeners, *, debug: bool | None = None) -> None:
        self.options = options
        self.listeners = listeners
        self.records: list[ThreadRecord] = []  # by slot
        self.failures: list[tuple[ThreadRecord, BaseException]] = []  # the first one first
        self.forced_by: signal.Signals | None = None
        self.is_ending: bool = False
        self.is_cut: bool = False
        self._run = run
        self._debug = debug
        self._stopped_at: float | None = None

    # ---- the whole course -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until all threads have ended; failures tells of what. OSError, ValueError if the addresses cannot be had."""
        count = self.options.worker_count()
        context = self.options.ssl_context()
        self.board = Board(count)
        self.listeners.open(count)
        try:
            with asyncio.Runner(debug=self._debug, loop_factory=hoop.new_event_loop) as runner:
                runner.run(self._main(count, context))
        finally:
            self.listeners.close()
            self.listeners.remove_files()
        for record in self.records:
            if record.has_ended and record.thread.ident is not None:
                record.thread.join()

    async def _main(self, count: int, context: Any) -> None:
        self._loop: Any = asyncio.get_running_loop()
        self._context = copy_context()
        self._over: asyncio.Future[None] = self._loop.create_future()
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self.begin()
            state = types.SimpleNamespace() if self.options.state is None else self.options.state
            self.records = [self._made(slot, context, state) for slot in range(count)]
            for record in self.records:
                self._start(record)
            await self._over
        finally:
            await self.finish()
            for number in STOP_SIGNALS:
                self._loop.remove_signal_handler(number)

    def _made(self, slot: int, context: Any, state: Any) -> ThreadRecord:
        sockets = [sock.dup() for sock in self.listeners.sockets_of(slot)]
        for sock in sockets:
            sock.setblocking(False)
        worker = ThreadWorker(slot, sockets, self.options, ThreadPost(self.board, slot), context, state, self._report)
        thread = threading.Thread(
            target=run_in_thread, args=(worker, self._run, self._debug), name=f"hoop worker {slot}", daemon=True
        )
        return ThreadRecord(worker, thread)

    def _start(self, record: ThreadRecord) -> None:
        try:
            record.thread.start()
        except RuntimeError as error:  # no more threads
            for sock in record.worker.sockets:
                sock.close()
            self._on_ended(record, error)

    def _report(self, slot: int, message: Message) -> None:
        """In any thread."""
        if not post_to(self._loop, self._context, self._on_told, self.records[slot], message):
            raise ConnectionError("the main thread has ended the cluster")

    # ---- for those that know more ---------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Before the first thread."""

    async def finish(self) -> None:
        """After the last one."""

    def on_ready(self, record: ThreadRecord) -> None:
        """Its clients are answered from now on."""

    def on_message(self, record: ThreadRecord, message: Any) -> None:
        """It has sent this."""
        logger.warning("%s has sent a message, and nobody hears it: %.200r", record.name, message)

    def on_returned(self, record: ThreadRecord) -> None:
        """Its main has ended by itself, without failing."""

    def on_gone(self, record: ThreadRecord, failure: BaseException | None) -> None:
        """It has ended, however."""

    # ---- what threads tell ------------------------------------------------------------------------------------------

    def _on_told(self, record: ThreadRecord, message: Message) -> None:
        match message["kind"]:
            case "begun":
                record.course = message["course"]
                if self.is_ending:
                    record.post("end", False)
                if self.forced_by is not None:
                    record.post("end_now")
            case "ready":
                record.is_ready = True
                self.on_ready(record)
            case "message":
                self.on_message(record, message["message"])
            case "cut":
                self.is_cut = True
            case "ended":
                record.result = message["result"]
                self._on_ended(record, message["failure"])

    def _on_ended(self, record: ThreadRecord, failure: BaseException | None) -> None:
        record.has_ended = True
        record.is_ready = False
        if failure is not None and not self.forced_by:
            self.fail(record, failure)
        elif not self.is_ending:
            self.on_returned(record)
        self.on_gone(record, failure)
        if all(one.has_ended for one in self.records) and not self._over.done():
            self._over.set_result(None)

    def fail(self, record: ThreadRecord, failure: BaseException) -> None:
        """One has failed: all end."""
        self.failures.append((record, failure))
        self.end()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        """The first one drains all loops, the second one ends them at once."""
        now = self._loop.time()
        if self._stopped_at is None:
            self._stopped_at = now
            self.end()
        elif now - self._stopped_at >= self.same_wish and self.forced_by is None:
            self.forced_by = number
            self.end_now()

    def end(self) -> None:
        """Drain all loops, then have their mains end. Idempotent."""
        if self.is_ending:
            return
        self.is_ending = True
        self.listeners.close()  # the workers have copies
        for record in self.records:
            record.post("end", True)
        timeout = self.options.end_timeout()
        if timeout is not None:
            self._loop.call_later(timeout, self._give_up, f"within {timeout:g} s")

    def end_now(self) -> None:
        """Abort connections and cancel mains."""
        self.end()
        for record in self.records:
            record.post("end_now")
        self._loop.call_later(FORCED_S, self._give_up, "at once")

    def _give_up(self, how: str) -> None:
        """A thread that holds its loop cannot be ended: it goes on until the process ends."""
        if self._over.done():
            return
        for record in self.records:
            if not record.has_ended:
                self.failures.append((record, TimeoutError(f"{record.name} did not end {how}")))
        self._over.set_result(None)


def run_threads(
    main: Callable[..., Any],
    threads: int,
    *,
    bind: str | Sequence[str],
    drain: Drain | None,
    debug: bool | None,
    **settings: Any,
) -> list[Any]:
    """See hoop.run_threads; settings: options of a cluster."""
    check_bounded("threads", threads, MOST_WORKERS)
    options = Options(
        target=main,
        kind="threads",
        workers=threads,
        bind=bind or (),  # type: ignore[arg-type]
        drain=Drain() if drain is None else drain,
        **settings,
    )
    if isinstance(main, str):
        raise TypeError(f"main must be an async function, not {main!r}")
    check_place("hoop.run_threads()")
    warn_of_gil()
    listeners = listeners_of(options) if bind else Listeners((), "shared", options.backlog)
    needed, most = positional_arguments(main)
    takes_worker = needed <= 1 <= most

    async def run(worker: ThreadWorker) -> Any:
        return await (main(worker) if takes_worker else main())

    crew = Threads(options, run, listeners, debug=debug)
    crew.run()
    return outcome_of(crew)


def outcome_of(crew: Threads) -> list[Any]:
    """What the mains have returned, or an exception for how it has ended."""
    if crew.failures:
        for record, failure in crew.failures:
            failure.add_note(f"in {record.name} of hoop.run_threads()")
        names = ", ".join([record.name for record, _ in crew.failures])
        raise BaseExceptionGroup(f"failed: {names}", [failure for _, failure in crew.failures])
    if crew.forced_by == signal.SIGINT:
        raise KeyboardInterrupt
    if crew.forced_by is not None:
        sys.exit(STATUS_OF_SIGNALS + crew.forced_by)
    return [record.result for record in crew.records]


def listeners_of(options: Options, given: Sequence[Any] = ()) -> Listeners:
    return Listeners([] if given else options.binds(), options.balance, options.backlog, given)


def check_place(what: str) -> None:
    """RuntimeError where loops in threads make no sense, ValueError outside of the main thread."""
    check_build(what)
    if asyncio.events._get_running_loop() is not None:
        raise RuntimeError(f"{what} cannot be called from a running event loop")
    if threading.current_thread() is not threading.main_thread():
        raise ValueError(f"{what} is for the main thread, which alone gets signals")


GIL_NEWS = re.compile(r"\(GIL\) has been enabled to load module '([^']+)'")  # of the interpreter's RuntimeWarning


@contextlib.contextmanager
def noting_gil(culprits: list[str]) -> Iterator[None]:
    """Note the modules that switch the GIL on, by the interpreter's warnings, which are shown all the same."""
    show = warnings.showwarning

    def note(message: Warning | str, *others: Any, **named: Any) -> None:
        culprits.extend(GIL_NEWS.findall(str(message)))
        show(message, *others, **named)

    warnings.showwarning = note
    try:
        yield
    finally:
        warnings.showwarning = show


def warn_of_gil(culprits: Sequence[str] = ()) -> None:
    """Log it if threads take turns all the same."""
    if has_gil():
        whose = f"the extension module {culprits[0]}" if culprits else "an extension module or PYTHON_GIL=1"
        logger.warning(
            "the GIL is on, though this Python can do without: %s has switched it on. The loops take turns, and will "
            "not scale",
            whose,
        )


def check_build(what: str) -> None:
    """RuntimeError on a build of Python that always has a GIL."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise RuntimeError(
            f"{what}: threads run in parallel only in a Python without a GIL, and this one has it. Use a free-threaded "
            'build (python3.14t), or processes: hoop.cluster.run(..., kind="processes")'
        )
