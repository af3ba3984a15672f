"""The socket objects that transports and servers give out: using one changes nothing of the connection.

uvloop#51, python/asyncio#372: a socket object made for a descriptor that knows nothing of the descriptor's mode hands
its own to the open file, which is shared by every duplicate; then the transport's next large write blocks the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import tempfile
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Iterator
from ssl import PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER
from typing import Any

import pytest
from conformance.tls_peers import anonymous_tls
from peers import DEADLINE_S, LOCALHOST, Clients, Recorder, address_of, closed, dial, off_loop, soon

KINDS = ("tcp accepted", "tcp connected", "unix accepted", "unix connected", "tls accepted", "tls connected")


def is_blocking(fd: int) -> bool:
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


@contextlib.asynccontextmanager
async def connection(kind: str) -> AsyncIterator[tuple[Any, Any]]:
    """The transport of that kind, and the one at its other end."""
    loop = asyncio.get_running_loop()
    family, end = kind.split()
    clients = Clients()
    with tempfile.TemporaryDirectory(prefix="hoop") as folder:
        if family == "unix":
            path = os.path.join(folder, "s")
            server: Any = await loop.create_unix_server(clients, path)
            transport, _ = await loop.create_unix_connection(Recorder, path)
        else:
            ours, theirs = None, None
            if family == "tls":
                ours, theirs = anonymous_tls(PROTOCOL_TLS_SERVER), anonymous_tls(PROTOCOL_TLS_CLIENT)
            server = await loop.create_server(clients, LOCALHOST, 0, ssl=ours)
            name = "localhost" if theirs else None
            transport, _ = await loop.create_connection(Recorder, *address_of(server), ssl=theirs, server_hostname=name)
        accepted = (await clients.until_made()).transport
        protocols = accepted.get_protocol(), transport.get_protocol()
        try:
            yield (accepted, transport) if end == "accepted" else (transport, accepted)
        finally:
            server.close()
            for one in (accepted, transport):
                one.abort()
            for protocol in protocols:
                await protocol.until_lost()
            await closed(server)


@pytest.fixture(params=[None, 5.0], ids=["no default timeout", "a default timeout"])
def default_timeout(request: pytest.FixtureRequest) -> Iterator[float | None]:
    """socket.setdefaulttimeout() is about sockets that block; it says nothing about a transport's."""
    socket.setdefaulttimeout(request.param)
    try:
        yield request.param
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_duplicate_leaves_the_connection_as_it_was(run: Any, kind: str, default_timeout: float | None) -> None:
    """uvloop#51: dup() gives the new object the timeout of the old one, and the open file its mode."""

    async def main() -> None:
        async with connection(kind) as (transport, _):
            sock = transport.get_extra_info("socket")
            with sock.dup() as duplicate:
                assert not is_blocking(transport.get_extra_info("socket").fileno())
                assert duplicate.gettimeout() == 0 and not duplicate.getblocking()

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_write_after_dup_does_not_block_the_loop(run: Any, kind: str) -> None:
    """python/asyncio#372, as it was met: on a blocking file the write would wait in send(2) for a peer that this very
    loop has to read."""

    async def main() -> None:
        size = 8 * 1024 * 1024
        async with connection(kind) as (transport, other):
            transport.get_extra_info("socket").dup().close()
            transport.write(b"x" * size)
            await other.get_protocol().until_received(size)

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_transport_s_socket_is_non_blocking_in_every_way(run: Any, kind: str, default_timeout: float | None) -> None:
    async def main() -> None:
        async with connection(kind) as (transport, _):
            sock = transport.get_extra_info("socket")
            assert sock.gettimeout() == 0
            assert sock._sock.gettimeout() == 0 and not sock._sock.getblocking()
            sock.setblocking(False)
            sock.settimeout(0)
            for refused in (lambda: sock.setblocking(True), lambda: sock.settimeout(None), lambda: sock.settimeout(5)):
                with pytest.raises(ValueError):
                    refused()
            with pytest.raises(BlockingIOError):
                sock._sock.recv(1)
            assert not is_blocking(sock.fileno())
            assert not sock.get_inheritable()
            assert sock.type == socket.SOCK_STREAM
            assert transport.get_extra_info("socket") is sock
        assert sock.fileno() == -1
        assert sock._sock.gettimeout() == 0

    run(main())


def test_the_sockets_of_a_server(run: Any, default_timeout: float | None) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
        (sock,) = server.sockets
        with sock.dup() as duplicate:
            assert duplicate.gettimeout() == 0 and not is_blocking(sock.fileno())
        assert sock._sock.gettimeout() == 0
        server.close()
        await closed(server)

    run(main())


def test_a_server_on_a_socket_that_was_handed_in_blocking(run: Any) -> None:
    async def main() -> None:
        with socket.create_server((LOCALHOST, 0)) as listener:
            assert is_blocking(listener.fileno())
            server = await asyncio.get_running_loop().create_server(Recorder, sock=listener)
            with server.sockets[0].dup() as duplicate:
                assert duplicate.gettimeout() == 0 and not is_blocking(duplicate.fileno())
            server.close()
            await closed(server)

    run(main())


@pytest.mark.parametrize("remote", [False, True], ids=["unconnected", "connected"])
def test_the_socket_of_a_datagram_endpoint(run: Any, default_timeout: float | None, remote: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind((LOCALHOST, 0))
            where: dict[str, Any] = {"remote_addr": peer.getsockname()} if remote else {"local_addr": (LOCALHOST, 0)}
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **where)
            sock = transport.get_extra_info("socket")
            with sock.dup() as duplicate:
                assert duplicate.gettimeout() == 0 and not is_blocking(sock.fileno())
            assert sock._sock.gettimeout() == 0
            transport.close()

    run(main())


def test_a_socket_that_sock_accept_returns(run: Any, default_timeout: float | None) -> None:
    async def main() -> None:
        with socket.create_server((LOCALHOST, 0)) as listener:
            listener.setblocking(False)
            accepting = asyncio.create_task(asyncio.get_running_loop().sock_accept(listener))
            with await off_loop(dial, listener.getsockname()):
                sock, _ = await soon(accepting)
                with sock, sock.dup() as duplicate:
                    assert sock.gettimeout() == 0 and duplicate.gettimeout() == 0
                    assert not is_blocking(sock.fileno())

    run(main())


def test_a_connection_made_of_a_blocking_socket(run: Any) -> None:
    """The socket object that was handed in is the one that is given out, and knows its mode."""

    async def main() -> None:
        with socket.create_server((LOCALHOST, 0)) as listener:
            listener.settimeout(DEADLINE_S)
            ours = socket.create_connection(listener.getsockname())
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
            with transport.get_extra_info("socket").dup() as duplicate:
                assert duplicate.gettimeout() == 0 and not is_blocking(duplicate.fileno())
            transport.abort()

    run(main())


def told(sock: Any, calls: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """What each attribute and call of a socket object gives, or raises: its type, and its value unless an address."""
    found: dict[str, Any] = {}
    for name, arguments in calls.items():
        try:
            value = getattr(sock, name)
            value = value(*arguments) if callable(value) else value
        except Exception as error:
            found[name] = AttributeError if isinstance(error, AttributeError) else (type(error), str(error))
            continue
        found[name] = "an address" if name in ("getsockname", "getpeername") and value else value
    return found


CALLS: dict[str, tuple[Any, ...]] = {
    "family": (),
    "type": (),
    "proto": (),
    "get_inheritable": (),
    "gettimeout": (),
    "getsockname": (),
    "getpeername": (),
    "getsockbyname": (),
    "__getstate__": (),
    "getsockopt": (socket.SOL_SOCKET, socket.SO_TYPE),
    "setsockopt": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "setblocking": (False,),
    "settimeout": (1,),
    "shutdown": (socket.SHUT_WR,),
    "close": (),
    "recv": (1,),
    "makefile": (),
    "accept": (),
    "detach": (),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_transport_s_socket_tells_is_what_asyncio_s_tells(kind: str) -> None:
    """All of it, in one table for each loop: while the connection is open, and once it is closed."""
    import hoop

    def table(factory: Any) -> list[Any]:
        async def main() -> list[Any]:
            async with connection(kind) as (transport, _):
                sock = transport.get_extra_info("socket")
                shape = repr(sock).replace(str(sock.fileno()), "N", 1)
                head = shape.partition(", laddr")[0].partition(", raddr")[0]
                seen = [isinstance(sock, TransportSocket), head, "raddr" in shape, told(sock, CALLS)]
                with sock.dup() as copy:
                    seen += [type(copy), copy.family, copy.type, copy.proto, copy.gettimeout(), copy.get_inheritable()]
            return [*seen, sock.fileno(), repr(sock), told(sock, CALLS)]

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main(), DEADLINE_S))

    assert table(hoop.new_event_loop) == table(asyncio.SelectorEventLoop)


def test_what_a_server_s_socket_tells_is_what_asyncio_s_tells() -> None:
    import hoop

    def table(factory: Any) -> list[Any]:
        async def main() -> list[Any]:
            server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
            (sock,) = server.sockets
            seen = [
                type(server.sockets),
                isinstance(sock, TransportSocket),
                told(sock, {k: v for k, v in CALLS.items() if k != "shutdown"}),
            ]
            with sock.dup() as copy:
                seen += [type(copy), copy.family, copy.type, copy.proto, copy.gettimeout(), copy.get_inheritable()]
            server.close()
            await closed(server)
            return [*seen, server.sockets, sock.fileno(), told(sock, CALLS)]

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main(), DEADLINE_S))

    assert table(hoop.new_event_loop) == table(asyncio.SelectorEventLoop)
