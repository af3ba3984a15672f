"""Native timers against a naive model: set_timeout, set_interval and call_later in random programs.

A program is a tree: each callback performs its operations: set another timer, refresh, close, ref or unref an earlier
one, let time pass, queue something, raise. It is played in phases. In each, the first operations come from outside, and
then loop.run() must return in the very turn in which the model has nothing referenced left. The clock belongs to the
test: it moves by the phase's steps, one at the end of each turn, and by the "pass" operations. The steps come from an
unreferenced immediate, which also stops a run that does not end, for an interval's would not.

The trace holds each call with its time, what each timer says of itself after every operation on it, and of all of them
at the end of each phase.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import hoop
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

SETTINGS = settings(max_examples=300, deadline=None)
START_NS = 1000 * 10**9
MOST_TURNS = 30  # of one phase
MOST_TIMERS = 60
NEVER_NS = 2**63 - 1

Operation = tuple[str, Any, Any]  # kind, its number, the program of the callback that it makes
Program = list[Operation]
Phase = tuple[Program, list[int]]  # what is done from outside; the steps of the clock
Trace = list[Any]


class Clock:
    """Nanoseconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def nanoseconds(self) -> int:
        return self.now_ns


# The model: no heap, no queues of due timers; it looks at all of them each time.


def ceiling_ns(delay_s: float) -> int:
    """The delay in nanoseconds, rounded up, exactly as the product of two doubles."""
    product = delay_s * 1e9
    whole = int(product)
    return whole + (product > whole)


class ModelTimer:
    def __init__(self, model: Model, delay_s: float, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.model, self.delay_s, self.callback, self.args = model, delay_s, callback, args
        self.repeats = self.is_closed = self.is_waiting = self.is_due = False
        self.is_referenced = True
        self.deadline_ns = self.age = 0

    def wait_until(self, deadline_ns: int) -> None:
        self.deadline_ns, self.is_waiting, self.is_due = min(deadline_ns, NEVER_NS), True, False
        self.age = self.model.next_age()
        self.when_s = self.deadline_ns / 1e9 if self.deadline_ns < NEVER_NS else float("inf")

    def start(self) -> None:
        never = self.delay_s >= 9e9  # what does not fit into 64 bits
        self.wait_until(NEVER_NS if never else self.model.clock.now_ns + ceiling_ns(self.delay_s))

    def refresh(self) -> None:
        if self.is_closed:
            raise RuntimeError
        self.start()

    def close(self) -> None:
        self.is_closed, self.is_waiting, self.is_due = True, False, False

    cancel = close

    def ref(self) -> None:
        self.is_referenced = True

    def unref(self) -> None:
        self.is_referenced = False

    def has_ref(self) -> bool:
        return self.is_referenced

    def when(self) -> float:
        return self.when_s

    @property
    def active(self) -> bool:
        return not self.is_closed and (self.repeats or self.is_waiting or self.is_due)

    def fire(self) -> None:
        self.is_due = False
        self.model.call(self.callback, self.args, self.after if self.repeats else None)

    def after(self) -> None:
        """To the first point of the grid that is still to come, unless the callback has said otherwise."""
        if not self.is_closed and not self.is_waiting:
            period_ns = ceiling_ns(self.delay_s)
            passed = max(0, (self.model.clock.now_ns - self.deadline_ns) // period_ns)
            self.wait_until(self.deadline_ns + (passed + 1) * period_ns)


class Model:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.timers: list[ModelTimer] = []
        self.ready: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self.next_ticks: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self.age = 0
        self.is_stopping = False
        self.end_of_turn: Callable[[], object]
        self.report: Callable[..., object]

    def next_age(self) -> int:
        self.age += 1
        return self.age

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self.ready.append((callback, args))

    def next_tick(self, callback: Callable[..., object], *args: object) -> None:
        self.next_ticks.append((callback, args))

    def set_timeout(self, callback: Callable[..., object], delay_s: float, *args: object) -> ModelTimer:
        timer = ModelTimer(self, delay_s, callback, args)
        self.timers.append(timer)
        timer.start()
        return timer

    def set_interval(self, callback: Callable[..., object], period_s: float, *args: object) -> ModelTimer:
        timer = self.set_timeout(callback, period_s, *args)
        timer.repeats = True
        return timer

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: object) -> ModelTimer:
        """As asyncio's: when() is loop.time() + delay, and it is due only when loop.time() has got there."""
        timer = self.set_timeout(callback, delay_s, *args)
        timer.when_s = self.clock.now_ns / 1e9 + delay_s
        while timer.deadline_ns < NEVER_NS and timer.deadline_ns / 1e9 < timer.when_s:
            timer.deadline_ns += 1
        return timer

    def stop(self) -> None:
        self.is_stopping = True

    def has_something_to_wait_for(self) -> bool:
        return bool(self.ready) or any(timer.is_waiting and timer.is_referenced for timer in self.timers)

    def run(self) -> None:
        self.drain_ticks()
        while self.has_something_to_wait_for() and not self.is_stopping:
            self.turn()
        self.is_stopping = False

    def turn(self) -> None:
        due = [timer for timer in self.timers if timer.is_waiting and timer.deadline_ns <= self.clock.now_ns]
        due.sort(key=lambda timer: (timer.deadline_ns, timer.age))
        for timer in due:
            timer.is_waiting, timer.is_due = False, True
        ready, self.ready = self.ready, []
        for callback, args in ready:
            self.call(callback, args)
        for timer in due:
            if timer.is_due:  # neither closed nor put off by one before
                timer.fire()
        self.end_of_turn()

    def call(
        self, callback: Callable[..., object], args: tuple[object, ...], after: Callable[[], object] | None = None
    ) -> None:
        try:
            callback(*args)
        except OnPurpose:
            self.report()
        if after is not None:
            after()
        self.drain_ticks()

    def drain_ticks(self) -> None:
        while self.next_ticks:
            callback, args = self.next_ticks.popleft()
            try:
                callback(*args)
            except OnPurpose:
                self.report()


# Playing a program.


class OnPurpose(Exception):
    """What a raising callback raises."""


class Player:
    """One run of one program on one loop, or on the model."""

    def __init__(self, loop: Any, clock: Clock) -> None:
        self.loop, self.clock = loop, clock
        self.trace: Trace = []
        self.timers: list[tuple[str, Any, bool]] = []  # its path in the tree, itself, whether it is a Timer
        self.steps: list[int] = []
        self.turns = 0

    def play(self, phases: list[Phase]) -> Trace:
        for number, (program, steps) in enumerate(phases):
            self.steps, self.turns = steps, 0
            try:
                self.perform(f"phase {number}", program)
            except OnPurpose:
                self.report()
            self.loop.run()
            self.trace.append(("run returned", self.turns, self.clock.now_ns))
            self.trace.extend(self.state_of(number) for number in range(len(self.timers)))
        return self.trace

    def end_turn(self) -> None:
        self.clock.now_ns += self.steps[self.turns % len(self.steps)]
        self.turns += 1
        if self.turns == MOST_TURNS:
            self.trace.append("stopped")
            self.loop.stop()

    def report(self, *_: object) -> None:
        self.trace.append("reported")

    def call(self, path: str, program: Program) -> None:
        self.trace.append((path, self.clock.now_ns))
        self.perform(path, program)

    def perform(self, path: str, program: Program) -> None:
        is_failing = False
        for index, (kind, number, child) in enumerate(program):
            if kind == "raise":
                is_failing = True
            elif kind == "pass":
                self.clock.now_ns += number
            elif kind in ("call_soon", "next_tick"):
                getattr(self.loop, kind)(self.call, f"{path}.{index}", child)
            elif kind in ("set_timeout", "set_interval", "call_later"):
                self.set_timer(kind, number, f"{path}.{index}", child)
            elif self.timers:
                self.change(kind, number % len(self.timers))
        if is_failing:
            raise OnPurpose

    def set_timer(self, kind: str, delay_s: float, path: str, child: Program) -> None:
        if len(self.timers) == MOST_TIMERS:
            return
        if kind == "call_later":
            timer = self.loop.call_later(delay_s, self.call, path, child)
        else:
            timer = getattr(self.loop, kind)(self.call, delay_s, path, child)
        self.timers.append((path, timer, kind != "call_later"))
        self.trace.append(self.state_of(len(self.timers) - 1))

    def change(self, kind: str, number: int) -> None:
        _, timer, is_native = self.timers[number]
        if kind == "refresh" and is_native:
            try:
                timer.refresh()
            except RuntimeError:
                self.trace.append("refused")
        elif kind == "close":
            timer.close() if is_native else timer.cancel()
        elif kind in ("ref", "unref"):
            getattr(timer, kind)()
        self.trace.append(self.state_of(number))

    def state_of(self, number: int) -> tuple[object, ...]:
        path, timer, is_native = self.timers[number]
        return path, timer.has_ref(), timer.when(), timer.active if is_native else None


def on_the_model(phases: list[Phase]) -> Trace:
    model = Model(Clock())
    player = Player(model, model.clock)
    model.end_of_turn, model.report = player.end_turn, player.report
    return player.play(phases)


def on_hoop(phases: list[Phase], *, debug: bool = False, **options: Any) -> Trace:
    clock = Clock()
    loop = hoop.Loop(clock=clock.nanoseconds, **options)
    try:
        loop.set_debug(debug)
        loop.slow_callback_duration = float("inf")
        player = Player(loop, clock)
        loop.set_exception_handler(player.report)

        def end_of_turn() -> None:
            loop.set_immediate(end_of_turn).unref()
            player.end_turn()

        loop.set_immediate(end_of_turn).unref()
        return player.play(phases)
    finally:
        loop.close()


# Random programs.

SHORT_S = [1e-9, 4e-7, 0.0003, 0.001, 0.001, 0.0025, 0.01]
LONG_S = [1.0, 3600.0, 8.9e9, float("inf")]
STEPS_NS = [0, 1, 1000, 300_000, 1_000_000, 2_500_000, 7_300_000, 10**9, 3600 * 10**9]
CENTURIES_NS = 9 * 10**18

short_s = st.sampled_from(SHORT_S)
periods_s = st.one_of(short_s, short_s, st.floats(1e-9, 0.02), st.sampled_from(LONG_S))
delays_s = st.sampled_from([0, -1.0]) | periods_s
steps_ns = st.sampled_from(STEPS_NS) | st.integers(0, 20_000_000)
earlier = st.integers(0, 30)
target = st.integers(0, 4)  # few, so that they meet one another
nothing = st.none()
operations = st.one_of(
    st.tuples(st.sampled_from(["set_timeout", "call_later"]), delays_s),
    st.tuples(st.just("set_interval"), periods_s),
    st.tuples(st.sampled_from(["refresh", "close"]), target),
    st.tuples(st.sampled_from(["unref", "unref", "ref"]), target),
    st.tuples(st.just("pass"), steps_ns),
    st.tuples(st.sampled_from(["call_soon", "next_tick", "raise"]), nothing),
)
MAKES_A_CALLBACK = ("set_timeout", "call_later", "set_interval", "call_soon", "next_tick")


@st.composite
def games(draw: st.DrawFn) -> list[Phase]:
    """Trees as flat lists of (operation, which callback before performs it): these shrink well and grow large."""
    phases: list[Phase] = []
    for _ in range(draw(st.integers(1, 3))):
        root: Program = []
        callbacks = [root]
        for (kind, number), parent in draw(st.lists(st.tuples(operations, earlier), max_size=25)):
            child: Program = []
            callbacks[parent % len(callbacks)].append((kind, number, child))
            if kind in MAKES_A_CALLBACK:
                callbacks.append(child)
        phases.append((root, draw(st.lists(steps_ns, min_size=1, max_size=6))))
    return phases


FAR = [("set_timeout", 8.9e9, []), ("set_interval", 8.9e9, []), ("call_later", 8.9e9, [])]

ITS_OWN_GRID = [("set_interval", 0.001, [("pass", 300_000, []), ("refresh", 0, [])])]  # a new one with each call


@SETTINGS
@given(phases=games())
@example(phases=[(FAR, [CENTURIES_NS] + [1] * MOST_TURNS), (FAR, [1])])  # what is beyond 64 bits never comes
@example(phases=[([("pass", CENTURIES_NS, []), *FAR], [1])])
@example(phases=[(ITS_OWN_GRID, [700_000])])
def test_timers_do_as_the_model_says(phases):
    expected = on_the_model(phases)
    assert on_hoop(phases) == expected
    assert on_hoop(phases, poll_every_turn=True) == expected


@settings(max_examples=100, deadline=None)
@given(phases=games())
def test_timers_do_as_the_model_says_in_debug_mode(phases):
    assert on_hoop(phases, debug=True) == on_the_model(phases)


@SETTINGS
@given(period_ns=st.integers(1, 5_000_000), steps=st.lists(st.tuples(steps_ns, steps_ns), max_size=40))
def test_an_interval_calls_once_for_all_points_of_its_grid_that_have_passed(period_ns, steps):
    """Said without a model: at most one call a turn, and no drift however long the callbacks take (the second step)."""
    clock = Clock()
    loop = hoop.Loop(clock=clock.nanoseconds)
    calls: list[int] = []
    took_ns = 0

    def tick() -> None:
        calls.append(clock.now_ns)
        clock.now_ns += took_ns

    interval = loop.set_interval(tick, period_ns / 1e9)
    period_ns = ceiling_ns(period_ns / 1e9)
    expected: list[int] = []
    handled = 0  # the last point of the grid that a call answered, or that had passed when it ended
    for step_ns, took_ns in steps:
        clock.now_ns += step_ns
        if (clock.now_ns - START_NS) // period_ns > handled:
            expected.append(clock.now_ns)
            handled = (clock.now_ns + took_ns - START_NS) // period_ns
        loop.stop()
        loop.run_forever()
        assert calls == expected
        assert interval.when() == (START_NS + (handled + 1) * period_ns) / 1e9
    loop.close()


# The model itself, on programs whose course is known.


@pytest.mark.parametrize("play", [on_the_model, on_hoop], ids=["model", "hoop"])
class TestKnownPrograms:
    def calls(self, trace: Trace) -> list[tuple[str, int]]:
        """Of a trace, the calls, with the nanoseconds since the start."""
        return [(entry[0], entry[1] - START_NS) for entry in trace if isinstance(entry, tuple) and len(entry) == 2]

    def test_order(self, play):
        timers = [("set_timeout", 1.0, []), ("call_later", 0.5, []), ("call_later", 1.0, []), ("set_timeout", 0, [])]
        trace = play([(timers, [10**9])])
        second = 10**9
        assert self.calls(trace) == [
            ("phase 0.3", 0), ("phase 0.1", second), ("phase 0.0", second), ("phase 0.2", second)
        ]  # fmt: skip
        assert ("run returned", 2, START_NS + 2 * second) in trace

    def test_missed_ticks(self, play):
        trace = play([([("set_interval", 1.0, [])], [2_500_000_000, 600_000_000])])
        assert [time_ns / 10**8 for _, time_ns in self.calls(trace)][:4] == [25, 31, 56, 62]
        assert "stopped" in trace

    def test_what_is_not_referenced_is_not_waited_for(self, play):
        timers = [("set_interval", 1.0, []), ("set_timeout", 1.5, []), ("unref", 0, [])]
        trace = play([(timers, [10**9]), ([], [10**9]), ([("ref", 0, [])], [10**9])])
        assert [(*entry,)[1] for entry in trace if entry[0] == "run returned"] == [3, 0, MOST_TURNS]

    def test_refresh(self, play):
        timers = [("set_timeout", 1.0, [("refresh", 1, [])]), ("set_timeout", 1.0, []), ("close", 0, []),
                  ("refresh", 0, []), ("set_timeout", 0.5, [("refresh", 1, [])])]  # fmt: skip
        trace = play([(timers, [10**9])])
        assert self.calls(trace) == [("phase 0.4", 10**9), ("phase 0.1", 2 * 10**9)]
        assert "refused" in trace
