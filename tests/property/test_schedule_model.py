"""Random programs of callbacks run on hoop and on a naive model of the turn: the same callbacks, in the same order.

A program is a tree. Each node is a callback; when it runs, it performs its operations in order: schedule a child by one
of the queues, cancel some earlier handle, stop the loop, raise when done. The trace names each callback by its path in
the tree, so that two traces are equal only if the loops ran the same callbacks in the same order and the same turns.

The clock belongs to the test and only moves between turns, which makes "due" exact. Steps are powers of two of a second
that are whole nanoseconds too, and deadlines lie half a step away from every reading of the clock: no rounding matters.
For asyncio, whose heap leaves the order of equal deadlines open, each deadline is made different by a few nanoseconds.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import hoop
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SETTINGS = settings(max_examples=150, deadline=None)
MOST_TURNS = 400
STEP_S = 2.0**-8
STEP_NS = 3_906_250
HALF_STEP_S = 2.0**-9
A_FEW_NANOSECONDS_S = 2.0**-26

Operation = tuple[str, int, Any]
Program = list[Operation]
Trace = list[str]


class Clock:
    """Nanoseconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_ns = 256 * STEP_NS

    def nanoseconds(self) -> int:
        return self.now_ns

    def seconds(self) -> float:
        return self.now_ns / 1e9

    def advance(self) -> None:
        self.now_ns += STEP_NS


class Scheduler(Protocol):
    """What a program needs of a loop."""

    def call_soon(self, callback: Callable[..., object], *args: object) -> Any: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Any: ...
    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Any: ...
    def time(self) -> float: ...
    def stop(self) -> None: ...
    def run_forever(self) -> None: ...


# The model.


class ModelHandle:
    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback, self.args, self.is_cancelled = callback, args, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Model:
    """One turn as docs/architecture.md tells it, in the most obvious way: no skipped polls, no batching."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ready: deque[ModelHandle] = deque()
        self.timers: list[tuple[int, int, ModelHandle]] = []
        self.next_ticks: deque[ModelHandle] = deque()
        self.microtasks: deque[ModelHandle] = deque()
        self.immediates: deque[ModelHandle] = deque()
        self.sequence = 0
        self.is_stopping = False

    def time(self) -> float:
        return self.clock.seconds()

    def put(self, queue: deque[ModelHandle], callback: Callable[..., object], args: tuple[object, ...]) -> ModelHandle:
        queue.append(ModelHandle(callback, args))
        return queue[-1]

    def call_soon(self, callback: Callable[..., object], *args: object) -> ModelHandle:
        return self.put(self.ready, callback, args)

    def next_tick(self, callback: Callable[..., object], *args: object) -> ModelHandle:
        return self.put(self.next_ticks, callback, args)

    def queue_microtask(self, callback: Callable[..., object], *args: object) -> ModelHandle:
        return self.put(self.microtasks, callback, args)

    def set_immediate(self, callback: Callable[..., object], *args: object) -> ModelHandle:
        return self.put(self.immediates, callback, args)

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> ModelHandle:
        handle = ModelHandle(callback, args)
        self.sequence += 1
        heapq.heappush(self.timers, (round(when * 1e9), self.sequence, handle))  # equal means equal nanoseconds
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> ModelHandle:
        return self.call_at(self.time() + delay, callback, *args)

    def stop(self) -> None:
        self.is_stopping = True

    def run_forever(self) -> None:
        self.drain_microtasks()
        while True:
            self.turn()
            if self.is_stopping:
                break
        self.is_stopping = False

    def turn(self) -> None:
        batch = [self.ready.popleft() for _ in range(len(self.ready))]
        while self.timers and self.timers[0][0] <= self.clock.now_ns:
            batch.append(heapq.heappop(self.timers)[2])
        for handle in batch:
            self.call(handle)
        for _ in range(len(self.immediates)):
            self.call(self.immediates.popleft())

    def call(self, handle: ModelHandle) -> None:
        if not handle.is_cancelled:
            handle.callback(*handle.args)
            self.drain_microtasks()

    def drain_microtasks(self) -> None:
        while self.next_ticks or self.microtasks:
            for queue in (self.next_ticks, self.microtasks):
                while queue:
                    handle = queue.popleft()
                    if not handle.is_cancelled:
                        handle.callback(*handle.args)


# Running a program.


class OnPurpose(Exception):
    """What a raising callback raises."""


class Execution:
    """One run of one program on one scheduler."""

    def __init__(self, scheduler: Any, *, distinct_deadlines: bool) -> None:
        self.scheduler = scheduler
        self.distinct_deadlines = distinct_deadlines
        self.trace: Trace = []
        self.handles: list[tuple[str, Any]] = []
        self.outstanding: set[str] = set()
        self.timer_count = 0

    def deadline_offset_s(self, steps: int) -> float:
        """Whole steps and a half; negative is in the past."""
        self.timer_count += 1
        distinction_s = self.timer_count * A_FEW_NANOSECONDS_S if self.distinct_deadlines else 0.0
        return steps * STEP_S + HALF_STEP_S + distinction_s

    def schedule(self, kind: str, number: int, path: str, child: Program) -> None:
        scheduler, arguments = self.scheduler, (self.run_node, path, child)
        if kind == "call_later":
            handle = scheduler.call_later(self.deadline_offset_s(number), *arguments)
        elif kind == "call_at":
            handle = scheduler.call_at(scheduler.time() + self.deadline_offset_s(number - 3), *arguments)
        else:
            handle = getattr(scheduler, kind)(*arguments)
        self.handles.append((path, handle))
        self.outstanding.add(path)

    def run_node(self, path: str, program: Program) -> None:
        self.trace.append(path)
        self.outstanding.discard(path)
        is_failing = False
        for index, (kind, number, child) in enumerate(program):
            if kind == "cancel":
                target, handle = self.handles[number % len(self.handles)]
                handle.cancel()
                self.outstanding.discard(target)
            elif kind == "stop":
                self.scheduler.stop()
            elif kind == "raise":
                is_failing = True
            else:
                self.schedule(kind, number, f"{path}.{index}", child)
        if is_failing:
            raise OnPurpose

    def start(self, program: Program) -> None:
        self.schedule("call_soon", 0, "0", program)

    def report(self, *_: object) -> None:
        self.trace.append("reported")

    def run_turn_by_turn(self, program: Program, clock: Clock) -> Trace:
        """stop() before run_forever() gives exactly one turn; between turns the clock moves on."""
        self.start(program)
        for number in range(MOST_TURNS):
            self.trace.append(f"turn {number}")
            self.scheduler.stop()
            self.scheduler.run_forever()
            clock.advance()
            if not self.outstanding:
                return self.trace
        raise AssertionError(f"unfinished after {MOST_TURNS} turns: {self.outstanding}")

    def run_freely(self, program: Program) -> Trace:
        """run_forever() until the program stops it, or until a watcher in each turn sees that nothing is left."""
        self.start(program)
        for number in range(MOST_TURNS):
            self.trace.append(f"run {number}")
            watching = [True]
            self.scheduler.set_immediate(self.watch, watching)
            self.scheduler.run_forever()
            watching[0] = False
            if not self.outstanding:
                return self.trace
        raise AssertionError(f"unfinished after {MOST_TURNS} runs: {self.outstanding}")

    def watch(self, watching: list[bool]) -> None:
        if watching[0] and not self.outstanding:
            self.scheduler.stop()
        elif watching[0]:
            self.scheduler.set_immediate(self.watch, watching)


class ReportingModel(Model):
    """Exceptions of callbacks go to a handler, as on a loop."""

    report: Callable[..., None]

    def put(self, queue: deque[ModelHandle], callback: Callable[..., object], args: tuple[object, ...]) -> ModelHandle:
        return super().put(queue, self.guarded, (callback, *args))

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> ModelHandle:
        return super().call_at(when, self.guarded, callback, *args)

    def guarded(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except OnPurpose:
            self.report()


def on_the_model(program: Program, *, freely: bool = False, distinct_deadlines: bool = False) -> Trace:
    clock = Clock()
    model = ReportingModel(clock)
    execution = Execution(model, distinct_deadlines=distinct_deadlines)
    model.report = execution.report
    return execution.run_freely(program) if freely else execution.run_turn_by_turn(program, clock)


def on_hoop(program: Program, *, freely: bool = False, distinct_deadlines: bool = False, **options: Any) -> Trace:
    clock = Clock()
    debug = options.pop("debug", False)
    loop = hoop.Loop(clock=clock.nanoseconds, **options)
    try:
        loop.set_debug(debug)
        loop.slow_callback_duration = float("inf")
        execution = Execution(loop, distinct_deadlines=distinct_deadlines)
        loop.set_exception_handler(execution.report)
        return execution.run_freely(program) if freely else execution.run_turn_by_turn(program, clock)
    finally:
        loop.close()


def on_asyncio(program: Program) -> Trace:
    clock = Clock()
    loop = asyncio.SelectorEventLoop()
    try:
        loop.time = clock.seconds  # type: ignore[method-assign]
        execution = Execution(loop, distinct_deadlines=True)
        loop.set_exception_handler(execution.report)
        return execution.run_turn_by_turn(program, clock)
    finally:
        loop.close()


# Random programs.


ASYNCIO_KINDS = ["call_soon", "call_later", "call_at", "cancel", "stop", "raise"]
TIMELESS_KINDS = ["call_soon", "next_tick", "queue_microtask", "set_immediate", "cancel", "stop", "raise"]
ALL_KINDS = ["call_soon", "call_later", "call_at", "next_tick", "queue_microtask", "set_immediate", *ASYNCIO_KINDS[3:]]


def programs(kinds: list[str]) -> st.SearchStrategy[Program]:
    """Trees as flat lists of (kind, number, which earlier callback performs it): these shrink well and grow large."""

    def tree(operations: list[tuple[str, int, int]]) -> Program:
        root: Program = []
        callbacks = [root]
        for kind, number, parent in operations:
            child: Program = []
            callbacks[parent % len(callbacks)].append((kind, number, child))
            if kind not in ("cancel", "stop", "raise"):
                callbacks.append(child)
        return root

    operation = st.tuples(st.sampled_from(kinds), st.integers(0, 6), st.integers(0, 59))
    return st.one_of(st.lists(operation, max_size=10), st.lists(operation, min_size=30, max_size=70)).map(tree)


@SETTINGS
@given(program=programs(ALL_KINDS))
def test_hoop_runs_a_program_as_the_model_does(program):
    assert on_hoop(program) == on_the_model(program)


@SETTINGS
@given(program=programs(ALL_KINDS))
def test_hoop_runs_a_program_alike_in_debug_mode(program):
    assert on_hoop(program, debug=True) == on_the_model(program)


@SETTINGS
@given(program=programs(TIMELESS_KINDS))
def test_hoop_running_freely_runs_a_program_as_the_model_does(program):
    """Here polls are skipped, and stop() ends runs in the middle of the program."""
    expected = on_the_model(program, freely=True)
    assert on_hoop(program, freely=True) == expected
    assert on_hoop(program, freely=True, poll_every_turn=True) == expected


@SETTINGS
@given(program=programs(ASYNCIO_KINDS))
def test_hoop_and_asyncio_run_a_program_alike(program):
    expected = on_the_model(program, distinct_deadlines=True)
    assert on_asyncio(program) == expected
    assert on_hoop(program, distinct_deadlines=True) == expected


# Long chains, which random trees of a bounded size do not reach.


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = ["call_soon", "call_later", "next_tick", "queue_microtask", "set_immediate"]
    return draw(st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 3)), min_size=20, max_size=120))


def nested(links: Iterator[tuple[str, int]]) -> Program:
    """A chain in which each callback schedules the next one."""
    program: Program = []
    for kind, number in reversed(list(links)):
        program = [(kind, number, program)]
    return program


@settings(max_examples=40, deadline=None)
@given(chains=st.lists(chains(), min_size=1, max_size=3))
def test_chains_started_together_interleave_as_in_the_model(chains):
    program = [("call_soon", 0, nested(iter(chain))) for chain in chains]
    assert on_hoop(program) == on_the_model(program)


# The model itself, on programs whose order is known.


@pytest.mark.parametrize("run", [on_the_model, on_hoop], ids=["model", "hoop"])
class TestKnownPrograms:
    def test_microtasks(self, run):
        program = [
            ("queue_microtask", 0, [("next_tick", 0, []), ("queue_microtask", 0, [])]),
            ("next_tick", 0, [("next_tick", 0, [])]),
            ("call_soon", 0, []),
        ]
        assert run(program) == ["turn 0", "0", "0.1", "0.1.0", "0.0", "0.0.1", "0.0.0", "turn 1", "0.2"]

    def test_kinds(self, run):
        program = [("set_immediate", 0, []), ("call_at", 0, []), ("call_soon", 0, []), ("next_tick", 0, [])]
        assert run(program) == ["turn 0", "0", "0.3", "0.0", "turn 1", "0.2", "0.1"]

    def test_cancel_and_raise(self, run):
        program = [("call_soon", 0, []), ("raise", 0, []), ("call_soon", 0, []), ("cancel", 1, [])]
        assert run(program) == ["turn 0", "0", "reported", "turn 1", "0.2"]

    def test_timers(self, run):
        program = [("call_later", 2, []), ("call_later", 0, []), ("call_at", 1, []), ("call_later", 0, [])]
        assert run(program) == ["turn 0", "0", "turn 1", "0.2", "0.1", "0.3", "turn 2", "turn 3", "0.0"]
