"""Whether the cores run at their full pace. On a shared machine they often do not: beside a busy neighbour on the same
physical core they take up to twice as long for the same instructions, CPU time included, for seconds at a time, and
nothing in the guest says so. A loop that is measured then looks twice as slow as the one measured before it.

So a known computation is timed on each core before a measurement and after it. What was measured on slow cores is
measured again, until the run's patience ends; what was slow even then counts, and the results say how often that was.
Slow is slower than usual, which the fastest quarter of all looks tells: the fastest look of all may have been a boost
of a moment, which no patience brings back.
"""

from __future__ import annotations

import argparse
import bisect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import monotonic, perf_counter_ns, sleep

ADDITIONS = 20_000  # of the computation: about a millisecond
REPEATED = 3  # times, of which the fastest counts: an interrupt is not a slow core
TOLERATED = 1.2  # of the usual time
FIRST_S = 3.0  # to see how fast the cores usually are
PAUSE_S = 0.1
USUAL_PATIENCE_S = 120.0
PATIENCE_HELP = "how long to wait in all for cores that others slow down, and to measure again"
CHILD_PATIENCE_S = 15.0  # at most, of a child that measures several things, each of which its parent awaits for longer


class Pace:
    """The pace of some cores, and the patience of a run: how long it waits for them in all, and measures again."""

    def __init__(self, cores: Iterable[int], patience_s: float, usual_ns: float | None = None) -> None:
        self._cores = tuple(cores)
        self._is_gauged = patience_s > 0 and bool(self._cores)
        self._patience_s = patience_s
        self._told_usual_ns = usual_ns  # what the computation usually takes; None: this one finds that out
        self._seen_ns: list[float] = []  # what it has taken, in order
        self.measured = 0
        self.slow = 0  # measurements that count although the cores were slow
        self._told_slow, self._told_patience_s = 0, patience_s

    @property
    def usual_ns(self) -> float:
        """What the computation usually takes, where no neighbour disturbs it."""
        return self._seen_ns[len(self._seen_ns) // 4] if self._told_usual_ns is None else self._told_usual_ns

    def is_full(self) -> bool:
        """Whether all cores are fast now."""
        found = [_computation_ns(core) for core in self._cores]
        if self._told_usual_ns is None:
            for taken_ns in found:
                bisect.insort(self._seen_ns, taken_ns)
        return max(found) <= TOLERATED * self.usual_ns

    def attempts(self) -> Iterator[None]:
        """`for _ in pace.attempts(): result = measure()` leaves the result of a time when the cores were fast before
        and after, if there was one."""
        if not self._is_gauged:
            yield
            return
        self._look_around()
        self.measured += 1
        while True:
            self._await_full()
            began_s = monotonic()
            yield
            if self.is_full():
                return
            if self._patience_s <= 0:
                self.slow += 1
                return
            self._patience_s -= monotonic() - began_s

    def as_json(self) -> dict[str, int]:
        """As results files have it."""
        return {"measured": self.measured, "slow": self.slow}

    def spent(self) -> dict[str, float]:
        """What the measurements since the last call have cost, for `take` of the parent of this process."""
        spent = {"slow": self.slow - self._told_slow, "seconds": self._told_patience_s - self._patience_s}
        self._told_slow, self._told_patience_s = self.slow, self._patience_s
        return spent

    def take(self, spent: Mapping[str, float]) -> None:
        """Something was measured by a child."""
        self.measured += 1
        self.slow += int(spent["slow"])
        self._patience_s -= spent["seconds"]

    def of_child(self) -> list[str]:
        """Options for a child that measures by itself, see `pace_of_child`."""
        if not self._is_gauged:
            return []
        self._look_around()
        patience_s = min(CHILD_PATIENCE_S, max(self._patience_s, PAUSE_S))
        return ["--pace", f"{self.usual_ns:.0f}", f"{patience_s:.1f}"]

    def _look_around(self) -> None:
        """Before the first measurement: see how fast the cores are."""
        if self._told_usual_ns is not None or self._seen_ns:
            return
        end_s = monotonic() + FIRST_S
        while monotonic() < end_s:
            self.is_full()
            sleep(PAUSE_S)

    def _await_full(self) -> None:
        while self._patience_s > 0 and not self.is_full():
            sleep(PAUSE_S)
            self._patience_s -= PAUSE_S


def add_pace_of_child(parser: argparse.ArgumentParser) -> None:
    """The option of a child for `pace_of_child`."""
    parser.add_argument("--pace", type=float, nargs=2, metavar=("NS", "SECONDS"), help="see pace.py")


def pace_of_child(told: Sequence[float] | None) -> Pace:
    """For the child's own cores, with what its parent has told: how fast they usually are, and how long to be patient.
    None: it does not look."""
    if told is None or not hasattr(os, "sched_getaffinity"):
        return Pace((), 0.0)
    usual_ns, patience_s = told
    return Pace(sorted(os.sched_getaffinity(0)), patience_s, usual_ns)


def _computation_ns(core: int) -> int:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return min(_compute() for _ in range(REPEATED))
    finally:
        os.sched_setaffinity(0, before)


def _compute() -> int:
    began = perf_counter_ns()
    total = 0
    for number in range(ADDITIONS):
        total += number
    return perf_counter_ns() - began
