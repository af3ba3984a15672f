"""Reading: data_received and BufferedProtocol, pausing and resuming, switching protocols, and the end of the stream."""

from __future__ import annotations

import array
import asyncio
import contextvars
import hashlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conformance.peers import (
    DEADLINE_S,
    MOST_IDLE_TURNS,
    BufferedRecorder,
    HandlerLog,
    Recorder,
    connected,
    context_keys,
    idle_turns,
    off_loop,
    pattern,
    read_exactly,
    read_to_end,
    read_until_gone,
    tcp_pair,
    turns,
)

MIB = 1024 * 1024
KINDS = [Recorder, BufferedRecorder]


async def finish(transport: Any, protocol: Any, peer: socket.socket) -> None:
    transport.abort()
    await protocol.until_lost()
    peer.close()


# Delivery


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 1000, 65536, 65537, 300_000])
def test_what_is_sent_is_received(run: Any, kind: Callable[[], Any], size: int) -> None:
    async def main() -> None:
        protocol = kind()
        transport, peer = await connected(protocol)
        data = pattern(size)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        assert await protocol.until_received(size) == data
        await sending
        await finish(transport, protocol, peer)
        assert protocol.names == ["connection_made", protocol.names[1], "connection_lost"]

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_long_stream_arrives_unharmed(run: Any, kind: Callable[..., Any]) -> None:
    size = 24 * MIB

    def send(peer: socket.socket) -> str:
        digest = hashlib.sha256()
        for at in range(0, size, MIB):
            chunk = pattern(MIB, seed=at)
            digest.update(chunk)
            peer.sendall(chunk)
        peer.shutdown(socket.SHUT_WR)
        return digest.hexdigest()

    async def main() -> None:
        digest, received = hashlib.sha256(), 0

        def take(protocol: Any, *_: Any) -> None:
            nonlocal received
            digest.update(protocol.data)
            received += len(protocol.data)
            protocol.data.clear()

        protocol = kind(data_received=take, buffer_updated=take)
        _, peer = await connected(protocol)
        expected = await off_loop(send, peer)
        await protocol.until_lost()
        assert received == size and digest.hexdigest() == expected
        peer.close()

    run(main())


def test_data_is_bytes_of_the_receiver_s_own(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        for index in range(50):
            peer.sendall(b"%03d" % index)
            await protocol.until_received(3 * (index + 1))
        chunks = [call[1] for call in protocol.calls if call[0] == "data_received"]
        assert {type(chunk) for chunk in chunks} == {bytes}
        assert chunks == [b"%03d" % index for index in range(50)]  # not overwritten by later reads
        await finish(transport, protocol, peer)

    run(main())


def test_callbacks_do_not_nest(run: Any) -> None:
    async def main() -> None:
        depth = 0

        def answer(protocol: Recorder, data: bytes) -> None:
            nonlocal depth
            depth += 1
            assert depth == 1
            if protocol.count("data_received") < 200:
                protocol.transport.write(data)
            depth -= 1

        ours, peer = tcp_pair()
        loop = asyncio.get_running_loop()
        left, right = Recorder(data_received=answer), Recorder(data_received=answer)
        await loop.create_connection(lambda: left, sock=ours)
        await loop.create_connection(lambda: right, sock=peer)
        left.transport.write(b"ball")
        await left.until_called("data_received", 199)
        left.transport.close()
        await left.until_lost()
        await right.until_lost()

    run(main())


def test_a_flood_does_not_starve_others(run: Any) -> None:
    def flood(peer: socket.socket, over: threading.Event) -> None:
        chunk = bytes(65536)
        try:
            while not over.is_set():
                peer.send(chunk)
        except OSError:
            pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        over = threading.Event()
        flooded = Recorder(data_received=lambda protocol, data: protocol.calls.clear() or protocol.data.clear())
        flooded_transport, flooding_peer = await connected(flooded)
        flooding = asyncio.ensure_future(off_loop(flood, flooding_peer, over))
        quiet = Recorder()
        quiet_transport, quiet_peer = await connected(quiet)
        for index in range(20):
            quiet_peer.send(b"x")
            await quiet.until_received(index + 1)
            timer = loop.create_future()
            loop.call_later(0.001, timer.set_result, None)
            await timer
        over.set()
        flooded_transport.abort()
        await flooding
        flooding_peer.close()
        await flooded.until_called("connection_lost")
        await finish(quiet_transport, quiet, quiet_peer)

    run(main())


def test_callbacks_run_in_the_context_of_the_connection_s_creator(run: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> None:
        seen: dict[str, str] = {}

        def note(name: str) -> Callable[..., None]:
            return lambda *_: seen.setdefault(name, variable.get()) and None

        names = ("connection_made", "data_received", "eof_received", "connection_lost")
        protocol = Recorder(**{name: note(name) for name in names})
        variable.set("creator")
        _, peer = await connected(protocol)
        variable.set("later")
        peer.sendall(b"x")
        peer.close()
        await protocol.until_lost()
        assert seen == dict.fromkeys(names, "creator")

    run(main())


# Pausing


def test_pausing_is_idempotent(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        assert transport.is_reading() is True
        transport.resume_reading()
        assert transport.is_reading() is True
        transport.pause_reading()
        transport.pause_reading()
        assert transport.is_reading() is False
        peer.sendall(b"x")
        await turns()
        assert not protocol.data
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading() is True
        assert await protocol.until_received(1) == b"x"
        transport.close()
        assert transport.is_reading() is False
        transport.pause_reading()
        transport.resume_reading()
        assert transport.is_reading() is False
        await protocol.until_lost()
        transport.pause_reading()
        transport.resume_reading()
        peer.close()

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_pause_in_a_callback_stops_delivery(run: Any, kind: Callable[..., Any]) -> None:
    def pause(protocol: Any, *_: Any) -> None:
        protocol.transport.pause_reading()

    async def main() -> None:
        protocol = kind(data_received=pause, buffer_updated=pause)
        transport, peer = await connected(protocol)
        data = pattern(2 * MIB)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        calls = 0
        while len(protocol.data) < len(data):
            calls += 1
            size = len(protocol.data)
            await protocol.until(lambda: len(protocol.data) > size)
            await turns(3)
            assert len(protocol.calls) == 1 + calls  # one call each time
            transport.resume_reading()
        await sending
        assert bytes(protocol.data) == data
        await finish(transport, protocol, peer)

    run(main())


@pytest.mark.usefixtures("can_pause_anywhere")
def test_pause_in_connection_made(run: Any) -> None:
    async def main() -> None:
        ours, peer = tcp_pair()
        peer.sendall(b"early")
        protocol = Recorder(connection_made=lambda protocol, transport: transport.pause_reading())
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        await turns()
        assert protocol.names == ["connection_made"] and not transport.is_reading()
        transport.resume_reading()
        assert await protocol.until_received(5) == b"early"
        await finish(transport, protocol, peer)

    run(main())


def test_pause_and_resume_in_one_callback(run: Any) -> None:
    def toggle(protocol: Recorder, data: bytes) -> None:
        for _ in range(3):
            protocol.transport.pause_reading()
            protocol.transport.resume_reading()

    async def main() -> None:
        protocol = Recorder(data_received=toggle)
        transport, peer = await connected(protocol)
        data = pattern(MIB)
        await off_loop(peer.sendall, data)
        assert await protocol.until_received(len(data)) == data
        await finish(transport, protocol, peer)

    run(main())


def test_pause_from_another_connection_s_callback(run: Any) -> None:
    async def main() -> None:
        # both have data in the same turn; each pauses the other, so only one is called
        connections: list[Recorder] = []

        def pause_the_other(protocol: Recorder, data: bytes) -> None:
            other = connections[1 - connections.index(protocol)]
            other.transport.pause_reading()

        connections += [Recorder(data_received=pause_the_other) for _ in range(2)]
        peers = [(await connected(protocol))[1] for protocol in connections]
        for peer in peers:
            peer.send(b"x")
        waiting = [asyncio.ensure_future(protocol.until_received(1)) for protocol in connections]
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await turns()
        assert sum(protocol.count("data_received") for protocol in connections) == 1
        for protocol in connections:
            protocol.transport.resume_reading()
        await asyncio.wait(pending)
        for protocol, peer in zip(connections, peers, strict=True):
            await finish(protocol.transport, protocol, peer)

    run(main())


def test_end_of_stream_waits_while_paused(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.pause_reading()
        peer.sendall(b"before the end")
        peer.close()
        await turns()
        assert protocol.names == ["connection_made"]
        transport.resume_reading()
        await protocol.until_lost()
        assert protocol.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert protocol.data == b"before the end"

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_no_data_after_close(run: Any, end: str) -> None:
    async def main() -> None:
        protocol = Recorder(data_received=lambda protocol, data: getattr(protocol.transport, end)())
        _, peer = await connected(protocol)
        peer.sendall(b"x" * 1000)
        await protocol.until_lost()
        assert protocol.count("data_received") == 1
        assert protocol.names == ["connection_made", "data_received", "connection_lost"]
        peer.close()

    run(main())


# BufferedProtocol


BUFFERS = [bytearray, lambda size: memoryview(bytearray(size)), lambda size: array.array("b", bytes(size))]


@pytest.mark.parametrize("kind", BUFFERS, ids=["bytearray", "view", "array"])
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_buffered_protocol_s_own_buffer_is_filled(run: Any, kind: Callable[[int], Any], size: int) -> None:
    async def main() -> None:
        buffer = kind(size)
        received = bytearray()
        filled: list[int] = []

        def updated(protocol: BufferedRecorder, count: int) -> None:
            filled.append(count)
            received.extend(bytes(memoryview(buffer)[:count]))

        protocol = BufferedRecorder(get_buffer=lambda protocol, hint: buffer, buffer_updated=updated)
        transport, peer = await connected(protocol)
        data = pattern(5000)
        peer.sendall(data)
        await protocol.until(lambda: len(received) >= len(data))
        assert bytes(received) == data
        assert 0 < min(filled) and max(filled) <= size
        assert set(protocol.size_hints) == {-1}
        await finish(transport, protocol, peer)

    run(main())


def test_buffered_protocol_may_give_a_new_place_each_time(run: Any) -> None:
    async def main() -> None:
        data = pattern(100_000)
        whole = memoryview(bytearray(len(data)))
        at = 0

        def updated(protocol: BufferedRecorder, count: int) -> None:
            nonlocal at
            at += count

        protocol = BufferedRecorder(get_buffer=lambda protocol, hint: whole[at : at + 999], buffer_updated=updated)
        transport, peer = await connected(protocol)
        await off_loop(peer.sendall, data)
        await protocol.until(lambda: at == len(data))
        assert whole == data
        await finish(transport, protocol, peer)

    run(main())


def fail(*_: Any) -> None:
    raise LookupError("on purpose")


@pytest.mark.parametrize(
    ("hooks", "error", "message"),
    [
        ({"get_buffer": lambda *_: bytearray()}, RuntimeError, "Fatal error: protocol.get_buffer() call failed."),
        ({"get_buffer": fail}, LookupError, "Fatal error: protocol.get_buffer() call failed."),
        ({"get_buffer": lambda *_: None}, TypeError, "Fatal error: protocol.get_buffer() call failed."),
        ({"get_buffer": lambda *_: b"read-only"}, (TypeError, BufferError), None),
        ({"get_buffer": lambda *_: "text"}, TypeError, None),
        ({"buffer_updated": fail}, LookupError, "Fatal error: protocol.buffer_updated() call failed."),
    ],
    ids=["empty", "raises", "none", "read-only", "text", "updated"],
)
def test_buffered_protocol_that_fails(run: Any, hooks: Any, error: Any, message: str | None) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        protocol = BufferedRecorder(**hooks)
        transport, peer = await connected(protocol)
        peer.sendall(b"x")
        reason = await protocol.until_lost()
        assert isinstance(reason, error)
        assert len(log) == 1 and log[0]["exception"] is reason
        assert context_keys(log[0]) == {"message", "exception", "transport", "protocol"}
        assert log[0]["transport"] is transport and log[0]["protocol"] is protocol
        if message is not None:
            assert log[0]["message"] == message
        assert await off_loop(read_until_gone, peer) == b""
        peer.close()

    run(main())


# Switching protocols


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_switch_between_reads(run: Any, first: Callable[..., Any], second: Callable[..., Any]) -> None:
    async def main() -> None:
        old, new = first(), second()
        transport, peer = await connected(old)
        assert transport.get_protocol() is old
        peer.sendall(b"for the first")
        assert await old.until_received(13) == b"for the first"
        assert transport.set_protocol(new) is None
        assert transport.get_protocol() is new
        peer.sendall(b"for the second")
        assert await new.until_received(14) == b"for the second"
        peer.close()
        await new.until_lost()
        assert new.names[1:] == ["eof_received", "connection_lost"]  # connection_made is not repeated
        assert old.names == ["connection_made", old.names[1]]

    run(main())


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_switch_inside_a_read_callback(run: Any, first: Callable[..., Any], second: Callable[..., Any]) -> None:
    async def main() -> None:
        new = second()

        def switch(protocol: Any, *_: Any) -> None:
            protocol.transport.set_protocol(new)

        old = first(data_received=switch, buffer_updated=switch)
        transport, peer = await connected(old)
        data = pattern(MIB)
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        await old.until(lambda: bool(old.data))
        await new.until(lambda: len(old.data) + len(new.data) >= len(data))
        await sending
        assert bytes(old.data + new.data) == data
        assert len(old.calls) == 2  # connection_made and one read
        await finish(transport, new, peer)

    run(main())


def test_switch_back_and_forth(run: Any) -> None:
    async def main() -> None:
        received, whole = bytearray(), asyncio.Event()
        data = pattern(MIB)
        protocols: list[Any] = []

        def switch(protocol: Any, *_: Any) -> None:
            received.extend(protocol.data)
            protocol.data.clear()
            if len(received) == len(data):
                whole.set()
            protocols[0].transport.set_protocol(protocols[1 - protocols.index(protocol)])

        protocols += [Recorder(data_received=switch), BufferedRecorder(1000, buffer_updated=switch)]
        transport, peer = await connected(protocols[0])
        sending = asyncio.ensure_future(off_loop(peer.sendall, data))
        await asyncio.wait_for(whole.wait(), DEADLINE_S)
        await sending
        assert bytes(received) == data
        transport.abort()
        await turns()
        peer.close()

    run(main())


# The end of the stream


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep_open", [None, False, 0, ""], ids=repr)
def test_eof_closes_by_default(run: Any, kind: Callable[..., Any], keep_open: Any) -> None:
    async def main() -> None:
        protocol = kind(eof_received=lambda protocol: keep_open)
        transport, peer = await connected(protocol)
        peer.shutdown(socket.SHUT_WR)
        assert await protocol.until_lost() is None
        assert protocol.names == ["connection_made", "eof_received", "connection_lost"]
        assert transport.is_closing()
        assert await off_loop(read_to_end, peer) == b""
        peer.close()

    run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep_open", [True, 1, "yes"], ids=repr)
def test_trap_17_eof_received_may_keep_writing_open(run: Any, kind: Callable[..., Any], keep_open: Any) -> None:
    async def main() -> None:
        protocol = kind(eof_received=lambda protocol: keep_open)
        transport, peer = await connected(protocol)
        peer.sendall(b"request")
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_called("eof_received")
        assert not transport.is_closing()
        data = pattern(4 * MIB)
        transport.write(data)
        assert await off_loop(read_exactly, peer, len(data)) == data
        assert await idle_turns(0.1) <= MOST_IDLE_TURNS  # the end of the stream stays readable, nobody may look
        assert protocol.count("eof_received") == 1 and protocol.count("connection_lost") == 0
        transport.close()
        assert await protocol.until_lost() is None
        assert await off_loop(read_to_end, peer) == b""
        peer.close()

    run(main())


def test_eof_received_once_however_reading_is_paused(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.xfail("std: resume_reading() after the end reads the end again")

    async def main() -> None:
        protocol = Recorder(eof_received=lambda protocol: True)
        transport, peer = await connected(protocol)
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_called("eof_received")
        transport.pause_reading()
        transport.resume_reading()
        await turns()
        assert protocol.count("eof_received") == 1
        await finish(transport, protocol, peer)

    run(main())


def test_write_from_eof_received(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda protocol: protocol.transport.write(b"goodbye"))
        _, peer = await connected(protocol)
        peer.shutdown(socket.SHUT_WR)
        assert await off_loop(read_to_end, peer) == b"goodbye"
        await protocol.until_lost()
        peer.close()

    run(main())


@pytest.mark.parametrize("who", ["ours", "peer"])
def test_trap_17_half_closed_both_ways(run: Any, who: str) -> None:
    async def main() -> None:
        protocol = Recorder(eof_received=lambda protocol: True)
        transport, peer = await connected(protocol)
        if who == "ours":
            transport.write_eof()
            assert await off_loop(read_to_end, peer) == b""
            peer.sendall(b"after your end")
            peer.shutdown(socket.SHUT_WR)
        else:
            peer.sendall(b"before my end")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until_called("eof_received")
            transport.write(b"after your end")
            transport.write_eof()
            assert await off_loop(read_to_end, peer) == b"after your end"
        await protocol.until_called("eof_received")
        assert await idle_turns(0.1) <= MOST_IDLE_TURNS  # both directions are at their end: a hang-up on epoll
        assert protocol.count("connection_lost") == 0
        transport.close()
        assert await protocol.until_lost() is None
        peer.close()

    run(main())
