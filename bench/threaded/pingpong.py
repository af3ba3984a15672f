"""Two protocols of one loop play with each other over a socketpair, in each of several loops: no client takes part."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.loops import LOOPS
from bench.rounds import round_order

NAMES = ("hoop", "asyncio", "uvloop")
SECONDS = 2.0
ROUNDS = 5


class Ball(asyncio.Protocol):
    """Plays with another one until the time is over."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.count += 1
        if self.count % 64 == 0 and time.monotonic() >= self.until:
            if not self.over.done():
                self.over.set_result(None)
            return
        self.transport.write(data)


async def play(begin: threading.Barrier) -> int:
    """How many messages came in SECONDS."""
    loop = asyncio.get_running_loop()
    begin.wait()  # blocks the loop, which has nothing else to do: all begin at once
    balls = [Ball(time.monotonic() + SECONDS) for _ in range(2)]
    for ball, end in zip(balls, socket.socketpair(), strict=True):
        end.setblocking(False)
        await loop.create_connection(lambda ball=ball: ball, sock=end)  # type: ignore[misc]
    balls[0].transport.write(b"x" * 64)
    await asyncio.wait([ball.over for ball in balls], return_when=asyncio.FIRST_COMPLETED)
    for ball in balls:
        ball.transport.abort()
    return sum(ball.count for ball in balls)


def in_threads(factory: Callable[[], asyncio.AbstractEventLoop], count: int) -> list[int]:
    """What play() returns on each of `count` loops, one in each of as many threads."""
    begin = threading.Barrier(count)
    counts: list[int] = []

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            counts.append(runner.run(play(begin)))

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == count, "a loop has failed; its traceback stands above"
    return counts


def show() -> None:
    names = [name for name in NAMES if LOOPS[name].is_installed()]
    rates: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in names}
    for number in range(ROUNDS):
        for name in round_order(names, number):
            for loops, found in rates[name].items():
                found.append(sum(in_threads(LOOPS[name].factory(), loops)) / SECONDS)
    for name, of_loops in rates.items():
        one, two = of_loops[1], of_loops[2]
        factor = median([second / first for first, second in zip(one, two, strict=True)])
        print(f"{name}: 1 loop {median(one):,.0f} messages/s, 2 loops {median(two):,.0f}, factor {factor:.2f}")
    print(f"{len(os.sched_getaffinity(0))} processors, medians of {ROUNDS} rounds")
