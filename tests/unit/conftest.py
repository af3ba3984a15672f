"""Fixtures of the tests of socket handles: the events that they log, and the problems that their loop reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conformance.peers import DEADLINE_S
from handle_events import Log


@pytest.fixture
def problems(loop: Any) -> Iterator[list[dict[str, Any]]]:
    """What the exception handler was told: nothing, unless the test takes it away. And loop.run() ends in time."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    timer = loop.call_later(DEADLINE_S, loop.stop).unref()
    yield told
    timer.cancel()
    assert told == []


@pytest.fixture
def log() -> Log:
    return Log()
