"""Transport.write, writelines, write_eof and the write buffer: what arrives, in which order, when protocols pause."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from conformance.peers import (
    DEADLINE_S,
    MOST_IDLE_TURNS,
    Recorder,
    congested,
    connected,
    idle_turns,
    off_loop,
    pattern,
    read_exactly,
    read_to_end,
    reset,
    tcp_pair,
    turns,
)

KIB = 1024
MIB = 1024 * 1024
std_vectored = sys.version_info >= (3, 12)  # from here on asyncio keeps the caller's buffers and has its own writelines


async def finish(transport: Any, protocol: Recorder, peer: socket.socket) -> None:
    transport.abort()
    await protocol.until_lost()
    peer.close()


# What may be written


@pytest.mark.parametrize("size", [1, 100, 4 * KIB, 64 * KIB, 3 * MIB])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))[:]])
def test_kinds_of_buffers(run: Any, size: int, kind: Callable[[bytes], Any]) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        data = pattern(size)
        assert transport.write(kind(data)) is None
        assert await off_loop(read_exactly, peer, size) == data
        await finish(transport, protocol, peer)

    run(main())


def test_bytes_subclass(run: Any) -> None:
    class Text(bytes):
        pass

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.write(Text(b"abc"))
        transport.writelines([Text(b"def"), bytearray(b"ghi"), memoryview(b"jkl")])
        assert await off_loop(read_exactly, peer, 12) == b"abcdefghijkl"
        await finish(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("data", ["text", None, 5, [b"x"], object(), array.array("b", b"abc")], ids=repr)
def test_other_types_are_type_errors(run: Any, data: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
            transport.write(data)
        transport.write(b"unharmed")
        assert await off_loop(read_exactly, peer, 8) == b"unharmed"
        await finish(transport, protocol, peer)

    run(main())


def test_view_with_other_item_size(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        numbers = array.array("I", range(100))
        transport.write(memoryview(numbers))
        assert await off_loop(read_exactly, peer, numbers.itemsize * 100) == numbers.tobytes()
        await finish(transport, protocol, peer)

    run(main())


def test_view_with_other_item_size_that_does_not_fit_the_kernel(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio" and std_vectored:
        pytest.xfail("std: cuts a view by items where it has sent bytes")

    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol)
        numbers = array.array("Q", range(100_000))
        before = transport.get_write_buffer_size()
        transport.write(memoryview(numbers))
        assert before + 4 * len(numbers) < transport.get_write_buffer_size() <= before + 8 * len(numbers)
        transport.close()
        assert await off_loop(read_to_end, peer) == written + numbers.tobytes()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_view_that_is_not_contiguous(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.xfail("std: socket.send() refuses it, and the connection is closed for that")

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        view = memoryview(bytes(range(200)))[::2]
        transport.write(view)
        transport.writelines([view, b"end"])
        assert await off_loop(read_exactly, peer, 203) == 2 * view.tobytes() + b"end"
        await finish(transport, protocol, peer)

    run(main())


def test_nothing_written_is_nothing_sent(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.write(b"")
        transport.write(bytearray())
        transport.writelines([])
        transport.write(memoryview(b""))
        transport.write(b"x")
        assert await off_loop(read_exactly, peer, 1) == b"x"
        assert transport.get_write_buffer_size() == 0
        assert await idle_turns(0.1) <= MOST_IDLE_TURNS
        await finish(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "view"])
def test_trap_10_buffer_changed_after_write(run: Any, loop_name: str, kind: Callable[[bytes], Any]) -> None:
    if loop_name == "asyncio" and std_vectored:
        pytest.xfail("std: sends what the buffer holds later")

    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol)
        data = pattern(100_000)
        for write in (transport.write, lambda buffer: transport.writelines([buffer, buffer])):
            buffer = kind(data)
            write(buffer)
            buffer[:] = bytes(len(data))  # must not reach the peer
            if isinstance(buffer, bytearray):
                buffer.clear()  # and the buffer is not locked
        transport.close()
        assert await off_loop(read_to_end, peer) == written + 3 * data
        await protocol.until_lost()
        peer.close()

    run(main())


def test_trap_10_buffer_changed_in_the_same_callback(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        buffer = bytearray(b"first ")
        transport.write(buffer)
        buffer[:] = b"second"
        transport.write(buffer)
        buffer[:] = b"third "
        assert await off_loop(read_exactly, peer, 12) == b"first second"
        await finish(transport, protocol, peer)

    run(main())


# writelines


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda items: (item for item in items)])
def test_writelines_takes_any_iterable(run: Any, kind: Callable[[Any], Any]) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        assert transport.writelines(kind([b"one ", bytearray(b"two "), memoryview(b"three")])) is None
        assert await off_loop(read_exactly, peer, 13) == b"one two three"
        await finish(transport, protocol, peer)

    run(main())


@pytest.mark.parametrize("lines", [[b""], [b"", b""], iter(()), (line for line in ())], ids=["one", "two", "it", "gen"])
def test_writelines_of_nothing(run: Any, loop_name: str, lines: Any) -> None:
    if loop_name == "asyncio" and std_vectored:
        pytest.xfail("std: empty pieces stay in the buffer for ever, an empty generator trips over an assertion")

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.writelines(lines)
        await turns()
        assert transport.get_write_buffer_size() == 0
        assert await idle_turns(0.1) <= MOST_IDLE_TURNS
        transport.write(b"x")
        transport.close()
        assert await off_loop(read_to_end, peer) == b"x"
        await protocol.until_lost()
        peer.close()

    run(main())


def test_writelines_of_thousands_of_pieces(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=16 * KIB, receive_buffer=16 * KIB)
        data = pattern(200_000)
        pieces = [data[at : at + 37] for at in range(0, len(data), 37)]
        transport.writelines(pieces)
        transport.write(b"end")
        transport.close()
        assert await off_loop(read_to_end, peer) == data + b"end"
        await protocol.until_lost()
        peer.close()

    run(main())


@pytest.mark.parametrize("lines", [["text"], [b"x", 5], [None], 5, None], ids=repr)
def test_writelines_of_other_types(run: Any, loop_name: str, lines: Any) -> None:
    if loop_name == "asyncio" and lines is None:
        pytest.xfail("std: writelines(None) passes for an empty list")

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        with pytest.raises(TypeError):
            transport.writelines(lines)
        await finish(transport, protocol, peer)

    run(main())


# Order


def test_order_of_mixed_writes(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=16 * KIB, receive_buffer=16 * KIB)
        expected = b""
        for index in range(200):
            data = pattern(1 + index * 97 % 3000, seed=index)
            if index % 3:
                transport.write(data)
            else:
                transport.writelines([data[:10], data[10:]])
            expected += data
            if index % 7 == 0:
                await asyncio.sleep(0)
        transport.close()
        assert await off_loop(read_to_end, peer) == expected
        await protocol.until_lost()
        peer.close()

    run(main())


def test_trap_11_write_from_connection_made(run: Any) -> None:
    async def main() -> None:
        def greet(protocol: Recorder, transport: Any) -> None:
            transport.write(b"hello ")
            transport.writelines([b"from ", b"connection_made "])

        protocol = Recorder(connection_made=greet)
        transport, peer = await connected(protocol)
        transport.write(b"and after")
        assert await off_loop(read_exactly, peer, 36) == b"hello from connection_made and after"
        await finish(transport, protocol, peer)

    run(main())


def test_trap_11_write_from_pause_and_resume_writing(run: Any) -> None:
    async def main() -> None:
        written = []

        def write_more(protocol: Recorder) -> None:
            if len(written) < 40:
                data = pattern(5000, seed=1000 + len(written))
                written.append(data)
                protocol.transport.write(data)

        protocol = Recorder(pause_writing=write_more, resume_writing=write_more)
        transport, peer, first = await congested(protocol, at_least=100_000)
        assert protocol.count("pause_writing") == 1
        transport.set_write_buffer_limits(high=1000)
        reading = asyncio.ensure_future(off_loop(read_to_end, peer))
        await protocol.until_called("resume_writing")
        transport.close()
        received = await reading
        await protocol.until_lost()
        assert len(received) == len(first) + sum(map(len, written))
        for data in written:
            assert received.count(data) == 1
        assert b"".join(written[1:]) == received[len(received) - sum(map(len, written[1:])) :]
        peer.close()

    run(main())


def test_trap_11_write_to_another_transport_from_data_received(run: Any) -> None:
    async def main() -> None:
        right = Recorder()
        right_transport, right_peer = await connected(right)
        left = Recorder(data_received=lambda protocol, data: right_transport.write(data))
        left_transport, left_peer = await connected(left)
        data = pattern(MIB)
        sending = asyncio.ensure_future(off_loop(left_peer.sendall, data))
        assert await off_loop(read_exactly, right_peer, len(data)) == data
        await sending
        await finish(left_transport, left, left_peer)
        await finish(right_transport, right, right_peer)

    run(main())


def test_writes_to_several_transports_leave_in_the_order_they_were_made(run: Any) -> None:
    async def main() -> None:
        connections = [(protocol, *await connected(protocol)) for protocol in (Recorder() for _ in range(10))]

        def check_arrival() -> None:
            # the last write has arrived, so all of them must have
            assert connections[-1][2].recv(100) == b"last"
            for index, (_, _, peer) in enumerate(connections[:-1]):
                peer.setblocking(False)
                assert peer.recv(100) == b"%d" % index

        arrived = asyncio.ensure_future(off_loop(check_arrival))
        for index, (_, transport, _) in enumerate(connections[:-1]):
            transport.write(b"%d" % index)
        connections[-1][1].write(b"last")
        await arrived
        for protocol, transport, peer in connections:
            await finish(transport, protocol, peer)

    run(main())


# Writes and a loop that stops


def test_trap_46_write_while_the_loop_is_stopped(loop: Any) -> None:
    ours, peer = tcp_pair()
    protocol = Recorder()
    transport, _ = loop.run_until_complete(loop.create_connection(lambda: protocol, sock=ours))
    transport.write(b"now")
    assert read_exactly(peer, 3) == b"now"  # nobody runs the loop
    transport.writelines([b"and ", b"now"])
    assert read_exactly(peer, 7) == b"and now"
    transport.write_eof()
    assert peer.recv(1) == b""
    transport.abort()
    loop.run_until_complete(asyncio.wait_for(protocol.until_lost(), DEADLINE_S))
    peer.close()


@pytest.mark.parametrize("leave", ["stop", "SystemExit", "KeyboardInterrupt"])
def test_write_in_the_last_callback_before_the_loop_stops(loop: Any, leave: str) -> None:
    ours, peer = tcp_pair()
    protocol = Recorder()
    transport, _ = loop.run_until_complete(loop.create_connection(lambda: protocol, sock=ours))

    def write_and_leave() -> None:
        transport.write(b"last words")
        if leave == "stop":
            loop.stop()
        else:
            raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[leave]

    loop.call_soon(write_and_leave)
    with contextlib.suppress(SystemExit, KeyboardInterrupt):
        loop.run_forever()
    assert read_exactly(peer, 10) == b"last words"
    transport.abort()
    loop.run_until_complete(asyncio.wait_for(protocol.until_lost(), DEADLINE_S))
    peer.close()


def test_write_in_a_callback_that_raises(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        protocol = Recorder()
        transport, peer = await connected(protocol)

        def fail() -> None:
            transport.write(b"said before")
            raise LookupError("on purpose")

        loop.call_soon(fail)
        assert await off_loop(read_exactly, peer, 11) == b"said before"
        await finish(transport, protocol, peer)

    run(main())


# Watermarks


def test_write_buffer_limits(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        assert transport.get_write_buffer_limits() == (16 * KIB, 64 * KIB)
        for arguments, expected in [
            ({"high": 1000}, (250, 1000)),
            ({"low": 1000}, (1000, 4000)),
            ({"high": 10, "low": 10}, (10, 10)),
            ({"high": 0}, (0, 0)),
            ({"low": 0}, (0, 0)),
            ({}, (16 * KIB, 64 * KIB)),
            ({"high": None, "low": None}, (16 * KIB, 64 * KIB)),
        ]:
            assert transport.set_write_buffer_limits(**arguments) is None
            assert transport.get_write_buffer_limits() == expected
        transport.set_write_buffer_limits(7, 3)
        for arguments in ({"high": 10, "low": 11}, {"low": -1}, {"high": -1}, {"high": 10, "low": -1}):
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(**arguments)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits("high")
        assert transport.get_write_buffer_limits() == (3, 7)
        assert protocol.names == ["connection_made"]
        await finish(transport, protocol, peer)

    run(main())


def test_get_write_buffer_size_counts_what_the_kernel_has_not_taken(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        assert transport.get_write_buffer_size() == 0
        transport.write(b"small")
        assert transport.get_write_buffer_size() == 0
        await finish(transport, protocol, peer)

        protocol = Recorder()
        transport, peer, _ = await congested(protocol)
        before = transport.get_write_buffer_size()
        assert before > 0
        transport.write(bytes(12345))
        size = transport.get_write_buffer_size()
        assert before < size <= before + 12345  # the kernel may have taken a little more
        transport.writelines([bytes(5000), bytes(5000)])
        assert 0 < transport.get_write_buffer_size() <= size + 10000
        await finish(transport, protocol, peer)

    run(main())


def test_pause_comes_inside_the_write_that_passes_the_high_mark(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, _ = await congested(protocol)
        protocol.calls.clear()
        transport.set_write_buffer_limits(high=100 * MIB)
        size = transport.get_write_buffer_size()
        transport.set_write_buffer_limits(high=size + 1000, low=10)
        protocol.calls.clear()
        transport.write(bytes(1000))
        assert protocol.count("pause_writing") == 0  # at the mark is not above it
        transport.write(bytes(1))
        paused = protocol.count("pause_writing")
        transport.write(bytes(1))
        await finish(transport, protocol, peer)
        # congested() may have paused the protocol before; then it stays paused and is not told again
        assert paused in (0, 1) and protocol.count("pause_writing") == paused

    run(main())


@pytest.mark.parametrize("high", [0, 1, 100, 64 * KIB])
def test_pause_and_resume_alternate(run: Any, high: int) -> None:
    async def main() -> None:
        sizes: list[tuple[str, int]] = []
        protocol = Recorder(
            pause_writing=lambda protocol: sizes.append(("pause", protocol.transport.get_write_buffer_size())),
            resume_writing=lambda protocol: sizes.append(("resume", protocol.transport.get_write_buffer_size())),
        )
        transport, peer = await connected(protocol, send_buffer=8 * KIB, receive_buffer=8 * KIB)
        transport.set_write_buffer_limits(high=high)
        expected = b""
        for round_ in range(3):
            data = pattern(2 * MIB, seed=round_)
            transport.write(data)
            assert sizes[-1][0] == "pause" and sizes[-1][1] > high  # told before write() returned
            expected += data
            reading = asyncio.ensure_future(off_loop(read_exactly, peer, len(data)))
            await protocol.until_called("resume_writing", round_ + 1)
            assert sizes[-1] == ("resume", sizes[-1][1]) and sizes[-1][1] <= high // 4
            assert await reading == data
        assert [name for name, _ in sizes] == ["pause", "resume"] * 3
        await finish(transport, protocol, peer)

    run(main())


def test_lower_limits_pause_at_once(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=8 * KIB, receive_buffer=8 * KIB)
        transport.set_write_buffer_limits(high=100 * MIB)
        transport.write(bytes(4 * MIB))
        assert transport.get_write_buffer_size() > 0
        assert protocol.names == ["connection_made"]
        transport.set_write_buffer_limits(high=10)
        assert protocol.names == ["connection_made", "pause_writing"]
        transport.set_write_buffer_limits(high=5)
        assert protocol.names == ["connection_made", "pause_writing"]
        reading = asyncio.ensure_future(off_loop(read_exactly, peer, 4 * MIB))
        await protocol.until_called("resume_writing")
        await reading
        await finish(transport, protocol, peer)

    run(main())


def test_trap_46_a_write_that_the_kernel_takes_does_not_pause(run: Any) -> None:
    async def main() -> None:
        ours, peer = tcp_pair(send_buffer=MIB)
        protocol = Recorder()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        transport.write(bytes(100_000))  # more than the high-water mark
        assert transport.get_write_buffer_size() == 0
        await turns()
        assert protocol.names == ["connection_made"]
        assert len(await off_loop(read_exactly, peer, 100_000)) == 100_000
        await finish(transport, protocol, peer)

    run(main())


def test_pauses_of_one_connection_do_not_touch_another(run: Any) -> None:
    async def main() -> None:
        slow, quick = Recorder(), Recorder()
        slow_transport, slow_peer, _ = await congested(slow, at_least=100_000)
        quick_transport, quick_peer = await connected(quick)
        quick_transport.write(b"quick")
        assert await off_loop(read_exactly, quick_peer, 5) == b"quick"
        assert slow.names == ["connection_made", "pause_writing"] and quick.names == ["connection_made"]
        await finish(slow_transport, slow, slow_peer)
        await finish(quick_transport, quick, quick_peer)

    run(main())


# write_eof, and writes after the end


def test_write_eof(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        assert transport.can_write_eof() is True
        transport.write(b"all of it")
        assert transport.write_eof() is None
        transport.write_eof()
        assert await off_loop(read_to_end, peer) == b"all of it"
        for write in (lambda: transport.write(b"more"), lambda: transport.writelines([b"more"])):
            with pytest.raises(RuntimeError, match="after write_eof"):
                write()
        peer.sendall(b"reading goes on")
        assert await protocol.until_received(15) == b"reading goes on"
        assert not transport.is_closing()
        await finish(transport, protocol, peer)

    run(main())


def test_write_eof_waits_for_the_buffer(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol)
        transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            transport.write(b"more")
        assert await off_loop(read_to_end, peer) == written
        assert protocol.count("connection_lost") == 0
        await finish(transport, protocol, peer)

    run(main())


def test_write_eof_after_close_does_nothing(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.close()
        transport.write_eof()
        await protocol.until_lost()
        transport.write_eof()
        peer.close()

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_trap_14_write_after_close_is_dropped_and_warned_about(
    run: Any, loop_name: str, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        getattr(transport, end)()
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            for _ in range(4):
                transport.write(b"dropped")
            assert caplog.records == []
            for _ in range(6):
                transport.write(b"dropped")
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == (1 if loop_name == "hoop" else 6)  # std repeats itself
        await protocol.until_lost()
        transport.write(b"dropped")
        assert await off_loop(read_to_end, peer) == b""
        peer.close()

    run(main())


@pytest.mark.parametrize("when", ["closing", "closed"])
def test_trap_14_writelines_after_close_is_dropped(run: Any, loop_name: str, when: str) -> None:
    if loop_name == "asyncio" and std_vectored:
        pytest.xfail("std: calls the write method that close() has set to None")

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.close()
        if when == "closed":
            await protocol.until_lost()
        transport.writelines([b"dropped", b"too"])
        await protocol.until_lost()
        assert await off_loop(read_to_end, peer) == b""
        peer.close()

    run(main())


def test_trap_14_write_after_close_with_a_full_buffer(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol)
        transport.close()
        late = pattern(1000, seed=99)
        transport.write(late)
        # asyncio sends it, since the connection is still there. Half of it, or it alone, would be wrong for anybody.
        assert await off_loop(read_to_end, peer) in (written, written + late)
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_trap_15_endless_writes_without_drain_end_with_the_connection(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        reset(peer)
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while not protocol.count("connection_lost"):
            transport.write(b"is anybody there?")
            await asyncio.sleep(0)
            assert asyncio.get_running_loop().time() < deadline
        assert transport.is_closing()
        assert isinstance(protocol.lost_with, ConnectionError)

    run(main())
