"""bench.blocking and bench.pools: pages show what was recorded; and a short run of the stress test of worker pools."""

from __future__ import annotations

import asyncio
import json
import random

import hoop
import pytest
from bench.blocking import report as blocking
from bench.blocking.cases import CASES, line_of
from bench.pools import report, stress
from bench.pools.rows import ROWS

RANDOM_TASKS = 120


def test_page_of_the_monitor_shows_what_was_recorded() -> None:
    """`python -m bench.blocking.report` makes it anew."""
    page = blocking.PAGE.read_text()
    assert blocking.page_text(page, json.loads(blocking.RESULTS.read_text())) == page


@pytest.mark.parametrize("page", report.pages())
def test_pages_of_the_pools_show_what_was_recorded(page: str) -> None:
    """`python -m bench.pools.report` makes them anew."""
    text = report.pages()[page].read_text()
    content = json.loads(report.RESULTS.read_text())
    assert report.page_text(page, text, content) == text
    assert set(content["rows"]) == set(ROWS)


def test_what_a_tool_said_is_judged_by_the_line() -> None:
    line = line_of("sleep")
    assert blocking.verdict("sleep", {"said": []}) == "–"
    assert blocking.verdict("sleep", {"said": [f'File "x/cases.py", line {line}, in hold_by_sleep']}) == "the line"
    assert blocking.verdict("sleep", {"said": [f"x/cases.py:{line}:hold_by_sleep"]}) == "the line"
    assert blocking.verdict("sleep", {"said": [f"x/cases.py:{line + 100}:hold_by_sleep"]}) == "the function"
    assert blocking.verdict("sleep", {"said": ["Executing <Task coro=<hold() done>> took 1 s"]}) == "the coroutine"
    assert blocking.verdict("sleep", {"failure": "no"}) == "failed: no"
    assert len({line_of(case) for case in CASES}) == len(CASES)


def test_pages_need_their_markers() -> None:
    with pytest.raises(ValueError, match="no <!-- figures begin"):
        report.page_text("agent", "nothing", {})
    with pytest.raises(ValueError, match="no <!-- blocking table"):
        blocking.page_text("nothing", {})


def test_every_kind_of_task_has_a_model() -> None:
    assert stress.expected("abort soon", 2) == ("cancelled", 4)
    assert {stress.expected(kind, 1) for kind in stress.KINDS} >= {("TimeoutError",), ("cancelled",)}


@pytest.mark.once
def test_random_tasks_deaths_timeouts_and_aborts_end_as_they_must() -> None:
    """10,000 of them: python -m bench.pools.stress."""
    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        ended = runner.run(stress.run_all(RANDOM_TASKS, random.randrange(1 << 30)))
    assert sum(ended[kind] for kind in stress.KINDS) == RANDOM_TASKS
