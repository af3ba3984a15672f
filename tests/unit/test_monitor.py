"""hoop.monitor: it reports what holds a loop, meanwhile, once, with its stack; an idle loop is not held.

A callback that holds the loop waits for the report itself. Where only the logic counts, the test says what time it is.
"""

from __future__ import annotations

import ctypes
import gc
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import hoop
import pytest
from hoop.monitor import Monitor, Stall

DEADLINE_S = 60.0
THRESHOLD_S = 0.02


@pytest.fixture
def loop_name() -> str:
    return "hoop"


class Reports:
    """Collects stalls, and lets others wait for them."""

    def __init__(self) -> None:
        self.begun: list[Stall] = []
        self.ended: list[Stall] = []
        self.has_begun = threading.Event()
        self.has_ended = threading.Event()

    def on_stall(self, stall: Stall) -> None:
        self.begun.append(stall)
        self.has_begun.set()

    def on_end(self, stall: Stall) -> None:
        self.ended.append(stall)
        self.has_ended.set()


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def monitor(loop: Any, reports: Reports) -> Iterator[Monitor]:
    monitor = Monitor(loop, THRESHOLD_S, on_stall=reports.on_stall, on_end=reports.on_end)
    yield monitor
    monitor.stop()


def functions(stall: Stall) -> list[str]:
    return [frame.name for frame in stall.stack]


def test_a_callback_that_holds_the_loop_is_told_while_it_does(loop, monitor, reports):
    def holds_the_loop() -> None:
        assert reports.has_begun.wait(DEADLINE_S)

    monitor.start()
    loop.call_soon(holds_the_loop)
    loop.run()
    assert reports.has_ended.wait(DEADLINE_S)
    monitor.stop()
    (stall,), (end,) = reports.begun, reports.ended
    assert "holds_the_loop" in functions(stall)
    assert stall.is_exact and not stall.has_ended and stall.held_s >= THRESHOLD_S
    assert stall.thread_id == threading.get_ident()
    assert end.has_ended and end.held_s >= stall.held_s and end.stack == stall.stack
    assert "holds_the_loop" in str(stall) and "held for" in str(end)


def test_two_stalls_are_two_reports(loop, monitor, reports):
    def hold() -> None:
        assert reports.has_begun.wait(DEADLINE_S)
        reports.has_begun.clear()

    monitor.start()
    for _ in range(2):
        loop.call_soon(hold)
        loop.run()
        assert reports.has_ended.wait(DEADLINE_S)
        reports.has_ended.clear()
    monitor.stop()
    assert len(reports.begun) == len(reports.ended) == 2


@pytest.mark.parametrize("kind", ["next_tick", "queue_microtask", "set_immediate", "call_soon", "set_timeout"])
def test_callbacks_of_every_kind_are_told(loop, monitor, reports, kind):
    monitor.start()
    getattr(loop, kind)(lambda: reports.has_begun.wait(DEADLINE_S))
    loop.run()
    assert reports.has_ended.wait(DEADLINE_S)
    assert len(reports.begun) == 1


def test_an_event_handler_is_told(loop, monitor, reports):
    left, right = socket.socketpair()
    left.setblocking(False)
    right.send(b"x")

    def readable() -> None:
        assert reports.has_begun.wait(DEADLINE_S)
        loop.remove_reader(left)

    monitor.start()
    loop.add_reader(left, readable)
    loop.run()
    left.close()
    right.close()
    assert "readable" in functions(reports.begun[0])


def test_c_code_that_keeps_the_gil_is_told_when_it_lets_go(loop, monitor, reports):
    poll = ctypes.PyDLL(None).poll  # unlike CDLL, this keeps the GIL

    def keeps_the_gil() -> None:
        poll(None, 0, int(THRESHOLD_S * 1000 * 10))
        assert reports.has_begun.wait(DEADLINE_S)

    monitor.start()
    loop.call_soon(keeps_the_gil)
    loop.run()
    assert reports.has_ended.wait(DEADLINE_S)
    assert len(reports.begun) == 1
    assert "keeps_the_gil" in functions(reports.begun[0])


# Looks at times that the test chooses.


def test_a_sleeping_loop_is_not_held(loop, reports):
    monitor = Monitor(loop, 1.0, on_stall=reports.on_stall)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        while loop.metrics().sleeps == 0 or loop._pulse(0)[1] != 0:
            pass  # until it is asleep
        for now_s in range(100):
            monitor._look(loop, float(now_s))
        monitor._look(loop, 1e6)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert reports.begun == []


def test_a_loop_that_does_not_run_is_not_held(loop, reports):
    monitor = Monitor(loop, 1.0, on_stall=reports.on_stall)
    loop.call_soon(int)
    for now_s in range(100):
        monitor._look(loop, float(now_s))
    assert reports.begun == []


def test_many_short_callbacks_are_no_stall(loop, reports):
    """However long they take together: the number changes with each."""
    monitor = Monitor(loop, 1.0, on_stall=reports.on_stall)
    for number in range(50):
        loop.call_soon(monitor._look, loop, number * 0.9)
    loop.run()
    assert reports.begun == []


def test_one_stall_is_told_once_and_its_end_with_its_length(loop, reports):
    monitor = Monitor(loop, 1.0, on_stall=reports.on_stall, on_end=reports.on_end)

    def hold() -> None:
        for quarters in range(20):
            monitor._look(loop, 10 + quarters / 4)

    loop.call_soon(hold)
    loop.call_soon(monitor._look, loop, 15.0)
    loop.run()
    assert [stall.held_s for stall in reports.begun] == [1.0]
    assert [stall.held_s for stall in reports.ended] == [5.0]
    assert reports.begun[0].is_exact


def test_a_callback_shorter_than_the_threshold_is_not_told(loop, reports):
    monitor = Monitor(loop, 1.0, on_stall=reports.on_stall)

    def hold() -> None:
        for now_s in (10.0, 10.25, 10.5, 10.75, 10.99):
            monitor._look(loop, now_s)

    loop.call_soon(hold)
    loop.run()
    assert reports.begun == []


def test_a_watchdog_that_was_merely_late_tells_nothing(loop, reports):
    """It could not look for long, but the loop went on: its lags say so."""
    monitor = Monitor(loop, 1000.0, on_stall=reports.on_stall)
    loop.call_soon(monitor._look, loop, 0.0)
    loop.call_soon(monitor._look, loop, 1e6)
    loop.run()
    assert reports.begun == []


class LoopKeptFromTheMonitor:
    """A loop whose first callback takes ten seconds of its own clock, in which the monitor cannot look: as if in C code
    that keeps the GIL. The next callback is of another turn, and shows itself in a look at the time `next_look_s`."""

    def __init__(self, reports: Reports, next_look_s: float) -> None:
        self.now_ns = 0
        self.loop = hoop.Loop(clock=lambda: self.now_ns, poll_every_turn=True)
        self.monitor = Monitor(self.loop, 1.0, on_stall=reports.on_stall, on_end=reports.on_end)
        self.next_look_s = next_look_s

    def keeps_the_gil(self) -> None:
        self.monitor._look(self.loop, 100.0)
        self.now_ns += 10 * 10**9

    def comes_after_it(self) -> None:
        self.monitor._look(self.loop, self.next_look_s)

    def run(self, *later: Any) -> None:
        self.loop.call_soon(self.keeps_the_gil)
        for callback in later:
            self.loop.call_soon(self.loop.call_soon, callback)
        self.loop.run()


def test_a_stall_that_the_loop_has_left_before_the_monitor_could_look_is_not_exact(reports):
    kept = LoopKeptFromTheMonitor(reports, 110.0)
    kept.run(kept.comes_after_it, lambda: kept.monitor._look(kept.loop, 110.25))
    kept.loop.close()
    (stall,), (end,) = reports.begun, reports.ended
    assert not stall.is_exact and not stall.has_ended and stall.held_s == 10.0
    assert stall.thread_id == threading.get_ident() and "comes_after_it" in functions(stall)
    assert "kept the GIL until shortly before" in str(stall)
    assert not end.is_exact and end.has_ended and end.held_s == 10.0


def test_a_stall_that_has_ended_with_the_run_has_no_stack(reports):
    kept = LoopKeptFromTheMonitor(reports, 110.0)
    kept.run(int)
    kept.comes_after_it()  # the loop does not run any more
    kept.comes_after_it()
    kept.loop.close()
    (stall,), (end,) = reports.begun, reports.ended
    assert not stall.is_exact and stall.thread_id == 0 and list(stall.stack) == []
    assert end.has_ended and end.held_s == stall.held_s == 10.0


def test_the_next_callback_of_the_same_turn_is_not_taken_for_the_one_that_held_the_loop(loop, reports):
    """No look for work has come since, so no lag is known yet: how long ago the latest was tells."""
    nanosecond_s = 1e-9  # passes for sure between two callbacks
    monitor = Monitor(loop, nanosecond_s, on_stall=reports.on_stall)
    loop.call_soon(monitor._look, loop, 100.0)
    loop.call_soon(monitor._look, loop, 110.0)
    loop.run()
    assert [(stall.is_exact, stall.held_s) for stall in reports.begun] == [(False, 10.0)]


def test_a_lag_between_looks_that_came_in_time_is_no_stall(reports):
    kept = LoopKeptFromTheMonitor(reports, 101.0)
    kept.run(kept.comes_after_it)
    kept.loop.close()
    assert reports.begun == []


def test_callbacks_that_raise_are_logged_and_it_goes_on(loop, caplog):
    def fail(stall: Stall) -> None:
        raise ZeroDivisionError

    monitor = Monitor(loop, 1.0, on_stall=fail, on_end=fail)

    def hold() -> None:
        monitor._look(loop, 0.0)
        monitor._look(loop, 1.0)

    loop.call_soon(hold)
    loop.call_soon(monitor._look, loop, 2.0)
    loop.run()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError] * 2


def test_the_log_is_the_default(loop, caplog):
    monitor = Monitor(loop, 1.0)

    def hold() -> None:
        monitor._look(loop, 0.0)
        monitor._look(loop, 1.0)

    loop.call_soon(hold)
    loop.run()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "has been held for 1.000 seconds" in record.getMessage()
    assert "in hold" in record.getMessage()


# Its life.


def test_start_and_stop(loop, monitor):
    assert not monitor.is_running()
    monitor.stop()
    monitor.start()
    assert monitor.is_running()
    with pytest.raises(RuntimeError, match="already running"):
        monitor.start()
    monitor.stop()
    monitor.stop()
    assert not monitor.is_running()
    with monitor:
        assert monitor.is_running()
    assert not monitor.is_running()


def test_it_may_be_stopped_by_its_own_callback(loop):
    stopped = threading.Event()

    def on_stall(stall: Stall) -> None:
        monitor.stop()
        stopped.set()

    monitor = Monitor(loop, THRESHOLD_S, on_stall=on_stall)
    monitor.start()
    loop.call_soon(stopped.wait, DEADLINE_S)
    loop.run()
    assert stopped.is_set() and not monitor.is_running()


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_it_does_not_keep_the_loop_alive_and_ends_with_it():
    loop = hoop.Loop()
    monitor = Monitor(loop, 0.001)
    monitor.start()
    thread = monitor._thread
    assert thread is not None and thread.daemon
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    thread.join(DEADLINE_S)
    assert not monitor.is_running()
    gc.collect()
    assert reference() is None


def test_it_ends_when_the_loop_is_closed(loop):
    with Monitor(loop, 0.001) as monitor:
        thread = monitor._thread
        assert thread is not None
        loop.close()
        thread.join(DEADLINE_S)
        assert not monitor.is_running()


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_a_threshold_that_is_none_is_refused_with_its_value(loop, wrong):
    with pytest.raises(ValueError, match=str(wrong)):
        Monitor(loop, wrong)


def test_other_wrong_arguments_are_refused(loop):
    with pytest.raises(TypeError, match=r"hoop\.Loop"):
        Monitor(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_stall"):
        Monitor(loop, on_stall=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_end"):
        Monitor(loop, on_end=1)  # type: ignore[arg-type]
