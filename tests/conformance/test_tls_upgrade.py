"""start_tls: by either side, with bytes that came early, on streams, failing, and inside another TLS connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import ssl
import sys
import weakref
from typing import Any

import pytest
from conformance.peers import (
    LOCALHOST,
    HandlerLog,
    Recorder,
    address_of,
    connected,
    dial,
    echo,
    off_loop,
    pattern,
    read_exactly,
    read_to_end,
    soon,
    tcp_pair,
    turns,
)
from conformance.tls_peers import (
    NAME,
    client_context,
    read_tls_exactly,
    say_goodbye,
    server_context,
    tls_server,
    trusting_context,
    upgraded,
    wrap_client,
    wrap_server,
)

pytestmark = pytest.mark.each_tls_engine


@pytest.mark.parametrize("server_side", [False, True])
def test_start_tls(run: Any, server_side: bool) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, below = await upgraded(protocol, server_side=server_side)
        assert transport is not below
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_protocol() is protocol
        assert protocol.names == ["connection_made"]  # not once more
        assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
        assert transport.get_extra_info("peername") == below.get_extra_info("peername")
        data = pattern(300_000)
        reading = asyncio.ensure_future(off_loop(read_tls_exactly, peer, len(data)))
        transport.write(data)
        assert await soon(reading) == data
        await off_loop(peer.sendall, data)
        assert await protocol.until_received(len(data)) == data
        saying = asyncio.ensure_future(off_loop(say_goodbye, peer))
        assert await protocol.until_lost() is None
        assert protocol.count("eof_received") == 1
        await saying

    run(main())


def test_start_tls_after_plain_talk(run: Any) -> None:
    """What was written before goes out in the clear, all of it and first."""

    async def main() -> None:
        protocol = Recorder()
        below, peer = await connected(protocol)
        below.write(b"STARTTLS\r\n")

        def answer() -> ssl.SSLSocket:
            assert read_exactly(peer, 10) == b"STARTTLS\r\n"
            secure = wrap_server(peer)
            secure.sendall(b"welcome")
            return secure

        answering = asyncio.ensure_future(off_loop(answer))
        transport = await soon(
            asyncio.get_running_loop().start_tls(below, protocol, client_context(), server_hostname=NAME)
        )
        secure = await soon(answering)
        assert await protocol.until_received(7) == b"welcome"
        transport.close()
        await off_loop(say_goodbye, secure)
        await protocol.until_lost()

    run(main())


def test_trap_22_bytes_in_the_socket_belong_to_the_handshake(run: Any) -> None:
    """The client's first flight has arrived before the server calls start_tls."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        below, peer = await connected(protocol)
        below.pause_reading()  # start_tls resumes it
        handshake = asyncio.ensure_future(off_loop(wrap_client, peer))
        await off_loop(wait_readable, below.get_extra_info("socket").dup())
        transport = await soon(loop.start_tls(below, protocol, server_context(), server_side=True))
        secure = await soon(handshake)
        transport.write(b"hello")
        assert await off_loop(read_tls_exactly, secure, 5) == b"hello"
        assert protocol.names == ["connection_made"]
        transport.abort()
        await protocol.until_lost()
        secure.close()

    run(main())


def wait_readable(sock: socket.socket) -> None:
    """Blocking: until the first byte is there. Closes sock, which is a duplicate."""
    with sock:
        assert select.select([sock], [], [], 20.0)[0]


def test_trap_22_bytes_in_the_reader_belong_to_the_handshake(run: Any, loop_name: str) -> None:
    """A StreamReader that has already taken the first flight loses none of it (cpython#142352)."""
    if loop_name == "asyncio":
        pytest.skip("only the newest releases of asyncio give them to the handshake")

    async def main() -> None:
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                assert await reader.readline() == b"STARTTLS\n"
                while not reader._buffer:  # type: ignore[attr-defined]
                    await asyncio.sleep(0)
                await writer.start_tls(server_context())
                done.set_result(await reader.readexactly(6))
                writer.close()
            except BaseException as error:
                if not done.done():
                    done.set_exception(error)
                raise

        def talk(address: tuple[Any, ...]) -> None:
            sock = dial(address)
            sock.sendall(b"STARTTLS\n")
            with wrap_client(sock) as secure:
                secure.sendall(b"inside")
                read_tls_exactly(secure, 1)

        async with await asyncio.start_server(serve, LOCALHOST, 0) as server:
            talking = asyncio.ensure_future(off_loop(talk, address_of(server)))
            assert await soon(done) == b"inside"
            await soon(talking)

    run(main())


def test_clear_text_of_the_reader_does_not_pass_for_secure(run: Any, loop_name: str) -> None:
    """What a man in the middle adds behind the answer to STARTTLS makes the handshake fail (CVE-2011-0411 and kin)."""
    if loop_name == "asyncio":
        pytest.skip("asyncio's client lets the clear text stand before the secure one")

    async def main() -> None:
        with socket.create_server((LOCALHOST, 0)) as listener:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            peer, _ = await off_loop(listener.accept)
            peer.sendall(b"220 go ahead\n220 injected\n")
            assert await reader.readline() == b"220 go ahead\n"
            while not reader._buffer:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            with pytest.raises(ssl.SSLError):
                await soon(writer.start_tls(client_context(), server_hostname=NAME))
            peer.close()

    run(main())


def test_stream_writer_start_tls(run: Any) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"GO\n")
            await writer.start_tls(server_context())
            while line := await reader.readline():
                writer.write(line.upper())
            writer.close()

        async with await asyncio.start_server(serve, LOCALHOST, 0) as server:
            reader, writer = await asyncio.open_connection(*address_of(server))
            writer.write(b"STARTTLS\n")
            assert await soon(reader.readline()) == b"GO\n"
            await soon(writer.start_tls(client_context(), server_hostname=NAME))
            assert writer.get_extra_info("ssl_object") is not None
            for word in (b"one\n", b"two\n"):
                writer.write(word)
                await writer.drain()
                assert await soon(reader.readline()) == word.upper()
            writer.close()
            await soon(writer.wait_closed())

    run(main())


def test_trap_22_failed_start_tls(run: Any) -> None:
    """The peer does not speak TLS: the error is raised, the protocol is told once, nothing comes later."""

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        protocol = Recorder()
        below, peer = await connected(protocol)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            await soon(asyncio.get_running_loop().start_tls(below, protocol, trusting_context(), server_hostname=NAME))
        error = await protocol.until_lost()
        assert isinstance(error, ssl.SSLError)
        assert below.is_closing()
        await turns()
        assert protocol.names == ["connection_made", "connection_lost"]
        assert log == []
        peer.close()

    run(main())


@pytest.mark.parametrize("is_upgrade", [True, False], ids=["start_tls", "create_connection"])
def test_trap_22_a_failed_handshake_leaves_no_cycle(run: Any, loop_name: str, is_upgrade: bool) -> None:
    """Errors carry tracebacks, and so frames: none of these may hold the error, or the transport stays as garbage."""
    if loop_name == "asyncio":
        pytest.skip("only the newest releases of asyncio leave none")

    class Forgetful(asyncio.Protocol):
        """A Recorder would keep the error."""

    async def handshake(ours: socket.socket) -> weakref.ref[Any]:
        loop = asyncio.get_running_loop()
        protocol = Forgetful()
        if is_upgrade:
            below, _ = await loop.create_connection(lambda: protocol, sock=ours)
            seen = weakref.ref(below)
            attempt = loop.start_tls(below, protocol, trusting_context(), server_hostname=NAME)
        else:
            seen = weakref.ref(protocol)
            attempt = loop.create_connection(lambda: protocol, sock=ours, ssl=trusting_context(), server_hostname=NAME)
        with contextlib.suppress(ssl.SSLError):
            await attempt
            pytest.fail("that was no TLS")
        return seen

    async def main() -> None:
        ours, peer = tcp_pair()
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        seen = await handshake(ours)
        await turns()
        assert seen() is None
        peer.close()

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


async def told_once(protocol: Recorder, loop_name: str) -> None:
    """The protocol hears of its connection's end once, and of nothing else. (std may not tell it at all.)"""
    if loop_name == "hoop":
        await protocol.until_lost()
    await turns()
    assert protocol.names[:1] == ["connection_made"] and set(protocol.names[1:]) <= {"connection_lost"}
    assert protocol.count("connection_lost") <= 1


def test_trap_22_start_tls_times_out(run: Any, loop_name: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        below, peer = await connected(protocol)
        with pytest.raises(ConnectionAbortedError, match=r"SSL handshake is taking longer than 0\.05 seconds"):
            await soon(
                asyncio.get_running_loop().start_tls(
                    below, protocol, client_context(), server_hostname=NAME, ssl_handshake_timeout=0.05
                )
            )
        await off_loop(read_to_end, peer)
        assert below.is_closing()
        await told_once(protocol, loop_name)
        peer.close()

    run(main())


def test_trap_22_cancelled_start_tls(run: Any, loop_name: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        below, peer = await connected(protocol)
        upgrading = asyncio.ensure_future(
            asyncio.get_running_loop().start_tls(below, protocol, client_context(), server_hostname=NAME)
        )
        await turns(3)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        await off_loop(read_to_end, peer)
        assert below.is_closing()
        await told_once(protocol, loop_name)
        peer.close()

    run(main())


def test_start_tls_refuses_what_it_cannot_use(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        below, peer = await connected(protocol)
        with pytest.raises(TypeError, match=r"sslcontext is expected to be an instance of ssl\.SSLContext"):
            await loop.start_tls(below, protocol, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await loop.start_tls(object(), protocol, client_context())  # type: ignore[arg-type]
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match=f"{name} should be a positive number, got 0"):
                await loop.start_tls(below, protocol, client_context(), server_hostname=NAME, **{name: 0})
        assert not below.is_closing()
        below.abort()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_start_tls_refuses_pipes(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        reader, _ = await loop.connect_read_pipe(Recorder, open(reading, "rb", 0))
        writer, _ = await loop.connect_write_pipe(Recorder, open(writing, "wb", 0))
        for transport in (reader, writer):
            with pytest.raises(TypeError, match="is not supported by start_tls"):
                await loop.start_tls(transport, Recorder(), client_context(), server_hostname=NAME)  # type: ignore[arg-type]
            assert not transport.is_closing()
            transport.close()
        await turns()

    run(main())


def test_start_tls_on_a_closed_transport(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio waits for the handshake timeout")

    async def main() -> None:
        protocol = Recorder()
        below, peer = await connected(protocol)
        below.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().start_tls(below, protocol, client_context(), server_hostname=NAME)
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_closing_as_soon_as_the_transport_below_is(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio" and sys.version_info < (3, 15):
        pytest.skip("only the newest releases of asyncio look below")

    async def main() -> None:
        protocol = Recorder()
        transport, peer, below = await upgraded(protocol, server_side=False)
        assert not transport.is_closing()
        below.abort()
        assert transport.is_closing()
        await protocol.until_lost()
        assert transport.is_closing()
        peer.close()

    run(main())


def test_start_tls_after_write_eof(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio waits for the handshake timeout")

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        protocol = Recorder()
        below, peer = await connected(protocol)
        below.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            await asyncio.get_running_loop().start_tls(below, protocol, client_context(), server_hostname=NAME)
        assert below.is_closing()
        await protocol.until_lost()
        gc.collect()
        assert log == []  # no future's exception that was never retrieved
        peer.close()

    run(main())


def test_tls_in_tls(run: Any) -> None:
    """start_tls on a TLS transport, as for a proxy that is itself reached over TLS."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await tls_server(lambda: Recorder(data_received=echo))
        listener = socket.create_server((LOCALHOST, 0))
        proxying = asyncio.ensure_future(off_loop(proxy_once, listener, address_of(server)))
        protocol = Recorder()
        outer, _ = await soon(
            loop.create_connection(
                lambda: protocol, *listener.getsockname(), ssl=client_context(), server_hostname=NAME
            )
        )
        inner = await soon(loop.start_tls(outer, protocol, client_context(), server_hostname=NAME))
        data = pattern(200_000)
        inner.write(data)
        assert await protocol.until_received(len(data)) == data
        assert inner.get_extra_info("ssl_object") is not outer.get_extra_info("ssl_object")
        assert inner.get_extra_info("peername") == listener.getsockname()
        inner.abort()
        await protocol.until_lost()
        await soon(proxying)
        server.close()
        listener.close()

    run(main())


def proxy_once(listener: socket.socket, target: tuple[Any, ...]) -> None:
    """Blocking: take the outer TLS off one connection and pass on what is inside."""
    accepted, _ = listener.accept()
    with wrap_server(accepted) as outer, socket.create_connection(target) as onward:
        outer.settimeout(20.0)
        with contextlib.suppress(OSError):
            while True:
                ready = [outer] if outer.pending() else select.select([outer, onward], [], [], 20.0)[0]
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (onward if source is outer else outer).sendall(data)
