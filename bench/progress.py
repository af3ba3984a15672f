"""The live display on stderr: a block of lines redrawn in place on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

BAR_WIDTH = 28


class Display:
    """Writes to one stream. `show` replaces what is on display, `say` writes lines that stay."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self.is_live = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown = 0
        self._last_line_s = 0.0

    def show(self, lines: Sequence[str], *, summary: str | None = None, interval_s: float = 0.0) -> None:
        """Show the present state. Without a terminal only `summary` is written, if given, as a line that stays, and
        only if the last such line is at least `interval_s` old."""
        if self.is_live:
            self._redraw(lines)
            return
        now = time.monotonic()
        if summary is not None and now - self._last_line_s >= interval_s:
            self._last_line_s = now
            self._write(summary + "\n")

    def say(self, lines: Sequence[str], to: TextIO | None = None) -> None:
        """Take the display away and write lines that stay, to its own stream or to another."""
        self.clear()
        target = to if to is not None else self._stream
        target.write("".join(f"{line}\n" for line in lines))
        target.flush()

    def clear(self) -> None:
        """Take the display away."""
        if self.is_live and self._shown:
            self._write(f"\x1b[{self._shown}A\x1b[J")
        self._shown = 0

    def _redraw(self, lines: Sequence[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._shown}A" if self._shown else ""
        self._write(up + "".join(f"\x1b[2K{line[:width]}\n" for line in lines) + "\x1b[J")
        self._shown = len(lines)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Steps:
    """Counts the measurements of a run: a bar, and the time that is left, judged by the time that has passed."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.finished = 0
        self._begin_s = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.finished = min(self.finished + count, self.total)

    def line(self, text: str) -> str:
        """One line for a display."""
        share = self.finished / self.total if self.total else 1.0
        return f"{bar(share)} {self.finished}/{self.total}  {text}  {self._time_left()}".rstrip()

    def _time_left(self) -> str:
        if self.finished in (0, self.total):
            return ""
        left_s = (time.monotonic() - self._begin_s) / self.finished * (self.total - self.finished)
        return f"{int(left_s) // 60}:{int(left_s) % 60:02d} left"


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """A bar of that share, 0 to 1."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return f"[{'#' * filled}{'.' * (width - filled)}]"
