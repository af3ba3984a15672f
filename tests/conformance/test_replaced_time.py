"""Timers ask loop.time(), also when a program has replaced it: test clocks, in the forms in which users write them.

Reports: pytest-asyncio#113 (a loop whose clock a test moves), looptime, freezegun (which sets `time` of the loop's
class).
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Any
from unittest import mock

import pytest
from conformance.peers import MOST_IDLE_TURNS, turn_counter, turns

FAR_S = 3600.0


def loop_class(name: str) -> type[Any]:
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    import hoop

    return hoop.Loop


def clocked_class(name: str) -> type[Any]:
    """pytest-asyncio#113: time passes as it does, and by what advance() adds."""

    class ClockedLoop(loop_class(name)):
        def __init__(self) -> None:
            super().__init__()
            self.offset = 0.0

        def time(self) -> float:
            return super().time() + self.offset

        def advance(self, seconds: float) -> None:
            self.offset += seconds

    return ClockedLoop


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


@pytest.fixture
def clocked(loop_name):
    loop = clocked_class(loop_name)()
    yield loop
    loop.close()


@pytest.fixture
def standing(loop):
    """(a loop, the clock that was set as its attribute)"""
    clock = Clock(100.0)
    loop.time = clock
    return loop, clock


class TestAClassOfOnesOwn:
    def test_a_timer_is_due_when_the_clock_was_moved(self, clocked):
        fired: list[str] = []

        async def main() -> None:
            clocked.call_later(FAR_S, fired.append, "an hour")
            clocked.call_at(clocked.time() + 2 * FAR_S, fired.append, "two hours")
            await turns()
            assert fired == []
            clocked.advance(FAR_S)
            await turns()
            assert fired == ["an hour"]
            clocked.advance(FAR_S)
            await turns()

        clocked.run_until_complete(main())
        assert fired == ["an hour", "two hours"]

    def test_what_asyncio_builds_on_timers(self, clocked):
        async def main() -> list[object]:
            sleeping = asyncio.ensure_future(asyncio.sleep(FAR_S, "slept"))
            waiting = asyncio.ensure_future(asyncio.wait_for(clocked.create_future(), FAR_S))
            await turns()
            assert not sleeping.done() and not waiting.done()
            clocked.advance(FAR_S + 1)
            await turns()
            results = await asyncio.gather(sleeping, waiting, return_exceptions=True)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(FAR_S):
                    clocked.advance(FAR_S + 1)
                    await clocked.create_future()
            return results

        slept, error = clocked.run_until_complete(main())
        assert slept == "slept"
        assert isinstance(error, TimeoutError)

    def test_real_time_passes_too(self, clocked):
        """Its timers need no help: the loop sleeps for as long as the clock says."""

        async def main() -> float:
            begin = clocked.time()
            clocked.advance(FAR_S)
            await asyncio.sleep(0.02)
            return clocked.time() - begin

        assert clocked.run_until_complete(main()) >= FAR_S + 0.02

    def test_two_at_once(self, loop_name):
        """Each loop has its own clock."""
        one, other = clocked_class(loop_name)(), clocked_class(loop_name)()
        fired: list[str] = []
        one.call_later(FAR_S, fired.append, "one")
        other.call_later(FAR_S, fired.append, "other")
        other.advance(FAR_S)
        for loop in (one, other):
            loop.run_until_complete(turns())
            loop.close()
        assert fired == ["other"]


class TestAnAttribute:
    def test_timers_follow_it(self, standing):
        loop, clock = standing
        fired: list[float] = []
        for delay in (3.0, 1.0, 2.0):
            loop.call_later(delay, fired.append, delay)

        async def main() -> None:
            await turns()
            assert fired == []
            clock.now += 2
            await turns()
            assert fired == [1.0, 2.0]
            clock.now += 1
            await turns()

        loop.run_until_complete(main())
        assert fired == [1.0, 2.0, 3.0]

    def test_when_is_what_the_clock_said(self, standing):
        loop, clock = standing
        for now in (0, 0.1, 1 / 3, 12345.678, 1.7e9 + 0.1):
            clock.now = now
            assert loop.call_later(0.2, print).when() == now + 0.2

    @pytest.mark.parametrize(("now", "delay", "later"), [(0.1, 0.2, 0.3), (0.7, 0.1, 0.8), (1.1, 2.2, 3.3)])
    def test_sums_of_floats(self, standing, now, delay, later):
        """0.1 + 0.2 is more than 0.3: what is due within the clock's resolution is due."""
        loop, clock = standing
        clock.now = now
        fired: list[int] = []
        loop.call_later(delay, fired.append, 1)
        clock.now = later
        loop.run_until_complete(turns())
        assert fired == [1]

    def test_never_early(self, standing):
        loop, clock = standing
        fired: list[int] = []
        loop.call_later(1.0, fired.append, 1)
        clock.now += 0.999999
        loop.run_until_complete(turns())
        assert fired == []

    def test_taken_away_again(self, standing):
        loop, _ = standing
        loop.call_later(0.0, print)
        del loop.time
        assert abs(loop.time() - time.monotonic()) < 60
        loop.run_until_complete(asyncio.sleep(0.001))

    def test_set_and_taken_away_while_the_loop_runs(self, loop):
        """unittest.mock.patch.object inside of a test that is a coroutine."""
        fired: list[str] = []

        async def main() -> None:
            loop.call_later(FAR_S, fired.append, "before")
            with mock.patch.object(loop, "time", return_value=loop.time() + 2 * FAR_S):
                await turns()
                assert fired == ["before"]
                loop.call_later(1.0, fired.append, "inside")
                await turns()
                assert fired == ["before"]
            loop.call_later(0, fired.append, "after")
            await turns()

        loop.run_until_complete(main())
        assert fired == ["before", "after"]

    def test_whole_numbers(self, standing):
        loop, clock = standing
        clock.now = 5
        fired: list[int] = []
        loop.call_at(6, fired.append, 6)
        clock.now = 6
        loop.run_until_complete(turns())
        assert fired == [6]

    def test_a_clock_that_goes_back(self, standing):
        loop, clock = standing
        fired: list[int] = []

        async def main() -> None:
            loop.call_later(1.0, fired.append, 1)
            clock.now -= 50
            await turns()
            assert fired == []
            clock.now += 51
            await turns()

        loop.run_until_complete(main())
        assert fired == [1]

    def test_the_loop_sleeps_while_the_clock_stands(self, standing):
        """A timer that is due at a time which does not come is no reason to spin: another thread ends the wait."""
        loop, _ = standing

        async def main() -> int:
            arrived = loop.create_future()
            loop.call_later(FAR_S, print)
            with turn_counter(loop) as count:
                threading.Timer(0.1, loop.call_soon_threadsafe, (arrived.set_result, None)).start()
                await arrived
                return count()

        assert loop.run_until_complete(main()) < MOST_IDLE_TURNS

    def test_an_error_of_the_clock_ends_the_run(self, loop):
        def broken() -> float:
            raise ZeroDivisionError

        loop.time = broken
        with pytest.raises(ZeroDivisionError):
            loop.call_later(1.0, print)
        loop.call_at(1.0, print)
        with pytest.raises(ZeroDivisionError):
            loop.run_forever()
        del loop.time


def test_the_time_of_the_class(loop_name):
    """As freezegun sets it, also between two runs of a loop that exists."""
    class_of_loop = clocked_class(loop_name)
    loop = class_of_loop()
    clock = Clock()
    fired: list[int] = []
    with mock.patch.object(class_of_loop, "time", lambda self: clock()):  # noqa: PT008  (the time moves on)
        loop.call_at(10.0, fired.append, 10)
        loop.run_until_complete(turns())
        assert fired == []
        clock.now = 10.0
        loop.run_until_complete(turns())
        assert fired == [10]
    assert abs(loop.time() - time.monotonic()) < 60
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()


def test_freezegun(loop_name):
    """With real_asyncio, the loop's time goes on while the rest of the world stands still. (Without it asyncio's timers
    wait for ever; hoop's do not, whose clock is not Python's.)"""
    freezegun = pytest.importorskip("freezegun")

    async def main() -> str:
        with freezegun.freeze_time("2020-02-02", real_asyncio=True):
            assert time.gmtime().tm_year == 2020
            return await asyncio.wait_for(asyncio.sleep(0.01, "slept"), 30)

    with asyncio.Runner(loop_factory=loop_class(loop_name)) as runner:
        assert runner.run(main()) == "slept"
    policy = mock.patch("asyncio.new_event_loop", loop_class(loop_name))  # whose class freezegun changes
    with policy, freezegun.freeze_time("2020-02-02", real_asyncio=True):
        with asyncio.Runner(loop_factory=loop_class(loop_name)) as runner:
            assert runner.run(asyncio.wait_for(asyncio.sleep(0.01, "slept"), 30)) == "slept"


class TestHoopsOwn:
    @pytest.fixture
    def loop_name(self) -> str:
        return "hoop"

    def test_native_timers_follow_it_too(self, standing):
        loop, clock = standing
        fired: list[object] = []
        loop.set_timeout(lambda: fired.append("timeout"), 5.0)
        interval = loop.set_interval(lambda: fired.append("interval"), 2.0)

        async def main() -> None:
            await turns()
            assert fired == []
            for _ in range(3):
                clock.now += 2.0
                await turns()
            interval.cancel()

        loop.run_until_complete(main())
        assert fired == ["interval", "interval", "timeout", "interval"]

    def test_before_the_clock_that_was_given(self):
        """Who replaces time() means it, also on a loop that was made with a clock."""
        import hoop

        loop = hoop.Loop(clock=lambda: 7_000_000_000)
        assert loop.time() == 7.0
        loop.time = Clock(9.0)
        assert loop.call_later(1.0, print).when() == 10.0
        del loop.time
        assert loop.call_later(1.0, print).when() == 8.0
        loop.close()

    def test_time_is_asked_only_where_it_was_replaced(self):
        """A class that replaces something else costs nothing, and neither does putting the loop's own time() back."""
        import hoop

        asked: list[int] = []

        class Loop(hoop.Loop):
            @functools.wraps(hoop.Loop.time)
            def other(self) -> float:
                asked.append(1)
                return super().time()

        loop = Loop()
        loop.time = loop.other
        loop.call_later(0, print)
        assert asked
        asked.clear()
        loop.time = hoop.Loop.time.__get__(loop)
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        assert not asked
        loop.close()
