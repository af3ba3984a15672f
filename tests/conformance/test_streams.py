"""Streams on the loop, asyncio's and hoop's own: open_connection, start_server, StreamReader and StreamWriter."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conformance.peers import (
    LOCALHOST,
    HandlerLog,
    accept_one,
    address_of,
    dial,
    keep_little_in_the_kernel,
    listening,
    off_loop,
    pattern,
    read_exactly,
    read_to_end,
    refused_port,
    reset,
    soon,
    tcp_pair,
    turns,
)

MIB = 1024 * 1024


@pytest.fixture(autouse=True, params=["", "compiled streams"])
def streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each body runs with asyncio's own streams and with hoop's, on either loop."""
    if request.param:
        import hoop

        for name in (
            "open_connection",
            "start_server",
            "open_unix_connection",
            "start_unix_server",
            "StreamReader",
            "StreamWriter",
            "StreamReaderProtocol",
        ):
            monkeypatch.setattr(asyncio, name, getattr(hoop, name))


async def connect(**arguments: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """Reader, writer and the raw socket at the other end."""
    buffers = {name: arguments.pop(name) for name in ("send_buffer", "receive_buffer") if name in arguments}
    ours, peer = tcp_pair(**buffers)
    reader, writer = await asyncio.open_connection(sock=ours, **arguments)
    return reader, writer, peer


async def close(writer: asyncio.StreamWriter, peer: socket.socket | None = None) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await soon(writer.wait_closed())
    if peer is not None:
        peer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


# Connecting and serving


def test_open_connection(run: Any) -> None:
    async def main() -> None:
        with listening() as listener:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            assert isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter)
            peer = await accept_one(listener)
            assert writer.get_extra_info("peername") == listener.getsockname()
            assert writer.get_extra_info("nothing", 5) == 5
            assert isinstance(writer.transport, asyncio.Transport)
            writer.write(b"question\n")
            await writer.drain()
            assert await off_loop(read_exactly, peer, 9) == b"question\n"
            peer.sendall(b"answer\n")
            assert await soon(reader.readline()) == b"answer\n"
            peer.close()
            assert await soon(reader.read()) == b""
            assert reader.at_eof()
            await close(writer)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOCALHOST, refused_port())

    run(main())


@pytest.mark.parametrize("kind", ["coroutine function", "plain function"])
def test_start_server(run: Any, kind: str) -> None:
    async def main() -> None:
        tasks = []

        def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(asyncio.ensure_future(echo(reader, writer)))

        server = await asyncio.start_server(plain if kind == "plain function" else echo, LOCALHOST, 0)
        async with server:
            reader, writer = await asyncio.open_connection(*address_of(server))
            data = pattern(3 * MIB)

            async def send() -> None:
                for at in range(0, len(data), 100_000):
                    writer.write(data[at : at + 100_000])
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.ensure_future(send())
            assert await soon(reader.readexactly(len(data))) == data
            await soon(sending)
            assert await soon(reader.read()) == b""
            await close(writer)
            for task in tasks:
                await soon(task)

    run(main())


def test_many_connections(run: Any) -> None:
    async def main() -> None:
        async with await asyncio.start_server(echo, LOCALHOST, 0, backlog=500) as server:

            async def client(index: int) -> bytes:
                reader, writer = await asyncio.open_connection(*address_of(server))
                for line in range(3):
                    writer.write(b"%d %d\n" % (index, line))
                    assert await reader.readline() == b"%d %d\n" % (index, line)
                writer.write_eof()
                rest = await reader.read()
                await close(writer)
                return rest

            assert await soon(asyncio.gather(*(client(index) for index in range(200)))) == [b""] * 200

    run(main())


TELLS_OF_HANDLERS = "Unhandled exception in client_connected_cb" in inspect.getsource(asyncio.streams)


@pytest.mark.skipif(not TELLS_OF_HANDLERS, reason="asyncio's streams tell nothing before Python 3.11.4")
def test_handler_that_raises_is_reported_and_closed(run: Any) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())

        async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            raise LookupError("on purpose")

        async with await asyncio.start_server(fail, LOCALHOST, 0) as server:
            peer = dial(address_of(server))
            context = await log.first()
            assert isinstance(context["exception"], LookupError)
            assert context["message"] == "Unhandled exception in client_connected_cb"
            if sys.version_info >= (3, 12):
                assert await off_loop(peer.recv, 1) == b""
            peer.close()

    run(main())


# Reading


def test_readline_readexactly_and_read(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        peer.sendall(b"first\nsecond\nexactly!rest of it")
        assert await soon(reader.readline()) == b"first\n"
        assert await soon(reader.readline()) == b"second\n"
        assert await soon(reader.readexactly(8)) == b"exactly!"
        assert await soon(reader.readexactly(0)) == b""
        assert await soon(reader.read(4)) == b"rest"
        assert await soon(reader.read(0)) == b""
        peer.sendall(b" without newline")
        peer.close()
        assert await soon(reader.readline()) == b" of it without newline"
        assert await soon(reader.readline()) == b""
        with pytest.raises(asyncio.IncompleteReadError):
            await soon(reader.readexactly(1))
        with pytest.raises(ValueError, match="less than zero"):
            await reader.readexactly(-1)
        await close(writer)

    run(main())


def test_read_to_the_end(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        data = pattern(3 * MIB)
        sending = asyncio.ensure_future(off_loop(lambda: (peer.sendall(data), peer.close())))
        assert await soon(reader.read()) == data
        await sending
        assert await soon(reader.read(-1)) == b""
        await close(writer)

    run(main())


def test_iteration_over_lines(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        peer.sendall(b"one\ntwo\nthree")
        peer.close()
        assert [line async for line in reader] == [b"one\n", b"two\n", b"three"]
        await close(writer)

    run(main())


def test_bytes_one_at_a_time(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        reading = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        for byte in b"GET / HTTP/1.1\r\nHost: here\r\n\r\n":
            assert not reading.done()
            peer.sendall(bytes([byte]))
            await turns(5)
        assert await soon(reading) == b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
        await close(writer, peer)

    run(main())


def test_readuntil(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        peer.sendall(b"key=value;key=")
        assert await soon(reader.readuntil(b"=")) == b"key="
        assert await soon(reader.readuntil(b";")) == b"value;"
        with pytest.raises(ValueError, match="at least one"):
            await reader.readuntil(b"")
        peer.close()
        with pytest.raises(asyncio.IncompleteReadError) as info:
            await soon(reader.readuntil(b";"))
        assert info.value.partial == b"key=" and info.value.expected is None
        await close(writer)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
def test_readuntil_with_several_separators(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        peer.sendall(b"one,two;three")
        assert await soon(reader.readuntil((b";", b","))) == b"one,"
        assert await soon(reader.readuntil((b";", b","))) == b"two;"
        await close(writer, peer)

    run(main())


def test_limit_overrun(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect(limit=100)
        peer.sendall(b"x" * 150)
        with pytest.raises(asyncio.LimitOverrunError) as info:
            await soon(reader.readuntil(b"\n"))
        assert info.value.consumed > 0
        assert await soon(reader.readexactly(150)) == b"x" * 150  # nothing is lost
        peer.sendall(b"y" * 150 + b"\n" + b"short\n")
        with pytest.raises(ValueError, match=r"limit|chunk"):
            await soon(reader.readline())
        assert await soon(reader.readline()) == b"short\n"  # readline has thrown the long one away
        await close(writer, peer)

    run(main())


def test_limit_pauses_the_transport(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect(limit=1000)
        keep_little_in_the_kernel(writer.get_extra_info("socket"), peer)
        data = pattern(4 * MIB)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        await soon(reader.readexactly(1))
        await turns(200)
        assert not sending.done()  # the peer is held up: reading stopped at twice the limit
        assert not writer.transport.is_reading()
        assert await soon(reader.readexactly(len(data) - 1)) == data[1:]
        await sending
        await close(writer, peer)

    run(main())


def test_the_largest_limit_never_pauses(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect(limit=sys.maxsize)
        peer.sendall(b"line\n" + b"x" * 1000)
        assert await soon(reader.readline()) == b"line\n"
        peer.sendall(b"x" * 1000)
        await turns()
        assert writer.transport.is_reading()
        await close(writer, peer)

    run(main())


def test_sizes_beyond_any_memory(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect(limit=1 << 70)
        peer.sendall(b"three words here")
        assert await soon(reader.read(1 << 70)) == b"three words here"
        peer.sendall(b"the end")
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(asyncio.IncompleteReadError) as info:
            await soon(reader.readexactly(1 << 70))
        assert (info.value.partial, info.value.expected) == (b"the end", 1 << 70)
        await close(writer, peer)
        reader, writer, peer = await connect(limit=float("inf"))
        peer.sendall(b"a line\n")
        assert await soon(reader.readline()) == b"a line\n"
        await close(writer, peer)

    run(main())


@pytest.mark.parametrize("size", [None, "5"])
def test_sizes_that_are_no_numbers(run: Any, size: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        peer.sendall(b"12345")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a coroutine that was never awaited
            for read in (reader.read, reader.readexactly):
                with pytest.raises(TypeError):
                    await soon(read(size))
        assert await soon(reader.readexactly(5)) == b"12345"
        await close(writer, peer)

    run(main())


def test_two_readers_at_once_are_refused(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        first = asyncio.ensure_future(reader.read(10))
        await turns()
        with pytest.raises(RuntimeError, match="already waiting for incoming data"):
            await reader.read(10)
        peer.sendall(b"x")
        assert await soon(first) == b"x"
        await close(writer, peer)

    run(main())


def test_cancelled_read_loses_nothing(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        for index in range(20):
            reading = asyncio.ensure_future(reader.readexactly(10))
            peer.sendall(b"%05d" % index)
            await turns(index)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            peer.sendall(b"tail.")
            assert await soon(reader.readexactly(10)) == b"%05dtail." % index
        await close(writer, peer)

    run(main())


@pytest.mark.parametrize(
    "read", [lambda r: r.read(10), lambda r: r.readline(), lambda r: r.readexactly(3), lambda r: r.readuntil(b"x")]
)
def test_client_vanishes_while_reading(run: Any, read: Callable[[asyncio.StreamReader], Awaitable[bytes]]) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        reading = asyncio.ensure_future(read(reader))
        await turns()
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await soon(reading)
        assert isinstance(reader.exception(), ConnectionResetError)
        with pytest.raises(ConnectionResetError):
            await soon(writer.drain())
        await close(writer)

    run(main())


# Writing


def test_write_writelines_and_write_eof(run: Any) -> None:
    async def main() -> None:
        reader, writer, peer = await connect()
        assert writer.can_write_eof()
        writer.write(b"one ")
        writer.writelines([b"two ", bytearray(b"three "), memoryview(b"four ")])
        writer.writelines(word for word in (b"five ", b"six"))
        writer.write_eof()
        assert await off_loop(read_to_end, peer) == b"one two three four five six"
        with pytest.raises(RuntimeError, match="after write_eof"):
            writer.write(b"more")
        peer.sendall(b"still read")
        assert await soon(reader.read(100)) == b"still read"
        await close(writer, peer)

    run(main())


def test_drain_waits_for_a_slow_reader(run: Any) -> None:
    async def main() -> None:
        _, writer, peer = await connect(send_buffer=8192, receive_buffer=8192)
        data = pattern(2 * MIB)
        writer.write(data)
        draining = [asyncio.ensure_future(writer.drain()) for _ in range(2)]
        await turns()
        assert not any(task.done() for task in draining)
        assert await off_loop(read_exactly, peer, len(data)) == data
        for task in draining:
            assert await soon(task) is None
        await soon(writer.drain())
        await close(writer, peer)

    run(main())


def test_cancelled_drain(run: Any) -> None:
    async def main() -> None:
        _, writer, peer = await connect(send_buffer=8192, receive_buffer=8192)
        data = pattern(2 * MIB)
        writer.write(data)
        draining = asyncio.ensure_future(writer.drain())
        await turns()
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert await off_loop(read_exactly, peer, len(data)) == data
        await soon(writer.drain())
        await close(writer, peer)

    run(main())


def test_client_vanishes_while_draining(run: Any) -> None:
    async def main() -> None:
        _, writer, peer = await connect(send_buffer=8192, receive_buffer=8192)
        writer.write(bytes(2 * MIB))
        draining = asyncio.ensure_future(writer.drain())
        await turns()
        assert not draining.done()
        reset(peer)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await soon(draining)
        assert writer.is_closing()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await soon(writer.wait_closed())

    run(main())


def test_trap_15_writes_without_end_meet_connection_lost(run: Any) -> None:
    async def main() -> None:
        _, writer, peer = await connect()
        reset(peer)

        async def write_for_ever() -> None:
            while True:
                writer.write(b"anybody there?")
                await writer.drain()

        with pytest.raises(ConnectionError):
            await soon(write_for_ever())
        await close(writer)

    run(main())


def test_close_and_wait_closed(run: Any) -> None:
    async def main() -> None:
        _, writer, peer = await connect(send_buffer=8192, receive_buffer=8192)
        data = pattern(2 * MIB)
        writer.write(data)
        assert not writer.is_closing()
        writer.close()
        assert writer.is_closing()
        waiting = asyncio.ensure_future(writer.wait_closed())
        await turns()
        assert not waiting.done()  # the buffer is still full
        assert await off_loop(read_to_end, peer) == data
        await soon(waiting)
        await soon(writer.wait_closed())
        peer.close()

    run(main())


def test_request_and_response_in_many_small_writes(run: Any) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                for piece in (b"head ", b"and ", line):
                    writer.write(piece)
                if line == b"last\n":
                    break
            writer.close()

        async with await asyncio.start_server(serve, LOCALHOST, 0) as server:
            reader, writer = await asyncio.open_connection(*address_of(server))
            for index in range(100):
                writer.write(b"body ")
                writer.write(b"%d\n" % index)
                assert await soon(reader.readline()) == b"head and body %d\n" % index
            writer.write(b"last\n")
            assert await soon(reader.read()) == b"head and last\n"
            await close(writer)

    run(main())
