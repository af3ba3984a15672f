"""Loops in threads of one process, for a Python without a GIL: their memory beside processes, and how they scale.

    python -m bench.threaded memory [TARGET]      a cluster of 4, as threads and as processes; TARGET as for hoop serve
    python -m bench.threaded scaling              ping-pong over a socketpair in each of 1 and 2 loops, no client

Memory is the sum of Pss of all processes (/proc/PID/smaps_rollup): what processes share is counted once.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import hoop

WORKERS = 4
SECONDS = 2.0
ROUNDS = 5  # of which the best counts
LIMIT_S = 60.0
PSS = re.compile(r"^Pss: +(\d+) kB", re.MULTILINE)


class Echo(asyncio.Protocol):
    """What is served if no target is given."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def family_of(pid: int) -> list[int]:
    """The process and its descendants."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(one) for path in tasks for one in path.read_text().split()]
    return [pid, *(one for child in children for one in family_of(child))]


def memory_of(target: str, kind: str) -> int:
    """KiB of a cluster that serves."""
    command = [sys.executable, "-m", "hoop", "serve", target, f"--{kind}", str(WORKERS), "--bind", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.start()
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "serving on" in line:
                    break
            else:
                raise SystemExit("".join(said))
            pages = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family_of(process.pid)]
        finally:
            timer.cancel()
            process.send_signal(signal.SIGTERM)
    return sum(int(found) for page in pages for found in PSS.findall(page))


def show_memory(target: str) -> None:
    figures = {kind: memory_of(target, kind) for kind in ("workers", "threads")}
    for kind, figure in figures.items():
        print(f"{target}, --{kind} {WORKERS}: {figure / 1024:.1f} MiB")
    print(f"threads : processes = {figures['threads'] / figures['workers']:.2f}")


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


async def play(worker: Any) -> int:
    """How many messages came in SECONDS."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, worker.state.wait)  # all begin at once
    balls = [Ball(time.monotonic() + SECONDS) for _ in range(2)]
    for ball, end in zip(balls, socket.socketpair(), strict=True):
        end.setblocking(False)
        await loop.create_connection(lambda ball=ball: ball, sock=end)  # type: ignore[misc]
    balls[0].transport.write(b"x" * 64)
    await asyncio.wait([ball.over for ball in balls], return_when=asyncio.FIRST_COMPLETED)
    for ball in balls:
        ball.transport.abort()
    return sum(ball.count for ball in balls)


def show_scaling() -> None:
    rates = {1: 0.0, 2: 0.0}
    for _ in range(ROUNDS):
        for loops, best in list(rates.items()):
            counts = hoop.run_threads(play, loops, state=threading.Barrier(loops))
            rates[loops] = max(best, sum(counts) / SECONDS)
    for loops, rate in rates.items():
        print(f"{loops} loops: {rate:,.0f} messages/s")
    print(f"2 : 1 = {rates[2] / rates[1]:.2f} on {len(os.sched_getaffinity(0))} processors")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["memory", *target]:
            show_memory(target[0] if target else "bench.threaded:Echo")
        case ["scaling"]:
            show_scaling()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
