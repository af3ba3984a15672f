"""What programs read of asyncio's objects although asyncio never promised it, and the names that show in logs."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from conformance.datagrams import DatagramRecorder
from conformance.peers import LOCALHOST, Recorder, congested, connected, off_loop
from conformance.tls_peers import tls_connected


def size_of(buffer: Any) -> int:
    """Bytes in a transport's _buffer: up to Python 3.11 asyncio's is one bytearray."""
    return len(buffer) if isinstance(buffer, bytearray) else sum(map(len, buffer))


def test_threads_of_the_default_executor_are_called_asyncio(run: Any) -> None:
    """Formats of log lines show them, and filters look for them."""

    async def main() -> str:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: threading.current_thread().name)

    assert run(main()) == "asyncio_0"


def test_names_of_a_stream_transport(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connected(protocol)
        sock = transport.get_extra_info("socket")
        assert (transport._loop, transport._protocol) == (loop, protocol)
        assert transport._sock_fd == sock.fileno() == transport._sock.fileno()
        assert transport._extra["peername"] == peer.getsockname()
        assert transport._extra["socket"].fileno() == sock.fileno()
        assert (transport._high_water, transport._low_water) == (65536, 16384)
        assert (transport._eof, transport._paused, transport._closing) == (False, False, False)
        assert (transport._conn_lost, transport._server, transport._protocol_paused) == (0, None, False)
        assert size_of(transport._buffer) == 0
        transport.pause_reading()
        assert transport._paused
        transport.write_eof()
        assert transport._eof
        transport.abort()
        assert transport._closing and transport._conn_lost == 1
        await protocol.until_lost()
        assert transport._sock is None
        peer.close()

    run(main())


def test_the_buffer_of_a_stream_transport(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, _ = await congested(protocol, at_least=1 << 20)
        assert size_of(transport._buffer) == transport.get_write_buffer_size() >= 1 << 20
        assert transport._protocol_paused
        transport.abort()
        await protocol.until_lost()
        peer.close()

    run(main())


@pytest.mark.each_tls_engine
def test_names_of_a_tls_transport(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        assert not transport._closed
        assert transport._protocol_paused is False
        transport.abort()
        assert transport._closed
        await protocol.until_lost()
        await off_loop(peer.close)

    run(main())


def test_names_of_a_datagram_transport(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = DatagramRecorder()
        transport: Any
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=(LOCALHOST, 0))
        assert transport._address is None and len(transport._buffer) == 0
        assert transport._sock.fileno() == transport._sock_fd
        for method in (transport.write_eof, transport.can_write_eof, lambda: transport.write(b"data")):
            with pytest.raises(NotImplementedError):
                method()
        transport.close()
        await protocol.until_lost()

    run(main())


def test_a_pipe_that_is_only_written_to_cannot_be_read(run: Any) -> None:
    """pause_reading() says so: a StreamReader that is told it once does not ask again."""

    async def main() -> None:
        reading, writing = os.pipe()
        protocol = Recorder()
        pipe = open(writing, "wb", 0)
        transport: Any
        transport, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, pipe)
        assert isinstance(transport, asyncio.Transport)
        for method in (transport.pause_reading, transport.resume_reading, transport.is_reading):
            with pytest.raises(NotImplementedError):
                method()
        assert (transport._pipe, transport._fileno) == (pipe, writing)
        transport.close()
        await protocol.until_lost()
        os.close(reading)

    run(main())


def test_names_of_streams(run: Any, loop_name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if loop_name == "hoop":
            import hoop as streams
        else:
            streams: Any = asyncio  # type: ignore[no-redef]
        reader = streams.StreamReader(limit=100, loop=loop)
        protocol = streams.StreamReaderProtocol(reader, loop=loop)
        transport, peer = await connected(protocol)
        writer = streams.StreamWriter(transport, protocol, reader, loop)
        reader.feed_data(b"data")
        assert (reader._loop, reader._transport, reader._limit) == (loop, transport, 100)
        assert (reader._eof, reader._paused, reader._waiter, reader._exception) == (False, False, None, None)
        assert reader._buffer == b"data"
        kept = (writer._transport, writer._protocol, writer._reader, writer._loop)
        assert kept == (transport, protocol, reader, loop)
        writer.close()
        await writer.wait_closed()
        peer.close()

    run(main())


def test_names_of_a_loop(loop: Any) -> None:
    assert (loop._closed, loop._stopping, loop._debug, loop._thread_id) == (False, False, loop.get_debug(), None)
    loop._check_closed()
    loop.close()
    assert loop._closed
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop._check_closed()


@pytest.mark.parametrize("end", ["close", "abort"])
def test_ending_a_connection_is_for_the_loops_own_thread(run: Any, end: str) -> None:
    """In debug mode: elsewhere the loop would not even wake up for it."""

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await off_loop(getattr(transport, end))
        transport.abort()
        peer.close()

    run(main(), debug=True)


@pytest.mark.parametrize("method", ["create_datagram_endpoint", "connect_accepted_socket", "connect_read_pipe"])
def test_a_closed_loop_makes_no_transports(loop: Any, method: str) -> None:
    """Nobody would ever be told of it."""
    from conformance.peers import tcp_pair

    loop.close()
    ours, peer = tcp_pair()
    reading, writing = os.pipe()
    arguments = {
        "create_datagram_endpoint": ((LOCALHOST, 0),),
        "connect_accepted_socket": (ours,),
        "connect_read_pipe": (open(reading, "rb", 0),),
    }
    coroutine = getattr(loop, method)(Recorder, *arguments[method])
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        coroutine.send(None)
    for sock in (ours, peer, arguments["connect_read_pipe"][0]):
        sock.close()  # type: ignore[attr-defined]
    os.close(writing)
