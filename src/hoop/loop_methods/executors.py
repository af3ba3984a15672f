"""Blocking functions in threads: the loop's pool, run_in_executor and the default executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

from hoop.jobs.pool import Pool, disown_jobs, leave_pool, loop_pool, python_pool
from hoop.stats import PoolStats

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MOST_THREADS = 32  # asyncio's cap, and its number of threads beside one for each CPU
MORE_THAN_CPUS = 4


class DefaultExecutor(concurrent.futures.Executor):
    """Where run_in_executor(None, ...) runs: threads on demand, on a native queue, capped as asyncio's are.

    They are not the pool's: what users run here may block for long, and may wait for one another.
    """

    def __init__(self) -> None:
        count = (os.process_cpu_count if hasattr(os, "process_cpu_count") else os.cpu_count)() or 1
        self._max_workers = min(MOST_THREADS, count + MORE_THAN_CPUS)
        self._pool = python_pool(self._max_workers, "asyncio")  # log formats show the names

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """As concurrent.futures.Executor.submit, for those who want no loop. RuntimeError after shutdown()."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._pool.run_without_loop(future, _fulfil, (future, fn, args, kwargs))
        return future

    def stats(self) -> PoolStats:
        """As Pool.stats(), of these threads."""
        return self._pool.stats()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with wait, until those that were taken and the threads have ended.

        cancel_futures: cancel those that do not run yet.
        """
        if cancel_futures:
            self._pool.cancel_queued()
        self._pool.stop()
        if wait:
            self._pool.join()


def _fulfil(
    future: concurrent.futures.Future[T], fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


class Executing(asyncio.AbstractEventLoop):
    """The pool, and run_in_executor. Both pool and default executor are made at first use."""

    _flush_deferred: Callable[[], None]
    _default_executor: concurrent.futures.Executor | None
    _executor_shutdown_called: bool

    @property
    def pool(self) -> Pool:
        """The threads for hoop's own jobs: files, name lookups, hashes. RuntimeError once the loop is closed."""
        return loop_pool(self)

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]
    ) -> asyncio.Future[T]:
        """Call func(*args) in executor (None: the default one); a future of its result.

        RuntimeError after close() or shutdown_default_executor(); TypeError for a coroutine function in debug mode.
        """
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if not callable(func) or (self.get_debug() and (asyncio.iscoroutine(func) or inspect.iscoroutinefunction(func))):
            raise TypeError(f"a plain callable was expected by run_in_executor(), got {func!r}")
        if executor is None:
            if self._executor_shutdown_called:
                raise RuntimeError("Executor shutdown has been called")
            executor = self._default_executor
            if executor is None:
                executor = self._default_executor = DefaultExecutor()
        if type(executor) is DefaultExecutor:
            return executor._pool.run_for(self, func, args)
        self._flush_deferred()  # as a pool does: the call may ask somebody who waits for what was written
        return asyncio.wrap_future(executor.submit(func, *args), loop=self)

    def set_default_executor(self, executor: concurrent.futures.ThreadPoolExecutor) -> None:  # type: ignore[override]
        """Use executor for run_in_executor(None, ...). TypeError unless it is a ThreadPoolExecutor."""
        if not isinstance(executor, concurrent.futures.ThreadPoolExecutor):
            raise TypeError("executor must be ThreadPoolExecutor instance")
        self._default_executor = executor

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait until the default executor's threads have ended, at most timeout seconds (then a RuntimeWarning)."""
        self._executor_shutdown_called = True
        executor = self._default_executor
        if executor is None:
            return
        ended: asyncio.Future[None] = self.create_future()
        thread = threading.Thread(target=self._join_executor, args=(executor, ended), name="hoop-executor-shutdown")
        thread.start()
        try:
            async with asyncio.timeout(timeout):
                await ended
        except TimeoutError:
            warnings.warn(
                f"The executor did not finishing joining its threads within {timeout} seconds.",
                RuntimeWarning,
                stacklevel=2,
            )
            executor.shutdown(wait=False)
        else:
            thread.join()

    def _join_executor(self, executor: concurrent.futures.Executor, ended: asyncio.Future[None]) -> None:
        """In a thread of its own: the loop goes on while the executor's threads finish."""
        try:
            executor.shutdown(wait=True)
        except Exception as error:
            self._tell_executor_end(ended, error)
        else:
            self._tell_executor_end(ended, None)

    def _tell_executor_end(self, ended: asyncio.Future[None], error: Exception | None) -> None:
        def tell() -> None:
            if ended.done():
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        if not self.is_closed():
            self.call_soon_threadsafe(tell)

    def _close_threads(
        self,
        may_wait: bool,
        _leave_pool: Callable[[asyncio.AbstractEventLoop, bool], None] = leave_pool,
        _disown_jobs: Callable[[asyncio.AbstractEventLoop], None] = disown_jobs,
    ) -> None:
        """Of close(), before the core is closed. may_wait: not when a finalizer calls, in whatever thread and moment."""
        _leave_pool(self, may_wait)
        self._executor_shutdown_called = True
        executor, self._default_executor = self._default_executor, None
        _disown_jobs(self)
        if executor is not None:
            executor.shutdown(wait=False)
