"""UDP socket handles: messages both ways, errors that do not end the socket, and what becomes of it at the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance.peers import DEADLINE_S


@pytest.fixture
def loop_name() -> str:
    return "hoop"


@pytest.fixture
def log() -> list[Any]:
    return []


@pytest.fixture(autouse=True)
def deadline(loop: Any) -> Iterator[None]:
    """loop.run() ends in time, whatever happens."""
    timer = loop.call_later(DEADLINE_S, loop.stop).unref()
    yield
    timer.cancel()


async def until(predicate: Callable[[], bool]) -> None:
    """Look once a turn."""
    while not predicate():
        await asyncio.sleep(0)


def test_udp_ping_pong(loop: Any, log: list[Any]) -> None:
    server = loop.bind_udp(lambda handle, data, address: handle.send(data.upper(), address))
    client = loop.bind_udp(lambda handle, data, address: (log.append((data, address)), handle.close(), server.close()))
    client.on_close = lambda _: log.append("client closed")
    server.on_close = lambda _: log.append("server closed")
    assert client.send(b"ping", server.local_address)
    loop.run()
    assert log == [(b"PING", server.local_address), "client closed", "server closed"]
    assert (client.bytes_written, client.bytes_read, client.is_closed) == (4, 4, True)


def test_udp_with_a_remote_address(loop: Any, log: list[Any]) -> None:
    server = loop.bind_udp(lambda handle, data, address: handle.send(data, address))
    client = loop.bind_udp(
        lambda handle, data, address: (log.append(data), handle.destroy(), server.destroy()),
        remote_address=server.local_address,
    )
    assert client.remote_address == server.local_address
    client.send(memoryview(b"to whom it concerns."))
    client.send(memoryview(b"to whom it concerns.").cast("I"))
    loop.run()
    assert log[0] == b"to whom it concerns." and client.bytes_written == 40


def test_udp_errors_come_and_the_socket_goes_on(loop: Any, log: list[Any]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
    client = loop.bind_udp(None, remote_address=address)
    client.on_error = lambda handle, error: (log.append(error), handle.close())
    client.send(b"x")
    loop.run()
    assert isinstance(log[0], ConnectionRefusedError)
    other = loop.bind_udp(None)
    with pytest.raises(ValueError, match="needs an address"):
        other.send(b"x")
    with pytest.raises(TypeError, match="'str'"):
        other.send("x", address)
    other.on_error = lambda _, error: log.append(error)
    other.send(b"x" * 100_000, address)
    assert isinstance(log[1], OSError) and not other.is_closed
    other.unref()
    assert not other.has_ref()
    loop.run()
    other.ref().destroy()
    loop.run()


WRONG_ADDRESSES = [
    5,
    "127.0.0.1",
    ("127.0.0.1",),
    (None, 1),
    ("127.0.0.1", "1"),
    ("127.0.0.1", 70_000),
    ("127.0.0.1", -1),
    ("127.0.0.1", 1, 0, 0),
]


@pytest.mark.parametrize("address", WRONG_ADDRESSES, ids=repr)
def test_udp_wrong_addresses_are_refused_and_the_socket_goes_on(loop: Any, log: list[Any], address: Any) -> None:
    server = loop.bind_udp(lambda handle, data, _: (log.append(data), handle.close(), client.close()))
    client = loop.bind_udp(None)
    with pytest.raises(ValueError, match="needs"):
        client.send(b"astray", address)
    client.send(b"found", ("localhost", server.local_address[1]))
    loop.run()
    assert log == [b"found"]


def test_udp_to_another_than_the_peer_is_refused(loop: Any, log: list[Any]) -> None:
    server = loop.bind_udp(lambda handle, data, _: (log.append(data), handle.close(), client.close()))
    other = loop.bind_udp(lambda _, data, address: log.append("astray"))
    client = loop.bind_udp(None, remote_address=server.local_address)
    for address in (other.local_address, *WRONG_ADDRESSES):
        with pytest.raises(ValueError, match="is another one"):
            client.send(b"astray", address)
    client.send(b"found", (*server.local_address,))
    other.unref()
    loop.run()
    other.close()
    assert log == [b"found"]


def test_udp_close_comes_although_on_error_raises(loop: Any, log: list[Any]) -> None:
    loop.set_exception_handler(lambda _, context: log.append(type(context["exception"])))
    client = loop.bind_udp(None)
    client.on_error = lambda _, error: 1 // 0
    client.on_close = lambda _: log.append("closed")
    client.send(memoryview(b"every other byte")[::2], ("127.0.0.1", 9))  # which no transport takes
    loop.run()
    assert log == [BufferError, "closed", ZeroDivisionError]


@pytest.mark.parametrize("end", ["close", "destroy"])
@pytest.mark.parametrize("is_connected", [False, True])
def test_udp_send_after_the_end_drops(loop: Any, log: list[Any], end: str, is_connected: bool) -> None:
    server = loop.bind_udp(lambda _, data, address: log.append(data))
    address = server.local_address
    client = loop.bind_udp(None, remote_address=address if is_connected else None)
    client.on_drain = lambda _: log.append("drain")
    client.on_close = lambda _: log.append("closed")
    assert client.send(b"before", address)
    getattr(client, end)()

    def send_more() -> None:
        assert client.send(b"after", address) is False
        with pytest.raises(TypeError, match="'str'"):
            client.send("text", address)
        with pytest.raises(ValueError):
            client.send(b"astray", ("127.0.0.1",))
        client.set_broadcast()

    send_more()
    loop.run_until_complete(until(lambda: {b"before", "closed"} <= set(log)))
    send_more()
    assert client.bytes_written == len(b"before")
    server.close()
    loop.run()
    assert sorted(log, key=str) == [b"before", "closed"]


def test_udp_pause_and_broadcast(loop: Any, log: list[Any]) -> None:
    server = loop.bind_udp(lambda _, data, address: log.append(data))
    server.set_broadcast()
    transport: Any = server.transport
    assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) != 0
    client = loop.bind_udp(None)
    server.pause()
    client.send(b"x", server.local_address)
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert log == []
    server.resume()
    loop.run_until_complete(until(lambda: bool(log)))
    client.close()
    server.close()
    loop.run()
    assert log == [b"x"]
