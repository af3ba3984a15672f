"""In which lane of the pool a loop asks about a name (node#8436); tests/faults/test_slow_dns.py shows the effect."""

from __future__ import annotations

import errno
import socket

import pytest
from hoop.names.name_history import MOMENT_S, MOST_NAMES, NameHistory
from hoop.names.name_jobs import ANSWERED_NAMES, LOCAL_NAMES, OTHER_NAMES

KEY = (b"a.example", 0)
NOW = 1000.0


def test_a_new_name_may_be_local() -> None:
    assert NameHistory().lane(KEY, NOW) == LOCAL_NAMES


@pytest.mark.parametrize(
    ("asked_in", "next_in"),
    [(LOCAL_NAMES, LOCAL_NAMES), (OTHER_NAMES, ANSWERED_NAMES), (ANSWERED_NAMES, ANSWERED_NAMES)],
)
@pytest.mark.parametrize("error", [None, socket.gaierror(socket.EAI_NONAME, "no such name"), OSError("two addresses")])
def test_what_was_answered_a_moment_ago(asked_in: int, next_in: int, error: OSError | None) -> None:
    history = NameHistory()
    if error is None:
        history.note_answer(KEY, asked_in, NOW)
    else:
        history.note_error(KEY, asked_in, error, NOW)
    assert history.lane(KEY, NOW + MOMENT_S / 2) == next_in
    assert history.lane(KEY, NOW + MOMENT_S) == LOCAL_NAMES
    assert history.lane((b"another.example", 0), NOW) == LOCAL_NAMES


@pytest.mark.parametrize("asked_in", [LOCAL_NAMES, OTHER_NAMES, ANSWERED_NAMES])
@pytest.mark.parametrize(
    "error",
    [socket.gaierror(socket.EAI_AGAIN, "later"), socket.gaierror(socket.EAI_FAIL, "no"), OSError(errno.EIO, "no")],
)
def test_what_was_not_answered(asked_in: int, error: OSError) -> None:
    history = NameHistory()
    history.note_answer(KEY, LOCAL_NAMES, NOW)
    history.note_error(KEY, asked_in, error, NOW)
    assert history.lane(KEY, NOW) == OTHER_NAMES
    assert history.lane(KEY, NOW + MOMENT_S) == LOCAL_NAMES


def test_the_name_that_was_asked_about_longest_ago_goes_first() -> None:
    history = NameHistory()
    for number in range(MOST_NAMES):
        history.note_answer((number,), OTHER_NAMES, NOW)
    history.note_answer((0,), OTHER_NAMES, NOW)
    history.note_answer(KEY, OTHER_NAMES, NOW)
    lanes = [history.lane((number,), NOW) for number in range(3)]
    assert lanes == [ANSWERED_NAMES, LOCAL_NAMES, ANSWERED_NAMES]
