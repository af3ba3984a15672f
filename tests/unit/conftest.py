"""Fixtures of the tests of socket handles: the events that they log, and the problems that their loop reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

# What imports hoop is imported by the fixtures: some tests of this folder run before hoop is built.
if TYPE_CHECKING:
    from handle_events import Log


@pytest.fixture
def problems(loop: Any) -> Iterator[list[dict[str, Any]]]:
    """What the exception handler was told: nothing, unless the test takes it away. And loop.run() ends in time."""
    from conformance.peers import DEADLINE_S

    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    timer = loop.call_later(DEADLINE_S, loop.stop).unref()
    yield told
    timer.cancel()
    assert told == []


@pytest.fixture
def log() -> Log:
    from handle_events import Log

    return Log()
