"""Figures of hoop.Agent. Each is a coroutine function that returns numbers by contender."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import hoop

from bench.processes import START_LIMIT_S, running

Found = dict[str, float]

PAIRS = 2000  # acquire and release, in a window
WINDOWS = 40
FINS, AT_ONCE = 10_000, 100
WAITERS = 1000
IDLE, IDLE_S = 10_000, 3.0
REDIS_ANSWERS = b"+OK\r\n"


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[tuple[str, int]]:
    """A server that answers each thing that comes with what satisfies a client of Redis."""

    class Answer(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(REDIS_ANSWERS * max(data.count(b"*"), 1))

    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def timed(take_and_give: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of one; the best window, since whatever else runs here only adds."""
    best = float("inf")
    for _ in range(WINDOWS):
        gc.collect()
        begun = time.perf_counter()
        for _ in range(PAIRS):
            await take_and_give()
        best = min(best, (time.perf_counter() - begun) / PAIRS)
    return round(best * 1e6, 2)


async def free_connection() -> Found:
    """acquire() and release() of a connection that is free, one after another."""
    found: Found = {}
    async with answering() as (host, port):
        agent = hoop.Agent()
        lease = await agent.acquire(host, port)
        pooled = lease._pooled
        assert pooled is not None
        lease.release()

        async def with_agent() -> None:
            (await agent.acquire(host, port)).release()

        found["hoop"] = await timed(with_agent)
        pooled.fd = -1  # nothing to peek at
        found["hoop without peek"] = await timed(with_agent)
        agent.close()
        if importlib.util.find_spec("redis"):
            found["redis.asyncio"] = await timed_redis(host, port)
        if importlib.util.find_spec("generic_connection_pool"):
            found["generic-connection-pool"] = await timed_generic(host, port)
    return found


async def timed_redis(host: str, port: int) -> float:
    import redis.asyncio

    pool: Any = redis.asyncio.ConnectionPool(host=host, port=port, protocol=2)

    async def take_and_give() -> None:
        await pool.release(await pool.get_connection())

    try:
        return await timed(take_and_give)
    finally:
        await pool.aclose()


async def timed_generic(host: str, port: int) -> float:
    from generic_connection_pool.asyncio import ConnectionPool
    from generic_connection_pool.contrib.socket_async import TcpStreamConnectionManager

    pool: Any = ConnectionPool(TcpStreamConnectionManager())

    async def take_and_give() -> None:
        async with pool.connection((host, port)):
            pass

    try:
        return await timed(take_and_give)
    finally:
        await pool.close()


async def dead_ones() -> Found:
    """Connections handed out although the peer's FIN had arrived, of 10,000 acquisitions."""
    with socket.create_server(("127.0.0.1", 0), backlog=AT_ONCE) as listener:
        agent = hoop.Agent(keep_alive=None)
        address = listener.getsockname()
        handed_out = 0
        for _ in range(FINS // AT_ONCE):
            leases = [await agent.acquire(*address) for _ in range(AT_ONCE)]
            peers = [listener.accept()[0] for _ in leases]
            for lease in leases:
                lease.release()
            for peer in peers:
                peer.close()  # no turn of the loop comes between this and the next acquire()
            for _ in range(AT_ONCE):
                lease = await agent.acquire(*address)
                handed_out += lease.reused
                lease.close()
                listener.accept()[0].close()
        noticed = agent.stats().dead
        agent.close()
    return {"hoop": handed_out, "noticed": noticed}


async def waiters_in_order() -> Found:
    """Of 1,000 who wait for one connection, how many are served out of their order."""
    async with answering() as address:
        agent = hoop.Agent(max_sockets=1)
        first = await agent.acquire(*address)
        served: list[int] = []

        async def wait(number: int) -> None:
            lease = await agent.acquire(*address)
            served.append(number)
            await asyncio.sleep(0)
            lease.release()

        async with asyncio.TaskGroup() as group:
            for number in range(WAITERS):
                group.create_task(wait(number))
            await asyncio.sleep(0.01)
            first.release()
        agent.close()
    return {"hoop": sum(place != number for place, number in enumerate(served)), "served": len(served)}


SILENT_SERVER = """
import asyncio, hoop
async def main():
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
hoop.run(main())
"""


async def idle_ones() -> Found:
    """Wake-ups of the loop in 3 s in which 10,000 free connections lie in the agent."""
    loop: Any = asyncio.get_running_loop()
    with running(
        [sys.executable, "-c", SILENT_SERVER]
    ) as server:  # has the other ends: one process has not room enough
        port = int(server.read_line(START_LIMIT_S) or 0)
        agent = hoop.Agent(keep_alive=600.0, max_free_sockets=IDLE)
        leases = [await agent.acquire("127.0.0.1", port) for _ in range(IDLE)]
        for lease in leases:
            lease.release()
        await asyncio.sleep(0.1)
        before = loop.metrics().sleeps
        await asyncio.sleep(IDLE_S)
        wake_ups = loop.metrics().sleeps - before - 1  # one is of the sleep itself
        found: Found = {"hoop": wake_ups, "free": agent.stats().free}
        agent.close()
        await asyncio.sleep(0)
    return found
