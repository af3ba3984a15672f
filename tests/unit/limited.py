"""Servers with limits, of every kind, for the tests of hoop.Limits: what they are given, and what became of it.

Time is the test's own (Loop(clock=...)): nothing here waits for a timeout, the clock is put forward.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import hoop
from conformance.peers import DEADLINE_S, off_loop, turns
from conformance.tls_peers import server_context, wrap_client

SECOND_NS = 1_000_000_000
LOOK_S = 0.25


class Clock:
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND_NS

    def __call__(self) -> int:
        return self.now_ns

    async def forward(self, seconds: float) -> None:
        """Put the clock forward, and let the loop see what that means."""
        self.now_ns += int(seconds * SECOND_NS)
        await turns()


async def pass_looks(clock: Clock, seconds: float) -> None:
    """Let that much time pass in the steps of a drain's looks."""
    for _ in range(round(seconds / LOOK_S)):
        await clock.forward(LOOK_S)


def run_with_clock(main: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    clock = Clock()
    with asyncio.Runner(loop_factory=lambda: hoop.Loop(clock=clock)) as runner:
        runner.run(main(clock))


class Connection(asyncio.Protocol):
    """One connection of the server under test, and what happened to it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.transport: Any = None
        self.data = b""
        self.lost: list[BaseException | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.served.connections.append(self)
        self.served.wake()

    def data_received(self, data: bytes) -> None:
        self.data += data
        if b"?" in data:
            self.transport.write(b"answer\n")
        self.served.wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)
        self.served.wake()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def abort(self) -> None:
        self.transport.abort()

    def option(self, level: int, name: int) -> int:
        """A socket option of the server's end."""
        return self.transport.get_extra_info("socket").getsockopt(level, name)


class Handled:
    """The same over a socket handle."""

    def __init__(self, served: Served, handle: hoop.Socket) -> None:
        self.served = served
        self.transport = handle  # it has the methods of a transport that the tests call
        self.data = b""
        self.lost: list[BaseException | None] = []
        self.errors: list[BaseException] = []
        handle.on_data = self.on_data
        handle.on_error = lambda _, error: self.errors.append(error)
        handle.on_close = self.on_close
        served.connections.append(self)
        served.wake()

    def on_data(self, handle: hoop.Socket, data: bytes) -> None:
        self.data += data
        if b"?" in data:
            handle.write(b"answer\n")
        self.served.wake()

    def on_close(self, handle: hoop.Socket) -> None:
        assert self.errors == ([] if handle.error is None else [handle.error])
        self.lost.append(handle.error)
        self.served.wake()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def abort(self) -> None:
        self.transport.destroy()

    def option(self, level: int, name: int) -> int:
        transport: Any = self.transport.transport
        return transport.get_extra_info("socket").getsockopt(level, name)


class Served:
    """A server of some kind with limits, and its connections in the order in which they came."""

    is_tls = False

    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.server: Any = None
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait for something to have happened to a connection."""
        while not predicate():
            self.changed.clear()
            await self.changed.wait()

    async def start(self, limits: hoop.Limits | None) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, limits=limits)

    def close(self) -> None:
        self.server.close()
        for connection in self.connections:
            if not connection.lost:
                connection.abort()

    def stats(self) -> hoop.ServerStats:
        return self.server.stats()

    def address(self) -> Any:
        return self.server.sockets[0].getsockname()

    def connect(self, source: str | None = None) -> socket.socket:
        """Blocking: a raw peer; the kernel answers it."""
        return socket.create_connection(
            self.address(), DEADLINE_S, source_address=None if source is None else (source, 0)
        )

    async def peer(self, source: str | None = None) -> tuple[socket.socket, Any]:
        """A raw peer and the server's connection to it."""
        count = len(self.connections)
        peer = self.connect(source)
        await self.until(lambda: len(self.connections) > count)
        return peer, self.connections[count]


class ServedUnix(Served):
    async def start(self, limits: hoop.Limits | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "socket")
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(lambda: Connection(self), path, limits=limits)

    def close(self) -> None:
        super().close()
        self.folder.cleanup()

    def connect(self, source: str | None = None) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(DEADLINE_S)
        peer.connect(self.address())
        return peer


class ServedTls(Served):
    is_tls = True

    async def start(self, limits: hoop.Limits | None) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", 0, ssl=server_context(), limits=limits
        )

    async def peer(self, source: str | None = None) -> tuple[socket.socket, Any]:
        count = len(self.connections)
        raw = self.connect(source)
        peer: ssl.SSLSocket = await off_loop(functools.partial(wrap_client, raw))
        await self.until(lambda: len(self.connections) > count)
        return peer, self.connections[count]


class ServedHandles(Served):
    async def start(self, limits: hoop.Limits | None) -> None:
        loop: Any = asyncio.get_running_loop()
        self.server = loop.listen_tcp(functools.partial(Handled, self), limits=limits)


class ServedUnixHandles(ServedUnix):
    async def start(self, limits: hoop.Limits | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "socket")
        loop: Any = asyncio.get_running_loop()
        self.server = loop.listen_unix(functools.partial(Handled, self), path, limits=limits)


class ServedTlsHandles(ServedTls):
    async def start(self, limits: hoop.Limits | None) -> None:
        loop: Any = asyncio.get_running_loop()
        self.server = loop.listen_tcp(functools.partial(Handled, self), ssl=server_context(), limits=limits)


KINDS: dict[str, type[Served]] = {
    "tcp": Served,
    "unix": ServedUnix,
    "tls": ServedTls,
    "handles": ServedHandles,
    "unix-handles": ServedUnixHandles,
    "tls-handles": ServedTlsHandles,
}


@contextlib.asynccontextmanager
async def serving(kind: str, limits: hoop.Limits | None) -> AsyncIterator[Any]:
    served = KINDS[kind]()
    await served.start(limits)
    try:
        yield served
    finally:
        served.close()
        await turns()


@contextlib.contextmanager
def peers(*sockets: socket.socket) -> Iterator[None]:
    """Closes them at the end."""
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()
