"""A terminal as `hoop top` uses it: the alternate screen, keys one by one, its size; and afterwards as it was."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import termios
import tty
from collections.abc import Sequence
from typing import Any, Self

ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # the alternate screen, no cursor
LEAVE = "\x1b[?25h\x1b[?1049l"
TOP, END_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

RESIZED, KEY, READY, TIME = "resized", "key", "ready", "time"
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(Exception):
    """A signal wants the program to end; str() is its number."""


class Screen:
    """A context manager, for the main thread: in it the terminal is ours. Whatever ends it, Ctrl-C and SIGTERM among
    them, the terminal is put back, and Ctrl-Z hands it over to the shell for as long as the program is stopped."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._output = sys.stdout.fileno()
        self._signals: set[int] = set()
        self._former: list[Any] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._former_waker = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGWINCH, signal.SIGTSTP, *ENDING):
            self._handlers[number] = signal.signal(number, self._note)
        self._take()
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_waker)
        self._waker.close()
        self._woken.close()

    def _note(self, number: int, _frame: object) -> None:
        self._signals.add(number)

    def _take(self) -> None:
        self._former = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)  # Ctrl-C stays a signal
        self._write(ENTER)

    def _give_back(self) -> None:
        former, self._former = self._former, None
        if former is not None:
            with contextlib.suppress(OSError, termios.error):  # the terminal is gone: its window was closed
                self._write(LEAVE)
                termios.tcsetattr(self._input, termios.TCSADRAIN, former)

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._output, data) :]

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(self._output)
            if found.columns > 0 and found.lines > 0:
                return found.columns, found.lines
        columns, lines = shutil.get_terminal_size()
        return columns, lines

    def draw(self, lines: Sequence[str]) -> None:
        """In place of what is there, without a moment in which nothing is: a blank screen in between would flicker."""
        body = "\r\n".join(f"{line}{END_OF_LINE}" for line in lines)
        self._write(f"{TOP}{body}{BELOW}")

    def wait(self, seconds: float, sock: socket.socket | None = None) -> tuple[str, str]:
        """What comes first: TIME, RESIZED, KEY and which, or READY if there is something to read from sock. Ended for
        a signal or the end of the terminal."""
        watched: list[Any] = [self._input, self._woken, *([] if sock is None else [sock])]
        ready = select.select(watched, (), (), max(seconds, 0.0))[0]
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if (heard := self._heard()) is not None:
            return heard, ""
        if self._input in ready:
            key = os.read(self._input, 64).decode(errors="replace")
            if not key:
                raise Ended(signal.SIGHUP)
            return KEY, key
        return (READY, "") if sock in ready else (TIME, "")

    def _heard(self) -> str | None:
        """What the signals that came meanwhile mean."""
        heard, self._signals = self._signals, set()
        for number in ENDING:
            if number in heard:
                raise Ended(int(number))
        if signal.SIGTSTP in heard:
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)  # until the shell says SIGCONT
            self._take()
        return RESIZED if heard else None
