"""How connections end while their server drains: each is counted once, the last answer reaches its peer, nobody is
waited for in vain. On the test's own clock; the names D3, D10, D11 are those of docs/draining.md."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import hoop
import pytest
from conformance.peers import DEADLINE_S, LOCALHOST, off_loop, read_exactly, read_until_gone, soon, turns
from conformance.tls_peers import server_context, wrap_client
from hoop.drain import Drain
from hoop.loop_methods.drains import LINGER_S
from limited import Clock, Connection, Served, peers, run_with_clock, serving
from proxied import HEADERS, proxied, until_active

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST
ANSWER = b"a" * 200_000


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def drain(served: Served, **course: Any) -> asyncio.Task[hoop.DrainReport]:
    return asyncio.ensure_future(served.server.drain(Drain(**course)))


def counted(report: hoop.DrainReport) -> tuple[int, int, int, int]:
    return report.connections, report.ended, report.silent, len(report.cut)


# ---- D3: the last answer --------------------------------------------------------------------------------------------


def narrow_peer(served: Served) -> socket.socket:
    """A peer whose kernel takes little, so that most of an answer waits on the server's side."""
    peer = socket.socket()
    peer.settimeout(DEADLINE_S)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(served.address())
    return peer


async def answer_and_close(served: Served, peer: socket.socket) -> Connection:
    """An upload is answered and its connection closed, before all of it was read."""
    await soon(served.until(lambda: len(served.connections) == 1))
    connection: Connection = served.connections[0]
    peer.sendall(b"upload")
    await served.until(lambda: connection.data == b"upload")
    connection.transport.pause_reading()
    peer.sendall(b"that goes on")
    draining = drain(served)
    await turns()
    assert not draining.done()
    connection.transport.set_write_buffer_limits(high=2 * len(ANSWER))
    connection.write(ANSWER)
    connection.transport.close()
    served.draining = draining  # type: ignore[attr-defined]
    return connection


def test_d3_the_last_answer_is_not_damaged_by_what_the_peer_goes_on_sending() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            with narrow_peer(served) as peer:
                connection = await answer_and_close(served, peer)
                await off_loop(peer.sendall, b"and on" * 1000)
                assert await off_loop(read_until_gone, peer) == ANSWER
                assert connection.lost == []
            await soon(served.until(lambda: connection.lost == [None]))
            assert connection.data == b"upload"
            assert counted(await served.draining) == (1, 1, 0, 0)

    run_with_clock(main)


def test_d3_a_peer_that_does_not_close_is_waited_for_a_bounded_time() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            with narrow_peer(served) as peer:
                connection = await answer_and_close(served, peer)
                assert await off_loop(read_until_gone, peer) == ANSWER
                await clock.forward(LINGER_S - 0.01)
                assert connection.lost == []
                await clock.forward(0.01)
                assert connection.lost == [None]
                assert counted(await served.draining) == (1, 1, 0, 0)

    run_with_clock(main)


def test_d3_a_request_that_has_come_keeps_its_silent_connection() -> None:
    """It came in the moment in which the connection was to be closed."""

    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                draining = drain(served, idle_grace=1)
                await turns()
                for _ in range(4):
                    await clock.forward(0.25)
                clock.now_ns += 250_000_000  # the last look, and the request, in one turn
                peer.sendall(b"?")
                assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                assert connection.lost == []
                for _ in range(6):
                    await clock.forward(0.25)
                assert await off_loop(read_until_gone, peer) == b""
                assert counted(await draining) == (1, 0, 1, 0)

    run_with_clock(main)


# ---- D10: each way to end -------------------------------------------------------------------------------------------


class Fragile(Connection):
    """Raises where it is asked to."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if data == b"raise":
            raise ValueError("as asked")

    def eof_received(self) -> None:
        if self.data == b"raise at the end":
            raise ValueError("as asked")


End = Callable[[Clock, socket.socket, Any], Coroutine[Any, Any, None]]


async def peer_closes(clock: Clock, peer: socket.socket, connection: Any) -> None:
    peer.close()


async def peer_resets(clock: Clock, peer: socket.socket, connection: Any) -> None:
    reset(peer)


async def peer_ends_its_half(clock: Clock, peer: socket.socket, connection: Any) -> None:
    peer.shutdown(socket.SHUT_WR)


async def closed(clock: Clock, peer: socket.socket, connection: Any) -> None:
    connection.transport.close()


async def closed_with_unread_bytes(clock: Clock, peer: socket.socket, connection: Any) -> None:
    connection.transport.pause_reading()
    peer.sendall(b"unread")
    connection.transport.close()
    await off_loop(read_until_gone, peer)
    peer.close()


async def lingering_connection_is_reset(clock: Clock, peer: socket.socket, connection: Any) -> None:
    connection.transport.pause_reading()
    peer.sendall(b"unread")
    connection.transport.close()
    await off_loop(read_until_gone, peer)
    reset(peer)


async def lingering_connection_is_aborted(clock: Clock, peer: socket.socket, connection: Any) -> None:
    connection.transport.pause_reading()
    peer.sendall(b"unread")
    connection.transport.close()
    connection.transport.abort()


async def aborted(clock: Clock, peer: socket.socket, connection: Any) -> None:
    connection.transport.abort()


async def closed_and_aborted(clock: Clock, peer: socket.socket, connection: Any) -> None:
    connection.transport.close()
    connection.transport.abort()


async def protocol_raises(clock: Clock, peer: socket.socket, connection: Any) -> None:
    peer.sendall(b"raise")


async def protocol_raises_at_the_end(clock: Clock, peer: socket.socket, connection: Any) -> None:
    peer.sendall(b"raise at the end")
    peer.shutdown(socket.SHUT_WR)


async def write_to_a_peer_that_is_gone(clock: Clock, peer: socket.socket, connection: Any) -> None:
    connection.transport.pause_reading()  # else the read tells
    await turns()
    reset(peer)
    connection.write(b"x")
    await turns()
    connection.write(b"x")


async def idle_timeout(clock: Clock, peer: socket.socket, connection: Any) -> None:
    peer.sendall(b"busy")
    await connection.served.until(lambda: connection.data == b"busy")
    await clock.forward(0.8)


async def header_timeout(clock: Clock, peer: socket.socket, connection: Any) -> None:
    await clock.forward(0.6)


async def first_byte_timeout(clock: Clock, peer: socket.socket, connection: Any) -> None:
    await clock.forward(0.4)


async def peer_that_does_not_read(clock: Clock, peer: socket.socket, connection: Any) -> None:
    while not connection.lost and not connection.transport.is_closing():
        connection.write(bytes(1 << 20))


LIMITS = {
    "idle_timeout": hoop.Limits(idle_timeout=0.7),
    "header_timeout": hoop.Limits(header_timeout=0.5),
    "first_byte_timeout": hoop.Limits(first_byte_timeout=0.3),
    "peer_that_does_not_read": hoop.Limits(max_write_buffer=1 << 20),
}
PLAIN: list[End] = [
    peer_closes,
    peer_resets,
    peer_ends_its_half,
    closed,
    closed_with_unread_bytes,
    lingering_connection_is_reset,
    lingering_connection_is_aborted,
    aborted,
    closed_and_aborted,
    protocol_raises,
    protocol_raises_at_the_end,
    write_to_a_peer_that_is_gone,
    idle_timeout,
    header_timeout,
    first_byte_timeout,
    peer_that_does_not_read,
]


async def ends_once(served: Served, draining: asyncio.Task[hoop.DrainReport], clock: Clock) -> None:
    """Without one more look, so without time passing."""
    report = await soon(draining)
    assert counted(report) == (1, 1, 0, 0)
    assert served.stats().active == 0
    await turns()
    assert served.stats().active == 0


@pytest.mark.parametrize("end", PLAIN, ids=lambda end: end.__name__)
def test_d10_a_connection_that_ends_is_counted_once(end: End) -> None:
    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        served = Served()
        served.server = await loop.create_server(lambda: Fragile(served), LOCALHOST, 0, limits=LIMITS.get(end.__name__))
        peer, connection = await served.peer()
        with peers(peer):
            draining = drain(served)
            await turns()
            await end(clock, peer, connection)
            await ends_once(served, draining, clock)
            assert len(connection.lost) == 1

    run_with_clock(main)


async def talks_something_else(clock: Clock, peer: socket.socket, connection: Any) -> None:
    peer.sendall(b"GET / HTTP/1.1\r\n\r\n")


async def says_nothing(clock: Clock, peer: socket.socket, connection: Any) -> None:
    await clock.forward(0.5)


@pytest.mark.parametrize(
    "end",
    [peer_closes, peer_resets, peer_ends_its_half, talks_something_else, says_nothing],
    ids=lambda end: end.__name__,
)
@pytest.mark.parametrize("before", ["handshake", "PROXY header"])
def test_d10_a_connection_that_ends_before_it_has_begun_is_counted_once(before: str, end: End) -> None:
    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        served = Served()
        options: dict[str, Any] = {"ssl": server_context(), "ssl_handshake_timeout": 0.4}
        if before == "PROXY header":
            options = {"proxy_protocol": hoop.ProxyProtocol(trusted=[LOCALHOST], header_timeout=0.4)}
        served.server = await loop.create_server(lambda: Connection(served), LOCALHOST, 0, **options)
        with served.connect() as peer:
            await soon(until_active(served))
            draining = drain(served)
            await turns()
            await end(clock, peer, None)
            await ends_once(served, draining, clock)
            assert served.connections == []

    run_with_clock(main)


# ---- D11: nobody is waited for in vain, and nobody is forgotten -----------------------------------------------------


class Told(Connection):
    def drain_requested(self) -> None:
        self.transport.write(b"bye\n")
        self.transport.close()


def test_d11_a_proxied_connection_whose_header_comes_late_is_told() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        served = Served()
        served.server = await loop.create_server(
            lambda: Told(served), LOCALHOST, 0, proxy_protocol=hoop.ProxyProtocol(trusted=[LOCALHOST])
        )
        with served.connect() as peer:
            await soon(until_active(served))
            draining = drain(served)
            await turns()
            peer.sendall(HEADERS["v2"])
            assert await off_loop(read_until_gone, peer) == b"bye\n"
            assert counted(await draining) == (1, 1, 0, 0)

    run_with_clock(main)


def test_d11_a_header_that_comes_as_the_drain_begins_is_counted_once() -> None:
    async def main(clock: Clock) -> None:
        async with proxied() as served:
            with served.connect() as peer:
                await soon(until_active(served))
                peer.sendall(HEADERS["v2"])
                draining = drain(served)
                await turns()
                peer.close()
                assert counted(await soon(draining)) == (1, 1, 0, 0)

    run_with_clock(main)


def test_d11_a_connection_whose_handshake_ends_late_is_told() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        served = Served()
        served.server = await loop.create_server(lambda: Told(served), LOCALHOST, 0, ssl=server_context())
        raw = served.connect()
        await soon(until_active(served))
        draining = drain(served)
        await turns()
        peer = await off_loop(wrap_client, raw)
        with peers(peer):
            assert await off_loop(read_until_gone, peer) == b"bye\n"
        assert counted(await draining) == (1, 1, 0, 0)

    run_with_clock(main)


@pytest.mark.parametrize("returns", ["before the drain", "in the drain"])
def test_d11_a_handler_that_has_returned_is_not_waited_for(returns: str) -> None:
    """It has read a request, and neither answered nor closed."""

    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        may_return, has_returned = asyncio.Event(), asyncio.Event()

        async def handle(reader: Any, writer: Any) -> None:
            writers.append(writer)
            await reader.readexactly(1)
            await may_return.wait()
            has_returned.set()

        writers: list[Any] = []
        server = await hoop.start_server(handle, LOCALHOST, 0)
        with socket.create_connection(server.sockets[0].getsockname(), DEADLINE_S) as peer:
            peer.sendall(b"?")
            while not writers:
                await asyncio.sleep(0)
            if returns == "before the drain":
                may_return.set()
                await has_returned.wait()
            draining = loop.create_task(loop.drain(Drain()))
            await turns()
            may_return.set()
            await has_returned.wait()
            for _ in range(6):
                await clock.forward(0.25)
            assert await off_loop(read_until_gone, peer) == b""
            (report,) = await soon(draining)
            assert counted(report) == (1, 0, 1, 0)

    run_with_clock(main)
