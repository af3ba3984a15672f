"""A row's Python code is driven by hand: each message is answered, or the measurement says that it was not."""

from __future__ import annotations

import pytest
from bench import alone
from bench.workloads import WORKLOADS


@pytest.mark.parametrize("name", alone.ALONE)
def test_each_message_is_answered(name):
    feed, transport = alone.ALONE[name]()
    feed()
    answer = transport.written
    assert answer > 0
    for _ in range(3):
        feed()
    assert transport.written == 4 * answer


def test_what_is_measured_is_a_row():
    assert set(alone.ALONE) <= {one.name for one in WORKLOADS}


def test_a_figure():
    assert alone.measure("streams-1k-100", 0.01) > 0


def test_who_does_not_answer_is_not_measured(monkeypatch):
    monkeypatch.setitem(alone.ALONE, "silent", lambda: ((lambda: None), alone.NoTransport()))
    with pytest.raises(RuntimeError, match="silent: nothing was answered"):
        alone.measure("silent", 0.01)
