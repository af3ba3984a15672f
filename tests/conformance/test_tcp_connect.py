"""create_connection: addresses, sockets handed in, refusal, cancellation, and what it leaves behind (nothing)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from conformance.peers import (
    DEADLINE_S,
    LOCALHOST,
    HandlerLog,
    Recorder,
    accept_one,
    context_keys,
    has_ipv6_loopback,
    listening,
    off_loop,
    open_descriptors,
    pattern,
    read_exactly,
    refused_port,
    tcp_pair,
    turns,
)

needs_ipv6 = pytest.mark.skipif(not has_ipv6_loopback(), reason="no IPv6 loopback")
needs_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")


@contextlib.contextmanager
def unanswering(family: int = socket.AF_INET, port: int = 0) -> Iterator[socket.socket]:
    """A listener whose queue is full, so that the kernel leaves further connects without an answer (Linux)."""
    if sys.platform != "linux":
        pytest.skip("relies on how Linux treats a full accept queue")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(("::1" if family == socket.AF_INET6 else LOCALHOST, port))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener


async def close(transport: Any, protocol: Recorder) -> None:
    transport.close()
    await protocol.until_lost()


# Where to


def test_host_and_port(run: Any) -> None:
    async def main() -> None:
        with listening() as listener:
            protocol = Recorder()
            result = await asyncio.get_running_loop().create_connection(lambda: protocol, *listener.getsockname())
            transport, returned = result
            assert isinstance(result, tuple) and returned is protocol
            assert protocol.names == ["connection_made"] and protocol.transport is transport
            peer = await accept_one(listener)
            assert transport.get_extra_info("peername") == listener.getsockname()
            assert transport.get_extra_info("sockname") == peer.getpeername()
            transport.write(b"ping")
            assert await off_loop(read_exactly, peer, 4) == b"ping"
            peer.sendall(b"pong")
            assert await protocol.until_received(4) == b"pong"
            await close(transport, protocol)
            peer.close()

    run(main())


@pytest.mark.parametrize("host", [LOCALHOST, b"127.0.0.1", "localhost", None], ids=repr)
@pytest.mark.parametrize("convert", [int, str], ids=["int", "str"])
def test_forms_of_host_and_port(run: Any, host: Any, convert: Callable[[int], Any]) -> None:
    async def main() -> None:
        with listening() as listener:
            protocol = Recorder()
            port = convert(listener.getsockname()[1])
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, host, port)
            assert transport.get_extra_info("peername") == listener.getsockname()
            await close(transport, protocol)

    run(main())


def test_nodelay_is_set_and_the_descriptor_is_not_inherited(run: Any) -> None:
    async def main() -> None:
        with listening() as listener:
            protocol = Recorder()
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, *listener.getsockname())
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.gettimeout() == 0
            assert not sock.get_inheritable()
            await close(transport, protocol)

    run(main())


@needs_ipv6
def test_ipv6(run: Any) -> None:
    async def main() -> None:
        with listening(family=socket.AF_INET6) as listener:
            protocol = Recorder()
            address = listener.getsockname()[:2]
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, *address)
            assert transport.get_extra_info("peername") == listener.getsockname()
            assert len(transport.get_extra_info("sockname")) == 4
            await close(transport, protocol)

    run(main())


def test_family_selects_the_addresses(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            port = listener.getsockname()[1]
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda: protocol, None, port, family=socket.AF_INET)
            assert transport.get_extra_info("peername")[0] == LOCALHOST
            await close(transport, protocol)
            with pytest.raises(socket.gaierror):
                await loop.create_connection(Recorder, LOCALHOST, port, family=socket.AF_INET6)

    run(main())


@needs_ipv6
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"interleave": 1},
        {"interleave": 2},
        {"happy_eyeballs_delay": 0.25},
        {"happy_eyeballs_delay": 0.25, "interleave": 2},
        {"happy_eyeballs_delay": 30.0},
        {"happy_eyeballs_delay": 0},
    ],
    ids=repr,
)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_trap_20_the_next_address_is_tried(run: Any, family: int, arguments: dict[str, Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening(family=family) as listener:
            before = open_descriptors()
            protocol = Recorder()
            # no host means both loopback addresses; only one of them is listened on
            transport, _ = await loop.create_connection(lambda: protocol, None, listener.getsockname()[1], **arguments)
            assert transport.get_extra_info("peername") == listener.getsockname()
            await close(transport, protocol)
            await turns()
            assert open_descriptors() <= before | pool_descriptors(before)

    run(main())


def pool_descriptors(before: set[int]) -> set[int]:
    """Descriptors that are no sockets of connections: name resolution may have started a thread pool or read a file."""
    others = set()
    for number in open_descriptors() - before:
        try:
            with socket.socket(fileno=number) as sock:
                is_connection = sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6)
                sock.detach()
        except OSError:
            is_connection = False
        if not is_connection:
            others.add(number)
    return others


@needs_ipv6
@pytest.mark.parametrize("slow_family", [socket.AF_INET, socket.AF_INET6])
def test_trap_20_happy_eyeballs_overtakes_an_address_that_does_not_answer(run: Any, slow_family: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        fast_family = socket.AF_INET6 if slow_family == socket.AF_INET else socket.AF_INET
        with listening(family=fast_family) as listener:
            port = listener.getsockname()[1]
            try:
                hanging = unanswering(slow_family, port).__enter__()
            except OSError:
                pytest.skip("the port is taken in the other family")
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda: protocol, None, port, happy_eyeballs_delay=0.01)
            assert transport.get_extra_info("peername")[0] == listener.getsockname()[0]
            await close(transport, protocol)
            hanging.close()

    run(main())


# Local addresses


@pytest.mark.parametrize("host", [LOCALHOST, "localhost", None], ids=repr)
def test_trap_20_local_addr(run: Any, host: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            protocol = Recorder()
            port = refused_port()
            # resolving None gives an address of each family: those of another family than the target's are passed over
            transport, _ = await loop.create_connection(
                lambda: protocol, *listener.getsockname(), local_addr=(host, port)
            )
            assert transport.get_extra_info("sockname") == (LOCALHOST, port)
            await close(transport, protocol)

    run(main())


def test_local_addr_in_use(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            address = listener.getsockname()
            with pytest.raises(OSError, match=r"error while attempting to bind on address .*already in use") as info:
                await loop.create_connection(Recorder, *address, local_addr=address)
            assert info.value.errno == errno.EADDRINUSE

    run(main())


@needs_ipv6
def test_local_addr_of_another_family(run: Any) -> None:
    async def main() -> None:
        with listening() as listener:
            with pytest.raises(OSError, match=r"no matching local address with family=<AddressFamily\.AF_INET6?: "):
                await asyncio.get_running_loop().create_connection(
                    Recorder, *listener.getsockname(), local_addr=("::1", 0)
                )

    run(main())


# Sockets handed in


@pytest.mark.parametrize("blocking", [True, False])
def test_sock_is_adopted(run: Any, blocking: bool) -> None:
    async def main() -> None:
        ours, peer = tcp_pair()
        ours.setblocking(blocking)
        protocol = Recorder()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        assert ours.gettimeout() == 0
        assert transport.get_extra_info("socket").fileno() == ours.fileno()
        data = pattern(100_000)
        transport.write(data)
        assert await off_loop(read_exactly, peer, len(data)) == data
        await close(transport, protocol)
        assert ours.fileno() == -1  # closed through the object that was handed in
        assert await off_loop(peer.recv, 1) == b""
        peer.close()

    run(main())


def test_sock_may_be_a_unix_stream(run: Any) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        protocol = Recorder()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        peer.send(b"x")
        assert await protocol.until_received(1) == b"x"
        await close(transport, protocol)
        peer.close()

    run(main())


@needs_3_12
def test_sock_of_a_living_transport_is_refused(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.create_connection(Recorder, sock=ours)
        peer.send(b"unharmed")
        assert await protocol.until_received(8) == b"unharmed"
        await close(transport, protocol)
        peer.close()

    run(main())


def test_sock_that_is_not_connected_ends_in_connection_lost(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(lambda: protocol, sock=socket.socket())
            await protocol.until_lost()

    run(main())


# Refusal


def test_refused(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        port = refused_port()
        before = open_descriptors()
        with pytest.raises(ConnectionRefusedError, match="Connect call failed") as info:
            await loop.create_connection(Recorder, LOCALHOST, port)
        assert info.value.errno == errno.ECONNREFUSED
        assert str((LOCALHOST, port)) in str(info.value)
        assert open_descriptors() <= before

    run(main())


@needs_ipv6
@pytest.mark.parametrize("arguments", [{}, {"happy_eyeballs_delay": 0.25}], ids=repr)
def test_refused_by_every_address(run: Any, arguments: dict[str, Any]) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"^Multiple exceptions: .*::1.*127\.0\.0\.1"):
            await asyncio.get_running_loop().create_connection(Recorder, None, refused_port(), **arguments)

    run(main())


@needs_3_12
@needs_ipv6
@pytest.mark.parametrize("arguments", [{}, {"happy_eyeballs_delay": 0.25}], ids=repr)
@pytest.mark.parametrize(("host", "count"), [(None, 2), (LOCALHOST, 1)], ids=["two", "one"])
def test_trap_20_all_errors(run: Any, host: str | None, count: int, arguments: dict[str, Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ExceptionGroup, match="create_connection failed") as info:
            await loop.create_connection(Recorder, host, refused_port(), all_errors=True, **arguments)
        assert [type(error) for error in info.value.exceptions] == [ConnectionRefusedError] * count

    run(main())


def test_names_that_do_not_resolve(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(socket.gaierror) as info:
            await loop.create_connection(Recorder, "no-number", 1, flags=socket.AI_NUMERICHOST)
        assert info.value.errno == socket.EAI_NONAME
        with pytest.raises(OSError):
            await loop.create_connection(Recorder, "nobody.invalid", 1)
        with pytest.raises(ValueError, match="null"):
            await loop.create_connection(Recorder, "nul\0inside", 1)

    run(main())


# Bad arguments


def datagram_socket() -> socket.socket:
    return socket.socket(type=socket.SOCK_DGRAM)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "host and port was not specified", {}),
        (ValueError, "server_hostname is only meaningful with ssl", {"host": LOCALHOST, "server_hostname": "name"}),
        (ValueError, "ssl_handshake_timeout is only", {"host": LOCALHOST, "ssl_handshake_timeout": 1.0}),
        (ValueError, "ssl_shutdown_timeout is only", {"host": LOCALHOST, "ssl_shutdown_timeout": 1.0}),
        (ValueError, "can not be specified at the same time", {"host": LOCALHOST, "sock": socket.socket}),
        (ValueError, "can not be specified at the same time", {"port": 80, "sock": socket.socket}),
        (ValueError, "A Stream Socket was expected", {"sock": datagram_socket}),
        (OverflowError, "port must be 0-65535", {"host": LOCALHOST, "port": 70000}),
        (OverflowError, "port must be 0-65535", {"host": LOCALHOST, "port": -1}),
        (TypeError, None, {"host": LOCALHOST, "port": 1, "local_addr": 5}),
        (ValueError, None, {"host": LOCALHOST, "port": 1, "local_addr": ("one",)}),
        (TypeError, None, {"host": 3, "port": 1}),
        (TypeError, None, {"host": LOCALHOST, "port": 1, "no_such_argument": 1}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_bad_arguments(run: Any, error: type[Exception], match: str | None, arguments: dict[str, Any]) -> None:
    async def main() -> None:
        made = arguments.get("sock")
        sock = made() if made is not None else None
        before = open_descriptors()
        with pytest.raises(error, match=match):
            await asyncio.get_running_loop().create_connection(
                Recorder, **({**arguments, "sock": sock} if sock is not None else arguments)
            )
        assert open_descriptors() <= before
        if sock is not None:
            assert sock.fileno() >= 0  # still the caller's
            sock.close()

    run(main())


def test_ssl_socket_is_refused(run: Any) -> None:
    ssl = pytest.importorskip("ssl")

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with context.wrap_socket(socket.socket(), server_hostname="name", do_handshake_on_connect=False) as sock:
            with pytest.raises(TypeError, match="SSLSocket"):
                await asyncio.get_running_loop().create_connection(Recorder, sock=sock)

    run(main())


def test_protocol_factory_that_raises(run: Any, loop_name: str) -> None:
    def factory() -> asyncio.Protocol:
        raise LookupError("no protocol today")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            before = open_descriptors()
            with pytest.raises(LookupError, match="no protocol today"):
                await loop.create_connection(factory, *listener.getsockname())
            with pytest.raises(TypeError):
                await loop.create_connection(None, *listener.getsockname())
            gc.collect()
            assert open_descriptors() <= before
        ours, peer = tcp_pair()
        with pytest.raises(LookupError, match="no protocol today"):
            await loop.create_connection(factory, sock=ours)
        if loop_name == "hoop":  # and asyncio from 3.14.10 on (cpython#153133); before, the socket stayed open
            assert ours.fileno() == -1
        ours.close()
        peer.close()

    run(main())


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")  # asyncio leaves it to the collector
def test_protocol_factory_that_returns_nothing(run: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        log = HandlerLog(loop)
        with listening() as listener:
            before = open_descriptors()
            with pytest.raises(AttributeError, match="connection_made"):
                await loop.create_connection(lambda: None, *listener.getsockname())
            await turns()
            gc.collect()
            assert open_descriptors() <= before
        ours, peer = tcp_pair()
        with pytest.raises(AttributeError, match="connection_made"):
            await loop.connect_accepted_socket(lambda: None, ours)
        await turns()
        gc.collect()
        assert ours.fileno() == -1 and await off_loop(peer.recv, 1) == b""
        peer.close()
        assert list(log) == []

    run(main())


def test_connection_made_that_raises_is_reported_once(run: Any) -> None:
    error = LookupError("on purpose")

    def fail(protocol: Recorder, transport: Any) -> None:
        raise error

    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        before = open_descriptors()
        ours, peer = tcp_pair()
        protocol = Recorder(connection_made=fail)
        with contextlib.suppress(LookupError, ConnectionError):
            await loop.create_connection(lambda: protocol, sock=ours)
        await log.first()
        await turns()
        assert [context["exception"] for context in log] == [error]
        assert context_keys(log[0]) == {"message", "exception", "handle"}
        protocol.transport.close()
        await protocol.until_lost()
        await turns()
        assert protocol.names == ["connection_made", "connection_lost"]
        peer.close()
        assert open_descriptors() <= before

    run(main())


# Cancellation, and who owns a descriptor


async def cancelled_after(count: int, start: Callable[[], Awaitable[Any]]) -> Any:
    """Start, cancel after count turns; the result if it came first, else None."""
    task = asyncio.ensure_future(start())
    await turns(count)
    task.cancel()
    try:
        return await asyncio.wait_for(task, DEADLINE_S)
    except asyncio.CancelledError:
        assert task.cancelled()
        return None


@pytest.mark.parametrize("host", [LOCALHOST, "localhost"])
@pytest.mark.parametrize("arguments", [{}, {"happy_eyeballs_delay": 0.25}, {"local_addr": (LOCALHOST, 0)}], ids=repr)
def test_cancel_at_every_await_leaks_nothing(run: Any, loop_name: str, host: str, arguments: dict[str, Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            port = listener.getsockname()[1]
            await loop.getaddrinfo("localhost", port)  # whatever a resolver keeps open is open by now
            outcomes = []
            for count in [*range(12), 2000]:
                before = open_descriptors()
                result = await cancelled_after(count, lambda: loop.create_connection(Recorder, host, port, **arguments))
                outcomes.append(result is not None)
                if result is not None:
                    await close(*result)
                await turns()
                if loop_name == "asyncio":
                    # std: of a race that is cancelled as a connect finishes, the socket is left to the collector
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ResourceWarning)
                        gc.collect()
                assert open_descriptors() <= before | pool_descriptors(before), f"leak after {count} turns"
            assert outcomes[0] is False

    run(main())


def test_cancel_with_sock_closes_it_or_leaves_it_to_the_caller(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for count in range(6):
            before = open_descriptors()
            ours, peer = tcp_pair()
            protocol = Recorder()
            result = await cancelled_after(count, lambda: loop.create_connection(lambda: protocol, sock=ours))
            if result is not None:
                await close(*result)
            elif count > 0:
                await protocol.until_lost()  # the transport existed by then, and was closed
                assert ours.fileno() == -1
            await turns()
            ours.close()
            peer.close()
            assert open_descriptors() <= before

    run(main())


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_trap_1_cancelled_connect_closes_once(run: Any, count: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with unanswering() as listener:
            before = open_descriptors()
            task = asyncio.ensure_future(loop.create_connection(Recorder, *listener.getsockname()))
            await turns(count)
            taken = open_descriptors() - before
            assert not task.done() and len(taken) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert open_descriptors() == before
            # the number goes to somebody else at once: a second close would take it away
            heir, other = socket.socketpair()
            assert taken <= {heir.fileno(), other.fileno()}
            await turns()
            gc.collect()
            readable = asyncio.Event()
            loop.add_reader(heir, readable.set)
            other.send(b"x")
            await asyncio.wait_for(readable.wait(), DEADLINE_S)
            loop.remove_reader(heir)
            assert heir.recv(1) == b"x"
            heir.close()
            other.close()

    run(main())


def test_trap_1_collected_transport_closes_once(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            ours, peer = tcp_pair()
            number = ours.fileno()
            transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
            sock = transport.get_extra_info("socket")
            transport.abort()
            del transport, ours
            await turns()
            assert number not in open_descriptors()
            heirs = [socket.socket() for _ in range(5)]  # one of them gets the number
            assert number in {heir.fileno() for heir in heirs}
            del sock, protocol
            gc.collect()
            await turns()
            for heir in heirs:
                assert heir.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                heir.close()
            peer.close()

    run(main())


def test_timeout_while_connecting(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with unanswering() as listener:
            before = open_descriptors()
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await asyncio.wait_for(loop.create_connection(Recorder, *listener.getsockname()), 0.05)
            assert open_descriptors() == before

    run(main())


# Banners


def test_trap_45_a_banner_in_the_socket_waits_for_create_connection(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            ours, peer = tcp_pair()
            peer.sendall(b"220 ready\r\n")
            protocol = Recorder()
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            assert protocol.names == ["connection_made"]
            await protocol.until_received(11)
            await close(transport, protocol)
            peer.close()

    run(main())


def test_trap_45_banner_server_300_connections(run: Any) -> None:
    def serve(listener: socket.socket, count: int) -> list[socket.socket]:
        peers = []
        for _ in range(count):
            peer, _ = listener.accept()
            peer.sendall(b"220 ready\r\n")
            peers.append(peer)
        return peers

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            serving = asyncio.ensure_future(off_loop(serve, listener, 300))
            early = 0
            connections = []
            for _ in range(300):
                protocol = Recorder()
                transport, _ = await loop.create_connection(lambda: protocol, *listener.getsockname())
                early += protocol.count("data_received") > 0
                connections.append((transport, protocol))
            assert early == 0
            for transport, protocol in connections:
                assert await protocol.until_received(11) == b"220 ready\r\n"
                await close(transport, protocol)
            for peer in await serving:
                peer.close()

    run(main())
