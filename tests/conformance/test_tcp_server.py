"""create_server and connect_accepted_socket: addresses, options, errors, and protocols that fail."""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from conformance.peers import (
    LOCALHOST,
    Clients,
    HandlerLog,
    Recorder,
    address_of,
    closed,
    context_keys,
    dial,
    echo,
    has_ipv6_loopback,
    off_loop,
    open_descriptors,
    read_to_end,
    tcp_pair,
    turns,
)

needs_ipv6 = pytest.mark.skipif(not has_ipv6_loopback(), reason="no IPv6 loopback")
has_keep_alive = "keep_alive" in inspect.signature(asyncio.BaseEventLoop.create_server).parameters


# Where to listen


def test_serves_connections(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = Clients(data_received=echo)
        server = await loop.create_server(clients, LOCALHOST, 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert server.is_serving() and server.get_loop() is loop
        peers = [dial(address_of(server)) for _ in range(5)]
        await clients.until_made(5)
        for peer in peers:
            peer.sendall(b"hello")
            assert await off_loop(peer.recv, 100) == b"hello"
        by_address = {protocol.transport.get_extra_info("peername"): protocol for protocol in clients.protocols}
        for peer in peers:
            transport = by_address[peer.getsockname()].transport
            assert transport.get_extra_info("sockname") == peer.getpeername()
            assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not transport.get_extra_info("socket").get_inheritable()
            peer.close()
        for protocol in clients.protocols:
            await protocol.until_lost()
            assert protocol.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
        server.close()
        await closed(server)

    run(main())


def test_the_socket_of_a_lost_connection_can_still_be_asked_for(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peer = dial(address_of(server))
        protocol = await clients.until_made()
        peer.close()
        await protocol.until_lost()
        await turns()
        sock = protocol.transport.get_extra_info("socket")  # for the first time
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert (sock.fileno(), sock.family, sock.type) == (-1, socket.AF_INET, socket.SOCK_STREAM)
        assert protocol.transport.get_extra_info("socket").fileno() == -1
        server.close()
        await closed(server)

    run(main())


def test_sockets_are_transport_sockets(run: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
        (sock,) = server.sockets
        assert isinstance(server.sockets, tuple)
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert sock.getsockname()[0] == LOCALHOST and sock.getsockname()[1] > 0
        assert sock.type == socket.SOCK_STREAM and not sock.get_inheritable()
        assert "Server" in repr(server)
        server.close()
        assert server.sockets == ()
        await closed(server)

    run(main())


@pytest.mark.parametrize("host", [None, ""], ids=repr)
def test_trap_19_every_interface(run: Any, host: Any) -> None:
    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, host, 0)
        families = {sock.family for sock in server.sockets}
        assert socket.AF_INET in families
        assert (socket.AF_INET6 in families) == has_ipv6_loopback()
        for count, sock in enumerate(server.sockets, start=1):
            loopback = "::1" if sock.family == socket.AF_INET6 else LOCALHOST
            if sock.family == socket.AF_INET6:
                assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            dial((loopback, sock.getsockname()[1])).close()
            protocol = await clients.until_made(count)
            assert protocol.transport.get_extra_info("peername")[0] == loopback
            await protocol.until_lost()
        server.close()
        await closed(server)

    run(main())


@needs_ipv6
@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([LOCALHOST, "::1"], {LOCALHOST, "::1"}),
        ((LOCALHOST, LOCALHOST), {LOCALHOST}),
        ({"::1"}, {"::1"}),
        (["localhost", LOCALHOST], {LOCALHOST}),
    ],
    ids=str,
)
def test_list_of_hosts(run: Any, hosts: Any, expected: set[str]) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, hosts, 0)
        assert {sock.getsockname()[0] for sock in server.sockets} >= expected
        assert len(server.sockets) == len({sock.getsockname()[0] for sock in server.sockets})
        server.close()
        await closed(server)

    run(main())


@needs_ipv6
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_family(run: Any, family: int) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, None, 0, family=family)
        assert [sock.family for sock in server.sockets] == [family]
        server.close()
        await closed(server)

    run(main())


@pytest.mark.parametrize("listening", [True, False])
def test_sock(run: Any, listening: bool) -> None:
    async def main() -> None:
        clients = Clients()
        sock = socket.socket()
        sock.bind((LOCALHOST, 0))
        if listening:
            sock.listen()
        server = await asyncio.get_running_loop().create_server(clients, sock=sock)
        assert sock.gettimeout() == 0
        assert [listener.fileno() for listener in server.sockets] == [sock.fileno()]
        dial(sock.getsockname()).close()
        await (await clients.until_made()).until_lost()
        server.close()
        assert sock.fileno() == -1
        await closed(server)

    run(main())


# Options


@pytest.mark.parametrize(("argument", "expected"), [(None, True), (True, True), (False, False)], ids=repr)
def test_reuse_address(run: Any, argument: bool | None, expected: bool) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0, reuse_address=argument)
        assert bool(server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is expected
        server.close()

    run(main())


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
def test_trap_19_reuse_port(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = Clients()
        first = await loop.create_server(clients, LOCALHOST, 0, reuse_port=True)
        second = await loop.create_server(clients, LOCALHOST, address_of(first)[1], reuse_port=True)
        assert address_of(first) == address_of(second)
        peers = [dial(address_of(first)) for _ in range(20)]
        await clients.until_made(20)
        for peer in peers:
            peer.close()
        for protocol in clients.protocols:
            await protocol.until_lost()
        first.close()
        second.close()
        plain = await loop.create_server(clients, LOCALHOST, 0)
        assert not plain.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        plain.close()

    run(main())


@pytest.mark.skipif(not has_keep_alive, reason="create_server(keep_alive=) is not in this Python's asyncio")
@pytest.mark.parametrize("argument", [None, False, True], ids=repr)
def test_trap_19_keep_alive(run: Any, argument: bool | None) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0, keep_alive=argument)
        assert bool(server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is bool(argument)
        server.close()

    run(main())


def test_trap_19_start_serving_later(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0, start_serving=False)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):  # bound, but not listening
            dial(address_of(server))
        await server.start_serving()
        await server.start_serving()  # again does nothing
        assert server.is_serving()
        dial(address_of(server)).close()
        await (await clients.until_made()).until_lost()
        server.close()
        assert not server.is_serving()
        await closed(server)

    run(main())


def test_small_backlog_serves_everyone(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0, backlog=1)
        for count in range(1, 6):
            peer = await off_loop(dial, address_of(server))
            await clients.until_made(count)
            peer.close()
        server.close()

    run(main())


# Errors


def test_address_in_use(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCALHOST, 0)
        before = open_descriptors()
        address = address_of(server)
        with pytest.raises(
            OSError, match=r"error while attempting to bind on address .*address already in use"
        ) as info:
            await loop.create_server(Recorder, LOCALHOST, address[1])
        assert info.value.errno == errno.EADDRINUSE
        assert repr(address) in str(info.value)
        assert open_descriptors() == before
        server.close()

    run(main())


def test_address_not_available(run: Any) -> None:
    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(OSError, match=r"could not bind on any address|cannot assign requested address"):
            await asyncio.get_running_loop().create_server(Recorder, "192.0.2.1", 0)
        assert open_descriptors() == before

    run(main())


def test_one_bad_host_closes_the_others(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCALHOST, 0)
        before = open_descriptors()
        port = address_of(server)[1]
        with pytest.raises(OSError, match="already in use"):
            await loop.create_server(Recorder, ["127.0.0.2", LOCALHOST, "127.0.0.3"], port)
        assert open_descriptors() == before
        server.close()

    run(main())


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "Neither host/port nor sock were specified", {}),
        (ValueError, "can not be specified at the same time", {"host": LOCALHOST, "sock": socket.SOCK_STREAM}),
        (ValueError, "A Stream Socket was expected", {"sock": socket.SOCK_DGRAM}),
        (TypeError, "ssl argument must be an SSLContext or None", {"host": LOCALHOST, "port": 0, "ssl": True}),
        (ValueError, "ssl_handshake_timeout", {"host": LOCALHOST, "port": 0, "ssl_handshake_timeout": 1}),
        (ValueError, "ssl_shutdown_timeout", {"host": LOCALHOST, "port": 0, "ssl_shutdown_timeout": 1}),
        (OverflowError, "port must be 0-65535", {"host": LOCALHOST, "port": 70000}),
        (TypeError, None, {"host": 5, "port": 0}),
        (TypeError, None, {"host": LOCALHOST, "port": 0, "backlog": "many"}),
        (TypeError, None, {"host": LOCALHOST, "port": 0, "no_such_argument": 1}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_bad_arguments(
    run: Any, loop_name: str, error: type[Exception], match: str | None, arguments: dict[str, Any]
) -> None:
    async def main() -> None:
        sock = socket.socket(type=arguments["sock"]) if "sock" in arguments else None
        before = open_descriptors()
        with pytest.raises(error, match=match):
            await asyncio.get_running_loop().create_server(
                Recorder, **(arguments if sock is None else {**arguments, "sock": sock})
            )
        if loop_name == "asyncio":
            gc.collect()  # std leaves sockets behind when listen() fails
        assert open_descriptors() == before
        if sock is not None:
            assert sock.fileno() >= 0
            sock.close()

    run(main())


def test_name_that_does_not_resolve(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror):
            await asyncio.get_running_loop().create_server(Recorder, "no-number", 0, flags=socket.AI_NUMERICHOST)

    run(main())


@pytest.mark.parametrize("is_handed_in", [False, True])
def test_a_server_that_nobody_got_does_not_listen(run: Any, loop_name: str, is_handed_in: bool) -> None:
    if loop_name != "hoop":
        pytest.skip("std goes on accepting")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = Clients()
        sock = socket.create_server((LOCALHOST, 0))
        before = open_descriptors()
        creating = asyncio.ensure_future(
            loop.create_server(clients, sock=sock) if is_handed_in else loop.create_server(clients, LOCALHOST, 0)
        )
        await asyncio.sleep(0)
        while not is_handed_in and open_descriptors() == before:
            await asyncio.sleep(0)
        assert not creating.done()  # it listens, and gives the loop a turn
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert open_descriptors() == before
        client = dial(sock.getsockname())
        await turns()
        assert clients.protocols == []
        client.close()
        sock.close()

    run(main())


def test_a_backlog_that_listen_refuses(run: Any, loop_name: str) -> None:
    if loop_name != "hoop":
        pytest.skip("std leaves its socket to the collector")

    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(OverflowError) as info:
            await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0, backlog=1 << 40)
        assert info.value is not None and open_descriptors() == before

    run(main())


# Protocols that fail


def test_protocol_factory_that_raises(run: Any, loop_name: str) -> None:
    error = LookupError("no protocol today")
    errors = [error]
    clients = Clients()

    def factory() -> asyncio.Protocol:
        if errors:
            raise errors.pop()
        return clients()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # asyncio reports it in debug mode only
        log = HandlerLog(loop)
        server = await loop.create_server(factory, LOCALHOST, 0)
        before = open_descriptors()
        refused = dial(address_of(server))
        context = await log.first()
        assert context["exception"] is error
        assert context["message"] == "Error on transport creation for incoming connection"
        assert context_keys(context) == {"message", "exception"}
        if loop_name == "asyncio":
            error.__traceback__ = None  # std leaves the connection to the collector
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
        assert await off_loop(refused.recv, 1) == b""  # the connection has been closed
        refused.close()
        assert open_descriptors() <= before
        dial(address_of(server)).close()  # the server goes on
        await (await clients.until_made()).until_lost()
        server.close()

    run(main())


def test_protocol_that_will_not_be_looked_at(run: Any, loop_name: str) -> None:
    """isinstance() asks an object for its class; whoever raises there must not have the descriptor closed twice."""
    if loop_name == "asyncio":
        pytest.skip("std leaves half a transport behind")

    class Shy(asyncio.Protocol):
        @property
        def __class__(self) -> Any:
            raise LookupError("not at home")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        server = await loop.create_server(Shy, LOCALHOST, 0)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            peer = dial(address_of(server))
            context = await log.first()
            assert str(context["exception"]) == "not at home"
            assert await off_loop(read_to_end, peer) == b""
            gc.collect()
        assert warned == []
        peer.close()
        server.close()

    run(main())


def test_trap_6_connection_made_that_raises(run: Any) -> None:
    error = LookupError("on purpose")

    def fail(protocol: Recorder, transport: Any) -> None:
        raise error

    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        clients = Clients(connection_made=fail)
        server = await loop.create_server(clients, LOCALHOST, 0)
        before = open_descriptors()
        peer = dial(address_of(server))
        await log.first()
        await turns()
        assert [context["exception"] for context in log] == [error]
        peer.close()
        await clients.protocols[0].until_lost()
        heirs = [socket.socket() for _ in range(3)]
        await turns()
        for heir in heirs:  # nobody has closed their numbers
            assert heir.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            heir.close()
        assert clients.protocols[0].count("connection_lost") == 1
        assert open_descriptors() <= before
        server.close()

    run(main())


EMFILE_SERVER = """
import asyncio, contextlib, os, resource, socket, sys
sys.path.insert(0, sys.argv[1])
from conformance.peers import MOST_IDLE_TURNS, idle_turns
from loop_factories import loop_factory_named

async def main():
    loop = asyncio.get_running_loop()
    contexts, refused, served = [], asyncio.Event(), asyncio.Event()
    def handler(loop, context):
        contexts.append(context)
        refused.set()
    loop.set_exception_handler(handler)
    class Served(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            served.set()
        def data_received(self, data):
            self.transport.write(data)
    server = await loop.create_server(Served, "127.0.0.1", 0)
    peer = socket.socket()
    peer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        peer.connect(server.sockets[0].getsockname())
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = (highest + 4, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    fillers = []
    with contextlib.suppress(OSError):
        while True:
            fillers.append(os.dup(0))
    await asyncio.wait_for(refused.wait(), 20)
    assert await idle_turns(0.4) <= MOST_IDLE_TURNS, "busy loop"
    assert not served.is_set()
    # std goes on trying to accept, as often as the backlog allows, and reports each failure
    assert len(contexts) <= (3 if sys.argv[2] == "hoop" else 100), len(contexts)
    context = contexts[0]
    assert context["message"] == "socket.accept() out of system resource", context
    assert context["exception"].errno == 24, context
    assert set(context) - {"source_traceback"} == {"message", "exception", "socket"}, context
    assert isinstance(context["socket"], asyncio.trsock.TransportSocket)
    for filler in fillers:
        os.close(filler)
    await asyncio.wait_for(served.wait(), 20)  # by itself, without another connection
    await asyncio.wait_for(loop.sock_sendall(peer, b"ping"), 20)
    assert await asyncio.wait_for(loop.sock_recv(peer, 10), 20) == b"ping"
    server.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits

with asyncio.Runner(loop_factory=loop_factory_named(sys.argv[2])) as runner:
    runner.run(main())
print("recovered")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_trap_6_accept_without_descriptors_recovers_and_does_not_spin(loop_name: str) -> None:
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", EMFILE_SERVER, str(tests), loop_name],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.stdout == "recovered\n", done.stderr


# connect_accepted_socket


@pytest.mark.parametrize("blocking", [True, False])
def test_connect_accepted_socket(run: Any, blocking: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        ours.setblocking(blocking)
        protocol = Recorder(data_received=echo)
        transport, returned = await loop.connect_accepted_socket(lambda: protocol, ours)
        assert returned is protocol and protocol.names == ["connection_made"]
        assert transport.get_extra_info("peername") == peer.getsockname()
        peer.sendall(b"hello")
        assert await off_loop(peer.recv, 100) == b"hello"
        transport.close()
        await protocol.until_lost()
        assert ours.fileno() == -1
        peer.close()

    run(main())


def test_connect_accepted_socket_with_bad_arguments(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="A Stream Socket was expected"):
                await loop.connect_accepted_socket(Recorder, sock)
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="ssl_handshake_timeout"):
                await loop.connect_accepted_socket(Recorder, sock, ssl_handshake_timeout=1)
            with pytest.raises(ValueError, match="ssl_shutdown_timeout"):
                await loop.connect_accepted_socket(Recorder, sock, ssl_shutdown_timeout=1)
            with pytest.raises(TypeError):
                await loop.connect_accepted_socket(Recorder)

    run(main())
