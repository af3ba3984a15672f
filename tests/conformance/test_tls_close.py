"""How TLS connections end: close_notify by either side, its absence, peers that vanish, timeouts and abort."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from conformance.peers import (
    SETTLING_TURNS,
    Clients,
    HandlerLog,
    Recorder,
    address_of,
    echo,
    off_loop,
    pattern,
    read_until_gone,
    reset,
    soon,
    tcp_pair,
    turns,
)
from conformance.tls_peers import (
    MIB,
    NAME,
    SMALL_BUFFERS,
    client_context,
    dial_tls,
    read_tls_exactly,
    say_goodbye,
    server_context,
    tls_connected,
    tls_server,
)

pytestmark = pytest.mark.each_tls_engine


def read_to_close_notify(peer: ssl.SSLSocket) -> tuple[bytes, bool]:
    """Blocking: what comes up to the end, and whether the end was close_notify rather than the stream's."""
    peer.suppress_ragged_eofs = False
    data = bytearray()
    while True:
        try:
            chunk = peer.recv(65536)
        except ssl.SSLEOFError:
            return bytes(data), False
        if not chunk:
            return bytes(data), True
        data += chunk


def test_close_says_goodbye(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.write(b"last words")
        transport.close()
        assert transport.is_closing()
        transport.close()
        assert await off_loop(read_to_close_notify, peer) == (b"last words", True)
        await turns()
        assert protocol.count("connection_lost") == 0  # it waits for the answer
        await off_loop(say_goodbye, peer)
        assert await protocol.until_lost() is None

    run(main())


def test_trap_9_close_delivers_everything(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, sizes=SMALL_BUFFERS)
        data = pattern(3 * MIB)
        transport.write(data)
        transport.close()
        received, was_orderly = await off_loop(read_to_close_notify, peer)
        assert received == data and was_orderly
        await off_loop(say_goodbye, peer)
        assert await protocol.until_lost() is None

    run(main())


def test_the_peer_says_goodbye(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        peer.sendall(b"bye")
        await off_loop(peer.unwrap)  # returns once our close_notify has come
        assert await protocol.until_lost() is None
        assert bytes(protocol.data) == b"bye"
        assert protocol.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert transport.is_closing()
        peer.close()

    run(main())


def test_trap_17_returning_true_from_eof_received_has_no_effect(run: Any, caplog: Any) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda protocol: True)
        _, peer = await tls_connected(protocol)
        with caplog.at_level(logging.WARNING, "asyncio"):
            await off_loop(peer.unwrap)
            assert await protocol.until_lost() is None
        assert "returning true from eof_received() has no effect when using ssl" in caplog.text
        peer.close()

    run(main())


def test_trap_17_end_of_stream_without_close_notify(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        peer.sendall(b"cut")
        socket.socket(fileno=peer.detach()).close()
        assert await protocol.until_lost() is None
        assert bytes(protocol.data) == b"cut"
        assert protocol.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert transport.is_closing()

    run(main())


def test_trap_17_half_closed_peer_still_gets_what_was_written(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio.sslproto drops what eof_received writes")

    async def main() -> None:
        data = pattern(MIB)
        protocol = Recorder(eof_received=lambda protocol: protocol.transport.write(data))
        _, peer = await tls_connected(protocol)
        socket.socket.shutdown(peer, socket.SHUT_WR)  # SSLSocket's own would forget the keys
        received = await off_loop(read_tls_exactly, peer, len(data))
        assert received == data
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


class PeerOnMemory:
    """A blocking server whose goodbye does not wait for ours: an SSLSocket's would stumble over the data before it."""

    def __init__(self, sock: socket.socket) -> None:
        """Blocking: the handshake."""
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = server_context().wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.call(self.ssl_object.do_handshake)
        self.send()

    def send(self) -> None:
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function's result, once enough has arrived for it."""
        while True:
            try:
                return function(*arguments)
            except ssl.SSLWantReadError:
                self.send()
                self.feed()

    def feed(self) -> None:
        if data := self.sock.recv(65536):
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl_object.unwrap()
        self.send()

    def read_to_the_end(self) -> tuple[bytes, bool]:
        """Blocking: what comes, and whether its end is close_notify."""
        data = bytearray()
        try:
            while chunk := self.call(self.ssl_object.read, 65536):
                data += chunk
        except ssl.SSLZeroReturnError:
            return bytes(data), True
        except ssl.SSLEOFError:
            return bytes(data), False
        return bytes(data), False


@pytest.mark.parametrize("has_goodbye", [True, False], ids=["close_notify", "end of stream"])
def test_trap_17_what_waits_when_the_peer_ends_is_delivered(run: Any, has_goodbye: bool) -> None:
    """The peer says its last word while most of ours is still here; it gets all of it, and close_notify for its own."""

    async def main() -> None:
        protocol = Recorder()
        ours, theirs = tcp_pair(**SMALL_BUFFERS)
        handshake = asyncio.ensure_future(off_loop(PeerOnMemory, theirs))
        transport, _ = await soon(
            asyncio.get_running_loop().create_connection(
                lambda: protocol, sock=ours, ssl=client_context(), server_hostname=NAME
            )
        )
        peer = await soon(handshake)
        data = pattern(2 * MIB)
        transport.write(data)
        if has_goodbye:
            await off_loop(peer.say_goodbye)
        else:
            theirs.shutdown(socket.SHUT_WR)
        await protocol.until(lambda: protocol.count("eof_received") == 1)
        received, was_orderly = await off_loop(peer.read_to_the_end)
        assert len(received) == len(data) and received == data
        assert was_orderly or not has_goodbye
        theirs.close()
        assert await protocol.until_lost() is None

    run(main())


def test_a_reset(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        await off_loop(peer.sendall, b"x")
        await protocol.until_received(1)
        reset(socket.socket(fileno=peer.detach()))
        assert isinstance(await protocol.until_lost(), ConnectionResetError)
        assert protocol.count("eof_received") == 0
        assert transport.is_closing()

    run(main())


def test_trap_21_explicit_shutdown_timeout(run: Any) -> None:
    """The peer has vanished: it neither answers nor closes."""

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, ssl_shutdown_timeout=0.05)
        transport.close()
        assert isinstance(await protocol.until_lost(), TimeoutError)
        assert log == []
        peer.close()

    run(main())


def test_trap_21_explicit_shutdown_timeout_while_bytes_wait(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, ssl_shutdown_timeout=0.05, sizes=SMALL_BUFFERS)
        transport.write(pattern(3 * MIB))
        transport.close()
        assert isinstance(await protocol.until_lost(), TimeoutError)
        peer.close()

    run(main())


class Clock:
    """A loop's clock that goes as fast as the test wants."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns


def on_a_clock(main: Callable[[Clock], Any]) -> None:
    import hoop

    clock = Clock()
    with asyncio.Runner(loop_factory=lambda: hoop.Loop(clock=clock)) as runner:
        runner.run(main(clock))


def test_trap_21_a_vanished_peer_holds_a_closed_connection_for_seconds_only() -> None:
    """No timeout was given, all bytes have left, only the peer's close_notify is missing (hoop)."""

    async def main(clock: Clock) -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.write(b"the end")
        transport.close()
        assert await off_loop(read_to_close_notify, peer) == (b"the end", True)
        clock.now_ns += 4_900_000_000
        await turns()
        assert protocol.count("connection_lost") == 0
        clock.now_ns += 200_000_000
        await turns()
        assert await protocol.until_lost() is None
        peer.close()

    on_a_clock(main)


def test_trap_21_bytes_that_never_leave_get_the_whole_timeout() -> None:
    """No timeout was given and the peer does not read: 30 seconds, as asyncio (hoop)."""

    async def main(clock: Clock) -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, sizes=SMALL_BUFFERS)
        transport.write(pattern(3 * MIB))
        transport.close()
        for _ in range(6):
            await turns()
            assert protocol.count("connection_lost") == 0
            clock.now_ns += 5_000_000_001
        await turns()
        assert isinstance(await protocol.until_lost(), TimeoutError)
        peer.close()

    on_a_clock(main)


def test_handshake_timeout_is_60_seconds() -> None:
    """As asyncio's (hoop)."""

    async def main(clock: Clock) -> None:
        clients = Clients()
        server = await tls_server(clients)
        peer = await off_loop(socket.create_connection, address_of(server), 20.0)
        while not clients.protocols:
            await asyncio.sleep(0)
        clock.now_ns += 59_000_000_000
        await turns()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        peer.settimeout(20.0)
        clock.now_ns += 2_000_000_000
        assert await off_loop(read_until_gone, peer) == b""
        peer.close()
        server.close()

    on_a_clock(main)


def test_trap_21_abort_is_immediate(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, sizes=SMALL_BUFFERS)
        transport.write(pattern(3 * MIB))
        transport.abort()
        assert transport.is_closing()
        for _ in range(SETTLING_TURNS):
            await asyncio.sleep(0)
        assert protocol.lost_with is None
        transport.abort()
        peer.close()

    run(main())


def test_trap_21_abort_after_close(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.close()
        transport.abort()
        await turns()
        assert protocol.lost_with is None
        peer.close()

    run(main())


def test_trap_46_a_small_write_before_abort_is_delivered(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.write(b"y" * 1000)
        transport.abort()
        assert await off_loop(read_tls_exactly, peer, 1000) == b"y" * 1000
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_trap_14_writes_after_close_are_dropped(run: Any, caplog: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.abort()
        await protocol.until_lost()
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(5):
                transport.write(b"x")
            transport.writelines([b"x", b"y"])
            for _ in range(3):
                transport.write(b"x")
        assert "SSL connection is closed" in caplog.text or "socket.send() raised exception" in caplog.text
        peer.close()

    run(main())


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("callback", ["connection_made", "data_received", "eof_received", "pause_writing"])
def test_trap_12_ending_it_inside_a_callback(run: Any, how: str, callback: str) -> None:
    """connection_lost comes once, and nothing after it."""

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())

        def finish(protocol: Recorder, *arguments: Any) -> None:
            getattr(protocol.transport, how)()

        clients = Clients(**{callback: finish})
        server = await tls_server(clients, ssl_shutdown_timeout=10)
        with contextlib.suppress(OSError):
            peer = await off_loop(dial_tls, address_of(server))
            if callback == "data_received":
                await off_loop(peer.sendall, b"x" * 100_000)
            elif callback == "pause_writing":
                protocol = await clients.until_made()
                while not protocol.transport.is_closing():
                    protocol.transport.write(bytes(100_000))
                    await asyncio.sleep(0)
                await off_loop(read_tls_exactly, peer, 1 << 30)
            await off_loop(say_goodbye, peer)
        (protocol,) = clients.protocols
        await protocol.until_lost()
        await turns()
        assert protocol.names[-1] == "connection_lost" and protocol.count("connection_lost") == 1
        assert log == []
        server.close()
        await soon(server.wait_closed())

    run(main())


def test_closing_while_reading_is_paused(run: Any) -> None:
    """The peer's goodbye is found nevertheless."""

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.pause_reading()
        transport.close()
        await off_loop(say_goodbye, peer)
        assert await protocol.until_lost() is None
        assert protocol.count("data_received") == 0

    run(main())


def test_the_peer_goes_on_talking_after_close(run: Any, loop_name: str) -> None:
    """Its data is dropped; it is no error of ours."""
    if loop_name == "asyncio":
        pytest.skip("asyncio.sslproto ends with APPLICATION_DATA_AFTER_CLOSE_NOTIFY")

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.close()
        await off_loop(peer.sendall, pattern(200_000))
        await off_loop(say_goodbye, peer)
        assert await protocol.until_lost() is None
        assert not protocol.data

    run(main())


def test_trap_19_close_clients(run: Any, loop_name: str) -> None:
    """Connections of a server end as by close(): with close_notify (hoop; asyncio cuts them)."""
    if loop_name == "asyncio":
        pytest.skip("asyncio has close_clients from 3.13 on, and it closes the TCP connections below")

    async def main() -> None:
        clients = Clients(data_received=echo)
        server = await tls_server(clients)
        peer = await off_loop(dial_tls, address_of(server))
        await clients.until_made()
        server.close()
        server.close_clients()  # type: ignore[attr-defined]
        assert await off_loop(read_to_close_notify, peer) == (b"", True)
        await off_loop(say_goodbye, peer)
        assert await clients.protocols[0].until_lost() is None
        await soon(server.wait_closed())

    run(main())


def test_loop_closed_with_connections_open(loop_factory: Any, recwarn: Any) -> None:
    """It warns, as asyncio does, and the descriptors go."""

    async def main() -> tuple[Any, Any]:
        return await tls_connected(Recorder())

    loop = loop_factory()
    transport, peer = loop.run_until_complete(main())
    loop.close()
    del transport
    peer.settimeout(20.0)
    gc.collect()
    assert read_until_gone(peer) == b""
    peer.close()
    assert any(issubclass(warning.category, ResourceWarning) for warning in recwarn.list)


def test_nothing_outlives_a_closed_connection(run: Any) -> None:
    """The context goes with the last reference to it, without the garbage collector's help."""

    async def visit() -> Any:
        context = client_context()
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, context=context)
        transport.close()
        await off_loop(say_goodbye, peer)
        await protocol.until_lost()
        return weakref.ref(context)

    async def main() -> None:
        gc.collect()
        gc.disable()
        try:
            reference = await visit()
            await turns()
            assert reference() is None
        finally:
            gc.enable()

    run(main())
