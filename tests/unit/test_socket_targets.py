"""Where socket handles listen and connect: hosts, UNIX sockets, TLS, closed loops; and that none is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

import hoop
import pytest
from conformance.tls_peers import client_context, server_context
from handle_events import Log, until

pytestmark = pytest.mark.usefixtures("problems")


@pytest.fixture
def loop_name() -> str:
    return "hoop"


def converse(loop: Any, server: hoop.SocketServer, client: hoop.Socket) -> bytes:
    """What the client gets of an echo, to the end."""
    got = bytearray()
    client.on_data = lambda handle, data: (got.extend(data), handle.end() if len(got) == 5 else None)
    client.on_close = lambda _: server.close()
    client.write(b"hello")
    loop.run()
    assert client.error is None
    return bytes(got)


def echo(handle: hoop.Socket) -> None:
    handle.on_data = lambda _, data: handle.write(data)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None, "", "::1"])
def test_hosts(loop: Any, host: str | None) -> None:
    try:
        server = loop.listen_tcp(echo, host)
    except OSError as error:
        pytest.skip(f"no such address here: {error}")
    target = host or "127.0.0.1"
    assert converse(loop, server, loop.connect_tcp(target, server.address[1])) == b"hello"


def test_a_host_that_is_a_name_is_refused(loop: Any) -> None:
    with pytest.raises(ValueError, match=r"numeric address, 'localhost' or None, not 'example\.org'"):
        loop.listen_tcp(echo, "example.org")
    with pytest.raises(ValueError, match=r"not 'example\.org'"):
        loop.bind_udp(None, "example.org")
    with pytest.raises(ValueError, match=r"not 'example\.org'"):
        loop.bind_udp(None, remote_address=("example.org", 9))


@pytest.mark.parametrize("bind", ["listen_tcp", "bind_udp"])
def test_addresses_that_are_none(loop: Any, bind: str) -> None:
    for host in (5, b"127.0.0.1", "127.0.0.1 ", ("127.0.0.1",), 2**70):
        with pytest.raises(ValueError, match="host must be a numeric address"):
            getattr(loop, bind)(echo, host)
    for port in (-1, 65536, 2**70, "80", None, 1.0):
        with pytest.raises(ValueError, match="port must be a number from 0 to 65535, not"):
            getattr(loop, bind)(echo, "127.0.0.1", port)


@pytest.mark.parametrize("address", ["", "127.0.0.1", (), ("127.0.0.1",), 5, ("127.0.0.1", 9, 0, 0)], ids=repr)
def test_a_remote_address_that_is_none(loop: Any, address: Any) -> None:
    with pytest.raises(ValueError, match="remote_address must be"):
        loop.bind_udp(None, remote_address=address)
    for wrong in ((5, 9), ("127.0.0.1", "9"), ("127.0.0.1", 65536), ("127.0.0.1", -1), ("127.0.0.1", None)):
        with pytest.raises(ValueError, match=r"must be a number|numeric address"):
            loop.bind_udp(None, remote_address=wrong)


@pytest.mark.parametrize("host", ["", "127.0.0.1", None])
@pytest.mark.parametrize("port", [-1, 65536, 2**70, "none such"])
def test_what_cannot_be_connected_to_is_an_error_of_the_socket(loop: Any, host: str | None, port: Any) -> None:
    client = loop.connect_tcp(host, port)
    client.on_error = lambda handle, error: None
    loop.run()
    assert client.is_closed and isinstance(client.error, (OSError, OverflowError, ValueError))


def test_an_address_in_use_is_an_error_and_leaks_nothing(loop: Any) -> None:
    server = loop.listen_tcp(echo)
    with pytest.raises(OSError, match="in use"):
        loop.listen_tcp(echo, *server.address)
    with pytest.raises(TypeError, match="on_connection must be callable, not None"):
        loop.listen_tcp(None)
    server.close()
    loop.run()
    gc.collect()


def test_a_socket_that_was_bound_elsewhere(loop: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = loop.listen_tcp(echo, sock=listener)
    assert converse(loop, server, loop.connect_tcp(*server.address)) == b"hello"
    with pytest.raises(ValueError, match="Stream Socket"), socket.socket(type=socket.SOCK_DGRAM) as udp:
        loop.listen_tcp(echo, sock=udp)


def test_unix_sockets(loop: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "socket"
        server = loop.listen_unix(echo, path, cleanup_socket=True)
        assert server.address == str(path)
        assert converse(loop, server, loop.connect_unix(path)) == b"hello"
        assert os.listdir(folder) == []
        client = loop.connect_unix(path)
        errors: list[Any] = []
        client.on_error = lambda _, error: errors.append(error)
        loop.run()
        assert isinstance(errors[0], FileNotFoundError)


def test_tls(loop: Any) -> None:
    server = loop.listen_tcp(echo, ssl=server_context())
    client = loop.connect_tcp(*server.address, ssl=client_context(), server_hostname="localhost")
    assert converse(loop, server, client) == b"hello"
    transport: Any = client.transport
    assert type(transport).__name__ == "TlsTransport"


def test_a_certificate_that_does_not_fit_is_the_sockets_error(loop: Any, log: Log) -> None:
    server = loop.listen_tcp(echo, ssl=server_context())
    client = log.watch(
        loop.connect_tcp(*server.address, ssl=client_context(), server_hostname="other.example"), "client"
    )
    client.write(b"never sent")
    client.on_close = lambda _: (log.append(("client", "close")), server.close())
    loop.run()
    (kind, error), last = log.of("client")
    assert (kind, last) == ("error", "close")
    assert isinstance(error, ssl.SSLCertVerificationError)


def test_a_closed_loop_connects_nowhere() -> None:
    loop = hoop.Loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.connect_tcp("127.0.0.1", 1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_abandoned_handles_are_collected() -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(thing) in (hoop.Socket, hoop.UdpSocket, hoop.SocketServer) for thing in gc.get_objects())

    before = alive()
    loop = hoop.Loop()
    handles: list[hoop.Socket] = []

    def accept(handle: hoop.Socket) -> None:
        handle.on_data = lambda one, data: handles.append(handle)
        handle.set_timeout(60, lambda one: handle.destroy())
        handles.append(handle)

    server = loop.listen_tcp(accept)
    client = loop.connect_tcp(*server.address)
    client.on_end = lambda _: client.destroy()
    udp = loop.bind_udp(lambda *_: udp.close())
    loop.run_until_complete(until(lambda: bool(handles) and not client.is_connecting))
    loop.run_until_complete(asyncio.sleep(0))  # the task that has connected it ends
    del loop, handles, server, client, udp, accept
    assert alive() == before
