"""Data over TLS: both ways, in all sizes, through both kinds of protocol, with pauses and watermarks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import sys
import tracemalloc
import weakref
from typing import Any

import pytest
from conformance.peers import (
    LOCALHOST,
    BufferedRecorder,
    Clients,
    HandlerLog,
    Recorder,
    address_of,
    echo,
    off_loop,
    pattern,
    soon,
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
    tls_client,
    tls_connected,
    tls_server,
)

pytestmark = pytest.mark.each_tls_engine


async def end(protocol: Any, peer: Any) -> None:
    protocol.transport.abort()
    await protocol.until_lost()
    peer.close()


@pytest.mark.parametrize("size", [1, 1000, 16383, 16384, 16385, 65536, 100_000, 3 * MIB])
def test_echo_of_each_size(run: Any, size: int) -> None:
    async def main() -> None:
        clients = Clients(data_received=echo)
        server = await tls_server(clients)
        protocol = Recorder()
        transport = await tls_client(protocol, server)
        data = pattern(size)
        transport.write(data)
        assert await protocol.until_received(size) == data
        transport.close()
        assert await protocol.until_lost() is None
        assert await clients.protocols[0].until_lost() is None
        server.close()

    run(main())


def test_large_transfers_both_ways_at_once(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        ours, theirs = pattern(6 * MIB, 1), pattern(6 * MIB, 2)
        reading = asyncio.ensure_future(off_loop(read_tls_exactly, peer, len(ours)))
        for at in range(0, len(ours), 100_000):
            transport.write(ours[at : at + 100_000])
        assert hashlib.sha256(await reading).digest() == hashlib.sha256(ours).digest()
        sending = asyncio.ensure_future(off_loop(peer.sendall, theirs))
        received = await protocol.until_received(len(theirs))
        await sending
        assert hashlib.sha256(received).digest() == hashlib.sha256(theirs).digest()
        await end(protocol, peer)

    run(main())


@pytest.mark.parametrize("size", [1, 7, 1000, 65536])
def test_buffered_protocol(run: Any, size: int) -> None:
    async def main() -> None:
        # a view, for asyncio slices what it gets
        protocol = BufferedRecorder(size, get_buffer=lambda protocol, hint: memoryview(protocol.buffer))
        _transport, peer = await tls_connected(protocol)
        data = pattern(200 if size < 10 else 300_000)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        assert await protocol.until_received(len(data)) == data
        await sending
        assert max(call[1] for call in protocol.calls if call[0] == "buffer_updated") <= size
        await end(protocol, peer)

    run(main())


def test_set_protocol(run: Any) -> None:
    async def main() -> None:
        first, second, third = Recorder(), BufferedRecorder(100), Recorder()
        transport, peer = await tls_connected(first)
        for protocol in (first, second, third):
            transport.set_protocol(protocol)
            assert transport.get_protocol() is protocol
            await off_loop(peer.sendall, b"x" * 250)
            assert await protocol.until_received(250) == b"x" * 250
        transport.abort()
        await third.until_lost()
        assert first.names == ["connection_made", "data_received"]
        peer.close()

    run(main())


@pytest.mark.parametrize("protocol_type", [Recorder, BufferedRecorder])
def test_pause_and_resume_reading(run: Any, protocol_type: Any) -> None:
    async def main() -> None:
        protocol = protocol_type()
        transport, peer = await tls_connected(protocol)
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        await off_loop(peer.sendall, b"later")
        await turns()
        assert not protocol.data
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.until_received(5) == b"later"
        await end(protocol, peer)

    run(main())


def test_pausing_inside_data_received(run: Any) -> None:
    """Each piece is followed by a pause; nothing is delivered in one, nothing is lost over all."""

    async def main() -> None:
        paused = False

        def pause(protocol: Recorder, data: bytes) -> None:
            nonlocal paused
            assert not paused
            paused = True
            protocol.transport.pause_reading()
            asyncio.get_running_loop().call_soon(resume, protocol.transport)

        def resume(transport: Any) -> None:
            nonlocal paused
            paused = False
            transport.resume_reading()

        protocol = Recorder(data_received=pause)
        _, peer = await tls_connected(protocol)
        data = pattern(MIB)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        assert await protocol.until_received(len(data)) == data
        await sending
        await turns()
        await end(protocol, peer)

    run(main())


def test_end_of_stream_while_reading_is_paused(run: Any) -> None:
    """Data, then the end, arrive during a pause: both come after it, in order."""

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.pause_reading()
        data = pattern(100_000)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        await turns()
        assert not protocol.data
        transport.resume_reading()
        await sending
        saying = asyncio.ensure_future(off_loop(say_goodbye, peer))
        assert await protocol.until_lost() is None
        await saying
        assert bytes(protocol.data) == data
        assert protocol.names == ["connection_made", "data_received", "eof_received", "connection_lost"]

    run(main())


# Writing


def test_writes_of_one_callback(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        pieces: list[Any] = [b"one", bytearray(b"two"), memoryview(b"three"), b"", memoryview(b"0123456789")[2:5]]
        for piece in pieces:
            transport.write(piece)
        transport.writelines([b"four", bytearray(b"five")])
        transport.writelines(piece for piece in (b"six", b""))
        transport.writelines([])
        expected = b"onetwothree234fourfivesix"
        assert await off_loop(read_tls_exactly, peer, len(expected)) == expected
        await end(protocol, peer)

    run(main())


def test_trap_10_a_bytearray_changed_after_write(run: Any, loop_name: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, sizes=SMALL_BUFFERS)
        data = bytearray(b"a" * 2 * MIB)
        transport.write(data)
        data[:] = b"b" * len(data)
        received = await off_loop(read_tls_exactly, peer, len(data))
        if loop_name == "asyncio":
            assert len(received) == len(data)  # of whatever: it encrypts what it finds when there is room
        else:
            assert received == b"a" * len(data)
        await end(protocol, peer)

    run(main())


@pytest.mark.parametrize("data", ["text", None, 5, [b"x"]])
def test_writing_other_types(run: Any, data: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        with pytest.raises(TypeError):
            transport.write(data)
        assert not transport.is_closing()
        await end(protocol, peer)

    run(main())


def test_trap_17_no_half_close(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        assert transport.can_write_eof() is False
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        await end(protocol, peer)

    run(main())


def test_order_of_writes_from_inside_callbacks(run: Any) -> None:
    """Trap 11: writes from connection_made, data_received and another callback stay in order."""

    async def main() -> None:
        protocol = Recorder(
            connection_made=lambda protocol, transport: transport.write(b"1"),
            data_received=lambda protocol, data: protocol.transport.write(b"3"),
        )
        transport, peer = await tls_connected(protocol)
        transport.write(b"2")
        assert await off_loop(read_tls_exactly, peer, 2) == b"12"
        await off_loop(peer.sendall, b"go")
        assert await off_loop(read_tls_exactly, peer, 1) == b"3"
        await end(protocol, peer)

    run(main())


def test_watermarks(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, sizes=SMALL_BUFFERS)
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        transport.write(b"x" * 100)
        await turns()
        assert transport.get_write_buffer_size() == 0
        data = pattern(16 * MIB)
        written = 0
        while "pause_writing" not in protocol.names:
            transport.write(data[written : written + 65536])
            written += 65536
            await asyncio.sleep(0)
        data = data[:written]
        assert transport.get_write_buffer_size() >= 512 * 1024
        assert await off_loop(read_tls_exactly, peer, 100 + len(data)) == b"x" * 100 + data
        await protocol.until_called("resume_writing")
        assert protocol.names == ["connection_made", "pause_writing", "resume_writing"]
        assert transport.get_write_buffer_size() <= 128 * 1024
        await end(protocol, peer)

    run(main())


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        ({}, (128 * 1024, 512 * 1024)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 100}, (100, 400)),
        ({"high": 10, "low": 10}, (10, 10)),
        ({"high": 0}, (0, 0)),
    ],
)
def test_setting_limits(run: Any, arguments: dict[str, int], limits: tuple[int, int]) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.set_write_buffer_limits(**arguments)
        assert transport.get_write_buffer_limits() == limits
        for wrong in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}):
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(**wrong)
        await end(protocol, peer)

    run(main())


def test_read_buffer_limits(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
        transport.set_read_buffer_limits(high=1000)
        assert transport.get_read_buffer_limits() == (250, 1000)
        transport.set_read_buffer_limits(low=10)
        assert transport.get_read_buffer_limits() == (10, 40)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_read_buffer_limits(1, 2)
        assert transport.get_read_buffer_size() == 0
        data = pattern(300_000)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        protocol.hooks["data_received"] = lambda protocol, data: protocol.transport.pause_reading()
        await protocol.until_received(1)
        await turns()
        assert 0 <= transport.get_read_buffer_size() <= len(data) + 10_000
        del protocol.hooks["data_received"]
        transport.resume_reading()
        assert await protocol.until_received(len(data)) == data
        await sending
        assert transport.get_read_buffer_size() == 0
        await end(protocol, peer)

    run(main())


@pytest.mark.parametrize("limits", [(0, 0), (1, 0), (4096, 1024), (20_000, 20_000), (300_000, 1000)])
def test_every_pause_is_followed_by_a_resume(run: Any, loop_name: str, limits: tuple[int, int]) -> None:
    """With a writer that waits as StreamWriter.drain does."""
    if loop_name == "asyncio" and limits == (0, 0):
        pytest.skip("asyncio.sslproto pauses an empty transport and does not resume it")

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, sizes=SMALL_BUFFERS)
        transport.set_write_buffer_limits(*limits)
        data = pattern(MIB)
        reading = asyncio.ensure_future(off_loop(read_tls_exactly, peer, len(data)))
        for at in range(0, len(data), 50_000):
            transport.write(data[at : at + 50_000])
            await protocol.until(lambda: protocol.count("pause_writing") == protocol.count("resume_writing"))
        assert await reading == data
        await protocol.until(lambda: protocol.count("pause_writing") == protocol.count("resume_writing"))
        await end(protocol, peer)

    run(main())


def test_drain_of_streams(run: Any) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(10_000):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, LOCALHOST, 0, ssl=server_context())
        reader, writer = await asyncio.open_connection(*address_of(server), ssl=client_context(), server_hostname=NAME)
        data = pattern(2 * MIB)

        async def send() -> None:
            for at in range(0, len(data), 70_000):
                writer.write(data[at : at + 70_000])
                await writer.drain()

        sending = asyncio.ensure_future(send())
        assert await soon(reader.readexactly(len(data))) == data
        await sending
        writer.close()
        await soon(writer.wait_closed())
        server.close()

    run(main())


def send_if_open(peer: Any) -> None:
    """Blocking: get_buffer() may have been asked for, and have failed, before there was data."""
    with contextlib.suppress(OSError):
        peer.sendall(b"x")


@pytest.mark.parametrize("callback", ["data_received", "eof_received", "buffer_updated", "get_buffer"])
def test_trap_16_protocol_that_raises(run: Any, loop_name: str, callback: str) -> None:
    if loop_name == "asyncio" and callback == "get_buffer":
        pytest.skip("asyncio asks for a buffer in the callback that ends the handshake")

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())

        def fail(*arguments: Any) -> None:
            raise LookupError("broken")

        kind = BufferedRecorder if callback in ("buffer_updated", "get_buffer") else Recorder
        protocol = kind(**{callback: fail})
        transport, peer = await tls_connected(protocol)
        if callback == "eof_received":
            saying = asyncio.ensure_future(off_loop(say_goodbye, peer))
        else:
            saying = asyncio.ensure_future(off_loop(send_if_open, peer))
        context = await log.first()
        assert isinstance(context["exception"], LookupError)
        assert {"message", "exception", "transport", "protocol"} <= set(context)
        error = await protocol.until_lost()
        assert isinstance(error, LookupError)
        await saying
        await turns()
        assert len(log) == 1
        assert transport.is_closing()
        peer.close()

    run(main())


# Objects


def test_transports_take_attributes_and_weak_references(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.note = 5
        assert transport.note == 5
        reference = weakref.ref(transport)
        assert reference() is transport
        assert transport._start_tls_compatible
        assert "open" in repr(transport) or "object" in repr(transport)
        await end(protocol, peer)
        assert transport.is_closing() or transport.get_protocol() is None
        await turns()
        del transport
        protocol.transport = None
        protocol.calls.clear()
        gc.collect()
        assert reference() is None

    run(main())


def test_trap_23_an_idle_connection_holds_no_buffers(run: Any, loop_name: str) -> None:
    """Nothing reachable from the transport, and nothing that Python knows of, is as large as a record."""
    if loop_name == "asyncio":
        pytest.skip("asyncio.sslproto holds 256 KiB for each connection")

    async def main() -> None:
        clients = Clients(data_received=echo)
        server = await tls_server(clients)
        peer = await off_loop(dial_tls, address_of(server))
        data = pattern(300_000)
        reading = asyncio.ensure_future(off_loop(read_tls_exactly, peer, len(data)))
        await off_loop(peer.sendall, data)
        await reading
        (protocol,) = clients.protocols
        transport = protocol.transport
        protocol.data.clear()
        protocol.calls.clear()
        seen: set[int] = set()
        waiting = [transport]
        largest = 0
        kinds = ("hoop", "_ssl")  # modules whose objects are followed; the rest is the program's
        while waiting:
            item = waiting.pop()
            if id(item) in seen:
                continue
            seen.add(id(item))
            largest = max(largest, sys.getsizeof(item))
            for child in gc.get_referents(item):
                module = type(child).__module__
                is_ours = module in kinds or module.startswith("hoop.tls.")
                if is_ours or isinstance(child, (bytes, bytearray, memoryview)):
                    waiting.append(child)
        assert len(seen) >= 3  # it did look: transport, session, engine
        assert largest < 4096
        await off_loop(say_goodbye, peer)
        await protocol.until_lost()
        server.close()

    run(main())


def test_trap_23_idle_connections_cost_little(run: Any, loop_name: str) -> None:
    """What Python allocates for a connection that has moved 200 kB each way and waits."""
    if loop_name == "asyncio":
        pytest.skip("asyncio.sslproto holds 256 KiB for each connection")

    async def main() -> None:
        clients = Clients(data_received=lambda protocol, data: protocol.data.clear())
        server = await tls_server(clients)
        context = client_context()
        peers = [await off_loop(dial_tls, address_of(server), context)]
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(10):
                peers.append(await off_loop(dial_tls, address_of(server), context))
                await clients.until_made(len(peers))
                await off_loop(peers[-1].sendall, bytes(200_000))
            for protocol in clients.protocols[1:]:
                total = 200_000
                await protocol.until(
                    lambda: sum(len(call[1]) for call in protocol.calls if call[0] == "data_received") >= total
                )
                protocol.calls.clear()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown / 10 < 20_000
        for peer in peers:
            peer.close()
        server.close()

    run(main())


def is_data(direction: str, content_type: int, when: str) -> bool:
    """Whether a message callback is about a record of application data."""
    return direction == when and int(content_type) == 0x100  # the header of any record


@pytest.mark.parametrize("when", ["read", "write"])
@pytest.mark.parametrize("ending", ["", "close", "abort"])
def test_a_message_callback_that_uses_the_transport(run: Any, loop_name: str, when: str, ending: str) -> None:
    """It runs inside the engine. What it writes follows what is being written, once; what it ends, ends."""
    if loop_name == "asyncio":
        pytest.skip("asyncio.sslproto encrypts what is being encrypted once more")

    async def main() -> None:
        context = client_context()
        is_armed = False

        def on_message(_: Any, direction: str, version: Any, content_type: Any, *others: Any) -> None:
            nonlocal is_armed
            if is_armed and is_data(direction, content_type, when):
                is_armed = False
                transport.write(b"inside")
                assert transport.get_write_buffer_size() >= 6
                if ending:
                    getattr(transport, ending)()

        context._msg_callback = on_message  # type: ignore[attr-defined]
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, context=context)
        large = pattern(100_000)
        is_armed = True
        if when == "read":
            await off_loop(peer.sendall, b"go")
            large = b""
        else:
            transport.write(large)
        if ending != "abort":
            expected = large + b"inside"
            assert await off_loop(read_tls_exactly, peer, len(expected)) == expected
        assert transport.is_closing() == bool(ending)
        if ending == "abort":
            await protocol.until_lost()
        peer.close()
        transport.close()
        await protocol.until_lost()

    run(main())
