"""Call by call, hoop does what asyncio does, but for what differences/allowed.toml allows; that makes the docs' table.

The matrix (differences/matrix.py) makes some 7,000 calls on asyncio and on hoop in this very Python: every public
method of loops, transports, servers, handles and streams with what fits, without arguments, with odd ones, on objects
that are open, closing, closed and lost, inside and outside of the running loop, on a closed loop and from another
thread. What is compared are results, exceptions with their texts, what the protocol is told afterwards, reports, and
warnings in the log.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
from collections.abc import Iterator

import pytest
from conformance.differences import matrix
from conformance.differences.table import BEGIN, PAGE, Difference, Pattern, allowed, is_version, page_with, rows

ALLOWED = [entry for entry in allowed() if entry.is_here]


@functools.cache
def groups() -> dict[tuple[str, str], list[matrix.Case]]:
    """The cases, by subject and method."""
    found: dict[tuple[str, str], list[matrix.Case]] = {}
    for case in matrix.cases():
        found.setdefault((case.subject.name, case.call.function), []).append(case)
    return found


@functools.cache
def differing(group: tuple[str, str]) -> list[tuple[str, str, str]]:
    """The cases of a group that differ: name, asyncio's outcome, hoop's."""
    outcomes = [(str(case), *matrix.both(case)) for case in groups()[group]]
    return [(name, theirs, ours) for name, theirs, ours in outcomes if theirs != ours]


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> None:
    """Where a loop was set and taken away, by tests before these, asyncio makes none by itself any more."""
    if sys.version_info < (3, 14):
        asyncio.set_event_loop_policy(None)


@pytest.fixture(autouse=True)
def without_noise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """asyncio's transports fail in their finalizers once their loop is closed."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    yield
    gc.collect()


@pytest.mark.parametrize("group", groups(), ids=lambda group: " ".join(group).replace(" ", "-"))
def test_a_method_differs_in_nothing_but_what_is_allowed(group: tuple[str, str]) -> None:
    patterns = [pattern for entry in ALLOWED for pattern in entry.patterns]
    wrong = [case for case in differing(group) if not any(pattern.fits(*case) for pattern in patterns)]
    assert not wrong, "\n".join(f"{name}\n    asyncio: {theirs}\n    hoop:    {ours}" for name, theirs, ours in wrong)


@pytest.mark.parametrize("entry", ALLOWED, ids=lambda entry: entry.subject.replace(" ", "-"))
def test_what_is_allowed_occurs(entry: Difference) -> None:
    """An entry that nothing needs any more is taken out."""
    found = [case for group in groups() for case in differing(group)]
    certain = [pattern for pattern in entry.patterns if pattern.is_certain]
    idle = [pattern for pattern in certain if not any(pattern.fits(*case) for case in found)]
    assert not idle


def test_the_page_shows_what_is_allowed() -> None:
    """`python -m conformance.differences.table --write`, in the folder tests, writes it."""
    text = PAGE.read_text()
    assert text.count(BEGIN) == 1
    assert text == page_with(text, rows(allowed()))


# The checks above are worth something only if they see what they look for.


def test_patterns() -> None:
    pattern = Pattern("loop *: f(*)", "returns *", "raises OSError[EBADF](*)")
    assert pattern.fits("loop running: f(x)", "returns None", "raises OSError[EBADF](bad)")
    assert not pattern.fits("loop running: g(x)", "returns None", "raises OSError[EBADF](bad)")
    assert not pattern.fits("loop running: f(x)", "raises ValueError()", "raises OSError[EBADF](bad)")
    assert not pattern.fits("loop running: f(x)", "returns None", "returns None")


def test_versions() -> None:
    assert is_version("") and is_version(">=3.11") and is_version(">=3.2,<3.99")
    assert not is_version(">=3.99") and not is_version("<3.11")


def test_the_table_is_sorted_by_subject() -> None:
    def one(subject: str) -> Difference:
        return Difference(subject, "this", "that", "because", (), True)

    assert [line.split("|")[1].strip() for line in rows([one("`b`"), one("A"), one("c")]).splitlines()[2:]] == [
        *("A", "`b`", "c")
    ]


def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import hoop

    monkeypatch.setattr(hoop.Loop, "get_task_factory", lambda self: 1)
    (case, *_) = groups()["loop", "get_task_factory"][1:]
    assert matrix.both(case) == ("returns None", "returns 1")
