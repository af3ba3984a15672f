"""Which of CPython's tests are not run, or are expected to fail, and why: reads expected.txt."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

FILE = Path(__file__).with_name("expected.txt")
ACTIONS = ("exclude", "fails")
REASONS = ("white-box: ", "not there yet: ")


@dataclass(frozen=True)
class Line:
    """One line of expected.txt."""

    action: str
    pattern: str
    first: tuple[int, int]
    last: tuple[int, int]
    reason: str

    @property
    def white_box(self) -> bool:
        return self.reason.startswith("white-box: ")


def version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def parse(text: str) -> Line:
    """ValueError, with the line in its text, for what is not a line of expected.txt."""
    fields = [field.strip() for field in text.split("|")]
    if len(fields) != 4:
        raise ValueError(f"expected 'action | test | versions | reason', got {text!r}")
    action, pattern, versions, reason = fields
    if action not in ACTIONS:
        raise ValueError(f"the action must be one of {ACTIONS}: {text!r}")
    if not reason.startswith(REASONS):
        raise ValueError(f"the reason must begin with one of {REASONS}: {text!r}")
    first, _, last = versions.partition("-")
    if not last:
        last = first
    return Line(action, pattern, version(first), version(last), reason)


def read(path: Path = FILE, python: tuple[int, int] = sys.version_info[:2]) -> list[Line]:
    """The lines about this version of Python."""
    texts = (text.strip() for text in path.read_text().splitlines())
    lines = [parse(text) for text in texts if text and not text.startswith("#")]
    return [line for line in lines if line.first <= python <= line.last]


def line_about(test: str, lines: list[Line]) -> Line | None:
    """The first line that names test."""
    return next((line for line in lines if fnmatchcase(test, line.pattern)), None)
