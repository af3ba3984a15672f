"""hoop.monitor.watch() and HOOP_MONITOR: every loop of the process, stalls grouped by stack, a table at the end.

What holds the loop here is as in programs: a sleep, C code that keeps the GIL, a regular expression that explodes, JSON
of a large text. How long these take is nobody's assertion, only that they are told.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from hoop import monitor, watched
from hoop.monitor import Monitor, Stall, Watch
from interpreter import run_script

DEADLINE_S = 60.0
THRESHOLD_S = 0.002
LONGER_S = THRESHOLD_S * 10


@pytest.fixture
def loop() -> Iterator[hoop.Loop]:
    loop = hoop.Loop()
    yield loop
    loop.close()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.delenv("HOOP_MONITOR", raising=False)
    watch = monitor.watch(THRESHOLD_S)
    yield watch
    watch.stop()


def functions(watch: Watch) -> list[set[str]]:
    return [{frame.name for frame in blocked.stack} for blocked in watch.report()]


def stall(*lines: int, held_s: float = 1.0, is_exact: bool = True, has_ended: bool = False) -> Stall:
    """One whose stack is told by its lines."""
    frames = [traceback.FrameSummary("a.py", line, "f", lookup_line=False, line="x()") for line in lines]
    return Stall("loop", 1, held_s, traceback.StackSummary.from_list(frames), is_exact, has_ended)


# What is found.


def sleep_too_long() -> None:
    time.sleep(LONGER_S)


def keep_the_gil() -> None:
    ctypes.PyDLL(None).poll(None, 0, int(LONGER_S * 1000))  # unlike CDLL, this keeps the GIL


def explode() -> None:
    length, begun = 12, time.monotonic()
    while time.monotonic() - begun < LONGER_S:  # the last one takes about half of that
        re.match(r"(a+)+$", "a" * length + "b")
        length += 1
    re.match(r"(a+)+$", "a" * length + "b")


def read_much_json() -> None:
    text = "[" + "1," * 10_000 + "1]"
    begun = time.monotonic()
    json.loads(text)
    while time.monotonic() - begun < LONGER_S:
        text = text[:-1] + "," + text[1:]
        json.loads(text)


@pytest.mark.parametrize("hold", [sleep_too_long, keep_the_gil, explode, read_much_json])
def test_what_holds_the_loop_is_found(loop: Any, watch: Watch, hold: Callable[[], None]) -> None:
    """Until it is: a machine that gives the watchdog no processor sees less of what keeps the GIL."""
    deadline = time.monotonic() + DEADLINE_S
    while not any(hold.__name__ in names for names in functions(watch)):
        assert time.monotonic() < deadline, watch.table()
        loop.call_soon(hold)
        loop.call_soon(int)
        loop.run()


def test_what_keeps_the_gil_to_the_end_of_a_run_is_told(loop: Any, watch: Watch) -> None:
    loop.call_soon(ctypes.PyDLL(None).poll, None, 0, int(LONGER_S * 1000))  # no Python function, no look in between
    loop.run()
    assert any(one.max_s >= LONGER_S / 2 for one in watch.report())  # without a GIL, it is seen while it lasts


def test_one_that_follows_another_is_not_taken_for_its_end(loop: Any) -> None:
    """The second keeps the watchdog from seeing the end of the first one."""
    found: list[Stall] = []
    looker = Monitor(loop, 1.0, on_stall=found.append, on_end=found.append)

    def first() -> None:
        looker._look(loop, 100.0)
        looker._look(loop, 101.0)

    loop.call_soon(first)
    loop.call_soon(looker._look, loop, 111.0)
    loop.run()
    assert [(one.held_s, one.has_ended) for one in found] == [(1.0, False), (1.25, True)]


# How it is grouped.


@pytest.fixture
def alone() -> Watch:
    """Nothing but what the test tells it."""
    return Watch(0.05, most_stacks=3)


def test_stalls_are_grouped_by_stack(alone: Watch, loop: Any) -> None:
    looker = Monitor(loop, 1.0)
    for held_s in (1.0, 3.0):
        alone._count(looker, stall(1, 2, held_s=held_s))
        alone._count(looker, stall(1, 2, held_s=held_s + 1, has_ended=True))
    alone._count(looker, stall(1, 3, held_s=100.0))  # and lasts
    told = [([frame.lineno for frame in one.stack], one.count, one.total_s, one.max_s) for one in alone.report()]
    assert told == [([1, 3], 1, 100.0, 100.0), ([1, 2], 2, 6.0, 4.0)]


def test_memory_is_bounded(alone: Watch, loop: Any) -> None:
    looker = Monitor(loop, 1.0)
    for line in range(1000):
        alone._count(looker, stall(line, held_s=2.0))
        alone._count(looker, stall(line, held_s=3.0, has_ended=True))
    report = alone.report()
    assert [(one.count, one.total_s, one.is_rest) for one in report] == [(1, 3.0, False)] * 3 + [(997, 2991.0, True)]
    assert "further stacks" in alone.table() and len(alone._tallies) == 3 and not alone._under_way
    alone._count(looker, stall(*range(1000, 2000)))
    alone.clear()
    alone._count(looker, stall(1, has_ended=True))  # of one that is forgotten
    assert alone.report() == []
    alone._count(looker, stall(*range(1000)))
    assert len(alone.report()[0].stack) == monitor.MOST_FRAMES


def test_json_is_short_enough_for_a_message(loop: Any) -> None:
    full = Watch(0.05, most_stacks=1000)
    looker = Monitor(loop, 1.0)
    for line in range(1050):
        full._count(looker, stall(*range(line, line + 10)))
    told = full.as_json()
    assert len(told["blocked"]) == monitor.MOST_TOLD_STACKS and told["blocked"][-1]["is_rest"]
    assert len(told["blocked"][0]["stack"]) == monitor.MOST_TOLD_FRAMES
    assert len(json.dumps(told)) < 1 << 18


def test_table(alone: Watch, loop: Any) -> None:
    looker = Monitor(loop, 1.0)
    alone._count(looker, stall(1, 2, held_s=0.25))
    alone._count(looker, stall(3, held_s=0.125, is_exact=False))
    alone._count(looker, stall(held_s=0.125, is_exact=False))
    assert alone.table().splitlines() == [
        f"hoop.monitor, process {os.getpid()}: held 3 times for 50 ms or longer",
        "  count     total       max   where, the innermost call first",
        "      1    0.250s    0.250s   a.py:2 in f: x()",
        "                              a.py:1 in f: x()",
        "      1    0.125s    0.125s   ~ a.py:3 in f: x()",
        "      1    0.125s    0.125s   ~ the loop had moved on, and no Python code ran",
        "~ C code kept the GIL: the stack is that of the moment at which it had let go",
    ]


# Its life.


def hold_until_told(watch: Watch) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not any("hold_until_told" in names for names in functions(watch)):
        assert time.monotonic() < deadline
        time.sleep(THRESHOLD_S)


def test_it_may_begin_in_the_middle_of_a_run(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOP_MONITOR", raising=False)
    begun: list[Watch] = []

    def begin() -> None:
        begun.append(monitor.watch(THRESHOLD_S))
        loop.call_soon(hold_until_told, begun[0])

    loop.call_soon(begin)
    loop.run()
    (watch,) = begun
    try:
        watch.clear()
        loop.call_soon(hold_until_told, watch)
        loop.run()  # with one thread, not two
        assert sum(one.count for one in watch.report() if "hold_until_told" in {frame.name for frame in one.stack}) == 1
        assert not watch._monitors
    finally:
        watch.stop()


def test_no_thread_outlives_a_run_and_none_is_there_without_a_watch(loop: Any, watch: Watch) -> None:
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "hoop-monitor"]

    seen: list[list[str]] = []
    loop.call_soon(lambda: seen.append(names()))
    loop.run()
    assert (seen, names()) == ([["hoop-monitor"]], [])
    watch.stop()
    watch.stop()
    assert (watched.on_run, watched.report, watched.tell) == (None, None, None)
    loop.call_soon(lambda: seen.append(names()))
    loop.run()
    assert seen[1] == []


def test_a_watch_that_is_stopped_in_the_middle_of_a_run_finds_no_more(loop: Any, watch: Watch) -> None:
    def stop() -> None:
        watch.stop()
        watch.clear()

    loop.call_soon(stop)
    loop.call_soon(sleep_too_long)
    loop.run()
    assert watch.report() == []


def test_a_loop_that_does_not_run_is_not_looked_at(loop: Any) -> None:
    """One whose run began before the watch: nobody tells the monitor of its end."""
    looks: list[float] = []
    looker = Monitor(loop, 0.001)
    looker._begin_run(loop)
    looker._look = lambda loop, now_s: looks.append(now_s)  # type: ignore[method-assign]
    for _ in range(20):
        looker._stopping.wait(0.001)
    looker.stop()
    assert looks == []


def test_a_thread_that_cannot_start_costs_the_watch_and_not_the_program(
    loop: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.run()
    assert ran == [1] and "is not monitored: can't start new thread" in caplog.text


def test_twice_is_refused_but_the_environment_goes_first(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="watched already"):
        monitor.watch()
    watch.stop()
    monkeypatch.setenv("HOOP_MONITOR", "1.5s")
    hoop.Loop().close()
    by_environment = monitor.in_force()
    assert by_environment is not None
    try:
        assert by_environment.threshold_s == 1.5
        assert monitor.watch(0.05) is by_environment
        hoop.Loop().close()
        assert monitor.in_force() is by_environment
    finally:
        by_environment.stop()


@pytest.mark.parametrize(("text", "threshold_s"), [("50ms", 0.05), ("0.1s", 0.1), (" 2 s ", 2.0), ("1.5ms", 0.0015)])
def test_settings(text: str, threshold_s: float) -> None:
    assert monitor.threshold_of(text) == pytest.approx(threshold_s)


@pytest.mark.parametrize("text", ["50", "0ms", "0.5ms", "-1s", "50 m", "ms", "1e3s", "off", "9" * 30 + "s"])
def test_a_wrong_setting_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOP_MONITOR", text)
    with pytest.raises(ValueError, match=r"HOOP_MONITOR must be a time from 1ms on, such as 50ms"):
        hoop.Loop()
    assert monitor.in_force() is None


def test_wrong_arguments_are_refused() -> None:
    for threshold_s in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="threshold_s"):
            monitor.watch(threshold_s)
    with pytest.raises(ValueError, match="most_stacks"):
        monitor.watch(most_stacks=0)
    assert monitor.in_force() is None


def test_a_child_of_a_fork_has_a_report_of_its_own(alone: Watch, loop: Any) -> None:
    alone._count(Monitor(loop, 1.0), stall(1))
    with alone._lock:  # as if another thread had it
        alone._forget_parent()
    assert alone.report() == []


def test_nothing_found_is_nothing_told(alone: Watch, monkeypatch: pytest.MonkeyPatch, loop: Any) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    alone._tell()
    assert errors.getvalue() == ""
    alone._count(Monitor(loop, 1.0), stall(1))
    alone._tell()
    assert "held 1 time for 50 ms" in errors.getvalue()


PROGRAM = """
import os, time
os.environ["HOOP_MONITOR"] = "5ms"
import hoop

async def main():
    deadline = time.monotonic() + 30
    while not any("main" in str(one.stack) for one in hoop.monitor.in_force().report()) and time.monotonic() < deadline:
        time.sleep(0.01)

hoop.run(main())
"""


def test_one_line_of_set_up_and_a_table_at_the_end() -> None:
    status, _, errors = run_script(PROGRAM)
    assert status == 0 and "for 5 ms or longer" in errors and "in main" in errors, errors
