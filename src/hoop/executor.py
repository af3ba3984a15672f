"""Blocking functions in threads: run_in_executor and the default executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Executing(asyncio.AbstractEventLoop):
    """run_in_executor for a loop. The default executor is made at first use and capped as asyncio's is."""

    _default_executor: concurrent.futures.ThreadPoolExecutor | None
    _executor_shutdown_called: bool

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
                executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="hoop")
                self._default_executor = executor
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
