"""set_timeout, set_interval, set_immediate and the objects they return. The clock belongs to the test."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest

SECOND_NS = 1_000_000_000


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND_NS

    def nanoseconds(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[False, True], ids=["", "poll every turn"])
def loop(request: pytest.FixtureRequest, clock: Clock) -> Iterator[hoop.Loop]:
    loop = hoop.Loop(clock=clock.nanoseconds, poll_every_turn=request.param)
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: problems.append(context))
    yield loop
    loop.close()
    assert problems == []  # a callback that must not run is pytest.fail, and ends here when it does


@pytest.fixture
def pass_time(loop: hoop.Loop, clock: Clock) -> Callable[[float], None]:
    """`pass_time(seconds)`: the clock moves on, then the loop makes one turn."""

    def pass_time(seconds: float) -> None:
        clock.advance(seconds)
        loop.stop()
        loop.run_forever()

    return pass_time


class TestTimeout:
    def test_it_fires_once_after_its_delay_and_not_before(self, loop, pass_time):
        seen: list[tuple[int, str]] = []
        timer = loop.set_timeout(lambda *arguments: seen.append(arguments), 2.5, 1, "a")
        assert isinstance(timer, hoop.Timer) and isinstance(timer, asyncio.Handle)
        assert timer.active and timer.has_ref() and not timer.repeats
        assert (timer.delay, timer.when()) == (2.5, 1002.5)
        pass_time(2.499)
        assert seen == []
        pass_time(0.001)
        assert seen == [(1, "a")] and not timer.active and not timer.cancelled()
        pass_time(100)
        assert seen == [(1, "a")]

    @pytest.mark.parametrize("arguments", [(), (0,), (-1.5,), (-math.inf,), (-0.0,), (False,)])
    def test_no_delay_or_one_below_zero_means_now(self, loop, pass_time, arguments):
        seen: list[str] = []
        loop.set_timeout(lambda: seen.append("fired"), *arguments)
        assert seen == []
        pass_time(0)
        assert seen == ["fired"]

    @pytest.mark.parametrize("delay", [math.inf, 1e18, 10**30])
    def test_an_endless_delay_never_ends(self, loop, pass_time, delay):
        timer = loop.set_timeout(pytest.fail, delay)
        pass_time(9e9)
        assert timer.active and timer.when() == math.inf
        timer.close()
        assert not timer.active

    def test_equal_deadlines_fire_in_the_order_of_making_with_those_of_call_later(self, loop, pass_time):
        seen: list[int] = []
        loop.set_timeout(seen.append, 1, 0)
        loop.call_later(1, seen.append, 1)
        loop.set_interval(seen.append, 1, 2)
        loop.set_timeout(seen.append, 1, 3)
        pass_time(1)
        assert seen == [0, 1, 2, 3]

    @pytest.mark.parametrize("wrong", ["1", None, [], object()])
    @pytest.mark.parametrize("method", ["set_timeout", "set_interval"])
    def test_a_delay_that_is_no_number_is_refused(self, loop, method, wrong):
        with pytest.raises(TypeError, match=r"delay|period"):
            getattr(loop, method)(int, wrong)

    @pytest.mark.parametrize("method", ["set_timeout", "set_interval"])
    def test_not_a_number_is_refused_with_its_value(self, loop, method):
        with pytest.raises(ValueError, match="nan"):
            getattr(loop, method)(int, math.nan)

    @pytest.mark.parametrize("wrong", ["text", None, 1])
    @pytest.mark.parametrize("method", ["set_timeout", "set_interval", "set_immediate"])
    def test_what_cannot_be_called_is_refused_with_its_value(self, loop, method, wrong):
        with pytest.raises(TypeError, match=repr(wrong)):
            getattr(loop, method)(wrong, 1)

    @pytest.mark.parametrize("method", ["set_timeout", "set_interval"])
    def test_a_wrong_context_is_refused(self, loop, method):
        with pytest.raises(TypeError, match="context"):
            getattr(loop, method)(int, 1, context={})
        loop.run()  # nothing is left behind

    @pytest.mark.parametrize("method", ["set_timeout", "set_interval", "set_immediate"])
    def test_a_closed_loop_refuses(self, loop, method):
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            getattr(loop, method)(int, 1)

    def test_it_runs_in_the_context_it_was_made_in(self, loop, pass_time):
        variable = contextvars.ContextVar("variable", default="outside")
        seen: list[str] = []
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        loop.set_timeout(lambda: seen.append(variable.get()), 1, context=context)
        contextvars.copy_context().run(
            lambda: (variable.set("current"), loop.set_timeout(lambda: seen.append(variable.get()), 1))
        )
        pass_time(1)
        assert seen == ["given", "current"]

    def test_it_is_a_context_manager_that_closes(self, loop, pass_time):
        with loop.set_timeout(pytest.fail, 1) as timer:
            assert timer.active
        assert not timer.active and timer.cancelled()
        pass_time(1)

    def test_its_repr_tells_deadline_and_callback(self, loop):
        timer = loop.set_timeout(gc.collect, 1)
        assert repr(timer) == "<Timer when=1001.0 collect()>"
        timer.close()
        assert repr(timer) == "<Timer cancelled when=1001.0>"

    def test_the_callback_and_its_arguments_go_when_it_is_closed(self, loop):
        class Payload:
            pass

        payload = Payload()
        reference = weakref.ref(payload)
        timer = loop.set_interval(int, 1, payload)
        timer.close()
        timer.close()
        del payload
        assert reference() is None

    def test_a_timer_may_be_in_a_set_while_it_is_refreshed(self, loop, clock):
        timers = {loop.set_timeout(int, 1), loop.set_timeout(int, 1)}
        assert len(timers) == 2
        clock.advance(0.5)
        for timer in timers:
            assert timer.refresh() in timers


class TestInterval:
    def test_it_fires_on_its_grid_however_late_it_is_called(self, loop, clock, pass_time):
        seen: list[float] = []
        timer = loop.set_interval(lambda: seen.append(loop.time() - 1000), 1.0)
        assert timer.repeats and timer.active
        for step_s in (1.0, 1.25, 0.75, 1.5, 0.5):  # now 1, 2.25, 3, 4.5, 5
            pass_time(step_s)
        assert seen == [1, 2.25, 3, 4.5, 5]
        assert timer.when() == 1006

    def test_missed_ticks_are_skipped(self, loop, pass_time):
        seen: list[float] = []
        timer = loop.set_interval(lambda: seen.append(loop.time() - 1000), 1.0)
        pass_time(7.5)  # seven ticks, one call
        pass_time(0)
        assert seen == [7.5] and timer.when() == 1008
        pass_time(0.5)
        assert seen == [7.5, 8]

    def test_ticks_that_pass_during_the_callback_are_skipped(self, loop, clock, pass_time):
        seen: list[float] = []

        def tick() -> None:
            seen.append(loop.time() - 1000)
            clock.advance(2.25)

        timer = loop.set_interval(tick, 1.0)
        pass_time(1)
        assert timer.when() == 1004
        pass_time(0)
        assert seen == [1]
        pass_time(0.75)
        assert seen == [1, 4]

    def test_a_tick_exactly_at_the_end_of_the_callback_is_the_next_one_s(self, loop, clock, pass_time):
        timer = loop.set_interval(lambda: clock.advance(1), 1.0)
        pass_time(1)
        assert timer.when() == 1003  # the one at 1002 is now, and is not caught up with

    def test_a_callback_that_raises_is_reported_and_the_interval_goes_on(self, loop, pass_time):
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda loop, context: problems.append(context))

        def fail() -> None:
            raise ZeroDivisionError

        timer = loop.set_interval(fail, 1)
        pass_time(1)
        pass_time(1)
        assert [type(problem["exception"]) for problem in problems] == [ZeroDivisionError] * 2
        assert problems[0]["handle"] is timer and timer.active

    def test_it_goes_on_after_an_exception_that_leaves_the_loop(self, loop, pass_time):
        seen: list[float] = []

        def interrupt() -> None:
            seen.append(loop.time() - 1000)
            if len(seen) == 1:
                raise KeyboardInterrupt

        timer = loop.set_interval(interrupt, 1)
        with pytest.raises(KeyboardInterrupt):
            pass_time(1)
        assert timer.active
        pass_time(1)
        assert seen == [1, 2]

    def test_closing_it_in_its_own_callback_ends_it(self, loop, pass_time):
        seen: list[bool] = []

        def tick() -> None:
            seen.append(timer.active)
            timer.close()
            seen.append(timer.active)

        timer = loop.set_interval(tick, 1)
        pass_time(1)
        pass_time(1)
        assert seen == [True, False] and timer.cancelled()
        loop.run()

    def test_refreshing_it_in_its_own_callback_moves_the_grid(self, loop, clock, pass_time):
        seen: list[float] = []

        def tick() -> None:
            seen.append(loop.time() - 1000)
            timer.refresh()

        timer = loop.set_interval(tick, 1)
        pass_time(1.25)
        pass_time(0.75)
        assert seen == [1.25]
        pass_time(0.25)
        assert seen == [1.25, 2.25]

    def test_run_waits_for_it_until_it_is_closed(self):
        seen: list[int] = []
        loop = hoop.Loop()  # with a clock that passes by itself

        def tick() -> None:
            seen.append(len(seen))
            if len(seen) == 3:
                timer.close()

        timer = loop.set_interval(tick, 0.001)
        loop.run()
        loop.close()
        assert seen == [0, 1, 2]

    @pytest.mark.parametrize("wrong", [0, -1, -math.inf, 0.0])
    def test_a_period_that_is_none_is_refused_with_its_value(self, loop, wrong):
        with pytest.raises(ValueError, match=str(wrong)):
            loop.set_interval(int, wrong)

    def test_a_missing_period_is_refused(self, loop):
        with pytest.raises(TypeError, match="'period'"):
            loop.set_interval(int)

    def test_the_shortest_period_is_a_nanosecond(self, loop, clock, pass_time):
        timer = loop.set_interval(int, 1e-12)
        pass_time(1e-9)
        assert timer.active and timer.when() * 1e9 - clock.now_ns == pytest.approx(1, abs=128)  # a double's rounding

    def test_an_endless_period_never_ends(self, loop, pass_time):
        timer = loop.set_interval(pytest.fail, math.inf)
        pass_time(9e9)
        assert timer.active


class TestRefresh:
    def test_it_puts_the_call_off(self, loop, clock, pass_time):
        seen: list[str] = []
        timer = loop.set_timeout(seen.append, 1, "fired")
        for _ in range(5):
            pass_time(0.75)
            assert timer.refresh() is timer
        assert seen == []
        pass_time(1)
        assert seen == ["fired"]

    def test_it_revives_a_timeout_that_has_fired(self, loop, pass_time):
        seen: list[str] = []
        timer = loop.set_timeout(seen.append, 1, "fired")
        pass_time(1)
        assert not timer.active
        timer.refresh()
        assert timer.active and timer.when() == 1002
        pass_time(1)
        assert seen == ["fired"] * 2

    def test_a_timeout_may_revive_itself(self, loop, pass_time):
        seen: list[bool] = []

        def fired() -> None:
            seen.append(timer.active)
            if len(seen) < 3:
                timer.refresh()

        timer = loop.set_timeout(fired, 1)
        for _ in range(5):
            pass_time(1)
        assert seen == [False] * 3

    def test_one_that_is_due_in_this_turn_is_put_off_too(self, loop, pass_time):
        seen: list[str] = []
        loop.set_timeout(lambda: late.refresh(), 1)
        late = loop.set_timeout(seen.append, 1, "late")
        pass_time(1)
        assert seen == []
        pass_time(0.999)
        assert seen == []
        pass_time(0.001)
        assert seen == ["late"]

    def test_one_that_was_due_when_the_loop_was_interrupted_fires_once(self, loop, pass_time):
        """It still stands in the queue of the interrupted turn when its new deadline comes."""
        seen: list[str] = []

        def interrupt() -> None:
            raise KeyboardInterrupt

        loop.set_timeout(interrupt, 1)
        late = loop.set_timeout(seen.append, 1, "late")
        with pytest.raises(KeyboardInterrupt):
            pass_time(1)
        late.refresh()
        pass_time(1)
        pass_time(1)
        assert seen == ["late"]

    def test_a_closed_timer_refuses(self, loop):
        timer = loop.set_timeout(pytest.fail, 1)
        timer.close()
        with pytest.raises(RuntimeError, match="<Timer cancelled"):
            timer.refresh()

    def test_a_timer_of_a_closed_loop_refuses(self, loop):
        timer = loop.set_interval(pytest.fail, 1)
        loop.close()
        assert not timer.active
        with pytest.raises(RuntimeError, match="closed"):
            timer.refresh()
        timer.close()

    def test_it_keeps_what_unref_said(self, loop, pass_time):
        timer = loop.set_timeout(int, 1).unref()
        assert not timer.refresh().has_ref()
        loop.run()
        pass_time(1)
        timer.refresh()
        loop.run()
        assert timer.active


class TestImmediate:
    def test_it_runs_at_the_end_of_the_turn(self, loop, pass_time):
        seen: list[str] = []
        immediate = loop.set_immediate(seen.append, "immediate")
        assert isinstance(immediate, hoop.Immediate) and isinstance(immediate, asyncio.Handle)
        assert immediate.active and immediate.has_ref()
        loop.call_soon(seen.append, "ready")
        pass_time(0)
        assert seen == ["ready", "immediate"] and not immediate.active

    def test_it_is_not_active_in_its_own_callback(self, loop, pass_time):
        seen: list[bool] = []
        immediate = loop.set_immediate(lambda: seen.append(immediate.active))
        pass_time(0)
        assert seen == [False]

    def test_closing_it_keeps_it_from_running(self, loop, pass_time):
        immediate = loop.set_immediate(pytest.fail)
        immediate.close()
        immediate.close()
        assert not immediate.active and immediate.cancelled()
        with loop.set_immediate(pytest.fail):
            pass
        loop.run()
        pass_time(0)

    def test_an_unreferenced_one_is_not_waited_for(self, loop):
        seen: list[str] = []
        immediate = loop.set_immediate(seen.append, "unreferenced")
        assert immediate.unref() is immediate and not immediate.has_ref()
        loop.run()
        assert seen == [] and immediate.active
        loop.set_immediate(seen.append, "referenced")
        loop.run()
        assert seen == ["unreferenced", "referenced"]
        assert loop.set_immediate(seen.append, "again").unref().ref().has_ref()
        loop.run()
        assert seen == ["unreferenced", "referenced", "again"]


@pytest.mark.parametrize("kind", ["set_timeout", "set_interval", "set_immediate"])
def test_an_abandoned_loop_is_collected_with_its_timers(kind, recwarn):
    class Payload:
        pass

    loop = hoop.Loop()
    payload = Payload()
    reference = weakref.ref(payload)
    payload.timer = getattr(loop, kind)(int, 1000.0, payload, loop)
    del loop, payload
    gc.collect()
    assert reference() is None


def test_a_timer_that_no_loop_has_made(loop):
    with loop.set_timeout(int) as timer:
        made = type(timer)()
    assert not made.active
    made.close()
    with pytest.raises(RuntimeError, match="set_timeout"):
        made.refresh()


def test_debug_mode_tells_where_a_timer_was_made(loop, pass_time):
    loop.set_debug(True)
    loop.slow_callback_duration = math.inf
    timer = loop.set_interval(int, 1)
    assert "created at" in repr(timer)
    pass_time(1)
    assert timer.active
