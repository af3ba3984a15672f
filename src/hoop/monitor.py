"""A watchdog for loops: it reports which callback holds a loop for too long, and where, while it still does.

    monitor = hoop.monitor.Monitor(loop, 0.1)
    monitor.start()

A thread looks four times in each threshold at a number that the loop changes with every callback, event and poll, so
the loop does no extra work. The monitor reports a callback that holds the loop for longer than the threshold once, with
the Python stack of the loop's thread. A loop that sleeps, or does not run, is not held.

C code that keeps the GIL stops the watchdog, too. It looks as soon as it gets the GIL: while the callback still stands
at the line that called the C code, or, if the loop has moved on, a little later. Such a report is marked as not exact.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
import weakref
from asyncio.log import logger
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from hoop.loop import Loop

LOOKS_PER_THRESHOLD = 4


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
        loop: Loop,
        threshold_s: float = 0.1,
        *,
        on_stall: Callable[[Stall], object] = log_stall,
        on_end: Callable[[Stall], object] | None = None,
    ) -> None:
        if not isinstance(loop, Loop):
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
            self._look(loop, time.monotonic())
            del loop  # do not keep it alive while this thread waits

    def _look(self, loop: Loop, now_s: float) -> None:
        beats, holder, looked_ago_ns, late_lags = loop._pulse(round(self._threshold_s * 1e9))
        gap_s = now_s - self._looked_s
        first_look = self._beats < 0
        was_late = not first_look and gap_s >= self._threshold_s * (1 + 1 / LOOKS_PER_THRESHOLD)
        lagged = late_lags > self._late_lags or (holder != 0 and looked_ago_ns >= self._threshold_s * 1e9)
        self._looked_s, self._late_lags = now_s, late_lags
        if beats == self._beats and holder != 0:
            if self._stall is None and now_s - self._since_s >= self._threshold_s:
                self._begin(loop, holder, now_s - self._since_s, is_exact=True)
            return
        if self._stall is not None:
            self._end(now_s)
        elif was_late and lagged:
            self._begin(loop, holder, gap_s, is_exact=False)
            if holder == 0:
                self._end(now_s)
        self._beats, self._since_s = beats, now_s

    def _begin(self, loop: Loop, holder: int, held_s: float, *, is_exact: bool) -> None:
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
