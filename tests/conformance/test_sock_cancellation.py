"""Cancelled loop.sock_* calls: nothing stays registered, nothing is lost, and the socket can be used again at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance.peers import (
    MOST_IDLE_TURNS,
    idle_turns,
    listening,
    off_loop,
    open_descriptors,
    pattern,
    read_to_end,
    soon,
    tcp_pair,
    turns,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Our end, non-blocking, and the peer's, blocking with a timeout."""
    ours, peer = tcp_pair()
    with ours, peer:
        yield ours, peer


def test_trap_25_sock_connect_cancelled(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            for count in range(6):
                before = open_descriptors()
                client = socket.socket()
                client.setblocking(False)
                connecting = asyncio.ensure_future(loop.sock_connect(client, listener.getsockname()))
                await turns(count)
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await soon(connecting)
                assert client.fileno() >= 0
                assert loop.remove_writer(client) is False  # nothing is left registered
                client.close()
                await turns()
                assert open_descriptors() == before

    run(main())


METHODS: dict[str, Callable[[Any, socket.socket], Any]] = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 100),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(100)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 100),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(100)),
}


@pytest.mark.parametrize("method", METHODS)
def test_trap_25_cancelled_receive_loses_nothing_and_leaves_nothing(run: Any, pair: Pair, method: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        for count in range(5):
            receiving = asyncio.ensure_future(METHODS[method](loop, ours))
            await turns(count)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(receiving)
            await turns(2)
            assert loop.remove_reader(ours) is False
            peer.sendall(b"round %d" % count)
            assert await idle_turns(0.05) <= MOST_IDLE_TURNS  # unread data must not spin the loop
            assert await soon(loop.sock_recv(ours, 100)) == b"round %d" % count

    run(main())


def test_trap_25_cancel_when_the_data_has_just_arrived(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        errors: list[Any] = []
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        ours, peer = pair
        received = b""
        for index in range(50):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await turns(2)
            peer.sendall(b"%02d" % index)
            await turns(index % 3)
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                received += await soon(receiving)
            await turns(3)
        assert errors == []  # no result set on a future that is done
        while len(received) < 2 * 50 and not received.endswith(b"49"):
            received += await soon(loop.sock_recv(ours, 100))
        assert received.endswith(b"49")

    run(main())


@pytest.mark.parametrize("size", [1, 2, 100])
def test_what_was_received_for_a_cancelled_call_is_the_next_ones(
    run: Any, pair: Pair, loop_name: str, size: int
) -> None:
    """wait_for() around sock_recv() loses what has come in the very turn of the timeout, on asyncio."""
    if loop_name == "asyncio":
        pytest.skip("asyncio loses it")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        received = b""
        cancelled = 0
        for index in range(60):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await turns(2)
            peer.sendall(b"%02d" % index)
            await turns(index % 4)
            receiving.cancel()
            try:
                received += await soon(receiving)
            except asyncio.CancelledError:
                cancelled += 1
                await turns(index % 3)
                received += await soon(loop.sock_recv(ours, size))
            while len(received) < 2 * (index + 1):
                received += await soon(loop.sock_recv(ours, size))
        assert cancelled > 10
        assert received == b"".join(b"%02d" % index for index in range(60))

    run(main())


def test_what_was_received_for_a_cancelled_call_serves_one_that_waits(run: Any, pair: Pair, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio has room for one call at a time")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        for count in range(10):
            first = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await turns(2)
            second = asyncio.ensure_future(loop.sock_recv(ours, 1))
            await turns(2)
            peer.sendall(b"ab")
            await turns(count % 5)
            first.cancel()
            try:
                assert await soon(first) == b"ab"
                peer.sendall(b"ab")
            except asyncio.CancelledError:
                pass
            assert await soon(second) == b"a"
            assert await soon(loop.sock_recv(ours, 100)) == b"b"

    run(main())


def test_a_connection_accepted_for_a_cancelled_call_is_the_next_ones(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio loses it")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            listener.setblocking(False)
            for index in range(24):
                accepting = asyncio.ensure_future(loop.sock_accept(listener))
                await turns(2)
                with socket.create_connection(listener.getsockname()) as client:
                    await turns(index % 4)
                    accepting.cancel()
                    try:
                        connection, address = await soon(accepting)
                    except asyncio.CancelledError:
                        connection, address = await soon(loop.sock_accept(listener))
                    assert address == client.getsockname()
                    connection.close()

    run(main())


def test_trap_25_retry_while_the_cancelled_one_is_still_unwinding(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        first = asyncio.ensure_future(loop.sock_recv(ours, 100))
        await turns(3)
        first.cancel()
        second = asyncio.ensure_future(loop.sock_recv(ours, 100))
        await turns(3)
        assert first.cancelled() and not second.done()
        peer.sendall(b"for the second")
        assert await soon(second) == b"for the second"

    run(main())


def test_trap_25_cancelled_accept_keeps_the_connection_waiting(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            listener.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await turns()
            accepting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await accepting
            await turns(2)
            assert loop.remove_reader(listener) is False
            with socket.create_connection(listener.getsockname()) as client:
                assert await idle_turns(0.05) <= MOST_IDLE_TURNS
                conn, address = await soon(loop.sock_accept(listener))
                assert address == client.getsockname()
                conn.close()

    run(main())


def test_trap_25_cancelled_sendall_stops_sending(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        sending = asyncio.ensure_future(loop.sock_sendall(ours, pattern(8_000_000)))
        await turns()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(sending)
        await turns(2)
        assert loop.remove_writer(ours) is False
        ours.shutdown(socket.SHUT_WR)
        received = await off_loop(read_to_end, peer)
        assert 0 < len(received) < 8_000_000 and pattern(8_000_000).startswith(received)

    run(main())


def test_wait_for_times_out_and_the_socket_is_as_good_as_before(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        for _ in range(3):
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await asyncio.wait_for(loop.sock_recv(ours, 100), 0.01)
        peer.sendall(b"late")
        assert await soon(loop.sock_recv(ours, 100)) == b"late"

    run(main())


def test_nothing_is_no_name_for_a_waiting_call(run: Any, pair: Pair) -> None:
    ours, peer = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading = asyncio.ensure_future(loop.sock_recv(ours, 10))
        await turns()
        for remove in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(ValueError, match="Invalid file object: None"):
                remove(None)  # type: ignore[arg-type]
        peer.sendall(b"still there")
        assert await soon(reading) == b"still ther"

    run(main())
