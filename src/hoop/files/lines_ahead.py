"""Lines of a file that is only read, fetched many at a time: one hop to a thread for LINES_AHEAD bytes of them.

The file itself is then ahead of its caller. Before any other operation the lines that no caller has taken are put back:
the file moves to the end of the last one taken.
"""

from __future__ import annotations

import io
import math
from collections import deque
from typing import Any, AnyStr, Generic

LINES_AHEAD = 65536  # bytes or characters


class LinesAhead(Generic[AnyStr]):
    """Lines read ahead of their caller, of a file that can seek and is only read. Callers hold the file's lock."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lines: deque[AnyStr] = deque()
        self._start = 0  # tell() before the first of the batch
        self._taken: list[int] = []  # the lengths of those that callers have taken
        self._error: BaseException | None = None  # what the line after the last one raised

    def __bool__(self) -> bool:
        return bool(self._lines)

    def take(self) -> AnyStr:
        """The next line."""
        line = self._lines.popleft()
        self._taken.append(len(line))
        return line

    def fill(self) -> AnyStr | None:
        """Read lines if there is none to take: None, or the next line itself if the file cannot keep any. Blocks.

        The lines stay, also if the caller no longer waits.
        """
        if not self._lines and self._error is None and self._note_start():
            self._read_batch()
        if self._lines:
            return None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        line: AnyStr = self._file.readline()
        return line

    def _note_start(self) -> bool:
        """Remember the position, and whether that worked: a few decoders cannot tell theirs."""
        try:
            self._start = self._file.tell()
        except OSError:
            return False
        self._taken.clear()
        return True

    def _read_batch(self) -> None:
        size = 0
        try:
            while size < LINES_AHEAD:
                line = self._file.readline()
                if not line:
                    break
                self._lines.append(line)
                size += len(line)
        except Exception as error:
            self._error = error

    def put_back(self) -> None:
        """Move the file back to the end of the last line that a caller has taken. Blocks."""
        if self._lines or self._error is not None:
            self._lines.clear()
            self._error = None
            if isinstance(self._file, io.TextIOBase):
                self._file.seek(self._start)  # a cookie, not a number to calculate with
                for _ in self._taken:
                    self._file.readline()
            else:
                self._file.seek(self._start + sum(self._taken))


def read_lines(file: Any, hint: int | None) -> list[Any]:
    """As file.readlines(hint), which for text uses next(), so that tell() fails or lies afterwards."""
    lines = []
    size = 0
    limit = math.inf if hint is None or hint <= 0 else hint
    while size <= limit:
        line = file.readline()
        if not line:
            break
        lines.append(line)
        size += len(line)
    return lines
