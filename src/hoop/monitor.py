"""A watchdog for loops: it reports which callback holds a loop for too long, and where, while it still does.

    HOOP_MONITOR=50ms python program.py          # every loop of the process; a table on stderr at its end
    watch = hoop.monitor.watch(0.05)             # the same in code; watch.report() at any time
    hoop.monitor.Monitor(loop, 0.05).start()     # one loop, and a callback for each stall

A thread looks four times in each threshold at a number that the loop changes with every callback, event and poll, so
the loop does no extra work. The monitor reports a callback that holds the loop for longer than the threshold once, with
the Python stack of the loop's thread. A loop that sleeps, or does not run, is not held.

C code that keeps the GIL stops the watchdog, too. It looks as soon as it gets the GIL: while the callback still stands
at the line that called the C code, or, if the loop has moved on, a little later. Such a report is marked as not exact.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import sys
import threading
import time
import traceback
import weakref
from asyncio import events
from asyncio.log import logger
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from hoop import watched
from hoop.core.checks import check_count
from hoop.loop_methods.base_loop import BaseLoop

LOOKS_PER_THRESHOLD = 4
VARIABLE = "HOOP_MONITOR"
SETTING = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s)")
UNITS = {"ms": 1e-3, "s": 1.0}
LEAST_THRESHOLD_S = 0.001
MOST_FRAMES = 24  # of a stack that is kept
MOST_TOLD_FRAMES = 8  # in a table, and in JSON: the innermost
MOST_TOLD_STACKS = 50  # in JSON: a message between processes is limited
LOOP_FILE = os.path.join(os.path.dirname(__file__), "loop.py")  # frames up to the last of it are not the callback's


@dataclass(frozen=True, slots=True)
class Stall:
    """One callback, event or microtask that held a loop for too long."""

    loop: str
    """The loop's repr."""
    thread_id: int
    """The loop's thread, as threading.get_ident() numbers it."""
    held_s: float
    """Seconds for which the loop has been held so far; at its end, in all. Exact to a quarter of the threshold."""
    stack: traceback.StackSummary
    """Where that thread was when the monitor looked, the innermost frame last."""
    is_exact: bool
    """Whether the stack is certainly that of the callback that held the loop. If not, the watchdog could not get the
    GIL, and the stack is that of the moment at which it got it."""
    has_ended: bool
    """Whether the loop has moved on."""

    def __str__(self) -> str:
        if self.has_ended:
            return f"{self.loop} was held for {self.held_s:.3f} seconds"
        place = "" if self.is_exact else ", by something that kept the GIL until shortly before"
        lines = "".join(self.stack.format()).rstrip()
        return f"{self.loop} has been held for {self.held_s:.3f} seconds{place}\n{lines}"


def log_stall(stall: Stall) -> None:
    """The default reporter: a warning to asyncio's logger."""
    logger.warning("%s", stall)


class Monitor:
    """Watches one loop from a thread of its own, between start() and stop(). Also a context manager.

    loop: the hoop loop, TypeError for another one; the monitor does not keep it alive. threshold_s: the seconds for
    which one callback may hold it; ValueError unless above 0 and below threading.TIMEOUT_MAX. The monitor's thread
    calls on_stall(stall) once for each stall while it lasts (default: a warning in the log), and on_end(stall), if
    given, when the loop has moved on; TypeError unless callable. An exception that they raise is logged.
    """

    def __init__(
        self,
        loop: BaseLoop,
        threshold_s: float = 0.1,
        *,
        on_stall: Callable[[Stall], object] = log_stall,
        on_end: Callable[[Stall], object] | None = None,
    ) -> None:
        if not isinstance(loop, BaseLoop):
            raise TypeError(f"loop must be a hoop.Loop, not {loop!r}")
        if not 0 < threshold_s < threading.TIMEOUT_MAX:
            raise ValueError(f"threshold_s must be a number of seconds above 0, not {threshold_s!r}")
        for name, callback in (("on_stall", on_stall), ("on_end", on_end)):
            if callback is not None and not callable(callback):
                raise TypeError(f"{name} must be callable, not {callback!r}")
        self._loop = weakref.ref(loop)
        self._threshold_s = threshold_s
        self._on_stall = on_stall
        self._on_end = on_end
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._beats = -1
        self._since_s = 0.0  # when the loop was first seen at that number
        self._looked_s = 0.0
        self._late_lags = 0
        self._is_of_one_run = False
        self._stall: Stall | None = None  # reported, and not yet ended

    def start(self) -> None:
        """Begin to watch. RuntimeError if the monitor is running."""
        if self.is_running():
            raise RuntimeError("the monitor is already running")
        self._stopping = threading.Event()
        self._beats = -1
        self._stall = None
        self._thread = threading.Thread(target=self._watch, args=(self._stopping,), name="hoop-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, and wait for the thread to end, except in a callback of the monitor's own. Idempotent."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def is_running(self) -> bool:
        """Whether a thread is watching. It ends by itself when the loop is closed or collected."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _watch(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._threshold_s / LOOKS_PER_THRESHOLD):
            loop = self._loop()
            if loop is None or loop.is_closed():
                return
            if not self._is_of_one_run or loop.is_running():  # after the run, its thread has the last look
                self._look(loop, time.monotonic())
            del loop  # do not keep it alive while this thread waits

    def _begin_run(self, loop: BaseLoop) -> None:
        """Watch for one run, which begins now: by the loop's thread."""
        self._is_of_one_run = True
        self.start()
        self._look(loop, time.monotonic())

    def _end_run(self, loop: BaseLoop) -> None:
        """The run is over: what kept the GIL to its end is known only now, unless the monitor was stopped before."""
        if self.is_running():
            self.stop()
            self._look(loop, time.monotonic())

    def _look(self, loop: BaseLoop, now_s: float) -> None:
        beats, holder, looked_ago_ns, late_lags = loop._pulse(round(self._threshold_s * 1e9))
        looked_s, gap_s = self._looked_s, now_s - self._looked_s
        pause_s = self._threshold_s / LOOKS_PER_THRESHOLD
        was_late = self._beats >= 0 and gap_s >= self._threshold_s + pause_s
        is_over = self._is_of_one_run and not loop.is_running()
        was_busy = (holder != 0 or is_over) and looked_ago_ns >= self._threshold_s * 1e9
        lags = late_lags - self._late_lags - (self._stall is not None)  # the reported stall's own is none of another
        self._looked_s, self._late_lags = now_s, late_lags
        if beats == self._beats and holder != 0:
            if self._stall is None and now_s - self._since_s >= self._threshold_s:
                self._begin(loop, holder, now_s - self._since_s, is_exact=True)
            return
        if self._stall is not None:  # if another one kept us from looking, this one ended soon after we looked
            self._end(looked_s + pause_s if was_late else now_s)
        if was_late and (was_busy or lags > 0):
            self._begin(loop, holder, gap_s, is_exact=False)
            if holder == 0:
                self._end(now_s)
        self._beats, self._since_s = beats, now_s

    def _begin(self, loop: BaseLoop, holder: int, held_s: float, *, is_exact: bool) -> None:
        frame = sys._current_frames().get(holder)
        stack = traceback.StackSummary() if frame is None else traceback.extract_stack(frame)
        del frame
        is_exact = is_exact and loop._pulse(0)[0] == self._beats  # else the loop moved on while we took the stack
        self._stall = Stall(repr(loop), holder, held_s, stack, is_exact, has_ended=False)
        report(self._on_stall, self._stall)

    def _end(self, now_s: float) -> None:
        stall, self._stall = self._stall, None
        if stall is not None and self._on_end is not None:
            held_s = max(now_s - self._since_s, stall.held_s)
            ended = Stall(stall.loop, stall.thread_id, held_s, stall.stack, stall.is_exact, has_ended=True)
            report(self._on_end, ended)


def report(callback: Callable[[Stall], object], stall: Stall) -> None:
    try:
        callback(stall)
    except Exception:
        logger.exception("a callback of the monitor raised")


# ---- every loop of the process --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Blocked:
    """All stalls with one stack."""

    stack: traceback.StackSummary
    """From the callback on, the innermost frame last; at most 24. Empty for the rest, and where no Python ran."""
    count: int
    """How often."""
    total_s: float
    """Seconds in all."""
    max_s: float
    """Of the longest one."""
    is_exact: bool
    """As Stall.is_exact."""
    is_rest: bool = False
    """Whether these are the stalls with further stacks, of which only the sum is kept."""

    def as_json(self) -> dict[str, Any]:
        """For messages: the innermost frames, the innermost one first."""
        frames = [
            {"file": frame.filename, "line": frame.lineno, "function": frame.name, "source": frame.line or ""}
            for frame in reversed(self.stack[-MOST_TOLD_FRAMES:])
        ]
        return {
            "count": self.count,
            "total": round(self.total_s, 6),
            "max": round(self.max_s, 6),
            "is_exact": self.is_exact,
            "is_rest": self.is_rest,
            "stack": frames,
        }


class Tally:
    """The stalls of one stack so far."""

    __slots__ = ("count", "is_exact", "max_s", "stack", "total_s")

    def __init__(self, stack: traceback.StackSummary, is_exact: bool) -> None:
        self.stack: traceback.StackSummary = stack
        self.is_exact: bool = is_exact
        self.count: int = 0
        self.total_s: float = 0.0
        self.max_s: float = 0.0


class Watch:
    """What holds the loops of this process, grouped by stack: see watch()."""

    def __init__(self, threshold_s: float, most_stacks: int) -> None:
        if not LEAST_THRESHOLD_S <= threshold_s < threading.TIMEOUT_MAX:
            raise ValueError(f"threshold_s must be a number of seconds from {LEAST_THRESHOLD_S} on, not {threshold_s}")
        check_count("most_stacks", most_stacks)
        self.threshold_s: float = threshold_s
        """Seconds for which a callback holds its loop before it counts."""
        self.most_stacks: int = most_stacks
        """Stacks that are told apart."""
        self.is_by_environment: bool = False
        """Whether HOOP_MONITOR has begun it."""
        self._lock = threading.Lock()
        self._tallies: dict[Any, Tally] = {}
        self._rest = Tally(traceback.StackSummary(), is_exact=False)
        self._under_way: dict[int, tuple[Tally, float]] = {}  # by the monitor: its stall, and what was counted of it
        self._monitors: weakref.WeakKeyDictionary[BaseLoop, Monitor] = weakref.WeakKeyDictionary()  # that run

    def report(self) -> list[Blocked]:
        """What has held a loop so far, stalls that last among it: the largest total first, the rest last."""
        with self._lock:
            found = [
                Blocked(tally.stack, tally.count, tally.total_s, tally.max_s, tally.is_exact)
                for tally in self._tallies.values()
            ]
            rest = self._rest
            last = [Blocked(rest.stack, rest.count, rest.total_s, rest.max_s, False, is_rest=True)] * (rest.count > 0)
        return [*sorted(found, key=lambda blocked: -blocked.total_s), *last]

    def as_json(self) -> dict[str, Any]:
        """The threshold, and the report's first entries."""
        report = self.report()
        told = report if len(report) <= MOST_TOLD_STACKS else [*report[: MOST_TOLD_STACKS - 1], report[-1]]
        return {"threshold": self.threshold_s, "blocked": [blocked.as_json() for blocked in told]}

    def table(self) -> str:
        """The report for people: see table_lines()."""
        return "\n".join(table_lines(self.as_json(), f"hoop.monitor, process {os.getpid()}"))

    def clear(self) -> None:
        """Forget what was found."""
        with self._lock:
            self._tallies.clear()
            self._under_way.clear()
            self._rest = Tally(traceback.StackSummary(), is_exact=False)

    def stop(self) -> None:
        """Watch no more; the report stays. Idempotent."""
        if watched.on_run == self._on_run:
            watched.on_run = watched.report = watched.tell = None
            atexit.unregister(self._tell)
        for monitor in list(self._monitors.values()):
            monitor.stop()

    # ---- by the loops and their monitors --------------------------------------------------------------------------

    def _begin(self) -> None:
        watched.on_run, watched.report, watched.tell = self._on_run, self.as_json, self._tell
        atexit.register(self._tell)
        running = events._get_running_loop()
        if isinstance(running, BaseLoop):
            self._on_run(running)

    def _on_run(self, loop: BaseLoop) -> Callable[[], object]:
        former = self._monitors.get(loop)  # begun in the middle of the run before
        if former is not None:
            former.stop()  # the end of that run was not seen
            self._forget(former)

        def count(stall: Stall) -> None:
            self._count(monitor, stall)

        monitor = Monitor(loop, self.threshold_s, on_stall=count, on_end=count)
        try:
            monitor._begin_run(loop)
        except RuntimeError as error:  # no room for a thread: the program goes on unwatched
            logger.warning("%r is not monitored: %s", loop, error)
            return int
        self._monitors[loop] = monitor
        return functools.partial(self._end_run, monitor, loop)

    def _end_run(self, monitor: Monitor, loop: BaseLoop) -> None:
        self._monitors.pop(loop, None)
        monitor._end_run(loop)
        self._forget(monitor)

    def _forget(self, monitor: Monitor) -> None:
        """It counts no more."""
        with self._lock:
            self._under_way.pop(id(monitor), None)

    def _count(self, monitor: Monitor, stall: Stall) -> None:
        """A stall has begun, or ended."""
        with self._lock:
            under_way = self._under_way.pop(id(monitor), None)
            if not stall.has_ended:
                tally, counted_s = self._tally_of(stall), 0.0
                tally.count += 1
                self._under_way[id(monitor)] = tally, stall.held_s
            elif under_way is None:
                return  # clear() came in between
            else:
                tally, counted_s = under_way
            tally.total_s += stall.held_s - counted_s
            tally.max_s = max(tally.max_s, stall.held_s)

    def _tally_of(self, stall: Stall) -> Tally:
        stack = of_the_callback(stall.stack)
        key = (stall.is_exact, *[(frame.filename, frame.lineno, frame.name) for frame in stack])
        tally = self._tallies.get(key)
        if tally is None:
            if len(self._tallies) >= self.most_stacks:
                return self._rest
            tally = self._tallies[key] = Tally(stack, stall.is_exact)
        return tally

    def _forget_parent(self) -> None:
        """In a forked child: its monitors' threads are not there, and what was found is the parent's."""
        self._lock = threading.Lock()
        self._monitors = weakref.WeakKeyDictionary()
        self.clear()

    def _tell(self) -> None:
        if sys.stderr is not None and self.report():
            print(self.table(), file=sys.stderr, flush=True)


def watch(threshold_s: float = 0.05, *, most_stacks: int = 100) -> Watch:
    """Watch every hoop loop that runs in this process: the one that runs now, and each that is run later. At the end of
    the process a table on stderr tells what has held a loop for longer than threshold_s, unless nothing has.

    most_stacks: stacks that are told apart; of further ones only the sum is kept. ValueError for numbers that make no
    sense, RuntimeError if the process is watched already; but if HOOP_MONITOR has begun that, its Watch is returned,
    so that whoever starts the program can choose another threshold.
    """
    former = in_force()
    if former is not None and former.is_by_environment:
        return former
    if former is not None:
        raise RuntimeError("the loops of this process are watched already")
    new = Watch(threshold_s, most_stacks)
    new._begin()
    return new


def in_force() -> Watch | None:
    """The Watch that watch() or HOOP_MONITOR has begun; None if there is none."""
    owner = getattr(watched.on_run, "__self__", None)
    return owner if isinstance(owner, Watch) else None


def watch_by_environment() -> None:
    """Watch as HOOP_MONITOR says, unless it is empty or the process is watched. ValueError if it makes no sense."""
    text = os.environ.get(VARIABLE)
    if text and in_force() is None:
        threshold_s = threshold_of(text)
        new = watch(threshold_s)
        new.is_by_environment = True


def threshold_of(text: str) -> float:
    """Seconds of the text of HOOP_MONITOR."""
    found = SETTING.fullmatch(text.strip())
    threshold_s = 0.0 if found is None else float(found[1]) * UNITS[found[2]]
    if not LEAST_THRESHOLD_S <= threshold_s < threading.TIMEOUT_MAX:
        raise ValueError(f"{VARIABLE} must be a time from 1ms on, such as 50ms or 0.1s, not {text!r}")
    return threshold_s


def of_the_callback(stack: traceback.StackSummary) -> traceback.StackSummary:
    """What stands above the loop, without the program that runs the loop."""
    first = max([number for number, frame in enumerate(stack, 1) if frame.filename == LOOP_FILE], default=0)
    return traceback.StackSummary.from_list(list(stack[first:][-MOST_FRAMES:]))


def table_lines(found: dict[str, Any], who: str) -> list[str]:
    """What Watch.as_json() says of `who`, as a table."""
    entries = found["blocked"]
    times = sum([entry["count"] for entry in entries])
    lines = [f"{who}: held {times} time{'s' * (times != 1)} for {found['threshold'] * 1000:g} ms or longer"]
    if not entries:
        return lines
    lines.append("  count     total       max   where, the innermost call first")
    for entry in entries:
        figures = f"{entry['count']:7d} {entry['total']:8.3f}s {entry['max']:8.3f}s"
        for place in places(entry):
            lines.append(f"{figures}   {place}")
            figures = " " * len(figures)
    if not all(entry["is_exact"] or entry["is_rest"] for entry in entries):
        lines.append("~ C code kept the GIL: the stack is that of the moment at which it had let go")
    return lines


def places(entry: dict[str, Any]) -> list[str]:
    if entry["is_rest"]:
        return ["further stacks"]
    mark = "" if entry["is_exact"] else "~ "
    if not entry["stack"]:
        return [f"{mark}the loop had moved on, and no Python code ran"]
    return [mark + place_of(frame) if number == 0 else place_of(frame) for number, frame in enumerate(entry["stack"])]


def place_of(frame: dict[str, Any]) -> str:
    here = os.path.join(os.getcwd(), "")
    place = f"{frame['file'].removeprefix(here)}:{frame['line']} in {frame['function']}"
    return f"{place}: {frame['source']}" if frame["source"] else place


def forget_parent() -> None:
    found = in_force()
    if found is not None:
        found._forget_parent()


os.register_at_fork(after_in_child=forget_parent)
