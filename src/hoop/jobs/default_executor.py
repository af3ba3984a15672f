"""DefaultExecutor: the threads of run_in_executor(None, ...)."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from typing import Any, TypeVar

from hoop.jobs.pool import python_pool
from hoop.stats import PoolStats

T = TypeVar("T")

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
