"""UNIX stream sockets. Traps 1, 9, 18, 19 of the list of other loops' mistakes are named where they are tested."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pathlib
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from conformance.tls_peers import anonymous_tls
from peers import (
    DEADLINE_S,
    Clients,
    Recorder,
    closed,
    echo,
    off_loop,
    open_descriptors,
    pattern,
    read_exactly,
    read_to_end,
    turns,
)

only_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a feature of Linux")
since_3_13 = pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket is new in Python 3.13")
before_3_13 = pytest.mark.skipif(sys.version_info >= (3, 13), reason="since Python 3.13 the file is removed")


@pytest.fixture
def path() -> Iterator[str]:
    """A free name, short: an address has room for about 100 bytes, and pytest's folders have long names."""
    with tempfile.TemporaryDirectory(prefix="hoop") as folder:
        yield os.path.join(folder, "s")


def dial_unix(path: str | bytes) -> socket.socket:
    """Blocking: a raw connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE_S)
    sock.connect(path)
    return sock


@contextlib.contextmanager
def unix_listener(path: str | bytes) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(DEADLINE_S)
        yield listener


@contextlib.asynccontextmanager
async def unix_server(clients: Any, path: Any = None, **options: Any) -> AsyncIterator[Any]:
    """A server of the running loop that is closed with the block, and with its last connection."""
    server = await asyncio.get_running_loop().create_unix_server(clients, path, **options)
    yield server
    server.close()
    await closed(server)


@contextlib.asynccontextmanager
async def connected_by_path(path: Any, **hooks: Any) -> AsyncIterator[tuple[Any, Recorder, socket.socket]]:
    """A client's transport and protocol, and the raw socket at the other end. The block ends the connection."""
    with unix_listener(os.fspath(path)) as listener:
        transport, protocol = await asyncio.get_running_loop().create_unix_connection(lambda: Recorder(**hooks), path)
        peer, _ = listener.accept()
    peer.settimeout(DEADLINE_S)
    with peer:
        yield transport, protocol, peer
        transport.close()
        await protocol.until_lost()


def forms(path: str) -> list[Any]:
    return [path, os.fsencode(path), pathlib.Path(path)]


# Connecting


@pytest.mark.parametrize("form", [0, 1, 2], ids=["str", "bytes", "PathLike"])
def test_client_connects_and_echoes(run: Any, path: str, form: int) -> None:
    async def main() -> None:
        async with connected_by_path(forms(path)[form]) as (transport, protocol, peer):
            transport.write(b"there")
            assert await off_loop(read_exactly, peer, 5) == b"there"
            peer.sendall(b"and back")
            assert await protocol.until_received(8) == b"and back"
            transport.close()
            assert await off_loop(read_to_end, peer) == b""
            assert await protocol.until_lost() is None

    run(main())


def test_everything_written_before_close_is_delivered(run: Any, path: str) -> None:
    """Trap 9, and the connection is closed after it."""

    async def main() -> None:
        async with connected_by_path(path) as (transport, protocol, peer):
            data = pattern(6_000_000)
            transport.write(data)
            transport.close()
            assert await off_loop(read_to_end, peer) == data
            assert await protocol.until_lost() is None

    run(main())


def test_sock_is_adopted(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        with peer:
            transport, protocol = await loop.create_unix_connection(Recorder, sock=ours)
            assert ours.gettimeout() == 0
            peer.sendall(b"hello")
            assert await protocol.until_received(5) == b"hello"
            transport.close()
            await protocol.until_lost()
            assert ours.fileno() == -1

    run(main())


def test_half_close(run: Any, path: str) -> None:
    async def main() -> None:
        async with connected_by_path(path, eof_received=lambda protocol: True) as (transport, protocol, peer):
            transport.write(b"request")
            transport.write_eof()
            assert await off_loop(read_to_end, peer) == b"request"
            peer.sendall(b"answer")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until_called("eof_received")
            assert protocol.data == b"answer" and protocol.count("connection_lost") == 0

    run(main())


def test_nobody_listens(run: Any, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(Recorder, path)
        with unix_listener(path):
            pass
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(Recorder, path)

    run(main())


@only_on_linux
def test_a_full_queue_refuses(run: Any, path: str, loop_name: str) -> None:
    """connect(2) says EAGAIN, and nothing is under way. (libuv tells the callback of it.)"""
    if loop_name == "asyncio":
        pytest.skip("asyncio takes it for a connection, which then ends without a reason")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as sockets:
            listener.bind(path)
            listener.listen(0)
            sockets.enter_context(dial_unix(path))  # the one that has room
            before = open_descriptors()
            with pytest.raises(BlockingIOError) as caught:
                await loop.create_unix_connection(Recorder, path)
            assert caught.value.errno == errno.EAGAIN
            assert open_descriptors() == before

    run(main())


def test_failed_and_cancelled_connects_leave_no_descriptor(run: Any, path: str) -> None:
    """Trap 1."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = open_descriptors()
        with pytest.raises(OSError):
            await loop.create_unix_connection(Recorder, path)
        with unix_listener(path) as listener:

            def broken() -> Recorder:
                raise ValueError("no protocol")

            with pytest.raises(ValueError, match="no protocol"):
                await loop.create_unix_connection(broken, path)
            for _ in range(10):
                task = loop.create_task(loop.create_unix_connection(Recorder, path))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await turns()
            assert open_descriptors() - before == {listener.fileno()}

    run(main())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no path and sock were specified"),
        ({"path": "x", "sock": "pair"}, "path and sock can not be specified at the same time"),
        ({"sock": "tcp"}, "A UNIX Domain Stream Socket was expected"),
        ({"sock": "datagram"}, "A UNIX Domain Stream Socket was expected"),
        ({"path": "x", "ssl": True}, "you have to pass server_hostname when using ssl"),
        ({"path": "x", "server_hostname": "h"}, "server_hostname is only meaningful with ssl"),
        ({"path": "x", "ssl_handshake_timeout": 1}, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"path": "x", "ssl_shutdown_timeout": 1}, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_bad_arguments_of_a_client(run: Any, arguments: dict[str, Any], message: str) -> None:
    made = {
        "pair": lambda: socket.socket(socket.AF_UNIX),
        "tcp": socket.socket,
        "datagram": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    }

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            if "sock" in arguments:
                arguments["sock"] = stack.enter_context(made[arguments["sock"]]())
            with pytest.raises(ValueError, match=message):
                await loop.create_unix_connection(Recorder, **arguments)

    arguments = dict(arguments)
    run(main())


# Serving


@pytest.mark.parametrize("form", [0, 1, 2], ids=["str", "bytes", "PathLike"])
def test_server_echoes_to_many(run: Any, path: str, form: int) -> None:
    async def main() -> None:
        clients = Clients(data_received=echo)
        async with unix_server(clients, forms(path)[form]) as server:
            assert server.is_serving()
            for number in range(20):
                with await off_loop(dial_unix, path) as peer:
                    peer.sendall(b"%d" % number)
                    assert await off_loop(read_exactly, peer, len(b"%d" % number)) == b"%d" % number
            for protocol in clients.protocols:
                await protocol.until_lost()

    run(main())


def test_streams_over_a_path(run: Any, path: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(serve, path)
        async with server:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"loud\n")
            assert await reader.read() == b"LOUD\n"
            writer.close()
            await writer.wait_closed()

    run(main())


def test_a_stale_file_is_replaced(run: Any, path: str) -> None:
    async def main() -> None:
        with unix_listener(path):
            pass
        assert os.path.exists(path)
        clients = Clients()
        async with unix_server(clients, path):
            with await off_loop(dial_unix, path):
                accepted = await clients.until_made()
            await accepted.until_lost()

    run(main())


def test_another_kind_of_file_is_left_alone(run: Any, path: str) -> None:
    async def main() -> None:
        before = open_descriptors()
        pathlib.Path(path).write_text("precious")
        with pytest.raises(OSError, match="is already in use") as caught:
            await asyncio.get_running_loop().create_unix_server(Clients(), path)
        assert caught.value.errno == errno.EADDRINUSE
        assert pathlib.Path(path).read_text() == "precious"
        assert open_descriptors() == before

    run(main())


def test_a_path_that_is_too_long(run: Any, path: str) -> None:
    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(OSError, match="too long"):
            await asyncio.get_running_loop().create_unix_server(Clients(), path + "x" * 200)
        with pytest.raises(OSError, match="too long"):
            await asyncio.get_running_loop().create_unix_connection(Recorder, path + "x" * 200)
        assert open_descriptors() == before

    run(main())


def test_a_folder_that_does_not_exist(run: Any, path: str) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await asyncio.get_running_loop().create_unix_server(Clients(), path + "/in/nowhere")

    run(main())


@since_3_13
def test_close_removes_the_file(run: Any, path: str) -> None:
    """Trap 19."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(Clients(), path)
        assert os.path.exists(path)
        server.close()
        assert not os.path.exists(path)
        server.close()
        await closed(server)

    run(main())


@since_3_13
def test_close_removes_the_file_of_a_given_socket(run: Any, path: str) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        server = await asyncio.get_running_loop().create_unix_server(Clients(), sock=sock)
        server.close()
        await closed(server)
        assert not os.path.exists(path)

    run(main())


@since_3_13
def test_the_file_may_be_gone_already(run: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with unix_server(Clients(), path):
            os.unlink(path)

    run(main())
    assert not caplog.records


@since_3_13
def test_another_server_at_the_same_path_keeps_its_file(run: Any, path: str) -> None:
    """The first server closes when the second one has taken its name: a restart without a gap."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = await loop.create_unix_server(Clients(), path)
        kept = os.open(path, os.O_PATH) if hasattr(os, "O_PATH") else None  # so that the inode's number is not reused
        clients = Clients()
        second = await loop.create_unix_server(clients, path)
        first.close()
        with await off_loop(dial_unix, path):
            accepted = await clients.until_made()
        await accepted.until_lost()
        second.close()
        assert not os.path.exists(path)
        if kept is not None:
            os.close(kept)

    run(main())


@since_3_13
def test_cleanup_can_be_refused(run: Any, path: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_unix_server(Clients(), path, cleanup_socket=False)
        server.close()
        await closed(server)
        assert os.path.exists(path)

    run(main())


@before_3_13
def test_close_leaves_the_file(run: Any, path: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_unix_server(Clients(), path)
        server.close()
        await closed(server)
        assert os.path.exists(path)

    run(main())


@only_on_linux
@pytest.mark.parametrize("is_bytes", [False, True])
def test_abstract_names(run: Any, is_bytes: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        name: Any = f"\0hoop-{os.getpid()}-{id(loop)}"
        encoded = name.encode()
        clients = Clients(data_received=echo)
        async with unix_server(clients, encoded if is_bytes else name) as server:
            assert server.sockets[0].getsockname() == encoded
            transport, protocol = await loop.create_unix_connection(Recorder, encoded if is_bytes else name)
            assert transport.get_extra_info("peername") == encoded
            accepted = await clients.until_made()
            assert accepted.transport.get_extra_info("sockname") == encoded
            transport.write(b"abstract")
            assert await protocol.until_received(8) == b"abstract"
            transport.close()
            await accepted.until_lost()

    run(main())


def test_serving_begins_when_asked(run: Any, path: str) -> None:
    async def main() -> None:
        clients = Clients()
        async with unix_server(clients, path, start_serving=False, backlog=5) as server:
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                await off_loop(dial_unix, path)
            await server.start_serving()
            with await off_loop(dial_unix, path):
                accepted = await clients.until_made()
            await accepted.until_lost()

    run(main())


def test_serve_forever_ends_when_cancelled(run: Any, path: str) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_unix_server(Clients(), path)
        task = asyncio.ensure_future(server.serve_forever())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving() and server.sockets == ()

    run(main())


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, ValueError, "path was not specified, and no sock specified"),
        ({"path": "x", "sock": "unix"}, ValueError, "path and sock can not be specified at the same time"),
        ({"sock": "tcp"}, ValueError, "A UNIX Domain Stream Socket was expected"),
        ({"sock": "datagram"}, ValueError, "A UNIX Domain Stream Socket was expected"),
        ({"path": "x", "ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"path": "x", "ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"path": "x", "ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_bad_arguments_of_a_server(run: Any, arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    made = {
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "tcp": socket.socket,
        "datagram": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    }

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            if "sock" in arguments:
                arguments["sock"] = stack.enter_context(made[arguments["sock"]]())
            with pytest.raises(kind, match=message):
                await loop.create_unix_server(Clients(), **arguments)

    arguments = dict(arguments)
    run(main())


# What transports tell (trap 18)


def test_names_of_both_ends(run: Any, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = Clients()
        async with unix_server(clients, path):
            transport, protocol = await loop.create_unix_connection(Recorder, path)
            accepted = await clients.until_made()
            assert transport.get_extra_info("peername") == path
            assert transport.get_extra_info("sockname") == ""
            assert accepted.transport.get_extra_info("peername") == ""
            assert accepted.transport.get_extra_info("sockname") == path
            assert isinstance(transport, asyncio.Transport) and isinstance(repr(transport), str)
            transport.close()
            await protocol.until_lost()
            assert transport.get_extra_info("peername") == path
            await accepted.until_lost()

    run(main())


def test_a_name_that_is_no_utf_8(run: Any, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        odd = os.fsencode(path) + b"\xff"
        clients = Clients()
        server = await loop.create_unix_server(clients, odd)
        transport, protocol = await loop.create_unix_connection(Recorder, odd)
        assert transport.get_extra_info("peername") == os.fsdecode(odd)
        accepted = await clients.until_made()
        transport.close()
        await protocol.until_lost()
        await accepted.until_lost()
        server.close()
        await closed(server)

    if sys.platform == "darwin":
        pytest.skip("file names are UTF-8 here")
    run(main())


@only_on_linux
def test_credentials_of_the_peer(run: Any, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = Clients()
        async with unix_server(clients, path):
            transport, _ = await loop.create_unix_connection(Recorder, path)
            accepted = await clients.until_made()
            for end in (transport, accepted.transport):
                sock = end.get_extra_info("socket")
                assert sock.family == socket.AF_UNIX
                credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
                assert struct.unpack("3i", credentials) == (os.getpid(), os.getuid(), os.getgid())
            transport.close()
            await accepted.until_lost()

    run(main())


# TLS


@pytest.mark.each_tls_engine
def test_tls_over_a_path(run: Any, path: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = Clients(data_received=echo)
        async with unix_server(clients, path, ssl=anonymous_tls(ssl.PROTOCOL_TLS_SERVER)):
            transport, protocol = await loop.create_unix_connection(
                Recorder, path, ssl=anonymous_tls(ssl.PROTOCOL_TLS_CLIENT), server_hostname=""
            )
            assert transport.get_extra_info("ssl_object").cipher() is not None
            assert transport.get_extra_info("peername") == path
            data = pattern(300_000)
            transport.write(data)
            assert await protocol.until_received(len(data)) == data
            transport.close()
            await protocol.until_lost()
            await clients.protocols[0].until_lost()

    run(main())
