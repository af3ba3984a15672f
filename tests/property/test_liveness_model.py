"""Who is blocked and who is worn (hoop.cluster.liveness), in a world of loops that work, hang and are stopped."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hoop.cluster.liveness import Liveness, Look, Ping, Terms
from hoop.cluster.supervisor import Blocked, Worn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

WORKER = 7


@dataclass
class Loop:
    """A worker's loop as it is. has_news: it will turn as soon as it can. stuck_for: seconds without a look for
    events, in time that counts; of one in which nobody could watch, only an interval does."""

    turns: int = 1
    busy_since: float | None = None
    is_stopped: bool = False  # by SIGSTOP
    has_news: bool = False
    stuck_for: float = 0.0


class World(RuleBasedStateMachine):
    """One loop and its watcher, which may itself be stopped for a while, and the loop with it."""

    @initialize(timeout=st.sampled_from([1.0, 3.0, 30.0]))
    def begin(self, timeout: float) -> None:
        self.now = 1000.0
        self.loop = Loop()
        self.liveness = Liveness(Terms(blocked_timeout=timeout))
        self.timeout = timeout
        self.interval = self.liveness.terms.interval
        assert self.interval is not None
        self.longest_notice = self.liveness.terms.ping_after + timeout + 3 * self.interval
        self.is_blocked = False
        self.pings = 0
        self.asked_since = self.now
        self.liveness.began(WORKER, self.now)

    # ---- what time brings -------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float, is_watched: bool) -> None:
        self.now += seconds
        loop = self.loop
        if loop.has_news and not loop.is_stopped and loop.busy_since is None:
            loop.turns += 1
            loop.has_news = False
        if loop.busy_since is None and not loop.is_stopped:
            loop.stuck_for = 0.0
        else:
            loop.stuck_for += seconds if is_watched else self.interval

    def look(self) -> None:
        events = self.liveness.look({WORKER: Look(turns=self.loop.turns, busy_since=self.loop.busy_since)}, self.now)
        for event in events:
            if isinstance(event, Ping):
                assert self.loop.busy_since is None
                self.loop.has_news = True
                self.pings += 1
            else:
                assert event == Blocked(WORKER)
                self.is_blocked = True

    @precondition(lambda self: not self.is_blocked)
    @rule(looks=st.integers(1, 15))
    def watch(self, looks: int) -> None:
        for _ in range(looks):
            self.pass_time(self.interval, True)
            before = self.loop.stuck_for
            self.look()
            if self.is_blocked:
                assert before >= self.timeout - 2 * self.interval, "a loop that is not blocked was called so"
                return

    @precondition(lambda self: not self.is_blocked)
    @rule(seconds=st.floats(2.5, 10000))
    def all_are_stopped(self, seconds: float) -> None:
        """The terminal, the machine: nobody looks, and nobody works."""
        was_stopped, self.loop.is_stopped = self.loop.is_stopped, True
        self.pass_time(max(seconds, 2.5 * self.interval), False)
        self.look()
        self.loop.is_stopped = was_stopped
        assert not self.is_blocked or self.loop.stuck_for >= self.timeout - 2 * self.interval

    # ---- what the loop does -----------------------------------------------------------------------------------------

    @precondition(lambda self: not self.loop.is_stopped)
    @rule(turns=st.integers(1, 1000))
    def work(self, turns: int) -> None:
        self.loop.turns += turns
        self.loop.stuck_for = 0.0
        if self.loop.busy_since is not None:
            self.loop.busy_since = self.now

    @precondition(lambda self: not self.loop.is_stopped and self.loop.busy_since is None)
    @rule()
    def wake(self) -> None:
        self.loop.turns += 1
        self.loop.stuck_for = 0.0
        self.loop.busy_since = self.now

    @precondition(lambda self: not self.loop.is_stopped and self.loop.busy_since is not None)
    @rule()
    def sleep(self) -> None:
        self.loop.turns += 1
        self.loop.busy_since = None
        self.loop.stuck_for = 0.0

    @rule(is_stopped=st.booleans())
    def stop_or_go_on(self, is_stopped: bool) -> None:
        self.loop.is_stopped = is_stopped

    # ---- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def a_stuck_loop_is_noticed(self) -> None:
        assert self.is_blocked or self.loop.stuck_for < self.longest_notice


World.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWorld = World.TestCase


# ---- single rules ---------------------------------------------------------------------------------------------------


def looks_each_second(liveness: Liveness, seconds: int, look: Look, now: float = 0.0) -> list[object]:
    return [event for second in range(1, seconds + 1) for event in liveness.look({WORKER: look}, now + second)]


def test_trap_c07_an_idle_loop_is_pinged_and_never_killed() -> None:
    liveness = Liveness(Terms(blocked_timeout=30))
    liveness.began(WORKER, 0)
    turns, pings = 1, []
    for second in range(1, 1001):
        events = liveness.look({WORKER: Look(turns=turns, busy_since=None)}, second)
        assert all(isinstance(event, Ping) for event in events)
        if events:
            pings.append(second)
            turns += 1
    assert 90 <= len(pings) <= 100, "a wake-up of the worker each ten seconds, no more"


def test_trap_c07_one_long_turn_is_noticed_within_a_look() -> None:
    liveness = Liveness(Terms(blocked_timeout=30))
    liveness.began(WORKER, 0)
    events = looks_each_second(liveness, 31, Look(turns=1, busy_since=0.5))
    assert events == [Blocked(WORKER)]


def test_many_turns_are_no_long_one() -> None:
    liveness = Liveness(Terms(blocked_timeout=3))
    liveness.began(WORKER, 0)
    for second in range(1, 100):
        assert liveness.look({WORKER: Look(turns=second, busy_since=second - 0.9)}, second) == []


def test_without_a_timeout_nobody_is_pinged_or_blocked() -> None:
    liveness = Liveness(Terms(max_requests=5))
    liveness.began(WORKER, 0)
    assert looks_each_second(liveness, 1000, Look(turns=1, busy_since=0.5)) == []
    assert Terms().interval is None


def test_who_has_left_is_not_looked_at() -> None:
    liveness = Liveness(Terms(blocked_timeout=1, max_requests=1))
    liveness.began(WORKER, 0)
    liveness.ended(WORKER)
    liveness.ended(WORKER)
    assert looks_each_second(liveness, 100, Look(turns=1, busy_since=0.5, requests=9)) == []


@pytest.mark.parametrize(
    ("terms", "fine", "worn", "reason"),
    [
        ({"max_requests": 100}, Look(turns=1, busy_since=None, requests=99),
         Look(turns=1, busy_since=None, requests=100), "100 requests"),
        ({"max_accepts": 100}, Look(turns=1, busy_since=None, accepts=99),
         Look(turns=1, busy_since=None, accepts=250), "250 connections"),
        ({"max_rss": 2**20}, Look(turns=1, busy_since=None, rss=2**20),
         Look(turns=1, busy_since=None, rss=3 * 2**20), "3 MiB"),
    ],
)  # fmt: skip
def test_a_worn_worker_is_named_with_the_reason(terms: dict[str, int], fine: Look, worn: Look, reason: str) -> None:
    liveness = Liveness(Terms(**terms))
    liveness.began(WORKER, 0)
    assert looks_each_second(liveness, 5, fine) == []
    (event,) = looks_each_second(liveness, 2, worn, 5)[:1]
    assert isinstance(event, Worn)
    assert reason in event.reason


def test_memory_must_be_large_twice_in_a_row() -> None:
    liveness = Liveness(Terms(max_rss=100))
    liveness.began(WORKER, 0)
    sizes = [101, 99, 101, None, 101, 100, 101, 101]
    events = [
        liveness.look({WORKER: Look(turns=1, busy_since=None, rss=size)}, second)
        for second, size in enumerate(sizes, 1)
    ]
    assert [bool(one) for one in events] == [False] * 7 + [True]


def test_an_old_worker_is_worn() -> None:
    liveness = Liveness(Terms(max_lifetime=60))
    liveness.began(WORKER, 1000)
    assert liveness.look({WORKER: Look(turns=1, busy_since=None)}, 1059) == []
    assert liveness.look({WORKER: Look(turns=1, busy_since=None)}, 1060) == [Worn(WORKER, "it has served for 60 s")]


def test_what_cannot_be_replaced_is_named_again_after_growing_delays() -> None:
    liveness = Liveness(Terms(max_requests=1))
    liveness.began(WORKER, 0)
    named = [
        second
        for second in range(1, 300)
        if liveness.look({WORKER: Look(turns=1, busy_since=None, requests=1)}, second)
    ]
    assert named == [1, 2, 4, 8, 16, 32, 64, 124, 184, 244]


@given(jitter=st.floats(0, 0.99), seed=st.integers(0, 100))
def test_trap_c15_jitter_shortens_each_life_a_little(jitter: float, seed: int) -> None:
    liveness = Liveness(Terms(max_requests=1000, jitter=jitter), random.Random(seed))
    for worker in range(20):
        liveness.began(worker, 0)
        limit = liveness._watched[worker].limits["max_requests"]
        assert 1000 * (1 - jitter) - 1e-9 <= limit <= 1000


def test_trap_c15_jitter_without_a_limit_does_nothing() -> None:
    liveness = Liveness(Terms(jitter=0.5))
    liveness.began(WORKER, 0)
    assert looks_each_second(liveness, 100, Look(turns=1, busy_since=None, requests=10**9, rss=10**12)) == []
