"""The table of docs/timers.md: in which order a turn runs its queues. asyncio's part is checked on asyncio as well."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest


class Table:
    """A loop with a readable socket, and what ran on it."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.seen: list[str] = []
        self.left, self.right = socket.socketpair()
        self.left.setblocking(False)

    def queue(self, kind: str, name: str, then: Callable[[], object] = int) -> None:
        """Have `name` noted by a callback of the kind."""

        def run() -> None:
            if kind == "I/O":
                self.left.recv(1)
                self.loop.remove_reader(self.left)
            self.seen.append(name)
            then()

        if kind == "I/O":
            self.loop.add_reader(self.left, run)
            self.right.send(b"x")
        elif kind == "timer":
            self.loop.call_later(0, run)
        else:
            getattr(self.loop, kind)(run)

    def one_turn(self) -> list[str]:
        self.loop.stop()
        self.loop.run_forever()
        seen, self.seen = self.seen, []
        return seen

    def close(self) -> None:
        self.loop.remove_reader(self.left)
        self.left.close()
        self.right.close()


@pytest.fixture
def table(loop: Any) -> Iterator[Table]:
    table = Table(loop)
    yield table
    table.close()


HOOP_ORDER = ["next_tick", "queue_microtask", "call_soon", "I/O", "timer", "set_immediate"]
ONLY_HOOP = pytest.mark.parametrize("loop_name", ["hoop"])
PHASES = ["call_soon", "I/O", "timer", "set_immediate"]


@ONLY_HOOP
@pytest.mark.parametrize("queued", list(itertools.permutations(HOOP_ORDER))[::17])
def test_one_turn_runs_the_kinds_in_the_order_of_the_table_however_they_were_queued(table, queued):
    for kind in queued:
        table.queue(kind, kind)
    assert table.one_turn() == HOOP_ORDER


def test_asyncio_has_the_same_order_of_its_own_kinds_across_turns(table):
    """asyncio appends what its poll found to the ready callbacks of the same turn; timers come behind in both."""
    for kind in ("timer", "I/O", "call_soon"):
        table.queue(kind, kind)
    seen = table.one_turn()
    assert seen == ["call_soon", "I/O", "timer"]


@ONLY_HOOP
@pytest.mark.parametrize("phase", PHASES)
def test_ticks_and_microtasks_follow_each_single_callback(table, phase):
    def queue_both() -> None:
        table.queue("queue_microtask", "microtask", lambda: table.queue("next_tick", "tick of microtask"))
        table.queue("next_tick", "tick", lambda: table.queue("next_tick", "tick of tick"))

    table.queue(phase, "first", queue_both)
    if phase != "I/O":
        table.queue(phase, "second")
    expected = ["first", "tick", "tick of tick", "microtask", "tick of microtask"]
    assert table.one_turn() == expected + (["second"] if phase != "I/O" else [])


@ONLY_HOOP
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("queued", ["call_soon", "timer"])
def test_callbacks_and_timers_queued_in_a_turn_run_in_the_next(table, phase, queued):
    table.queue(phase, "first", lambda: table.queue(queued, "queued"))
    assert table.one_turn() == ["first"]
    assert table.one_turn() == ["queued"]


@ONLY_HOOP
@pytest.mark.parametrize("phase", PHASES)
def test_immediates_queued_in_a_turn_run_at_its_end_but_for_those_of_immediates(table, phase):
    table.queue(phase, "first", lambda: table.queue("set_immediate", "immediate"))
    if phase == "set_immediate":
        assert table.one_turn() == ["first"]
        assert table.one_turn() == ["immediate"]
    else:
        assert table.one_turn() == ["first", "immediate"]


@ONLY_HOOP
def test_in_an_io_callback_an_immediate_precedes_a_timer_as_in_node(table):
    def queue_both() -> None:
        table.queue("timer", "timer")
        table.queue("set_immediate", "immediate")

    table.queue("I/O", "I/O", queue_both)
    assert table.one_turn() + table.one_turn() == ["I/O", "immediate", "timer"]


@ONLY_HOOP
def test_timers_of_all_makers_run_by_deadline_then_by_age(table):
    loop, seen = table.loop, table.seen
    now = loop.time()
    loop.call_at(now - 1, seen.append, "third")
    loop.call_at(now - 3, seen.append, "first")
    loop.call_at(now - 3, seen.append, "second")
    loop.set_timeout(seen.append, -0.5, "fourth")
    assert table.one_turn() == ["first", "second", "third", "fourth"]


def test_the_two_loops_are_what_they_say(loop, loop_name):
    assert isinstance(loop, hoop.Loop if loop_name == "hoop" else asyncio.SelectorEventLoop)
