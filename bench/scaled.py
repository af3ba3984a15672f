"""What an operation costs while many timers or tasks are pending: python -m bench.scaled SUBJECT --loop LOOP ...

Prints a line of JSON for each number of pending ones. A batch of the same operations in turn; the median batch counts.
Between two batches comes one on a second loop, beside as few as the first number says: "times" is the median of what a
batch costs over its neighbour on that loop, which does not change when the machine becomes slower.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable

from bench.loops import LOOPS, find_loop
from bench.measure import usage_of
from bench.pace import Pace, add_pace_of_child, pace_of_child

OPERATIONS = 200  # in a batch
LEAST_BATCHES = 5
FIRST_S, SPAN_S = 1000.0, 10_000.0  # no pending timer is due while this runs
KIB = 1024

Batch = Callable[[], Awaitable[None]]
Add = Callable[[int], Awaitable[None]]


def nothing() -> None:
    """The callback of timers that are never due."""


def timers(loop: asyncio.AbstractEventLoop) -> tuple[Add, Batch]:
    """A timer is set and cancelled, in no order, between the deadlines of those that are pending."""
    choice = random.Random(7)
    pending = []

    async def add(count: int) -> None:
        for number in range(count):
            pending.append(loop.call_later(FIRST_S + choice.random() * SPAN_S, nothing))
            if number % 10_000 == 0:
                await asyncio.sleep(0)

    async def batch() -> None:
        for _ in range(OPERATIONS):
            loop.call_later(FIRST_S + choice.random() * SPAN_S, nothing).cancel()
        await asyncio.sleep(0)  # a loop that removes cancelled timers later does it here

    return add, batch


def tasks(loop: asyncio.AbstractEventLoop) -> tuple[Add, Batch]:
    """A task is made, takes two steps and ends, beside others that sleep."""
    sleeping = set()

    async def add(count: int) -> None:
        for number in range(count):
            sleeping.add(loop.create_task(asyncio.sleep(FIRST_S)))
            if number % 10_000 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def two_steps() -> None:
        await asyncio.sleep(0)

    async def batch() -> None:
        for _ in range(OPERATIONS):
            await loop.create_task(two_steps())

    return add, batch


SUBJECTS = {"timers": timers, "tasks": tasks}


class Side:
    """A loop, and what is pending on it."""

    def __init__(self, name: str, subject: str) -> None:
        self._loop = find_loop(name).factory()()
        self._add, self._batch = SUBJECTS[subject](self._loop)
        self.add(0)
        self.cost_ns()

    def add(self, count: int) -> None:
        self._loop.run_until_complete(self._add(count))

    def cost_ns(self) -> float:
        """CPU time of one operation, in one batch."""
        return self._loop.run_until_complete(self._timed())

    async def _timed(self) -> float:
        began_ns = time.process_time_ns()
        await self._batch()
        return (time.process_time_ns() - began_ns) / OPERATIONS


def measured(few: Side, many: Side, seconds: float) -> dict[str, float]:
    """What an operation costs beside many, and how many times what it costs beside few."""
    costs_ns: list[float] = []
    ratios: list[float] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s or len(costs_ns) < LEAST_BATCHES:
        base_ns = few.cost_ns()
        costs_ns.append(many.cost_ns())
        ratios.append(costs_ns[-1] / base_ns)
    return {"ns": statistics.median(costs_ns), "times": statistics.median(ratios)}


def main(name: str, subject: str, counts: list[int], seconds: float, pace: Pace) -> None:
    few, many = Side(name, subject), Side(name, subject)
    few.add(counts[0])
    there = 0
    before = usage_of(os.getpid()).rss_bytes
    gc.disable()  # a collection walks all that is pending, whatever the loop: that is Python's cost
    for count in counts:
        many.add(count - there)
        there = count
        kib = (usage_of(os.getpid()).rss_bytes - before) / count / KIB
        for _ in pace.attempts():
            found = measured(few, many, seconds)
        print(json.dumps(found | {"pending": count, "kib": kib, "pace": pace.spent()}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=list(SUBJECTS))
    parser.add_argument("--loop", required=True, choices=list(LOOPS))
    parser.add_argument("--counts", required=True, help="of pending ones, rising, separated by commas")
    parser.add_argument("--seconds", type=float, required=True, help="of each measurement")
    add_pace_of_child(parser)
    arguments = parser.parse_args()
    main(
        arguments.loop,
        arguments.subject,
        [*map(int, arguments.counts.split(","))],
        arguments.seconds,
        pace_of_child(arguments.pace),
    )
    os._exit(0)  # a million tasks need not be cancelled
