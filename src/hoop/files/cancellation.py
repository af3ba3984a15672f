"""Work on the pool's threads for a caller who may be cancelled meanwhile.

Cancelling takes back a job that is queued. For one that a thread has already taken: a Step that has not begun does not
begin; what run_owned() has made is given back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hoop.jobs.pool import Pool

T = TypeVar("T")


class Step(Generic[T]):
    """One operation on a file, for a thread. Once abandoned, it does not begin.

    When a caller is cancelled, a thread may have taken its step and not yet have the lock; without the mark the step
    could then run after operations that were called later.
    """

    def __init__(self, lock: threading.Lock, method: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._lock = lock
        self._method = method
        self._args = args
        self.has_begun: bool = False
        self.is_abandoned = False

    def __call__(self) -> T:
        with self._lock:
            if self.is_abandoned:
                return None  # type: ignore[return-value]  # no caller waits for it
            self.has_begun = True
            return self._method(*self._args)


class Making(Generic[T]):
    """An object that a thread makes, and gives back if its caller was cancelled by then."""

    def __init__(self, make: Callable[[], T], discard: Callable[[T], object]) -> None:
        self._make = make
        self._discard = discard
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._results: list[T] = []  # at most one

    def __call__(self) -> T:
        """On a thread of the pool."""
        result = self._make()
        with self._lock:
            self._results.append(result)
            is_abandoned = self._is_abandoned
        if is_abandoned:
            self._give_back()
        return result

    def abandon(self, pool: Pool) -> None:
        """On the loop's thread: the caller was cancelled."""
        with self._lock:
            self._is_abandoned = True
            is_made = bool(self._results)
        if is_made:
            pool.run(self._give_back)

    def _give_back(self) -> None:
        self._discard(self._results.pop())


async def run_owned(pool: Pool, make: Callable[[], T], discard: Callable[[T], object]) -> T:
    """Run make() on a thread of the pool. If the caller is cancelled, call discard() with its result, there too."""
    making = Making(make, discard)
    try:
        return await pool.run(making)
    except asyncio.CancelledError:
        making.abandon(pool)
        raise
