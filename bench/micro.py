"""Micro benchmarks of one loop, in this process: what single operations cost. micro_rounds.py runs it for each loop.

Prints a line of JSON when a benchmark begins and one when it ends, so that a crash can be attributed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

from bench import micro_asyncio
from bench.loops import LOOPS, LoopFactory, find_loop
from bench.micro_asyncio import BATCH, Batch, Loop
from bench.servers.serving import settle_allocator

PENDING_TIMERS = 10_000
THREAD_BATCH = 100  # operations that wait for another thread
DIGEST_SIZE = 65_536
PING_PONGS = 64  # datagrams under way
LEAST_BATCHES = 3
EXECUTOR_LIMIT_S = 5.0


def nothing() -> None:
    """The callback that is measured."""


def call_soon_batch(loop: Loop) -> Batch:
    async def batch() -> int:
        done = loop.create_future()
        for _ in range(BATCH):
            loop.call_soon(nothing)
        loop.call_soon(done.set_result, None)
        await done
        return BATCH

    return batch


def call_soon_chain(loop: Loop) -> Batch:
    async def batch() -> int:
        done = loop.create_future()
        left = BATCH

        def link() -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(link)
            else:
                done.set_result(None)

        loop.call_soon(link)
        await done
        return BATCH

    return batch


def sleep_zero(loop: Loop) -> Batch:
    async def batch() -> int:
        for _ in range(BATCH):
            await asyncio.sleep(0)
        return BATCH

    return batch


def call_later_cancel(loop: Loop) -> Batch:
    # The new timers fall between the pending ones, in an order that neither rises nor falls.
    pending = [loop.call_later(1000 + i * 0.1, nothing) for i in range(PENDING_TIMERS)]
    delays = [1000 + (i * 7919 % BATCH) * (PENDING_TIMERS * 0.1 / BATCH) for i in range(BATCH)]

    async def batch() -> int:
        assert pending
        for delay in delays:
            loop.call_later(delay, nothing).cancel()
        await asyncio.sleep(0)  # a loop that removes cancelled timers later does it here
        return BATCH

    return batch


def _fire(loop: Loop, delay: float) -> Batch:
    async def batch() -> int:
        done = loop.create_future()
        left = BATCH

        def fired() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set_result(None)

        for _ in range(BATCH):
            loop.call_later(delay, fired)
        await done
        return BATCH

    return batch


def call_later_fire_zero(loop: Loop) -> Batch:
    return _fire(loop, 0)


def call_later_fire(loop: Loop) -> Batch:
    return _fire(loop, 0.001)


def call_soon_threadsafe(loop: Loop) -> Batch:
    async def batch() -> int:
        done = loop.create_future()
        for _ in range(BATCH):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(done.set_result, None)
        await done
        return BATCH

    return batch


def threadsafe_round_trip(loop: Loop) -> Batch:
    async def batch() -> int:
        done = loop.create_future()

        def other_thread() -> None:
            answered = threading.Event()
            for _ in range(THREAD_BATCH):
                answered.clear()
                loop.call_soon_threadsafe(answered.set)
                answered.wait()
            loop.call_soon_threadsafe(done.set_result, None)

        thread = threading.Thread(target=other_thread, daemon=True)
        thread.start()
        await done
        thread.join()
        return THREAD_BATCH

    return batch


def executor_one(loop: Loop) -> Batch:
    async def batch() -> int:
        for _ in range(THREAD_BATCH):
            await loop.run_in_executor(None, int)
        return THREAD_BATCH

    return batch


def executor_hundred(loop: Loop) -> Batch:
    async def batch() -> int:
        await asyncio.gather(*[loop.run_in_executor(None, int) for _ in range(THREAD_BATCH)])
        return THREAD_BATCH

    return batch


def _resolve(loop: Loop, host: str, kind: int = socket.SOCK_STREAM) -> Batch:
    async def batch() -> int:
        for _ in range(THREAD_BATCH):
            await loop.getaddrinfo(host, 80, type=kind)
        return THREAD_BATCH

    return batch


def getaddrinfo_localhost(loop: Loop) -> Batch:
    return _resolve(loop, "localhost")


def getaddrinfo_literal(loop: Loop) -> Batch:
    return _resolve(loop, "127.0.0.1")


def getaddrinfo_literal_any_type(loop: Loop) -> Batch:
    return _resolve(loop, "127.0.0.1", 0)


def aiodns_localhost(loop: Loop) -> Batch:
    import aiodns

    async def batch() -> int:
        resolver = aiodns.DNSResolver()
        for _ in range(THREAD_BATCH):
            await resolver.getaddrinfo("localhost", socket.AF_UNSPEC, 80, type=socket.SOCK_STREAM)
        await resolver.close()
        return THREAD_BATCH

    return batch


def digest_hundred(loop: Loop) -> Batch:
    data = bytes(DIGEST_SIZE)
    if find_loop("hoop").made(loop):
        import hoop

        def digest() -> Awaitable[bytes]:
            return hoop.crypto.digest("sha256", data)
    else:

        def digest() -> Awaitable[bytes]:
            return loop.run_in_executor(None, lambda: hashlib.sha256(data).digest())

    async def batch() -> int:
        await asyncio.gather(*[digest() for _ in range(THREAD_BATCH)])
        return THREAD_BATCH

    return batch


def reader_add_remove(loop: Loop) -> Batch:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def batch() -> int:
        assert theirs.fileno() >= 0
        for _ in range(BATCH):
            loop.add_reader(ours.fileno(), nothing)
            loop.remove_reader(ours.fileno())
        await asyncio.sleep(0)
        return BATCH

    return batch


class PingPong(asyncio.DatagramProtocol):
    """One end of a UDP exchange: sends back what it receives, and counts down."""

    def __init__(self, left: int, done: asyncio.Future[None]) -> None:
        self.left = left
        self.done = done
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.left -= 1
        if self.left >= PING_PONGS:
            self.transport.sendto(data, addr)
        elif self.left == 0:
            self.done.set_result(None)


def udp_ping_pong(loop: Loop) -> Batch:
    """Both ends are this loop's: an operation is two datagrams sent and received."""

    async def batch() -> int:
        done = loop.create_future()
        local = ("127.0.0.1", 0)
        there, _ = await loop.create_datagram_endpoint(lambda: PingPong(1 << 60, done), local_addr=local)
        here, _ = await loop.create_datagram_endpoint(lambda: PingPong(BATCH + PING_PONGS, done), local_addr=local)
        for _ in range(PING_PONGS):
            here.sendto(bytes(512), there.get_extra_info("sockname"))
        await done
        here.close()
        there.close()
        return BATCH + PING_PONGS

    return batch


@dataclass(frozen=True)
class Micro:
    """One benchmark. `threads`: other threads take part, so it may use all cores."""

    prepare: Callable[[Loop], Batch]
    title: str
    threads: bool = False
    clock_ns: Callable[[], int] = time.perf_counter_ns


BENCHMARKS: dict[str, Micro] = {
    micro.prepare.__name__: micro
    for micro in (
        Micro(call_soon_batch, "call_soon, 1000 at once"),
        Micro(call_soon_chain, "call_soon, one a turn"),
        Micro(sleep_zero, "await sleep(0)"),
        Micro(micro_asyncio.create_task, "create_task, await it"),
        Micro(micro_asyncio.gather, "gather of 1000, each waits a turn"),
        Micro(micro_asyncio.wait_for, "wait_for, ends in time"),
        Micro(micro_asyncio.timeout_cancelled, "asyncio.timeout, ends in time"),
        Micro(micro_asyncio.timeout_expired, "asyncio.timeout, expires"),
        Micro(micro_asyncio.queue, "Queue: put and get, two tasks"),
        Micro(micro_asyncio.lock, "Lock: ten tasks, each keeps it a turn"),
        Micro(call_later_cancel, "call_later + cancel, 10k pending"),
        Micro(call_later_fire_zero, "call_later(0), fires"),
        Micro(call_later_fire, "call_later(1 ms), fires (CPU time)", clock_ns=time.process_time_ns),
        Micro(call_soon_threadsafe, "call_soon_threadsafe, same thread"),
        Micro(threadsafe_round_trip, "call_soon_threadsafe, round trip", threads=True),
        Micro(executor_one, "run_in_executor, one at a time", threads=True),
        Micro(executor_hundred, "run_in_executor, 100 at once", threads=True),
        Micro(getaddrinfo_localhost, "getaddrinfo('localhost')", threads=True),
        Micro(getaddrinfo_literal, "getaddrinfo('127.0.0.1')", threads=True),
        Micro(getaddrinfo_literal_any_type, "getaddrinfo('127.0.0.1'), any type", threads=True),
        *([Micro(aiodns_localhost, "aiodns: getaddrinfo('localhost')")] if find_spec("aiodns") else []),
        Micro(digest_hundred, "SHA-256 of 64 KiB in threads, 100 at once", threads=True),
        Micro(reader_add_remove, "add_reader + remove_reader"),
        Micro(udp_ping_pong, "UDP ping-pong, 512 B, 64 under way (CPU time)", clock_ns=time.process_time_ns),
    )
}


@dataclass(frozen=True)
class Spent:
    """What an operation took, the mean of a batch, in ns: by the benchmark's clock, and of all threads' CPU."""

    clock_ns: float
    cpu_ns: float


def run_benchmark(micro: Micro, factory: LoopFactory, seconds: float) -> list[Spent]:
    """What an operation took in each batch, on a new loop, for about `seconds`. The first batch does not count."""
    loop = factory()
    try:
        batch = micro.prepare(loop)
        gc.collect()
        return loop.run_until_complete(asyncio.wait_for(_repeat(micro, batch, seconds), 10 * seconds + 10))
    finally:
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_default_executor(), EXECUTOR_LIMIT_S))
        loop.close()


async def _repeat(micro: Micro, batch: Batch, seconds: float) -> list[Spent]:
    await batch()
    results: list[Spent] = []
    deadline = time.perf_counter() + seconds
    while len(results) < LEAST_BATCHES or time.perf_counter() < deadline:
        begin_cpu_ns, begin_ns = time.process_time_ns(), micro.clock_ns()
        operations = await batch()
        clock_ns, cpu_ns = micro.clock_ns() - begin_ns, time.process_time_ns() - begin_cpu_ns
        results.append(Spent(clock_ns / operations, cpu_ns / operations))
    return results


def summary_of(results: list[Spent]) -> dict[str, object]:
    """By the benchmark's clock the median and the least of all batches; of the CPU the median."""
    clock_ns = [spent.clock_ns for spent in results]
    return {
        "median_ns": statistics.median(clock_ns),
        "least_ns": min(clock_ns),
        "median_cpu_ns": statistics.median(spent.cpu_ns for spent in results),
        "batches": len(results),
    }


def main() -> None:
    """Run the benchmark that each line of stdin names, until it ends, or those named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", required=True, choices=list(LOOPS))
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS))
    arguments = parser.parse_args()
    factory = find_loop(arguments.loop).factory()
    settle_allocator()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    for name in arguments.only or map(str.strip, sys.stdin):
        micro = BENCHMARKS[name]
        if cores:
            os.sched_setaffinity(0, cores if micro.threads else {min(cores)})
        try:
            answer = summary_of(run_benchmark(micro, factory, arguments.seconds))
        except Exception as error:  # whatever a loop raises is its result
            answer = {"failure": f"{type(error).__name__} {error}".strip()[:160]}
        print(json.dumps({"end": name} | answer), flush=True)


if __name__ == "__main__":
    main()
