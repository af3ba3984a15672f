"""Timers: never early, in the order of their deadlines, gone at once when cancelled (trap 28).

asyncio leaves the order of equal deadlines undefined and accepts NaN; hoop orders by (deadline, call) and refuses NaN.
Those two differences are marked by the name of the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import fractions
import gc
import inspect
import math
import random
import sys
import weakref

import pytest
from stepping import one_turn

NAN = float("nan")
INF = float("inf")


class Payload:
    """Something a weak reference can point at."""


# Never early.


def test_trap_28_hundreds_of_concurrent_timers_are_never_early(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rng = random.Random(28)
        early: list[float] = []
        all_fired = loop.create_future()
        left = 400

        def fire(box: list[asyncio.TimerHandle]) -> None:
            nonlocal left
            now, when = loop.time(), box[0].when()
            if now < when:
                early.append(when - now)
            left -= 1
            if not left:
                all_fired.set_result(None)

        for _ in range(left):
            box: list[asyncio.TimerHandle] = []
            box.append(loop.call_later(rng.uniform(0, 0.05), fire, box))
        await all_fired
        assert early == []

    run(main())


@pytest.mark.parametrize("delay_ms", [0.05, 0.3, 0.999, 1.0, 1.001, 2.3, 3.7])
def test_trap_28_one_timer_on_an_idle_loop_is_never_early(run, delay_ms):
    """The poll's own time-out must not be rounded down: one timer at a time, so that each one really waits."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(12):
            fired = loop.create_future()
            handle = loop.call_later(delay_ms / 1000, lambda fired=fired: fired.set_result(loop.time()))
            assert await fired >= handle.when()

    run(main())


def test_random_delays_on_an_idle_loop_are_never_early(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rng = random.Random(1)
        for _ in range(60):
            fired = loop.create_future()
            when = loop.time() + rng.uniform(0, 0.004)
            loop.call_at(when, lambda fired=fired: fired.set_result(loop.time()))
            assert await fired >= when

    run(main())


def test_sleep_is_never_short(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for delay in (0.0001, 0.0011, 0.0023, 0.0049):
            started = loop.time()
            await asyncio.sleep(delay)
            assert loop.time() - started >= delay

    run(main())


# Order.


def test_trap_28_order_holds_below_a_millisecond(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        base = loop.time() + 0.01
        numbers = list(range(300))
        random.Random(3).shuffle(numbers)
        seen: list[int] = []
        done = loop.create_future()
        for number in numbers:
            loop.call_at(base + number * 1e-6, seen.append, number)
        loop.call_at(base + 0.001, done.set_result, None)
        await done
        assert seen == list(range(300))

    run(main())


def test_equal_deadlines_run_in_the_order_of_the_calls(loop, loop_name):
    when = loop.time() - 1
    seen: list[int] = []
    for number in range(200):
        loop.call_at(when, seen.append, number)
    one_turn(loop)
    if loop_name == "asyncio":
        # Its heap compares deadlines only: "it is undefined which will be called first".
        assert sorted(seen) == list(range(200))
    else:
        assert seen == list(range(200))


def test_equal_deadlines_keep_their_order_when_some_are_cancelled(loop, loop_name):
    when = loop.time() - 1
    seen: list[int] = []
    handles = [loop.call_at(when, seen.append, number) for number in range(200)]
    for number in random.Random(4).sample(range(200), 120):
        handles[number].cancel()
    one_turn(loop)
    expected = [number for number in range(200) if not handles[number].cancelled()]
    assert (sorted(seen) if loop_name == "asyncio" else seen) == expected and len(expected) == 80


def test_overdue_timers_run_in_the_order_of_their_deadlines(loop):
    now = loop.time()
    seen: list[int] = []
    for age in (1, 3, 2, 5, 4):
        loop.call_at(now - age, seen.append, age)
    one_turn(loop)
    assert seen == [5, 4, 3, 2, 1]


def test_deadlines_before_the_clock_began_keep_their_order(loop):
    seen: list[int] = []
    for number in (3, 1, 5, 4, 2):
        loop.call_at(-number, seen.append, number)
    one_turn(loop)
    assert seen == [5, 4, 3, 2, 1]


def test_ready_callbacks_run_before_due_timers_of_the_same_turn(loop):
    seen: list[str] = []
    loop.call_at(loop.time() - 1, seen.append, "timer")
    loop.call_soon(seen.append, "ready")
    one_turn(loop)
    assert seen == ["ready", "timer"]


def test_an_earlier_timer_added_while_a_later_one_is_pending_comes_first(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        far = loop.call_later(3600, seen.append, "far")
        near = loop.create_future()

        def later() -> None:
            seen.append("middle")
            loop.call_later(0.001, near.set_result, None)

        loop.call_later(0.002, later)
        await near
        far.cancel()
        assert seen == ["middle"]

    run(main())


# Now, the past, and for ever.


def test_call_at_in_the_past_runs_in_the_next_turn(loop):
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_at(loop.time() - 10, seen.append, "past")
        loop.call_at(-1, seen.append, "long past")

    loop.call_soon(first)
    one_turn(loop)
    assert seen == ["first"]
    one_turn(loop)
    assert seen == ["first", "long past", "past"]


def test_a_timer_that_a_timer_sets_runs_in_the_next_turn(loop):
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_at(loop.time() - 10, seen.append, "second")
        loop.call_later(0, seen.append, "third")

    loop.call_at(loop.time() - 1, first)
    one_turn(loop)
    assert seen == ["first"]
    one_turn(loop)
    assert seen == ["first", "second", "third"]


@pytest.mark.parametrize("delay", [0, 0.0, -0.0, -1, -1e-9, -3600.5, -1e300, -INF, False])
def test_trap_28_zero_and_negative_delays_mean_now(loop, delay):
    seen: list[int] = []
    handle = loop.call_later(delay, seen.append, 1)
    assert isinstance(handle, asyncio.TimerHandle)
    loop.call_soon(seen.append, 0)
    one_turn(loop)
    assert seen == [0, 1]


@pytest.mark.parametrize("when", [0, 0.0, -1, -1e300, -INF])
def test_call_at_long_ago_means_now(loop, when):
    seen: list[int] = []
    loop.call_at(when, seen.append, 1)
    one_turn(loop)
    assert seen == [1]


def test_trap_28_call_later_zero_is_a_timer_handle(loop):
    handle = loop.call_later(0, print)
    assert isinstance(handle, asyncio.TimerHandle) and isinstance(handle, asyncio.Handle)
    handle.cancel()


@pytest.mark.parametrize("delay", [INF, 1e10, 1e18, 1e300, sys.float_info.max, 10**9, 2**63, 2**64, 10**30])
def test_trap_28_infinite_and_enormous_delays_do_not_fire(run, delay):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        never: list[int] = []
        later = loop.call_later(delay, never.append, 1)
        at = loop.call_at(loop.time() + delay, never.append, 2)
        for _ in range(3):
            await asyncio.sleep(0.001)
        assert never == []
        assert later.when() >= delay and at.when() >= delay
        later.cancel()
        at.cancel()

    run(main())


def test_an_infinite_timer_alone_lets_the_loop_sleep_and_close(loop):
    loop.call_later(INF, print, "never")
    loop.call_at(INF, print, "never")
    one_turn(loop)
    loop.close()


def test_trap_28_sleep_for_ever_can_be_cancelled(run):
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.sleep(INF))
        await asyncio.sleep(0.001)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_wait_for_with_an_infinite_timeout(run):
    async def main() -> str:
        return await asyncio.wait_for(asyncio.sleep(0.001, "done"), INF)

    assert run(main()) == "done"


def test_trap_28_nan_is_refused(loop, loop_name):
    if loop_name == "asyncio":
        # It puts NaN on its heap, where no comparison with it holds and other timers are delayed.
        assert math.isnan(loop.call_later(NAN, print).when())
        return
    with pytest.raises(ValueError):
        loop.call_later(NAN, print)
    with pytest.raises(ValueError):
        loop.call_at(NAN, print)
    with pytest.raises(ValueError):
        loop.run_until_complete(asyncio.sleep(NAN))
    one_turn(loop)


# Wrong and unusual arguments.


@pytest.mark.parametrize("wrong", [None, "1", b"1", [], object(), 1j], ids=repr)
def test_wrong_types_are_type_errors(loop, loop_name, wrong):
    if loop_name != "asyncio" or wrong != 1j:  # It adds the delay to the time, and a complex number can be added.
        with pytest.raises(TypeError):
            loop.call_later(wrong, print)
    if loop_name == "asyncio" and wrong is not None:
        return  # call_at() there takes anything, and fails at the next comparison on the heap.
    with pytest.raises(TypeError):
        loop.call_at(wrong, print)


def test_an_integer_too_large_for_a_float_overflows(loop):
    with pytest.raises(OverflowError):
        loop.call_later(10**400, print)


def test_integers_booleans_and_fractions_are_delays(loop):
    seen: list[str] = []
    loop.call_later(fractions.Fraction(-1, 3), seen.append, "fraction")
    loop.call_later(False, seen.append, "bool")
    handle = loop.call_later(True, print)
    assert handle.when() > loop.time()
    handle.cancel()
    one_turn(loop)
    assert sorted(seen) == ["bool", "fraction"]


def test_callbacks_of_timers_get_their_arguments(loop):
    got: list[tuple[object, ...]] = []
    given = tuple(object() for _ in range(20))
    loop.call_at(loop.time() - 1, lambda *args: got.append(args), *given)
    loop.call_later(0, lambda *args: got.append(args))
    one_turn(loop)
    assert got == [given, ()]


def test_an_exception_in_a_timer_is_reported_with_its_handle(loop):
    contexts: list[dict[str, object]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    seen: list[int] = []
    handle = loop.call_at(loop.time() - 2, lambda: 1 / 0)
    loop.call_at(loop.time() - 1, seen.append, 1)
    one_turn(loop)
    [context] = contexts
    assert set(context) == {"message", "exception", "handle"}
    assert context["handle"] is handle and type(context["exception"]) is ZeroDivisionError
    assert str(context["message"]).startswith("Exception in callback ")
    assert seen == [1]


# TimerHandle.


def test_when_is_the_absolute_deadline(loop):
    before = loop.time()
    handle = loop.call_later(12.5, print)
    after = loop.time()
    assert before + 12.5 <= handle.when() <= after + 12.5
    exact = before + 7.123456789
    assert loop.call_at(exact, print).when() == exact
    assert loop.call_at(INF, print).when() == INF
    assert loop.call_at(10**12, print).when() == 10**12


def test_when_survives_firing_and_cancelling(loop):
    when = loop.time() - 1
    seen: list[int] = []
    fired, cancelled = loop.call_at(when, seen.append, 1), loop.call_at(when, seen.append, 2)
    cancelled.cancel()
    one_turn(loop)
    assert seen == [1]
    assert fired.when() == cancelled.when() == when


def test_comparisons_follow_the_deadlines(loop):
    early, late = loop.call_at(1e9, print), loop.call_at(2e9, print)
    same, other = loop.call_at(1e9, print), loop.call_at(1e9, repr)
    assert early < late and early <= late and late > early and late >= early
    assert not early > late and not early >= late and not late < early and not late <= early
    assert early != late
    assert early == same and early <= same and early >= same
    assert early != other
    assert sorted([late, early]) == [early, late]
    for handle in (early, late, same, other):
        handle.cancel()


def test_comparisons_with_other_types(loop):
    handle = loop.call_at(1e9, print)
    assert handle != 1e9 and not handle == 1e9  # noqa: SIM201  (each operator)
    for compare in (lambda: handle < 1e9, lambda: handle <= 1e9, lambda: handle > 1e9, lambda: handle >= 1e9):
        with pytest.raises(TypeError):
            compare()
    handle.cancel()


def test_a_cancelled_handle_differs_from_a_live_one(loop):
    one, two = loop.call_at(1e9, print), loop.call_at(1e9, print)
    assert one == two
    two.cancel()
    assert one != two
    one.cancel()


def test_hash_is_that_of_the_deadline(loop):
    one, two = loop.call_at(1e9 + 0.5, print), loop.call_at(1e9 + 0.5, print)
    assert hash(one) == hash(two) == hash(1e9 + 0.5)
    assert len({one, two}) == 1
    assert weakref.ref(one)() is one


def test_repr_shows_the_deadline(loop):
    handle = loop.call_at(123456.75, print)
    assert "TimerHandle" in repr(handle) and "when=123456.75" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle) and "when=123456.75" in repr(handle)


# Cancelling.


def test_a_cancelled_timer_does_not_fire(loop):
    when = loop.time() - 1
    seen: list[int] = []
    handles = [loop.call_at(when, seen.append, number) for number in range(10)]
    for handle in handles[::2]:
        handle.cancel()
        handle.cancel()
        assert handle.cancelled()
    one_turn(loop)
    assert sorted(seen) == [1, 3, 5, 7, 9]


def test_a_due_timer_can_be_cancelled_by_another_one(loop):
    now = loop.time()
    seen: list[str] = []
    handles: list[asyncio.TimerHandle] = []

    def first() -> None:
        seen.append("first")
        handles[0].cancel()

    loop.call_at(now - 3, first)
    handles.append(loop.call_at(now - 2, seen.append, "cancelled"))
    loop.call_at(now - 1, seen.append, "third")
    one_turn(loop)
    assert seen == ["first", "third"]


def test_a_due_timer_can_be_cancelled_by_a_ready_callback(loop):
    seen: list[int] = []
    handle = loop.call_at(loop.time() - 1, seen.append, 1)
    loop.call_soon(handle.cancel)
    one_turn(loop)
    one_turn(loop)
    assert seen == []


def test_a_timer_can_cancel_itself_and_all_others_while_it_runs(loop):
    now = loop.time()
    seen: list[int] = []

    def cancel_all() -> None:
        seen.append(1)
        for handle in handles:
            handle.cancel()

    handles = [loop.call_at(now - 50 + number, cancel_all) for number in range(50)]
    one_turn(loop)
    one_turn(loop)
    assert seen == [1]


def test_cancelling_in_random_order_leaves_the_others_intact(loop):
    rng = random.Random(5)
    now = loop.time()
    seen: list[int] = []
    ages = [number / 1000 for number in rng.sample(range(1, 100_000), 2000)]
    handles = {age: loop.call_at(now - age, seen.append, age) for age in ages}
    for age in rng.sample(ages, 1500):
        handles.pop(age).cancel()
    one_turn(loop)
    assert seen == sorted(handles, reverse=True)


def test_cancel_after_firing_and_after_close_is_harmless(loop):
    seen: list[int] = []
    fired = loop.call_at(loop.time() - 1, seen.append, 1)
    pending = loop.call_later(3600, seen.append, 2)
    one_turn(loop)
    fired.cancel()
    loop.close()
    pending.cancel()
    pending.cancel()
    assert seen == [1] and pending.cancelled()


def test_cancelling_frees_the_arguments_at_once(loop):
    refs = []
    for _ in range(100):
        payload = Payload()
        refs.append(weakref.ref(payload))
        handle = loop.call_later(3600, lambda argument: None, payload)
        del payload
        assert refs[-1]() is not None
        handle.cancel()
    assert all(ref() is None for ref in refs)


def test_a_hundred_thousand_cancelled_timers_hold_no_memory(loop, loop_name):
    refs: list[weakref.ref[asyncio.TimerHandle]] = []
    arguments: list[weakref.ref[Payload]] = []
    for number in range(100_000):
        payload = Payload()
        handle = loop.call_later(3600 + number % 1000, print, payload)
        handle.cancel()
        if number % 1000 == 0:
            refs.append(weakref.ref(handle))
            arguments.append(weakref.ref(payload))
    del handle, payload
    assert all(ref() is None for ref in arguments)
    alive = sum(ref() is not None for ref in refs)
    if loop_name == "asyncio":
        assert alive > 0  # It sweeps cancelled handles in a later turn.
    else:
        assert alive == 0


def test_closing_the_loop_frees_pending_timers(loop):
    payload = Payload()
    ref = weakref.ref(payload)
    loop.call_later(3600, print, payload)
    del payload
    loop.close()
    gc.collect()
    assert ref() is None


def test_a_fired_timer_is_forgotten(loop):
    payload = Payload()
    ref = weakref.ref(payload)
    loop.call_later(0, lambda argument: None, payload)
    del payload
    one_turn(loop)
    one_turn(loop)
    assert ref() is None


# The clock.


def test_time_is_a_float_that_never_goes_back(loop):
    readings = [loop.time() for _ in range(10_000)]
    assert all(type(reading) is float for reading in readings)
    assert readings == sorted(readings)


def test_time_advances_inside_one_callback(loop):
    """Not cached for a turn: a callback that busy-waits for a moment must see it pass."""
    passed: list[bool] = []

    def wait() -> None:
        started = loop.time()
        while loop.time() == started:
            pass
        passed.append(True)

    loop.call_soon(wait)
    one_turn(loop)
    assert passed == [True]


def test_many_timeouts_that_do_not_expire(run):
    async def main() -> int:
        async def quick(number: int) -> int:
            async with asyncio.timeout(3600):
                await asyncio.sleep(0)
                return number

        return sum(await asyncio.gather(*(quick(number) for number in range(1000))))

    assert run(main()) == 499_500


def test_timeouts_that_expire(run):
    async def main() -> None:
        for delay in (-1, 0, 0.001):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(delay):
                    await asyncio.sleep(INF)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.001)

    run(main())


# How it may be written.


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_delay_and_callback_may_be_keywords(run, method):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        schedule = getattr(loop, method)
        first = "delay" if method == "call_later" else "when"
        fired = [asyncio.Event() for _ in range(2)]
        schedule(**{first: 0}, callback=fired[0].set)
        schedule(callback=fired[1].set, context=contextvars.copy_context(), **{first: 0.0})
        for event in fired:
            await event.wait()
        for arguments, keywords in (
            ((0, print), {first: 0}),
            ((0,), {"callback": print, "other": 1}),
            ((), {"callback": print}),
            ((), {first: 0}),
        ):
            with pytest.raises(TypeError):
                schedule(*arguments, **keywords)
        parameters = inspect.signature(schedule).parameters
        assert list(parameters) == [first, "callback", "args", "context"]
        assert parameters[first].kind is parameters["callback"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD

    run(main())
