"""loop.sock_*: the socket module's calls as coroutines, and their errors."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import gc
import inspect
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conformance.peers import (
    DEADLINE_S,
    LOCALHOST,
    Recorder,
    connected,
    listening,
    off_loop,
    pattern,
    read_exactly,
    refused_port,
    reset,
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


@contextlib.contextmanager
def udp_pair() -> Iterator[Pair]:
    with socket.socket(type=socket.SOCK_DGRAM) as left, socket.socket(type=socket.SOCK_DGRAM) as right:
        for sock in (left, right):
            sock.bind((LOCALHOST, 0))
            sock.setblocking(False)
        yield left, right


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; the number of bytes sent."""
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += sock.send(bytes(65536))
    return size


# Receiving


@pytest.mark.parametrize("ready", [True, False])
def test_sock_recv(run: Any, pair: Pair, ready: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        if ready:
            peer.sendall(b"abcdef")
            await turns(2)
            assert await soon(loop.sock_recv(ours, 4)) == b"abcd"
        else:
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 4))
            await turns()
            assert not receiving.done()
            peer.sendall(b"abcdef")
            assert await soon(receiving) == b"abcd"
        assert await soon(loop.sock_recv(ours, 100)) == b"ef"
        peer.close()
        assert await soon(loop.sock_recv(ours, 100)) == b""
        assert await soon(loop.sock_recv(ours, 100)) == b""

    run(main())


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(
    "kind", [bytearray, lambda size: memoryview(bytearray(size)), lambda size: array.array("b", bytes(size))]
)
def test_sock_recv_into(run: Any, pair: Pair, ready: bool, kind: Callable[[int], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        buffer = kind(4)
        if ready:
            peer.sendall(b"abcdef")
        receiving = asyncio.ensure_future(loop.sock_recv_into(ours, buffer))
        await turns(3)
        if not ready:
            peer.sendall(b"abcdef")
        assert await soon(receiving) == 4
        assert bytes(memoryview(buffer)) == b"abcd"
        assert await soon(loop.sock_recv_into(ours, buffer)) == 2
        assert bytes(memoryview(buffer)) == b"efcd"
        peer.close()
        assert await soon(loop.sock_recv_into(ours, buffer)) == 0

    run(main())


@pytest.mark.parametrize("ready", [True, False])
def test_trap_26_sock_recvfrom(run: Any, ready: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with udp_pair() as (left, right):
            if ready:
                right.sendto(b"datagram", left.getsockname())
            receiving = asyncio.ensure_future(loop.sock_recvfrom(left, 4096))
            await turns()
            if not ready:
                assert not receiving.done()
                right.sendto(b"datagram", left.getsockname())
            assert await soon(receiving) == (b"datagram", right.getsockname())
            right.sendto(b"", left.getsockname())
            assert await soon(loop.sock_recvfrom(left, 4096)) == (b"", right.getsockname())
            right.sendto(b"cut short", left.getsockname())
            assert (await soon(loop.sock_recvfrom(left, 3)))[0] == b"cut"

    run(main())


@pytest.mark.parametrize("ready", [True, False])
def test_trap_26_sock_recvfrom_into(run: Any, ready: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with udp_pair() as (left, right):
            buffer = bytearray(10)
            if ready:
                right.sendto(b"datagram", left.getsockname())
            receiving = asyncio.ensure_future(loop.sock_recvfrom_into(left, buffer))
            await turns()
            if not ready:
                right.sendto(b"datagram", left.getsockname())
            assert await soon(receiving) == (8, right.getsockname())
            assert buffer == b"datagram\0\0"
            right.sendto(b"XYZ", left.getsockname())
            assert await soon(loop.sock_recvfrom_into(left, buffer, 2)) == (2, right.getsockname())
            assert buffer == b"XYtagram\0\0"

    run(main())


# Sending


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_sock_sendall(run: Any, pair: Pair, kind: Callable[[bytes], Any], size: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        data = pattern(size)
        sending = asyncio.ensure_future(loop.sock_sendall(ours, kind(data)))
        await turns()
        assert sending.done() == (size < 5_000_000)  # the large one waits for its reader
        assert await off_loop(read_exactly, peer, size) == data
        assert await soon(sending) is None

    run(main())


def test_sock_sendall_lets_other_tasks_run(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        data = pattern(8_000_000)
        sending = asyncio.ensure_future(loop.sock_sendall(ours, data))
        rounds = 0
        for _ in range(100):
            left, right = socket.socketpair()
            left.setblocking(False)
            right.send(b"x")
            assert await soon(loop.sock_recv(left, 1)) == b"x"
            left.close()
            right.close()
            rounds += 1
        assert not sending.done() and rounds == 100
        assert await off_loop(read_exactly, peer, len(data)) == data
        await soon(sending)

    run(main())


def test_trap_26_sock_sendto(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with udp_pair() as (left, right):
            assert await soon(loop.sock_sendto(left, b"datagram", right.getsockname())) == 8
            assert await soon(loop.sock_sendto(left, bytearray(b"and one more"), right.getsockname())) == 12
            assert await soon(loop.sock_sendto(left, b"", right.getsockname())) == 0
            for expected in (b"datagram", b"and one more", b""):
                assert await soon(loop.sock_recvfrom(right, 100)) == (expected, left.getsockname())
            with pytest.raises(OSError) as info:
                await soon(loop.sock_sendto(left, bytes(100_000), right.getsockname()))
            assert info.value.errno == errno.EMSGSIZE
            with pytest.raises(TypeError):
                await soon(loop.sock_sendto(left, b"x", 5))

    run(main())


def test_sock_sendto_waits_for_room(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with left, right:
            left.setblocking(False)
            right.settimeout(DEADLINE_S)
            count = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    left.send(b"filler")
                    count += 1
            receiving = asyncio.ensure_future(loop.sock_recv(left, 100))  # the other direction is not disturbed
            sending = asyncio.ensure_future(loop.sock_sendall(left, b"at last"))
            await turns()
            assert not sending.done()
            for _ in range(count):
                assert await off_loop(right.recv, 100) == b"filler"
            assert await off_loop(right.recv, 100) == b"at last"
            await soon(sending)
            right.send(b"answer")
            assert await soon(receiving) == b"answer"

    run(main())


# Connecting and accepting


def test_sock_connect_and_accept(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener, socket.socket() as client:
            listener.setblocking(False)
            client.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await turns()
            assert not accepting.done()
            assert await soon(loop.sock_connect(client, listener.getsockname())) is None
            accepted = await soon(accepting)
            assert isinstance(accepted, tuple)
            conn, address = accepted
            with conn:
                assert isinstance(conn, socket.socket) and conn.gettimeout() == 0 and not conn.get_inheritable()
                assert address == client.getsockname()
                assert client.getpeername() == listener.getsockname()
                await soon(loop.sock_sendall(client, b"hello"))
                assert await soon(loop.sock_recv(conn, 100)) == b"hello"

    run(main())


def test_sock_accept_finds_a_connection_that_waits(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener:
            listener.setblocking(False)
            clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
            for client in clients:
                conn, address = await soon(loop.sock_accept(listener))
                assert address == client.getsockname()
                conn.close()
                client.close()

    run(main())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_sock_connect_resolves_names(run: Any, host: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener, socket.socket() as client:
            client.setblocking(False)
            await soon(loop.sock_connect(client, (host, listener.getsockname()[1])))
            assert client.getpeername() == listener.getsockname()

    run(main())


def test_sock_connect_errors(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for address, error, match in [
            ((LOCALHOST, refused_port()), ConnectionRefusedError, "Connect call failed"),
            ((LOCALHOST, 70000), OverflowError, "0-65535"),
            (("nobody.invalid", 1), OSError, None),
            ((), ValueError, None),
            (5, TypeError, None),
        ]:
            with socket.socket() as client:
                client.setblocking(False)
                with pytest.raises(error, match=match):
                    await soon(loop.sock_connect(client, address))
                assert client.fileno() >= 0  # still the caller's

    run(main())


def test_sock_connect_of_a_unix_socket(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            for sock in (listener, client):
                sock.setblocking(False)
            listener.bind(path)
            listener.listen()
            await soon(loop.sock_connect(client, path))
            conn, _ = await soon(loop.sock_accept(listener))
            conn.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            with pytest.raises(FileNotFoundError):
                await soon(loop.sock_connect(client, path + "-nobody"))

    run(main())


# Several at once


def test_receive_and_send_on_one_socket(run: Any, pair: Pair) -> None:
    def exchange(peer: socket.socket, size: int) -> bytes:
        received = read_exactly(peer, size)
        peer.sendall(received[::-1])
        return received

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        data = pattern(3_000_000)
        exchanging = asyncio.ensure_future(off_loop(exchange, peer, len(data)))

        async def receive() -> bytes:
            received = b""
            while len(received) < len(data):
                received += await soon(loop.sock_recv(ours, 1_000_000))
            return received

        receiving = asyncio.ensure_future(receive())
        await soon(loop.sock_sendall(ours, data))
        assert await receiving == data[::-1]
        assert await exchanging == data

    run(main())


def test_hundreds_of_sockets(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(300)]
        for left, right in pairs:
            left.setblocking(False)
            right.setblocking(False)

        async def echo(sock: socket.socket) -> None:
            await loop.sock_sendall(sock, await loop.sock_recv(sock, 100))

        async def ask(sock: socket.socket, index: int) -> bool:
            await loop.sock_sendall(sock, b"%d" % index)
            return await loop.sock_recv(sock, 100) == b"%d" % index

        answers = asyncio.gather(
            *(echo(left) for left, _ in pairs), *(ask(right, index) for index, (_, right) in enumerate(pairs))
        )
        assert [answer for answer in await soon(answers) if answer is not None] == [True] * 300
        for left, right in pairs:
            left.close()
            right.close()

    run(main())


def test_number_reused_between_two_calls(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for index in range(20):
            left, right = socket.socketpair()
            left.setblocking(False)
            receiving = asyncio.ensure_future(loop.sock_recv(left, 100))
            await turns(2)
            right.send(b"%d" % index)
            assert await soon(receiving) == b"%d" % index
            left.close()  # the next round gets the same numbers
            right.close()

    run(main())


# Errors


def test_coroutines(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        coroutine = loop.sock_recv(ours, 100)
        assert inspect.isawaitable(coroutine) and asyncio.iscoroutine(coroutine)
        task = asyncio.create_task(coroutine)
        peer.sendall(b"x")
        assert await soon(task) == b"x"
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(loop.sock_recv(ours, 100))
            peer.sendall(b"y")
        assert receiving.result() == b"y"
        with pytest.warns(RuntimeWarning, match="never awaited"):
            loop.sock_recv(ours, 100)
            gc.collect()

    run(main())


def test_blocking_sockets_are_refused_in_debug_mode(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = pair[1]
        with listening() as listener:
            for coroutine in (
                loop.sock_recv(sock, 1),
                loop.sock_recv_into(sock, bytearray(1)),
                loop.sock_recvfrom(sock, 1),
                loop.sock_recvfrom_into(sock, bytearray(1)),
                loop.sock_sendall(sock, b"x"),
                loop.sock_sendto(sock, b"x", (LOCALHOST, 1)),
                loop.sock_connect(sock, (LOCALHOST, 1)),
                loop.sock_accept(listener),
            ):
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await coroutine

    run(main(), debug=True)


def test_closed_sockets(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        for coroutine in (
            loop.sock_recv(sock, 100),
            loop.sock_recv_into(sock, bytearray(100)),
            loop.sock_recvfrom(sock, 100),
            loop.sock_recvfrom_into(sock, bytearray(100)),
            loop.sock_sendall(sock, b"x"),
            loop.sock_sendto(sock, b"x", (LOCALHOST, 1)),
            loop.sock_connect(sock, (LOCALHOST, 1)),
            loop.sock_accept(sock),
        ):
            with pytest.raises(OSError) as info:
                await soon(coroutine)
            assert info.value.errno == errno.EBADF

    run(main())


def test_errors_of_the_connection(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
        await turns()
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await soon(receiving)
        with pytest.raises(BrokenPipeError):
            await soon(loop.sock_sendall(ours, b"x"))
        with socket.socket() as never_connected:
            never_connected.setblocking(False)
            with pytest.raises(OSError) as info:
                await soon(loop.sock_recv(never_connected, 1))
            assert info.value.errno == errno.ENOTCONN
            with pytest.raises(OSError) as info:
                await soon(loop.sock_accept(never_connected))
            assert info.value.errno == errno.EINVAL

    run(main())


def test_reset_while_sendall_waits(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        fill(ours)
        sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1000)))
        await turns()
        assert not sending.done()
        reset(peer)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await soon(sending)

    run(main())


def test_wrong_arguments(run: Any, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, _ = pair
        for coroutine, error in [
            (lambda: loop.sock_recv(ours, "many"), TypeError),
            (lambda: loop.sock_recv(ours, -1), ValueError),
            (lambda: loop.sock_recv(None, 1), (AttributeError, TypeError)),
            (lambda: loop.sock_recv_into(ours, b"read-only"), (TypeError, BufferError)),
            (lambda: loop.sock_recv_into(ours, 5), TypeError),
            (lambda: loop.sock_sendall(ours, "text"), TypeError),
            (lambda: loop.sock_sendall(ours, None), TypeError),
            (lambda: loop.sock_recv(ours), TypeError),
        ]:
            with pytest.raises(error):
                await soon(coroutine())

    run(main())


def test_socket_of_a_transport_is_refused(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await soon(loop.sock_recv(ours, 1))
        peer.sendall(b"unharmed")
        assert await protocol.until_received(8) == b"unharmed"
        transport.close()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_ssl_sockets_are_refused(run: Any) -> None:
    ssl = pytest.importorskip("ssl")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with context.wrap_socket(socket.socket(), server_hostname="name", do_handshake_on_connect=False) as sock:
            sock.setblocking(False)
            for coroutine in (
                loop.sock_recv(sock, 1),
                loop.sock_recv_into(sock, bytearray(1)),
                loop.sock_sendall(sock, b"x"),
                loop.sock_connect(sock, (LOCALHOST, 1)),
                loop.sock_accept(sock),
            ):
                with pytest.raises(TypeError, match="SSLSocket"):
                    await soon(coroutine)

    run(main())


def test_sock_recv_after_a_transport_has_gone(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connected(protocol)
        number = transport.get_extra_info("socket").fileno()
        transport.abort()
        await protocol.until_lost()
        await turns()
        pairs = [socket.socketpair() for _ in range(4)]
        (reused,) = [pair for pair in pairs if number in (pair[0].fileno(), pair[1].fileno())]
        ours, other = reused if reused[0].fileno() == number else reused[::-1]
        ours.setblocking(False)
        other.send(b"hello")
        assert await soon(loop.sock_recv(ours, 100)) == b"hello"
        for left, right in pairs:
            left.close()
            right.close()
        peer.close()

    run(main())
