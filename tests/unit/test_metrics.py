"""loop.metrics(): what is counted, by a clock that belongs to the test, so that times are exact."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import hoop
import pytest
from hoop.stats import Durations, Metrics, Value
from stepping import one_turn

MILLISECOND_NS = 1_000_000


class Clock:
    """Nanoseconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def nanoseconds(self) -> int:
        return self.now_ns

    def advance_ms(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * MILLISECOND_NS


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Any]:
    loop = hoop.Loop(clock=clock.nanoseconds, poll_every_turn=True)
    yield loop
    loop.close()


def test_a_new_loop_has_done_nothing(loop):
    metrics = loop.metrics()
    nothing = Durations(count=0, mean_ns=0, p50_ns=0, p99_ns=0, max_ns=0)
    assert metrics == Metrics(
        turns=0, callbacks=0, events=0, polls=0, sleeps=0, busy_ns=0, idle_ns=0, lag=nothing, timer_lateness=nothing,
        ready=0, timers=0, unreferenced_timers=0, jobs_in_flight=0, watchers={}, pool=None,
    )  # fmt: skip
    assert metrics.utilization == 0.0


def test_it_cannot_be_changed(loop):
    with pytest.raises(dataclasses.FrozenInstanceError):
        loop.metrics().turns = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        del loop.metrics().turns


def test_it_is_a_dataclass(loop):
    metrics = loop.metrics()
    assert dataclasses.is_dataclass(metrics) and not dataclasses.is_dataclass(Value)
    assert [field.name for field in dataclasses.fields(Durations)] == ["count", "mean_ns", "p50_ns", "p99_ns", "max_ns"]
    assert dataclasses.asdict(metrics)["lag"] == dataclasses.asdict(metrics.lag)
    assert dataclasses.replace(metrics, turns=5).turns == 5 and metrics.turns == 0
    assert dataclasses.replace(metrics, turns=5) != metrics == dataclasses.replace(metrics)


def test_it_is_a_value(loop):
    lag = loop.metrics().lag
    assert pickle.loads(pickle.dumps(lag)) == copy.deepcopy(lag) == lag != (0, 0, 0, 0, 0)
    assert {lag: 1}[copy.copy(lag)] == 1
    assert repr(lag) == "Durations(count=0, mean_ns=0, p50_ns=0, p99_ns=0, max_ns=0)"
    for wrong in ({"count": 1}, {**vars(lag), "more": 1}):
        with pytest.raises(TypeError, match="Durations takes the keywords count, mean_ns"):
            Durations(**wrong)
    with pytest.raises(TypeError):
        Durations(1, 2, 3, 4, 5)


def test_callbacks_of_every_kind_are_counted(loop):
    for method in ("call_soon", "next_tick", "queue_microtask", "set_immediate", "set_timeout", "call_soon_threadsafe"):
        getattr(loop, method)(int)
    loop.call_soon(int).cancel()
    one_turn(loop)
    assert loop.metrics().callbacks == 6
    assert loop.metrics().turns == loop.metrics().polls == 1


def test_events_are_counted(loop):
    left, right = socket.socketpair()
    left.setblocking(False)
    loop.add_reader(left, int)
    right.send(b"x")
    one_turn(loop)
    one_turn(loop)
    assert loop.metrics().events == 2
    loop.remove_reader(left)
    left.close()
    right.close()


def test_sleeps_are_counted_and_are_idle():
    loop = hoop.Loop()
    loop.call_later(0.05, int)  # far enough: the process may lose the processor before the loop looks at the clock
    loop.run()
    metrics = loop.metrics()
    assert metrics.sleeps >= 1 and metrics.idle_ns > 0 and metrics.busy_ns > 0
    assert 0.0 < metrics.utilization < 1.0
    assert metrics.timer_lateness.count == 1
    loop.close()


def test_time_in_callbacks_is_busy(loop, clock):
    for milliseconds in (5, 1, 3):
        loop.call_soon(clock.advance_ms, milliseconds)
        one_turn(loop)
    metrics = loop.metrics()
    assert metrics.busy_ns == 9 * MILLISECOND_NS and metrics.idle_ns == 0
    assert metrics.utilization == 1.0


def test_what_became_ready_during_a_long_callback_waited_that_long(loop, clock):
    loop.call_soon(clock.advance_ms, 40)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    lag = loop.metrics().lag
    assert (lag.count, lag.max_ns) == (2, 40 * MILLISECOND_NS)
    assert lag.p50_ns == 0 and lag.p99_ns == 40 * MILLISECOND_NS


def test_time_between_two_runs_is_no_lag_and_not_busy(loop, clock):
    one_turn(loop)
    clock.advance_ms(1000)
    one_turn(loop)
    metrics = loop.metrics()
    assert (metrics.lag.max_ns, metrics.busy_ns, metrics.idle_ns) == (0, 0, 0)


def test_lateness_of_timers(loop, clock):
    loop.call_later(0.010, int)
    loop.call_later(0.012, int)
    loop.call_soon(clock.advance_ms, 15)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    lateness = loop.metrics().timer_lateness
    assert (lateness.count, lateness.max_ns) == (1, 5 * MILLISECOND_NS)  # one sample a turn, of the latest one


def test_a_deadline_long_past_is_not_late_since_then(loop, clock):
    loop.call_at(loop.time() - 500, int)
    one_turn(loop)
    assert loop.metrics().timer_lateness.max_ns == 0


def test_what_is_there_is_counted_by_kind(loop):
    left, right = socket.socketpair()
    left.setblocking(False)
    loop.add_reader(left, int)
    loop.call_soon(int)
    loop.call_later(5, int)
    loop.call_later(5, int).unref()
    metrics = loop.metrics()
    assert (metrics.ready, metrics.timers, metrics.unreferenced_timers) == (1, 2, 1)
    assert metrics.watchers == {"FdWatcher": 1}
    loop.remove_reader(left)
    assert loop.metrics().watchers == {}
    left.close()
    right.close()


def test_busy_time_is_complete_inside_of_a_callback(loop, clock):
    seen: list[int] = []
    loop.call_soon(clock.advance_ms, 7)
    loop.call_soon(lambda: seen.append(loop.metrics().busy_ns))
    one_turn(loop)
    assert seen == [7 * MILLISECOND_NS]


def test_reset_begins_anew_also_while_running(loop, clock):
    def reset() -> None:
        clock.advance_ms(3)
        loop.reset_metrics()
        clock.advance_ms(4)

    loop.call_soon(reset)
    one_turn(loop)
    metrics = loop.metrics()
    assert (metrics.turns, metrics.lag.count, metrics.busy_ns) == (0, 0, 4 * MILLISECOND_NS)


def test_figures_of_the_pool_are_there_once_it_is(loop):
    assert loop.metrics().pool is None
    size = loop.pool.size
    stats = loop.metrics().pool
    assert stats is not None and stats.size == size


def test_a_closed_loop_still_tells(loop):
    one_turn(loop)
    loop.close()
    assert loop.metrics().turns == 1
