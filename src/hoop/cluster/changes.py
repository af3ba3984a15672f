"""For development: which files of the application have changed. Workers tell what they import, the master looks."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Sequence

SCHEMES = ("stdlib", "platstdlib", "purelib", "platlib")  # of sysconfig, where installed modules are
INSTALLED = tuple(os.path.join(os.path.realpath(sysconfig.get_path(name)), "") for name in SCHEMES)
MOST_FILES = 5000

Stamp = tuple[int, int]  # when a file was modified, and its size


def imported_files() -> list[str]:
    """The files of the modules that this process has imported, without those that are installed."""
    names = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return own_files(name for name in names if name)


def files_of(error: BaseException) -> list[str]:
    """Files that are to be mended before another try: those that the error went through are not imported."""
    names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    cause = error.__cause__ or error.__context__
    if isinstance(error, SyntaxError) and error.filename:
        names.append(error.filename)
    return own_files(names) + (files_of(cause) if cause is not None else [])


def own_files(names: Iterable[str]) -> list[str]:
    paths = {os.path.realpath(name) for name in names if not name.startswith("<")}
    return sorted(path for path in paths if not path.startswith(INSTALLED))[:MOST_FILES]


class Changes:
    """The files that are looked at."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp | None] = {}

    def follow(self, files: Iterable[str]) -> None:
        """From now on look at these, too."""
        for path in files:
            if path not in self._stamps:
                self._stamps[path] = stamp_of(path)

    def look(self) -> Sequence[str]:
        """Those that have changed, come or gone since the last look."""
        changed = []
        for path, before in self._stamps.items():
            now = stamp_of(path)
            if now != before:
                self._stamps[path] = now
                changed.append(path)
        return changed


def stamp_of(path: str) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
