"""What an agent knows of one peer: its free connections, those who wait for one, and the attempts to make more."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from hoop.agent.pooled import Pooled


class Waiter:
    """A call of acquire() that found nothing free."""

    __slots__ = ("attempt", "future", "number")

    def __init__(self, number: int, future: asyncio.Future[Pooled]) -> None:
        self.number: int = number  # the smaller, the older
        self.future: asyncio.Future[Pooled] = future
        self.attempt: Attempt | None = None


class Attempt:
    """A connection in the making. The waiter hears of its failure; None: it fills the stock, or its waiter is gone."""

    __slots__ = ("task", "waiter")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.waiter: Waiter | None = None


class Host:
    __slots__ = ("arguments", "attempts", "bare", "failures", "free", "key", "lent", "options", "refill", "waiters")

    def __init__(self, key: Hashable, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.key: Hashable = key
        self.arguments: tuple[Any, ...] = arguments  # of connect
        self.options: dict[str, Any] = options
        self.free: OrderedDict[Pooled, None] = OrderedDict()  # the one that is free for longest first
        self.lent: int = 0
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()  # in the order of their coming
        self.bare: list[tuple[int, Waiter]] = []  # a heap: waiters without an attempt, and some that have one again
        self.attempts: set[Attempt] = set()
        self.failures: int = 0  # of attempts for the stock, in a row
        self.refill: asyncio.TimerHandle | None = None  # when the stock is tried again

    @property
    def size(self) -> int:
        """Connections that count against the limits."""
        return self.lent + len(self.free) + len(self.attempts)

    @property
    def is_unused(self) -> bool:
        return self.size == 0 and not self.waiters and self.refill is None

    def add_waiter(self, waiter: Waiter) -> None:
        self.waiters[waiter] = None
        heapq.heappush(self.bare, (waiter.number, waiter))

    def has_waiters(self) -> bool:
        """Whether a call waits that was not cancelled in the meantime."""
        while self.waiters and next(iter(self.waiters)).future.done():
            self.waiters.popitem(last=False)
        return len(self.waiters) > 0

    def first_without_attempt(self) -> Waiter | None:
        """The oldest waiter for whom no connection is in the making."""
        while self.bare:
            waiter = self.bare[0][1]
            if waiter.attempt is None and waiter in self.waiters and not waiter.future.done():
                return waiter
            heapq.heappop(self.bare)
        return None

    def take_waiter(self) -> Waiter | None:
        """The oldest waiter, who waits no longer."""
        return self.waiters.popitem(last=False)[0] if self.has_waiters() else None

    def assign(self, attempt: Attempt, waiter: Waiter | None) -> None:
        """What is in the making is for this waiter, and no longer for the one before."""
        if attempt.waiter is not None:
            attempt.waiter.attempt = None
            if attempt.waiter in self.waiters:
                heapq.heappush(self.bare, (attempt.waiter.number, attempt.waiter))
        attempt.waiter = waiter
        if waiter is not None:
            waiter.attempt = attempt
