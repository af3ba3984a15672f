"""Walks through the states of a TLS connection, with a peer that the test moves step by step."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from conformance.peers import Recorder, turns
from conformance.tls_peers import NAME, client_context, server_context


class SteppedPeer:
    """A TLS server on a non-blocking socket; each step takes what has come and sends what is to go."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = server_context().wrap_bio(self.incoming, self.outgoing, server_side=True)

    def step(self, function: Callable[..., Any], *arguments: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            self.incoming.write(self.sock.recv(1 << 20))
        with contextlib.suppress(ssl.SSLError):  # it wants more, or unwrap() finds data in the way
            function(*arguments)
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def shake_hands(self) -> None:
        self.step(self.ssl_object.do_handshake)

    def read(self) -> None:
        self.step(self.ssl_object.read, 1 << 20)

    def say_goodbye(self) -> None:
        self.step(self.ssl_object.unwrap)

    def drain(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.recv(1 << 20)


class Walk:
    """A client's connection, and the states that it was seen in."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def begin(self) -> None:
        """The handshake has begun."""
        ours, theirs = socket.socketpair()
        loop: Any = asyncio.get_running_loop()
        self.peer = SteppedPeer(theirs)
        self.lower, _ = await loop.create_unix_connection(Recorder, sock=ours)
        self.upgrade = loop.create_task(
            loop.start_tls(self.lower, Recorder(), client_context(), server_hostname=NAME, ssl_shutdown_timeout=3600)
        )
        await turns(1)
        self.session = self.lower.get_protocol()
        self.note()

    async def open(self) -> None:
        await self.begin()
        while not self.upgrade.done():
            self.peer.shake_hands()
            await turns(1)
        self.transport = await self.upgrade
        self.note()

    async def close_full(self) -> None:
        """close() when more was written than the kernel takes."""
        await self.open()
        self.transport.write(bytes(8_000_000))
        self.transport.close()
        self.note()

    def note(self) -> str:
        """The state that repr() tells."""
        state = repr(self.session).removeprefix("<TlsSession ").split()[0]
        if not self.seen or self.seen[-1] != state:
            self.seen.append(state)
        return state

    async def until(self, state: str, step: Callable[[], object] = lambda: None) -> None:
        while self.note() != state:
            step()
            await turns(1)

    async def end(self) -> None:
        await self.until("CLOSED", self.peer.drain)
        with contextlib.suppress(OSError):  # of a handshake that came to nothing
            await self.upgrade
        self.peer.sock.close()


async def closed_in_order(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.close_full()
    await walk.until("SHUTDOWN", walk.peer.read)
    await walk.until("LOST", walk.peer.say_goodbye)
    await walk.end()


async def aborted_when_open(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.open()
    walk.transport.abort()
    await walk.end()


async def aborted_while_flushing(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.close_full()
    walk.transport.abort()
    await walk.end()


async def failed_handshake(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.begin()
    walk.peer.sock.send(b"this is no TLS\n")
    await walk.until("LOST")
    await walk.end()


async def lost_in_handshake(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.begin()
    walk.lower.abort()
    await walk.end()


async def lost_when_open(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.open()
    walk.lower.abort()
    await walk.end()


async def lost_while_flushing(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.close_full()
    walk.lower.abort()
    await walk.end()


async def lost_in_shutdown(seen: list[str]) -> None:
    walk = Walk(seen)
    await walk.close_full()
    await walk.until("SHUTDOWN", walk.peer.read)
    walk.lower.abort()
    await walk.end()


WALKS = [
    *(closed_in_order, aborted_when_open, aborted_while_flushing, failed_handshake),
    *(lost_in_handshake, lost_when_open, lost_while_flushing, lost_in_shutdown),
]
