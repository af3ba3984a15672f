"""Blocking functions in threads: the loop's pool, run_in_executor and the default executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from hoop.jobs.default_executor import DefaultExecutor
from hoop.jobs.pool import Pool, disown_jobs, keep_pool, leave_pool, loop_pool
from hoop.loop_methods.base_loop import BaseLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Executors(BaseLoop, asyncio.AbstractEventLoop):
    """The pool, and run_in_executor. The loop makes its pool and its default executor at first use."""

    _default_executor: concurrent.futures.Executor | None
    _executor_shutdown_called: bool

    def _begin_executors(self, pool: Pool | None, pool_size: int | None) -> None:
        """Take Loop()'s pool, which others may share, or the size of the loop's own. TypeError for both, ValueError."""
        if pool is not None and not isinstance(pool, Pool):
            raise TypeError(f"pool must be a hoop.Pool, not {pool!r}")
        if pool is not None and pool_size is not None:
            raise TypeError(f"pool_size={pool_size!r} is for a pool of the loop's own: it was given {pool!r}")
        keep_pool(self, pool, pool_size)
        self._default_executor = None
        self._executor_shutdown_called = False

    @property
    def pool(self) -> Pool:
        """The threads for hoop's own jobs: files, name lookups, hashes. RuntimeError once the loop is closed."""
        return loop_pool(self)

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call func(*args) in executor (None: the default one). Returns a future of its result.

        RuntimeError after close() or shutdown_default_executor(); TypeError for a coroutine function in debug mode.
        """
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        self._check_caller("run_in_executor")
        is_coroutine = self.get_debug() and (asyncio.iscoroutine(func) or inspect.iscoroutinefunction(func))
        if is_coroutine or not callable(func):
            raise TypeError(f"a plain callable was expected by run_in_executor(), got {func!r}")
        if executor is None:
            if self._executor_shutdown_called:
                raise RuntimeError("Executor shutdown has been called")
            executor = self._default_executor
            if executor is None:
                executor = self._default_executor = DefaultExecutor()
        if type(executor) is DefaultExecutor:
            return executor._pool.run_for(self, func, args)
        self._flush_deferred()  # as a pool does: the call may talk to a peer that waits for these bytes
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
        """Run in a thread of its own: the loop goes on while the executor's threads finish."""
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
        """Called by close(), before the core closes. may_wait is false in a finalizer: any thread, at any moment."""
        _leave_pool(self, may_wait)
        self._executor_shutdown_called = True
        executor, self._default_executor = self._default_executor, None
        _disown_jobs(self)
        if executor is not None:
            executor.shutdown(wait=False)
