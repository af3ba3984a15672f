"""A server that says what happens to it, and connections without a network, for tests of hoop.Agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import hoop

DEADLINE_S = 100.0  # that a test takes which hangs; a sanitizer on a loaded machine needs 30


class EchoServer:
    """Answers each line with itself. Knows its connections, and can end them."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.address: tuple[str, int] = ("", 0)
        self.ended = asyncio.Event()  # a client has closed a connection; cleared by the test

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()
        self.ended.set()


@contextlib.asynccontextmanager
async def echo_server(**keywords: Any) -> AsyncIterator[EchoServer]:
    echo = EchoServer()
    server = await hoop.start_server(echo.serve, "127.0.0.1", 0, **keywords)
    echo.address = server.sockets[0].getsockname()
    try:
        yield echo
    finally:
        for writer in echo.writers:
            writer.transport.abort()
        server.close()


async def ask(lease: hoop.Lease, line: bytes = b"?\n") -> bytes:
    lease.writer.write(line)
    return await lease.reader.readline()


async def fill(agent: hoop.Agent, *key: Any, count: int) -> None:
    """Leave that many free connections."""
    leases = [await agent.acquire(*key) for _ in range(count)]
    for lease in leases:
        lease.release()


class FakeTransport(asyncio.Transport):
    """An open connection to nowhere."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol
        self._closing = False
        self.closed_by_agent = False

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing

    def close(self) -> None:
        self._closing = self.closed_by_agent = True

    def abort(self) -> None:
        self.close()

    def die(self) -> None:
        """As if the peer had ended it."""
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(ConnectionResetError())


class Peer:
    """connect for an Agent: each attempt ends when the test says so."""

    def __init__(self) -> None:
        self.attempts: list[tuple[Any, asyncio.Future[None]]] = []
        self.transports: list[FakeTransport] = []

    async def connect(self, key: Any = None) -> tuple[FakeTransport, asyncio.Protocol]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.attempts.append((key, future))
        try:
            await future
        except asyncio.CancelledError:
            self.attempts = [entry for entry in self.attempts if entry[1] is not future]
            raise
        protocol = asyncio.Protocol()
        transport = FakeTransport(protocol)
        self.transports.append(transport)
        return transport, protocol

    def succeed(self, index: int = 0) -> None:
        self.attempts.pop(index)[1].set_result(None)

    def fail(self, index: int = 0, error: Exception | None = None) -> None:
        self.attempts.pop(index)[1].set_exception(error or ConnectionRefusedError("refused"))


async def settle() -> None:
    """A few turns of the loop: what was woken has run."""
    for _ in range(6):
        await asyncio.sleep(0)


def on_hoop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that a loop runs, and cancels where it hangs."""
    import functools

    @functools.wraps(test)
    def run(*arguments: Any, **keywords: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await test(*arguments, **keywords)

        hoop.run(main())

    return run
