"""hoop.cluster.log: lines for people, coloured on a terminal only; JSON for programs."""

from __future__ import annotations

import datetime
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hoop.cluster import log, worker_process

CODES = re.compile(r"\x1b\[\d+m")


@pytest.fixture
def in_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "current", SimpleNamespace(id=3))


def record(level: int, text: str, *arguments: Any, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("hoop.cluster", level, __file__, 1, text, arguments, fields.pop("exc_info", None))
    made.__dict__.update(fields)
    return made


def raised() -> Any:
    try:
        raise LookupError("on purpose")
    except LookupError:
        return sys.exc_info()


def test_lines_of_the_master() -> None:
    line = log.TextFormatter().format(record(logging.INFO, "serving on %s", "tcp://[::1]:80"))
    assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d\d\d master   {os.getpid()} serving on tcp://\[::1\]:80", line)
    line = log.TextFormatter().format(record(logging.ERROR, "it\n  failed\n"))
    assert re.fullmatch(rf"[\d:.]+ master   {os.getpid()} error: it\n  failed", line)


@pytest.mark.usefixtures("in_worker")
def test_lines_of_a_worker() -> None:
    line = log.TextFormatter().format(record(logging.WARNING, "slow", exc_info=raised()))
    first, *others = line.splitlines()
    assert re.fullmatch(rf"[\d:.]+ worker 3 {os.getpid()} warning: slow", first)
    assert others[0].startswith("Traceback") and others[-1] == "LookupError: on purpose"


@pytest.mark.usefixtures("in_worker")
def test_colours_change_nothing_else() -> None:
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        made = record(level, "text")
        coloured = log.TextFormatter(True).format(made)
        assert CODES.search(coloured)
        assert CODES.sub("", coloured) == log.TextFormatter().format(made)


@pytest.mark.usefixtures("in_worker")
def test_json_lines() -> None:
    fields = {"worker_pid": 7, "generation": 2, "exc_info": raised()}
    line = log.JsonFormatter().format(record(logging.ERROR, 'a "quoted" line', **fields))
    assert "\n" not in line
    told = json.loads(line)
    assert datetime.datetime.fromisoformat(told.pop("time")).tzinfo is not None
    assert told.pop("detail").startswith("Traceback")
    expected = {"level": "error", "who": "worker", "slot": 3, "pid": os.getpid(), "text": 'a "quoted" line'}
    assert told == {**expected, "worker_pid": 7, "generation": 2}
    assert json.loads(log.JsonFormatter().format(logging.makeLogRecord({"name": "asyncio"})))["logger"] == "asyncio"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
    ],
)
def test_colours_are_for_terminals_whose_users_want_them(stream: Any, environment: Any, expected: bool) -> None:
    assert log.is_coloured(stream, environment) is expected


def lines_of(source: str) -> Iterator[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    yield from done.stderr.splitlines()


def test_what_nobody_has_set_up_has_the_same_form() -> None:
    source = """
import logging
from hoop.cluster.log import log_to_stderr
log_to_stderr("json", access=True)
log_to_stderr("text")
logging.getLogger("hoop.cluster").info("one")
logging.getLogger("application").warning("two")
logging.getLogger("application").info("not this")
logging.getLogger("uvicorn.access").info("three")
"""
    assert [json.loads(line)["text"] for line in lines_of(source)] == ["one", "two", "three"]


def test_a_log_of_the_programs_own_is_left_alone() -> None:
    source = """
import logging
logging.basicConfig(format="own %(message)s", level="INFO")
from hoop.cluster.log import log_to_stderr
log_to_stderr()
logging.getLogger("hoop.cluster").info("one")
logging.warning("two")
"""
    assert list(lines_of(source)) == ["own one", "own two"]
