"""The benchmark looks at the cores: what was measured on slow ones is measured again, while patience lasts."""

from __future__ import annotations

import os

import pytest
from bench import pace
from bench.pace import Pace, pace_of_child

FAST, SLOW = 1000, 1900

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="the platform pins no thread to a core"
)


class Clock:
    """Time that passes only when someone sleeps."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(pace, "monotonic", found.monotonic)
    monkeypatch.setattr(pace, "sleep", found.sleep)
    return found


@pytest.fixture
def paces(monkeypatch):
    """What the cores take from now on, one after another; then the last for ever."""
    left = [FAST]
    monkeypatch.setattr(pace, "_computation_ns", lambda _core: left.pop(0) if len(left) > 1 else left[0])
    return left


def test_a_steady_measurement_is_made_once(clock, paces):
    one = Pace([0], 10.0, FAST)
    assert [None for _ in one.attempts()] == [None]
    assert (one.measured, one.slow) == (1, 0)


def test_one_that_a_slow_core_has_seen_is_made_again(clock, paces):
    one = Pace([0], 10.0, FAST)
    paces[:] = [FAST, SLOW, SLOW, SLOW, FAST]  # before; after; two waits; before and after
    assert len(list(one.attempts())) == 2
    assert one.slow == 0
    assert clock.now_s == pytest.approx(2 * pace.PAUSE_S)


def test_patience_ends_and_what_was_slow_is_counted(clock, paces):
    one = Pace([0], 1.0, FAST)
    paces[:] = [SLOW]
    assert len(list(one.attempts())) == 1
    assert clock.now_s == pytest.approx(1.0, abs=pace.PAUSE_S + 0.01)
    waited_s = clock.now_s
    assert len(list(one.attempts())) == 1  # nothing is left to wait with
    assert clock.now_s == waited_s
    assert (one.measured, one.slow) == (2, 2)


def test_the_slower_of_two_cores_counts(clock, monkeypatch):
    monkeypatch.setattr(pace, "_computation_ns", {0: FAST, 1: SLOW}.__getitem__)
    one = Pace([0, 1], 10.0, FAST)
    assert not one.is_full()


def test_how_fast_the_cores_usually_are_is_seen_first(clock, paces):
    one = Pace([0], 10.0)
    paces[:] = [SLOW, SLOW, FAST]
    list(one.attempts())
    assert one.usual_ns == FAST
    assert clock.now_s >= pace.FIRST_S


def test_a_boost_of_a_moment_is_not_what_is_waited_for(clock, paces):
    one = Pace([0], 10.0)
    paces[:] = [FAST // 2, FAST]
    list(one.attempts())
    assert one.usual_ns == FAST
    assert one.slow == 0
    assert clock.now_s == pytest.approx(pace.FIRST_S, abs=pace.PAUSE_S + 0.01)


def test_after_a_slow_beginning_the_usual_pace_is_found(clock, paces):
    one = Pace([0], 10.0)
    paces[:] = [*[SLOW] * 40, FAST]
    for _ in range(20):
        list(one.attempts())
    assert one.usual_ns == FAST


def test_without_patience_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(pace, "_computation_ns", None)
    for one in (Pace([0], 0.0), Pace([], 10.0), pace_of_child(None)):
        assert len(list(one.attempts())) == 1
        assert one.of_child() == []


def test_a_child_is_told_and_what_it_has_spent_is_taken(clock, paces):
    one = Pace([0], 10.0, FAST)
    assert one.of_child() == ["--pace", "1000", "10.0"]
    child = Pace([0], 2.0, FAST)
    paces[:] = [FAST, FAST, SLOW]
    assert len(list(child.attempts())) == 1
    one.take(child.spent())
    assert (one.measured, one.slow) == (1, 0)
    list(child.attempts())  # until its patience has ended
    one.take(child.spent())
    assert (one.measured, one.slow) == (2, 1)
    assert one.of_child() == ["--pace", "1000", "8.0"]
    assert child.spent() == {"slow": 0, "seconds": 0.0}


@needs_affinity
def test_the_computation_leaves_the_thread_where_it_was():
    before = os.sched_getaffinity(0)
    one = Pace(sorted(before), 1.0)
    one.is_full()
    assert 0 < one.usual_ns < float("inf")
    assert os.sched_getaffinity(0) == before
