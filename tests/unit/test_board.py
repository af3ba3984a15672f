"""hoop.core.board: what a loop writes on its place, read by itself or by another process."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from collections.abc import Iterator
from typing import Any

import hoop
import pytest
from hoop.core.board import Board, Lags
from hoop.core.processors import has_gil
from interpreter import run_script
from stepping import one_turn


@pytest.fixture
def loop() -> Iterator[Any]:
    loop = hoop.Loop(poll_every_turn=True)
    yield loop
    loop.close()


@pytest.fixture
def board() -> Board:
    return Board(3)


def test_a_new_place_is_empty(board):
    reading = board.read(2)
    assert (reading.pid, reading.is_running, reading.busy_since, reading.is_torn) == (0, False, None, False)
    assert (reading.turns, reading.accepts, reading.requests, reading.lag.count) == (0, 0, 0, 0)
    assert reading.utilization == 0.0


def test_places_that_are_not_there(board, loop):
    assert len(board) == 3
    for place in (-1, 3):
        with pytest.raises(IndexError, match="has 3"):
            board.read(place)
        with pytest.raises(IndexError, match="has 3"):
            board.attach(loop, place)
    for places in (0, -1, 65537):
        with pytest.raises(ValueError, match="1 to 65536"):
            Board(places)


def test_only_an_open_hoop_loop_is_attached(board, loop):
    plain = asyncio.SelectorEventLoop()
    with pytest.raises(TypeError):
        board.attach(plain, 0)
    plain.close()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        board.attach(loop, 0)


def test_counters_are_the_loops_since_it_was_attached(board, loop):
    one_turn(loop)
    board.attach(loop, 1)
    before = loop.metrics()
    for _ in range(3):
        loop.call_soon(int)
        one_turn(loop)
    metrics, reading = loop.metrics(), board.read(1)
    assert reading.pid == os.getpid()
    assert not reading.is_running
    assert reading.turns == metrics.turns - before.turns == 3
    assert reading.callbacks == metrics.callbacks - before.callbacks
    assert reading.lag.count == metrics.lag.count - before.lag.count
    assert board.read(0).turns == 0


def test_reset_metrics_takes_nothing_back(board, loop):
    board.attach(loop, 0)
    one_turn(loop)
    one_turn(loop)
    loop.reset_metrics()
    one_turn(loop)
    assert board.read(0).turns == 3
    assert board.read(0).lag.count == 3


def test_a_second_loop_goes_on_from_the_first(board):
    for _ in range(2):
        loop = hoop.Loop()
        board.attach(loop, 0)
        one_turn(loop)
        loop.close()
    assert board.read(0).turns == 2


def test_busy_while_a_callback_runs_and_not_while_it_sleeps(board, loop):
    seen = []
    began = time.monotonic()

    def busy() -> None:
        seen.append(board.read(0))

    board.attach(loop, 0)
    loop.call_soon(busy)
    one_turn(loop)
    (reading,) = seen
    assert reading.is_running
    assert began <= reading.busy_since <= time.monotonic()
    asleep = loop.run_in_executor(None, wait_until, lambda: board.read(0).busy_since is None)
    loop.run_until_complete(asyncio.wait_for(asleep, 60))
    assert board.read(0).busy_since >= reading.busy_since


def wait_until(condition) -> None:
    while not condition():
        time.sleep(0.001)


@pytest.mark.skipif(not has_gil(), reason="there is no GIL to keep")
def test_busy_while_another_thread_keeps_the_gil(board, loop):
    """The loop has been woken, and cannot go on: the page says so. (Another process must look, without this GIL.)"""
    program = """
import ctypes, os, sys, threading, time
import hoop
from hoop.core.board import Board

board = Board(1)
told, tell = os.pipe()
child = os.fork()
if child == 0:
    loop = hoop.Loop()
    board.attach(loop, 0)

    functions = ctypes.PyDLL(None)  # they keep the GIL
    woken, wake = os.pipe()
    loop.add_reader(woken, int)
    sys.setswitchinterval(100)  # else the loop may have the GIL before sleep() is reached

    def keep():
        while board.read(0).busy_since is not None:
            time.sleep(0.001)
        os.write(tell, b"x")
        functions.write(wake, b"x", 1)
        functions.sleep(60)

    threading.Thread(target=keep, daemon=True).start()
    loop.run_forever()
os.close(tell)
os.read(told, 1)
while board.read(0).busy_since is None:
    time.sleep(0.001)
turns = board.read(0).turns
time.sleep(0.05)
assert board.read(0).turns == turns
os.kill(child, 9)
os.waitpid(child, 0)
print("seen")
"""
    status, output, errors = run_script(program)
    assert (status, output) == (0, "seen"), errors


def test_connections_of_all_servers(board, loop):
    made: list[Any] = []

    async def connect():
        both = asyncio.Event()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)
                if len(made) == 2:
                    both.set()

        servers = [await loop.create_server(Server, "127.0.0.1", 0) for _ in range(2)]
        addresses = [server.sockets[0].getsockname() for server in servers]
        clients = [(await loop.create_connection(asyncio.Protocol, *address))[0] for address in addresses]
        await both.wait()
        return clients

    board.attach(loop, 0)
    clients = loop.run_until_complete(asyncio.wait_for(connect(), 60))
    one_turn(loop)
    assert (board.read(0).accepts, board.read(0).connections) == (2, 2)
    made[0].abort()
    one_turn(loop)
    one_turn(loop)
    assert (board.read(0).accepts, board.read(0).connections) == (2, 1)
    for transport in (*clients, made[1]):
        transport.abort()
    one_turn(loop)
    one_turn(loop)
    assert (board.read(0).accepts, board.read(0).connections) == (2, 0)


def test_requests_are_what_the_application_counts(board):
    board.count_requests(1)
    board.count_requests(1, 5)
    assert board.read(1).requests == 6
    board.clear(1)
    assert board.read(1).requests == 0


def test_the_memory_lives_as_long_as_a_loop_writes_there(loop):
    board = Board(1)
    board.attach(loop, 0)
    del board
    gc.collect()
    one_turn(loop)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # one that is recorded keeps its source, the loop
def test_an_abandoned_loop_is_collected_with_its_board():
    loop = hoop.Loop()
    board = Board(1)
    board.attach(loop, 0)
    gone = weakref.ref(loop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    del loop
    gc.collect()
    assert gone() is None
    assert board.read(0).turns == 1


def test_a_child_of_the_worker_writes_nothing(board, loop):
    board.attach(loop, 0)
    one_turn(loop)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.set_event_loop(None)
            loop.stop()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert board.read(0).pid == os.getpid()
    assert board.read(0).turns == 1


@pytest.mark.skipif(Board(1).fileno() < 0, reason="no memory with a descriptor here")
def test_another_image_finds_it_by_the_descriptor(board):
    board.count_requests(2, 7)
    assert not os.get_inheritable(board.fileno())
    again = Board(fd=os.dup(board.fileno()))
    assert (len(again), again.read(2).requests) == (3, 7)
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match="no board"):
        Board(fd=reading)
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError):
        Board(fd=reading)


def test_lags_add_up_and_show_what_is_new(board, loop):
    def hold() -> None:
        time.sleep(0.003)

    board.attach(loop, 0)
    one_turn(loop)
    before = board.read(0).lag
    loop.call_soon(hold)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    after = board.read(0).lag
    new = after.since(before)
    assert new.count == after.count - before.count == 2
    assert new.max_ns >= 3_000_000
    assert new.sum_ns == after.sum_ns - before.sum_ns
    assert new.longer_than(0.003) == 1
    assert new.longer_than(float("inf")) == new.longer_than(1e9) == 0
    assert new.percentile_ns(100) == new.max_ns
    both = new.plus(before)
    assert (both.count, both.sum_ns, both.max_ns) == (after.count, after.sum_ns, after.max_ns)
    assert Lags().count == Lags().percentile_ns(50) == 0
    assert repr(new).startswith("<Lags count=2 ")
