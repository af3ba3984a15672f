"""hoop.Loop: the compiled core and the cold paths, put together as an asyncio event loop that users can subclass."""

from __future__ import annotations

import asyncio
import atexit
import operator
import os
import sys
import warnings
import weakref
from asyncio import base_events, constants, coroutines, events
from asyncio.log import logger
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from hoop import watched
from hoop.core.processors import usable_processors
from hoop.jobs.pool import Pool
from hoop.loop_methods.async_generators import AsyncGenerators
from hoop.loop_methods.base_loop import BaseLoop, own_methods
from hoop.loop_methods.connections import Connections
from hoop.loop_methods.drains import Drains
from hoop.loop_methods.endpoints import Endpoints
from hoop.loop_methods.executors import Executors
from hoop.loop_methods.metrics import Metrics
from hoop.loop_methods.name_lookups import NameLookups
from hoop.loop_methods.pipes import Pipes
from hoop.loop_methods.problems import Problems
from hoop.loop_methods.processes import Processes
from hoop.loop_methods.sendfile import SendFile
from hoop.loop_methods.servers import Servers
from hoop.loop_methods.signals import Signals
from hoop.loop_methods.socket_handles import SocketHandles
from hoop.loop_methods.start_tls import StartTls
from hoop.loop_methods.unix_sockets import UnixSockets

T = TypeVar("T")
DEFAULT_SPIN_US = 20
MOST_SPIN_US = 1000

TaskFactory = Callable[..., "asyncio.Future[Any]"]

# What a base annotates is the state that it has in a Loop; its _begin_...() sets it.
slots_of_bases: tuple[str, ...] = tuple(
    name
    for base in (Executors, NameLookups, AsyncGenerators, Problems, Signals, Drains, Servers)
    for name in base.__annotations__
)


class Loop(
    Signals,
    Metrics,
    SocketHandles,
    UnixSockets,
    Pipes,
    Processes,
    Endpoints,
    Connections,
    Servers,
    StartTls,
    SendFile,
    Executors,
    AsyncGenerators,
    Problems,
    asyncio.AbstractEventLoop,
):
    """An asyncio event loop on epoll or kqueue.

    poller: the back end, "epoll", "kqueue" or "poll" (default: HOOP_POLLER, else the platform's best); ValueError for
    another name. clock: for tests, a callable that returns nanoseconds in place of the monotonic clock.
    poll_every_turn: look for I/O in each turn, even while callbacks are ready (see docs/architecture.md).
    pool_size: threads of the loop's own pool, 1 to 1024 (default: HOOP_THREADPOOL_SIZE, else 4), ValueError for other
    numbers; pool: a hoop.Pool to use instead, which the loop does not close (see docs/pool.md).
    cached_reads: whether hoop.fs may read small files that the page cache holds on the loop's own thread (default: yes,
    unless HOOP_CACHED_READS is 0; see docs/files.md).
    spin_us: how many microseconds at most it looks for events before it sleeps, while looking has paid lately (default:
    HOOP_SPIN_US, else 20; 0 to 1000; 0 on one CPU); see docs/architecture.md.
    defer_writes: whether what callbacks write to a transport may be held until their phase of the turn has ended
    (default: yes, unless HOOP_DEFER_WRITES is 0; see docs/writes.md). io_uring: whether what is held for several
    connections may leave by one system call of Linux's io_uring, where it is there (default: yes, unless HOOP_IO_URING
    is 0; see docs/writes.md). HOOP_MONITOR, a time such as 50ms, has all loops
    of the process monitored: see docs/monitor.md.
    """

    # In slots, so that Python does not make the instance's __dict__ before a user sets an attribute: until then the
    # interpreter finds call_soon and its kin without a look into it, and keeps what it found. A base with slots of its
    # own would have a memory layout of its own, and no class can have two of these: so all slots are here.
    __slots__ = ("_former_origin_depth", "_is_abandoned", *slots_of_bases)

    def __init__(
        self,
        *,
        poller: str | None = None,
        clock: Callable[[], int] | None = None,
        poll_every_turn: bool = False,
        pool_size: int | None = None,
        pool: Pool | None = None,
        cached_reads: bool | None = None,
        defer_writes: bool | None = None,
        io_uring: bool | None = None,
        spin_us: int | None = None,
    ) -> None:
        self._is_abandoned = False
        self._former_origin_depth: int | None = None
        if os.environ.get("HOOP_MONITOR"):
            from hoop.monitor import watch_by_environment  # for those who want it

            watch_by_environment()
        self._begin_executors(pool, pool_size)
        self._begin_name_lookups()
        self._begin_async_generators()
        self._begin_problems()
        self._begin_drains()
        self._begin_signals()
        self._begin_servers()
        super().__init__(
            poller=poller,
            clock=clock,
            poll_every_turn=poll_every_turn,
            cached_reads=reads_cached_files(cached_reads),
            defer_writes=may_defer_writes(defer_writes),
            io_uring=may_use_io_uring(io_uring),
            spin_us=time_of_looking(spin_us),
        )
        self._set_debug_flag(coroutines._is_debug_mode())  # type: ignore[attr-defined]
        loops_of_this_process.add(self)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} running={self.is_running()} closed={self.is_closed()} debug={self.get_debug()} "
            f"poller={self.poller_name}>"
        )

    # ---- running -----------------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until stop(). RuntimeError if the loop is closed, running, or another one runs in this thread."""
        self._run(until_idle=False)

    def run(self) -> None:
        """Run until nothing is left to wait for, or stop(). RuntimeError as run_forever. (libuv: uv_run)

        A run waits for callbacks, timers, unfinished tasks, work in the pool, and transports, servers and other
        descriptors that the loop watches; not for what is unref()'d, and not for signal handlers.
        """
        self._run(until_idle=True)

    def _run(self, *, until_idle: bool) -> None:
        self._check_runnable()
        former_hooks = sys.get_asyncgen_hooks()
        end_watch = None
        try:
            self._begin_run()
            try:
                if watched.on_run is not None:
                    end_watch = watched.on_run(self)
                self._install_asyncgen_hooks()
                self._track_coroutine_origins(self.get_debug())
                events._set_running_loop(self)
                self._claim_signals()
                self._run_turns(until_idle)
            finally:
                try:
                    events._set_running_loop(None)
                finally:  # Python 3.11 allocates for that; without memory the rest is undone all the same
                    self._track_coroutine_origins(False)
                    sys.set_asyncgen_hooks(*former_hooks)
                    self._leave_signals()
                    if end_watch is not None:
                        end_watch()
        finally:  # an interrupt may come right after _begin_run()
            self._end_run()

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until future is done and return its result; a coroutine becomes a task first.

        RuntimeError as run_forever, or when stop() came first.
        """
        self._check_runnable()
        is_new_task = not asyncio.isfuture(future)
        task: Any = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]
        if is_new_task:
            task._log_destroy_pending = False  # a stop() before its end shows in the exception below
        # anyio recognises the root task by this very callback
        task.add_done_callback(base_events._run_until_complete_cb)  # type: ignore[attr-defined]
        try:
            self.run_forever()
        except BaseException:
            if is_new_task and task.done() and not task.cancelled():
                task.exception()  # the caller never sees the task: do not log it as never retrieved
            raise
        finally:
            task.remove_done_callback(base_events._run_until_complete_cb)  # type: ignore[attr-defined]
        if not task.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        result: T = task.result()
        return result

    def _check_runnable(self) -> None:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if self._pid != os.getpid():
            raise RuntimeError("this event loop belongs to the parent process; make a new one after fork()")
        if self.is_running():
            raise RuntimeError("This event loop is already running")
        if events._get_running_loop() is not None:
            raise RuntimeError("Cannot run the event loop while another loop is running")
        self._own()

    def close(self) -> None:
        """Release every descriptor, callback and thread. Idempotent; RuntimeError while running.

        On a free-threaded Python RuntimeError, too, in another thread than the loop's while that lives.
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        if not self._is_abandoned:
            self._check_closer()
        if self.get_debug() and not self._is_abandoned:  # an interpreter that ends may have no logging any more
            logger.debug("Close %r", self)
        self._close_threads(may_wait=not self._is_abandoned)
        self._close_signals()
        self._close_reactor()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        # The interpreter empties modules at its end, perhaps before this runs: default arguments keep what this and
        # close() need, as in asyncio.
        if self.is_closed():
            return
        try:
            _warn(f"unclosed event loop {self!r}", ResourceWarning, source=self)
        finally:  # under -W error that raises
            if not self.is_running():
                self._is_abandoned = True
                self.close()

    # ---- tasks -------------------------------------------------------------------------------------------------------

    def set_task_factory(self, factory: TaskFactory | None) -> None:
        """Have factory(loop, coro, **kwargs) make the tasks; None restores the default. TypeError unless callable."""
        if factory is not None and not callable(factory):
            raise TypeError("task factory must be a callable or None")
        self._task_factory = factory

    def get_task_factory(self) -> TaskFactory | None:
        """The factory set, or None."""
        return self._task_factory

    # ---- debug mode --------------------------------------------------------------------------------------------------

    def set_debug(self, enabled: bool) -> None:
        """Switch debug mode: slow callbacks, thread checks, source tracebacks, coroutine origins."""
        self._set_debug_flag(bool(enabled))
        if self.is_running():
            self.call_soon_threadsafe(self._track_coroutine_origins, enabled)

    def _track_coroutine_origins(self, enabled: bool) -> None:
        if bool(enabled) == (self._former_origin_depth is not None):
            return
        if enabled:
            self._former_origin_depth = sys.get_coroutine_origin_tracking_depth()
            sys.set_coroutine_origin_tracking_depth(constants.DEBUG_STACK_DEPTH)
        elif self._former_origin_depth is not None:
            sys.set_coroutine_origin_tracking_depth(self._former_origin_depth)
            self._former_origin_depth = None


own_methods(Loop)


def reads_cached_files(wanted: bool | None) -> bool:
    """The keyword, else the environment variable, else yes."""
    return os.environ.get("HOOP_CACHED_READS") != "0" if wanted is None else bool(wanted)


def may_defer_writes(wanted: bool | None) -> bool:
    """The keyword, else the environment variable, else yes."""
    return os.environ.get("HOOP_DEFER_WRITES") != "0" if wanted is None else bool(wanted)


def may_use_io_uring(wanted: bool | None) -> bool:
    """The keyword, else the environment variable, else yes."""
    return os.environ.get("HOOP_IO_URING") != "0" if wanted is None else bool(wanted)


def time_of_looking(spin_us: int | None) -> int:
    """The keyword, else the environment variable, else what pays on most machines; nothing on one CPU, where a loop
    that looks keeps off the process that it waits for. ValueError for a number out of range.
    """
    name = "spin_us"
    if spin_us is None:
        name, text = "HOOP_SPIN_US", os.environ.get("HOOP_SPIN_US") or str(DEFAULT_SPIN_US)
        spin_us = int(text) if text.isdecimal() else -1
    if not 0 <= operator.index(spin_us) <= MOST_SPIN_US:
        raise ValueError(f"{name} must be a number from 0 to {MOST_SPIN_US}")
    return spin_us if usable_processors() > 1 else 0


# For the children of fork(2): they must leave the poller of the parent's loops alone.
loops_of_this_process: weakref.WeakSet[Loop] = weakref.WeakSet()


def mark_loops_forked(
    loops: weakref.WeakSet[Loop] = loops_of_this_process, mark: Callable[[Loop], None] = BaseLoop._mark_forked
) -> None:
    """Default arguments keep the names: a finalizer may fork after the interpreter has emptied this module."""
    for loop in list(loops):
        mark(loop)
        loop._forget_signals()


def flush_running_loop(
    running: Callable[[], object] = events._get_running_loop, kind: type[BaseLoop] = BaseLoop
) -> None:
    """Send what the callback that runs in this thread has written, before the process forks or ends."""
    loop = running()
    if isinstance(loop, kind):
        loop._flush_deferred()


os.register_at_fork(before=flush_running_loop, after_in_child=mark_loops_forked)
atexit.register(flush_running_loop)
