"""Servers that are alive together are loaded by turns, and one that fails leaves the others their turns."""

from __future__ import annotations

import itertools
import sys
from contextlib import ExitStack

import pytest
from bench import by_turns
from bench.by_turns import Servers, turns_of
from bench.measure import Cores
from bench.rounds import NODE_WARMUP_S, Timing, round_order
from bench.workloads import WORKLOADS

LISTENING = "import json; print(json.dumps({'port': 7}), flush=True); input()"
TIMING = Timing(rounds=1, seconds=0.06, warmup_s=0.5, turn_s=0.02)
# A client for which each warm-up is a request; it notes its windows in a file of its name.
CLIENT = """
import json, sys
name, seconds, failing, unclosed = sys.argv[1:5]
def report(requests, unclosed=0):
    print(json.dumps({
        "requests": requests, "seconds": 1.0, "server_cpu_seconds": float(seconds), "client_cpu_seconds": 1.0,
        "p50_us": 1.0, "p99_us": 1.0, "p999_us": 1.0, "max_us": 1.0, "unclosed": unclosed,
        "errors": int(name == failing), "first_error": "so it is"}), flush=True)
for line in sys.stdin:
    report(round(1000 * float(line)))
report(1, int(unclosed))
"""


class Clients:
    """Who fails, and how many connections stay open at the end."""

    failing = "nobody"
    unclosed = 0


@pytest.fixture
def clients(monkeypatch):
    told = Clients()

    def command(_workload, pid, _port, timing, _cores):
        options = [names[pid], str(timing.seconds), told.failing, str(told.unclosed)]
        return [sys.executable, "-c", CLIENT, *options]

    def server(_workload, contender):
        return [sys.executable, "-c", LISTENING, contender]

    names = {}
    told.names = names
    monkeypatch.setattr(by_turns, "client_command", command)
    monkeypatch.setattr(by_turns, "server_command", server)
    return told


def started(stack, clients, contenders, failures=None):
    servers = Servers(WORKLOADS[0], Cores(None, None), stack, {} if failures is None else failures)
    for contender in contenders:
        servers.start(contender)
        clients.names[servers._alive[contender].pid] = contender
    return servers


def test_a_round_is_divided_into_turns(clients):
    assert turns_of(TIMING) == 3
    with ExitStack() as stack:
        turns = list(started(stack, clients, ["a", "b"]).by_turns(TIMING, ["a", "b"]))
    assert [(turn.number, turn.contender) for turn in turns] == [
        *[(0, "a"), (0, "b")],
        *[(1, "b"), (1, "a")],
        *[(2, "b"), (2, "a")],
    ]
    assert all(turn.sample.server_busy == pytest.approx(0.02) for turn in turns)


def test_only_the_first_window_warms_the_process_up(clients):
    with ExitStack() as stack:
        servers = started(stack, clients, ["a", "node"])
        turns = list(servers.by_turns(TIMING, ["a", "node"]))
    requests = {name: [turn.sample.requests for turn in turns if turn.contender == name] for name in ("a", "node")}
    later = round(1000 * by_turns.LATER_WARMUP_S)
    assert requests == {"a": [500, later, later], "node": [round(1000 * NODE_WARMUP_S), later, later]}


def test_one_that_fails_is_out_and_the_others_go_on(clients):
    clients.failing = "b"
    with ExitStack() as stack:
        failures = {}
        servers = started(stack, clients, ["a", "b"], failures)
        turns = list(servers.by_turns(TIMING, ["a", "b"]))
        assert list(servers.ports) == ["a"]
    assert [turn.contender for turn in turns] == ["a", "a", "a"]
    assert failures == {"b": "round 1: 1 errors, the first: so it is"}


def test_one_that_has_failed_is_not_started_again(clients):
    with ExitStack() as stack:
        servers = Servers(WORKLOADS[0], Cores(None, None), stack, {"a": "round 1: so it was"}, 1)
        servers.start("a")
        servers.start("b")
        clients.names[servers._alive["b"].pid] = "b"
        assert list(servers.ports) == ["b"]
        # The turns of a later round have numbers of their own.
        assert [turn.number for turn in servers.by_turns(TIMING, ["a", "b"])] == [3, 4, 5]


def test_what_the_end_shows_is_told(clients):
    clients.unclosed = 4
    with ExitStack() as stack:
        turns = list(started(stack, clients, ["a"]).by_turns(TIMING, ["a"]))
    assert [turn.number for turn in turns] == [0, 1, 2, 2]
    assert turns[-1].sample.unclosed == 4


def test_who_serves_for_a_server_is_whose_cpu_time_counts(clients):
    master = "import json; print(json.dumps({'port': 7, 'pid': 4711}), flush=True); input()"
    clients.names[4711] = "worker"
    with ExitStack() as stack:
        servers = Servers(WORKLOADS[0], Cores(None, None), stack, {})
        servers.start("a", command=[sys.executable, "-c", master])
        turns = list(servers.by_turns(TIMING, ["a"]))
    assert [turn.contender for turn in turns] == ["a", "a", "a"] and all(turn.sample for turn in turns)


def test_one_that_does_not_listen_says_why(monkeypatch):
    monkeypatch.setattr(by_turns, "server_command", lambda *_: [sys.executable, "-c", "raise SystemExit('not here')"])
    with ExitStack() as stack:
        failures = {}
        servers = Servers(WORKLOADS[0], Cores(None, None), stack, failures)
        servers.start("a")
        assert servers.ports == {}
    assert failures == {"a": "round 1: server: ended with status 1 not here"}


def test_each_contender_runs_twice_in_a_row_as_often_as_the_others():
    names = ["a", "b", "c"]
    line = [name for number in range(2 * len(names)) for name in round_order(names, number)]
    assert [one for one, next_one in itertools.pairwise([*line, line[0]]) if one == next_one] == ["c", "a", "b"]
    assert round_order([], 5) == []
