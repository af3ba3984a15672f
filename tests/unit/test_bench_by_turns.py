"""Servers that are alive together are loaded by turns, and one that fails leaves the others their turns."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import pytest
from bench import by_turns
from bench.by_turns import Servers, turns_of
from bench.measure import Cores
from bench.processes import ChildFailed
from bench.results import Sample
from bench.rounds import NODE_WARMUP_S, Timing
from bench.workloads import WORKLOADS

LISTENING = "import json; print(json.dumps({'port': 7}), flush=True); input()"
TIMING = Timing(rounds=1, seconds=0.06, warmup_s=0.5, turn_s=0.02)


@pytest.fixture
def loads(monkeypatch):
    """What is loaded: for how long, after which warm-up. Contenders in `failing` fail."""
    found = []

    def load(_workload, pid, port, timing, _cores):
        contender = names[pid]
        found.append((contender, timing.seconds, timing.warmup_s))
        if contender in failing:
            raise ChildFailed("first error: so it is")
        return Sample(1.0, 1.0, 1.0, 1.0, 1.0, 1, timing.seconds, 1.0, 1.0)

    failing = set()
    names = {}
    monkeypatch.setattr(by_turns, "load", load)
    monkeypatch.setattr(by_turns, "server_command", lambda *_: [sys.executable, "-c", LISTENING])
    return type("Loads", (), {"found": found, "failing": failing, "names": names})


def started(stack, loads, contenders):
    servers = Servers(WORKLOADS[0], Cores(None, None), stack)
    for contender in contenders:
        servers.start(contender)
        loads.names[servers._alive[contender][0].pid] = contender
    return servers


def test_a_round_is_divided_into_turns(loads):
    assert turns_of(TIMING) == 3
    with ExitStack() as stack:
        turns = list(started(stack, loads, ["a", "b"]).by_turns(TIMING, ["a", "b"]))
    assert [(turn.number, turn.contender) for turn in turns] == [
        *[(0, "a"), (0, "b")],
        *[(1, "b"), (1, "a")],
        *[(2, "a"), (2, "b")],
    ]
    assert all(turn.sample is not None for turn in turns)
    assert all(seconds == pytest.approx(0.02) for _, seconds, _ in loads.found)


def test_only_the_first_window_of_a_process_warms_it_up(loads):
    with ExitStack() as stack:
        servers = started(stack, loads, ["a", "node"])
        for _ in range(2):
            list(servers.by_turns(TIMING, ["a", "node"]))
    warmups = {name: [warmup_s for found, _, warmup_s in loads.found if found == name] for name in ("a", "node")}
    assert warmups["a"] == [0.5] + 5 * [by_turns.LATER_WARMUP_S]
    assert warmups["node"] == [NODE_WARMUP_S] + 5 * [by_turns.LATER_WARMUP_S]


def test_one_that_fails_is_out_and_the_others_go_on(loads):
    loads.failing.add("b")
    with ExitStack() as stack:
        servers = started(stack, loads, ["a", "b"])
        turns = list(servers.by_turns(TIMING, ["a", "b"]))
        assert list(servers.ports) == ["a"]
    assert [turn.contender for turn in turns] == ["a", "b", "a", "a"]
    assert turns[1].failure == "first error: so it is"


def test_one_that_does_not_listen_says_why(loads, monkeypatch):
    monkeypatch.setattr(by_turns, "server_command", lambda *_: [sys.executable, "-c", "raise SystemExit('not here')"])
    with ExitStack() as stack:
        servers = Servers(WORKLOADS[0], Cores(None, None), stack)
        with pytest.raises(ChildFailed, match="server: ended with status 1 not here"):
            servers.start("a")
        assert servers.ports == {}
