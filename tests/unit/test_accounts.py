"""What a master adds up of workers that come, count and go, against sums of plain numbers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hoop.cluster.accounts import Accounts
from hoop.core.board import Lags
from hoop.figures import BOUNDS
from hoop.stats import BoardReading
from hypothesis import given, settings
from hypothesis import strategies as st


def reading(requests: int) -> BoardReading:
    counters: dict[str, Any] = dict.fromkeys(
        ("turns", "callbacks", "events", "polls", "sleeps", "accepts", "connections", "jobs"), requests
    )
    return BoardReading(
        pid=1, is_running=True, busy_since=None, busy_ns=requests * 10**9, idle_ns=0, requests=requests, lag=Lags(),
        is_torn=False, **counters,
    )  # fmt: skip


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("die"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("upgrade"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@pytest.mark.once
@settings(deadline=None, max_examples=30)
@given(STEPS)
def test_trap_o1_sums_are_those_of_all_workers_that_ever_were(steps):
    accounts = Accounts()
    living = [0, 0, 0]
    model: Counter[str] = Counter()
    for kind, slot, number in steps:
        if kind == "count":
            living[slot] += number
            model[str(slot)] += number
        elif kind == "die":
            accounts.retire(str(slot), reading(living[slot]))
            accounts.restarts["died"] += 1
            living[slot] = 0  # another one begins in its place
        else:
            accounts = Accounts(json.loads(json.dumps(accounts.snapshot())))
    totals = accounts.totals([(str(slot), reading(count)) for slot, count in enumerate(living)])
    for place in range(3):
        sums = totals[str(place)]
        assert sums["hoop.server.requests", ""] == model[str(place)]
        assert sums["hoop.eventloop.time", "active"] == model[str(place)]
        assert sums["hoop.server.connection.accepted", ""] == model[str(place)]
        assert ("hoop.server.connection.count", "") not in sums  # a gauge: it goes with its worker
    assert accounts.restarts["died"] == sum(kind == "die" for kind, _, _ in steps)


def test_what_another_version_has_counted_is_kept():
    """A counter that is not known here; a histogram of other bounds, of which the number and the sum stay."""
    former = {
        "restarts": {"died": 2},
        "reloads": {},
        "retired": {"0": [["hoop.gone", "", 7], ["hoop.eventloop.delay", "", [[1, 2], 3, 0.5]]]},
    }
    accounts = Accounts(former)
    assert accounts.restarts["died"] == 2
    delay: Any = accounts.totals([("0", reading(1))])["0"]["hoop.eventloop.delay", ""]
    assert (delay.within, delay.total, delay.sum_s) == ((0,) * len(BOUNDS), 3, 0.5)
    assert Accounts(json.loads(json.dumps(accounts.snapshot()))).retired["0"]["hoop.gone", ""] == 7
