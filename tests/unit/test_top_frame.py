"""hoop.command.top_frame: lines of text, of an answer and the size of a terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hoop.command.top_frame import cells_of, clipped, frame, short_time, size
from hypothesis import given, settings
from hypothesis import strategies as st

COLOUR = re.compile(r"\x1b\[\d+m")


def worker(slot: int | None = 0, **given: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "pid": 4711, "generation": 1, "state": "serving", "age": 75.0, "requests": 10, "connections": 12,
        "accepts": 40, "utilization": 0.31, "rss": 25 << 20, "seconds": 1.0, "cpu": 0.4, "accepts_per_s": 3.0,
        "requests_per_s": 250.0, "lag_p50": 12e-6, "lag_p99": 3.4e-3, "lag_max": 0.12, "held": 0.0, "jobs": 2,
        "last_exit": None,
    }  # fmt: skip
    return fields | ({} if slot is None else {"slot": slot}) | given


def look(*workers: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {
        "pid": 4700, "state": "serving", "age": 3700.0, "generation": 1, "addresses": ["tcp://127.0.0.1:8000"],
        "hoop": "0", "python": "3", "last_failure": None, "workers": list(workers), **given,
    }  # fmt: skip


def test_a_cluster() -> None:
    last = {"how": "was killed by SIGKILL", "pid": 1, "generation": 0, "count": 2, "ago": 12.0}
    lines = frame(look(worker(0), worker(1, last_exit=last)), 160, 20, coloured=False)
    assert lines[:3] == [
        "master 4700 serving, up 1h 1m, generation 1, hoop 0, Python 3",
        "on tcp://127.0.0.1:8000",
        "2 workers: 24 connections, 6 new/s, 500 requests/s, CPU 80%, RSS 50M",
    ]
    titles = lines[3].split()
    assert titles[:5] == ["SLOT", "PID", "GEN", "STATE", "AGE"] and titles[-2:] == ["LAST", "EXIT"]
    assert lines[4].split()[:4] == ["0", "4711", "1", "serving"]
    assert "12us   3.4ms   120ms" in lines[4]
    assert lines[5].endswith("12s ago: was killed by SIGKILL (2 in all)")
    assert lines[6] == "q quits"


def test_a_process() -> None:
    """Without what only a cluster has."""
    given = look(worker(None, queued=1, requests=0), kind="process", addresses=[])
    del given["generation"]
    lines = frame(given, 160, 20, coloured=False)
    assert lines[0].startswith("process 4700 serving")
    assert "SLOT" not in lines[2] and "GEN" not in lines[2] and "EXIT" not in lines[2] and "REQ/S" not in lines[2]
    assert lines[3].endswith("2 (1 wait)")


def test_a_blocked_worker_shows_for_how_long() -> None:
    lines = frame(look(worker(0, held=3.25)), 160, 20, coloured=True)
    assert "\x1b[31mheld 3.2s" in lines[4]


def test_a_slot_that_waits_for_its_next_process_shows_why() -> None:
    last = {"how": "exited with status 1", "pid": 1, "generation": 0, "count": 9, "ago": 2.0}
    row = {"slot": 1, "pid": None, "state": "waiting", "age": None, "last_exit": last}
    lines = frame(look(worker(0), row), 160, 20, coloured=False)
    assert lines[5].split()[:5] == ["1", "-", "-", "waiting", "-"]
    assert lines[5].endswith("2s ago: exited with status 1 (9 in all)")


def test_columns_give_way_in_the_order_of_their_worth() -> None:
    wide, narrow, tiny = (frame(look(worker()), width, 9, coloured=False)[3].split() for width in (160, 70, 20))
    assert {"EXIT", "LAG50", "REQ/S", "BUSY", "LAG99"} <= set(wide)
    assert {"BUSY", "LAG99", "CONNS"} <= set(narrow) and not {"EXIT", "LAG50"} & set(narrow)
    assert tiny == ["SLOT", "PID"]


def test_workers_that_do_not_fit_are_counted() -> None:
    lines = frame(look(*map(worker, range(50))), 100, 10, coloured=False)
    assert len(lines) == 10
    assert lines[-2:] == ["... and 46 more: the window is too low", "q quits"]


def test_what_was_said_before_stays_beside_the_notice() -> None:
    lines = frame(look(worker()), 100, 10, coloured=False, notice="it has ended; these are its last figures")
    assert lines[3] == "it has ended; these are its last figures"


def test_trap_a_reason_commands_no_terminal() -> None:
    """An exit's reason, the message of an exception perhaps, is somebody's text."""
    last = {"how": "failed: \x1b]0;owned\x07\x1b[2J\r\nX\u009b2J", "pid": 1, "generation": 0, "count": 1, "ago": 1}
    text = "".join(frame(look(worker(last_exit=last), last_failure="\x1b[2J"), 200, 20, coloured=False))
    assert text.isprintable()
    assert "failed: ?]0;owned??[2J??X?2J" in text


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 220),
    height=st.integers(1, 30),
    count=st.integers(0, 12),
    how=st.text(max_size=30),
    coloured=st.booleans(),
    rss=st.none() | st.integers(0, 1 << 45),
    lag=st.none() | st.floats(0, 1e6),
)
def test_a_frame_never_leaves_its_window(
    width: int, height: int, count: int, how: str, coloured: bool, rss: int | None, lag: float | None
) -> None:
    last = {"how": how, "pid": 1, "generation": 0, "count": 1, "ago": 1}
    workers = [worker(slot, rss=rss, lag_max=lag, last_exit=last) for slot in range(count)]
    lines = frame(look(*workers, last_failure=how), width, height, coloured=coloured, notice=how)
    assert len(lines) <= height
    for line in lines:
        plain = COLOUR.sub("", line)
        assert cells_of(plain) <= width and plain.isprintable()
        assert coloured or plain == line
        assert line.count("\x1b[") == 2 * line.count("\x1b[0m")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0us"), (12e-6, "12us"), (3.4e-3, "3.4ms"), (0.12, "120ms"), (2.5, "2.5s"), (90, "90s")]
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert short_time(seconds) == text


def test_sizes_are_short() -> None:
    assert [size(None), size(25 << 20), size(20 << 30)] == ["-", "25M", "20G"]


def test_wide_characters_take_two_places() -> None:
    assert cells_of("a漢\u0301") == 3
    assert clipped("漢漢漢", 5) == "漢漢"
    assert clipped("漢漢漢", 5, fill=True) == "漢漢 "
