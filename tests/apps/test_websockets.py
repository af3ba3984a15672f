"""The websockets package: a server and a thousand clients on one loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

Run = Callable[..., Any]
Payload = Callable[[int], bytes]

CLIENTS = 1000
MESSAGES = 5
OPENING_AT_ONCE = 100
LARGE = 4 * 1024 * 1024


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def serving(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None, max_size=2 * LARGE, backlog=OPENING_AT_ONCE) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def connection_to(address: str) -> connect:
    return connect(address, compression=None, max_size=2 * LARGE, proxy=None)


def test_echo_with_a_thousand_clients(run: Run, many_descriptors: int) -> None:
    """All are connected at the same time, each gets its own messages in order, and all close cleanly."""
    assert many_descriptors > 2 * CLIENTS + 100, f"the limit on descriptors is too low: {many_descriptors}"
    server_codes: list[int | None] = []
    all_closed = asyncio.Event()

    async def counted(connection: ServerConnection) -> None:
        await echo(connection)
        server_codes.append(connection.close_code)
        if len(server_codes) == CLIENTS:
            all_closed.set()

    async def main() -> None:
        opening = asyncio.Semaphore(OPENING_AT_ONCE)
        everyone = asyncio.Barrier(CLIENTS)

        async def client(address: str, number: int) -> tuple[int | None, str | None]:
            async with opening:
                connection = await connection_to(address)
            await everyone.wait()
            for turn in range(MESSAGES):
                await connection.send(f"client {number} turn {turn}")
            for turn in range(MESSAGES):
                assert await connection.recv() == f"client {number} turn {turn}"
            await everyone.wait()
            await connection.close(reason="done")
            return connection.close_code, connection.close_reason

        async with serving(counted) as address:
            closed = await asyncio.gather(*(client(address, number) for number in range(CLIENTS)))
            assert set(closed) == {(1000, "done")}
            await all_closed.wait()
            assert server_codes == [1000] * CLIENTS

    run(main(), deadline_s=60)


def test_sizes_and_kinds(run: Run, payload: Payload) -> None:
    async def main() -> None:
        async with serving(echo) as address, connection_to(address) as connection:
            for size in (0, 1, 125, 126, 65535, 65536, LARGE):
                body = payload(size)
                await connection.send(body)
                assert await connection.recv() == body
            await connection.send("Grüße")
            assert await connection.recv() == "Grüße"
            await connection.send(["frag", "ment", "ed"])
            assert await connection.recv() == "fragmented"
            assert await (await connection.ping()) >= 0

    run(main())


def test_backpressure_reaches_the_sender(run: Run) -> None:
    """A receiver that does not read stops the sender; when it reads again, nothing is missing."""
    sent = 0
    total = 512
    blocked = asyncio.Event()

    async def flood(connection: ServerConnection) -> None:
        nonlocal sent
        for number in range(total):
            sending = asyncio.ensure_future(connection.send(number.to_bytes(2, "big") * 32768))
            await asyncio.sleep(0)
            if not sending.done():
                blocked.set()
            await sending
            sent += 1

    async def main() -> None:
        async with serving(flood) as address, connection_to(address) as connection:
            await blocked.wait()
            assert sent < total
            received = [message async for message in connection]
            assert received == [number.to_bytes(2, "big") * 32768 for number in range(total)]

    run(main())


def test_client_that_vanishes(run: Run) -> None:
    """The server's handler learns of it, and others are served."""
    ended: asyncio.Queue[BaseException] = asyncio.Queue()

    async def reading(connection: ServerConnection) -> None:
        try:
            while True:
                await connection.send(await connection.recv())
        except (ConnectionClosedOK, ConnectionClosedError) as error:
            ended.put_nowait(error)

    async def exchange(connection: ClientConnection) -> None:
        await connection.send("hello")
        assert await connection.recv() == "hello"

    async def main() -> None:
        async with serving(reading) as address:
            first = await connection_to(address)
            await exchange(first)
            first.transport.abort()
            assert isinstance(await ended.get(), ConnectionClosedError)
            await first.wait_closed()
            async with connection_to(address) as second:
                await exchange(second)
            assert isinstance(await ended.get(), ConnectionClosedOK)

    run(main())


def test_server_shutdown_closes_its_clients(run: Run) -> None:
    async def main() -> None:
        async with serving(echo) as address:
            connections = [await connection_to(address) for _ in range(20)]
        for connection in connections:
            with pytest.raises(ConnectionClosedOK):
                await connection.recv()
            assert connection.close_code == 1001

    run(main())


def test_cancelled_receiver_loses_nothing(run: Run) -> None:
    async def main() -> None:
        async with serving(echo) as address, connection_to(address) as connection:
            waiting = asyncio.ensure_future(connection.recv())
            await (await connection.ping())
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await connection.send("after")
            assert await connection.recv() == "after"

    run(main())
