"""The loop sees I/O that it has just caused itself in the turn in which asyncio sees it, also while callbacks are
ready.

A chain of callbacks counts turns ("hops"). In one of them something is done to a descriptor whose other end the same
loop watches; the tests say how many hops later the other end's protocol hears of it. What is done to raw sockets,
beside the loop, may be heard of one hop later than on asyncio.

Reports: tornado's own test of an error that is read inline, and websockets' legacy server, failed on a loop that saw
such I/O up to eight hops late.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

STARTS = range(1, 10)  # in which hop it is done: each phase of "this turn polls, the next does not"
HOPS = 12  # that are counted from then on


class Hops:
    """A chain (or several) of callbacks that counts turns, and what protocols heard, by hops since the action."""

    def __init__(self, start: int, action, width: int = 1) -> None:
        self.loop = asyncio.get_running_loop()
        self.start = start
        self.action = action
        self.count = 0
        self.heard: list[tuple[str, int]] = []
        self.done = self.loop.create_future()
        self.loop.call_soon(self.link)
        for _ in range(width - 1):
            self.loop.call_soon(self.fill)

    def link(self) -> None:
        self.count += 1
        if self.count == self.start:
            self.action()
        if self.count == self.start + HOPS:
            self.done.set_result(None)
        else:
            self.loop.call_soon(self.link)

    def fill(self) -> None:
        if not self.done.done():
            self.loop.call_soon(self.fill)

    def hear(self, what: str) -> None:
        if not self.done.done():
            self.heard.append((what, self.count - self.start))


class Listening(asyncio.Protocol, asyncio.DatagramProtocol):
    hops: Hops | None = None

    def hear(self, what: str) -> None:
        if self.hops is not None:
            self.hops.hear(what)

    def data_received(self, data: bytes) -> None:
        self.hear("data")

    def datagram_received(self, data: bytes, address: object) -> None:
        self.hear("data")

    def eof_received(self) -> None:
        self.hear("eof")

    def connection_lost(self, error: Exception | None) -> None:
        self.hear("lost")


def udp_pair() -> tuple[socket.socket, socket.socket]:
    pair = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in pair:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
    pair[0].connect(pair[1].getsockname())
    return pair[0], pair[1]


@contextlib.asynccontextmanager
async def connected(kind: int = socket.SOCK_STREAM):
    """(a transport, the listening protocol at its other end)"""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair() if kind == socket.SOCK_STREAM else udp_pair()
    with near, far:
        if kind == socket.SOCK_STREAM:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            other, listening = await loop.create_connection(Listening, sock=far)
        else:
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=near)
            other, listening = await loop.create_datagram_endpoint(Listening, sock=far)
        try:
            yield transport, listening
        finally:
            transport.abort()
            other.abort()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def listened(run, start: int, act, width: int = 1, kind: int = socket.SOCK_STREAM) -> list[tuple[str, int]]:
    """What the other end hears after act(transport)."""

    async def main() -> list[tuple[str, int]]:
        async with connected(kind) as (transport, listening):
            hops = listening.hops = Hops(start, lambda: act(transport), width)
            await hops.done
            return hops.heard

    return run(main())


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("start", STARTS)
class TestByTheLoop:
    def test_a_write_is_read_in_the_next_turn(self, run, start, width):
        assert listened(run, start, lambda transport: transport.write(b"x"), width) == [("data", 1)]

    def test_the_end_of_writing(self, run, start, width):
        assert listened(run, start, lambda transport: transport.write_eof(), width) == [("eof", 1), ("lost", 2)]

    def test_a_close_ends_the_peer_in_the_third_turn(self, run, start, width):
        assert listened(run, start, lambda transport: transport.close(), width) == [("eof", 2), ("lost", 3)]

    def test_an_abort_too(self, run, start, width):
        assert listened(run, start, lambda transport: transport.abort(), width) == [("eof", 2), ("lost", 3)]

    def test_a_datagram(self, run, start, width):
        heard = listened(run, start, lambda transport: transport.sendto(b"x"), width, socket.SOCK_DGRAM)
        assert heard == [("data", 1)]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("action", ["write", "close"])
def test_raw_sockets_beside_the_loop_are_seen_a_turn_later_at_most(run, loop_name, start, action):
    async def main() -> list[tuple[str, int]]:
        near, far = socket.socketpair()
        with near, far:
            transport, listening = await asyncio.get_running_loop().create_connection(Listening, sock=far)
            act = (lambda: near.send(b"x")) if action == "write" else near.close
            hops = listening.hops = Hops(start, act)
            await hops.done
            transport.abort()
            return hops.heard

    what, late = run(main())[0]
    assert what == ("data" if action == "write" else "eof")
    assert late == 1 if loop_name == "asyncio" else late in (1, 2)


@pytest.mark.parametrize("start", STARTS)
def test_what_sock_sendall_sends(run, start):
    async def main() -> list[tuple[str, int]]:
        near, far = socket.socketpair()
        near.setblocking(False)
        loop = asyncio.get_running_loop()
        with near, far:
            transport, listening = await loop.create_connection(Listening, sock=far)
            tasks: list[asyncio.Task[None]] = []
            hops = listening.hops = Hops(start, lambda: tasks.append(loop.create_task(loop.sock_sendall(near, b"x"))))
            await hops.done
            transport.abort()
            return hops.heard

    assert run(main()) == [("data", 2)]  # the task runs one turn later


@pytest.mark.parametrize("start", STARTS)
def test_a_pipe_between_two_transports(run, start):
    async def main() -> list[tuple[str, int]]:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb", 0))
        reader, listening = await loop.connect_read_pipe(Listening, open(reading, "rb", 0))
        hops = listening.hops = Hops(start, lambda: writer.write(b"x"))
        await hops.done
        writer.close()
        reader.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return hops.heard

    assert run(main()) == [("data", 1)]


@pytest.mark.parametrize("yields", range(1, 8))
def test_spinning_on_sleep_zero_sees_a_stream_that_the_task_itself_wrote_to(run, yields):
    """Programs that spin on sleep(0) until something has come."""

    async def main() -> int:
        async with connected() as (transport, listening):
            heard: list[str] = []
            listening.hear = heard.append
            for _ in range(yields):
                await asyncio.sleep(0)
            transport.write(b"x")
            count = 0
            while not heard:
                await asyncio.sleep(0)
                count += 1
            return count

    assert run(main()) == 2


@pytest.mark.parametrize("yields", range(8))
def test_the_peers_connection_lost_comes_before_the_loop_stops(loop, yields):
    """A test closes a connection, yields four times, and stops: by then the peer has heard of the end."""
    heard: list[str] = []

    async def main() -> None:
        near, far = socket.socketpair()
        with near, far:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            _, listening = await loop.create_connection(Listening, sock=far)
            listening.hear = heard.append
            for _ in range(yields):
                await asyncio.sleep(0)
            transport.close()
            for _ in range(4):
                await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert heard == ["eof", "lost"]
