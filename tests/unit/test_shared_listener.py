"""A listening socket that several loops share, as the workers of a pre-fork server do: all of them get connections."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import queue
import socket
import threading
import time
from typing import Any

import hoop
import pytest

CONNECTIONS = 64
LEAST = 8  # of a fair share of 32


class Worker:
    """A loop in a thread of its own, which reports each connection that it accepts and closes it."""

    def __init__(self, name: str, listener: socket.socket, accepted: queue.Queue[str]) -> None:
        self.name = name
        self.listener = listener
        self.accepted = accepted
        self.listening = threading.Event()
        self.thread = threading.Thread(target=lambda: hoop.run(self.main()))
        self.thread.start()
        assert self.listening.wait(20)

    def connected(self) -> asyncio.Protocol:
        self.note_busy()
        self.accepted.put(self.name)
        return asyncio.Protocol()

    def note_busy(self) -> None:
        self.sleeps = self.loop.metrics().sleeps

    def is_idle(self) -> bool:
        """Whether it has gone to sleep since it was busy."""
        return self.loop.metrics().sleeps > self.sleeps

    async def main(self) -> None:
        self.loop: Any = asyncio.get_running_loop()
        self.finish = asyncio.Event()
        server = await self.loop.create_server(self.connected, sock=self.listener)
        self.note_busy()
        self.listening.set()
        await self.finish.wait()
        server.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.finish.set)
        self.thread.join()


def wait_until_idle(workers: list[Worker]) -> None:
    deadline = time.monotonic() + 20
    while not all(worker.is_idle() for worker in workers):
        assert time.monotonic() < deadline
        os.sched_yield()


def test_idle_loops_take_turns() -> None:
    """Connections that come one at a time, when both loops sleep, do not all go to one of them. (One that is still busy
    with the last finds the next first: it has the GIL, which the other must wait for.)"""
    with contextlib.closing(hoop.new_event_loop()) as loop:
        if loop.poller_name != "epoll":
            pytest.skip("only epoll wakes one waiter; elsewhere all of them run for each connection")
    accepted: queue.Queue[str] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as first, contextlib.ExitStack() as clients:
        workers = [Worker("first", first, accepted), Worker("second", first.dup(), accepted)]
        share: collections.Counter[str] = collections.Counter()
        try:
            for _ in range(CONNECTIONS):
                wait_until_idle(workers)
                # Open to the end: the end of one would wake its loop, which is no longer idle and finds the next one
                # first.
                clients.enter_context(socket.create_connection(first.getsockname(), timeout=20))
                share[accepted.get(timeout=20)] += 1
        finally:
            for worker in workers:
                worker.stop()
    assert min(share["first"], share["second"]) >= LEAST, share


class Counted(asyncio.Protocol):
    """Notes in which turn it came."""

    turn = 0
    accepted: list[tuple[int, asyncio.BaseTransport]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.accepted.append((self.turn, transport))


def test_trap_c23_a_loop_takes_a_burst_in_small_steps() -> None:
    """What has come first is not served after all that came with it, and other processes get some of it."""
    Counted.accepted = []
    with contextlib.closing(hoop.new_event_loop()) as loop, contextlib.ExitStack() as clients:
        if loop.poller_name != "epoll":
            pytest.skip("elsewhere the processes wake each other for each connection")
        listener = clients.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS))
        server = loop.run_until_complete(loop.create_server(Counted, sock=listener, backlog=CONNECTIONS))
        for _ in range(CONNECTIONS):
            clients.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
        while len(Counted.accepted) < CONNECTIONS:
            Counted.turn += 1
            loop.call_soon(loop.stop)
            loop.run_forever()
        server.close()
        for _, transport in Counted.accepted:
            transport.close()
        loop.run_until_complete(server.wait_closed())
    assert max(collections.Counter(turn for turn, _ in Counted.accepted).values()) == 8
