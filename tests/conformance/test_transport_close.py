"""close, abort and connection_lost: once, last, with the right reason, and with the descriptor really closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from conformance.peers import (
    BufferedRecorder,
    HandlerLog,
    Recorder,
    congested,
    connected,
    context_keys,
    off_loop,
    open_descriptors,
    pattern,
    read_exactly,
    read_to_end,
    read_until_gone,
    reset,
    tcp_pair,
    turns,
)

MIB = 1024 * 1024


# close


def test_close(run: Any) -> None:
    async def main() -> None:
        before = open_descriptors()
        ours, peer = tcp_pair()
        number = ours.fileno()
        protocol = Recorder()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        assert transport.is_closing() is False
        assert transport.close() is None
        assert transport.is_closing() is True
        assert protocol.names == ["connection_made"]  # not from inside close()
        transport.close()
        assert await protocol.until_lost() is None
        transport.close()
        transport.abort()
        await turns()
        assert protocol.names == ["connection_made", "connection_lost"]
        assert ours.fileno() == -1 and number not in open_descriptors()
        assert await off_loop(peer.recv, 1) == b""
        peer.close()
        assert open_descriptors() == before

    run(main())


@pytest.mark.parametrize("size", [1, 100_000, 6 * MIB])
@pytest.mark.parametrize("pieces", [1, 50])
def test_trap_9_close_delivers_what_was_written_then_closes(run: Any, size: int, pieces: int) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=32 * 1024, receive_buffer=32 * 1024)
        sock = transport.get_extra_info("socket")
        data = pattern(size)
        step = size // pieces + 1
        for at in range(0, size, step):
            transport.write(data[at : at + step])
        transport.close()
        assert await off_loop(read_to_end, peer) == data
        assert await protocol.until_lost() is None
        await turns()
        assert sock.fileno() == -1
        assert "data_received" not in protocol.names
        peer.close()

    run(main())


def test_close_with_a_full_buffer_stops_reading(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol)
        transport.close()
        assert not transport.is_reading()
        peer.sendall(b"too late")
        await turns()
        assert protocol.count("connection_lost") == protocol.count("data_received") == 0
        # closing with something unread is a reset, which may overtake the last of the data
        assert written.startswith(await off_loop(read_until_gone, peer))
        await protocol.until_lost()
        peer.close()

    run(main())


@pytest.mark.parametrize("paused", [True, False])
def test_close_while_reading_is_paused(run: Any, paused: bool) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        if paused:
            transport.pause_reading()
        peer.sendall(b"unread")
        transport.close()
        transport.resume_reading()
        assert await protocol.until_lost() is None
        assert protocol.names == ["connection_made", "connection_lost"]
        peer.close()

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_end_in_connection_made(run: Any, end: str) -> None:
    async def main() -> None:
        ours, peer = tcp_pair()
        peer.sendall(b"never read")
        protocol = Recorder(connection_made=lambda protocol, transport: getattr(transport, end)())
        transport, returned = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        assert returned is protocol and transport.is_closing()
        assert await protocol.until_lost() is None
        await turns()
        assert protocol.names == ["connection_made", "connection_lost"]
        assert ours.fileno() == -1
        peer.close()

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("keep_open", [True, False])
def test_end_in_eof_received(run: Any, end: str, keep_open: bool) -> None:
    def eof(protocol: Recorder) -> bool:
        getattr(protocol.transport, end)()
        return keep_open

    async def main() -> None:
        protocol = Recorder(eof_received=eof)
        _, peer = await connected(protocol)
        peer.close()
        assert await protocol.until_lost() is None
        await turns()
        assert protocol.names == ["connection_made", "eof_received", "connection_lost"]

    run(main())


def test_close_in_connection_lost_does_nothing(run: Any) -> None:
    async def main() -> None:
        def again(protocol: Recorder, exc: Any) -> None:
            protocol.transport.close()
            protocol.transport.abort()
            protocol.transport.write(b"nobody")

        protocol = Recorder(connection_lost=again)
        transport, peer = await connected(protocol)
        transport.close()
        await protocol.until_lost()
        await turns()
        assert protocol.names == ["connection_made", "connection_lost"]
        assert await off_loop(read_to_end, peer) == b""
        peer.close()

    run(main())


# abort


def test_abort(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        assert transport.abort() is None
        assert transport.is_closing() is True
        assert protocol.names == ["connection_made"]
        transport.abort()
        assert await protocol.until_lost() is None
        await turns()
        assert protocol.names == ["connection_made", "connection_lost"]
        peer.close()

    run(main())


def test_trap_46_write_then_abort_delivers(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.write(b"a" * 500)
        transport.write(b"b" * 500)
        transport.abort()
        assert await off_loop(read_to_end, peer) == b"a" * 500 + b"b" * 500
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_abort_discards_what_the_kernel_has_not_taken(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol, at_least=100_000)
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert await protocol.until_lost() is None
        received = await off_loop(read_until_gone, peer)
        assert len(received) < len(written) and written.startswith(received)
        assert protocol.names == ["connection_made", "pause_writing", "connection_lost"]
        peer.close()

    run(main())


def test_abort_after_close_does_not_wait_for_the_peer(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, _ = await congested(protocol)
        transport.close()
        await turns()
        assert protocol.count("connection_lost") == 0
        transport.abort()
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_abort_after_write_eof(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, _ = await congested(protocol)
        transport.write_eof()
        transport.abort()
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_calls_after_connection_lost_do_nothing(run: Any, loop_name: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol)
        transport.close()  # has to wait for the buffer
        assert await off_loop(read_to_end, peer) == written
        await protocol.until_lost()
        await turns()
        transport.close()
        if loop_name == "hoop":  # std: AttributeError, since a close that had to wait does not count as lost
            transport.abort()
        transport.pause_reading()
        transport.resume_reading()
        transport.set_write_buffer_limits(high=10)
        assert transport.get_write_buffer_size() == 0 and transport.is_closing() and not transport.is_reading()
        await turns()
        assert protocol.count("connection_lost") == 1 and protocol.names[-1] == "connection_lost"
        peer.close()

    run(main())


# Ends from inside pause_writing and resume_writing


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("where", ["pause_writing", "resume_writing"])
@pytest.mark.parametrize("how", ["write", "writelines"])
def test_trap_12_end_inside_flow_control(run: Any, loop_name: str, end: str, where: str, how: str) -> None:
    if loop_name == "asyncio" and where == "resume_writing":
        pytest.xfail("std: connection_lost is called twice, the second time on a transport without a protocol")

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        protocol = Recorder(**{where: lambda protocol: getattr(protocol.transport, end)()})
        transport, peer = await connected(protocol, send_buffer=8192, receive_buffer=8192)
        data = pattern(MIB)
        if how == "write":
            transport.write(data)
        else:
            transport.writelines([data[:1000], data[1000:]])
            transport.set_write_buffer_limits(high=1000)  # std's writelines does not look at the limits
        received = await off_loop(read_until_gone, peer)
        assert await protocol.until_lost() is None
        await turns()
        if end == "close":
            assert received == data
        else:
            assert data.startswith(received)
        assert protocol.count("connection_lost") == protocol.count("pause_writing") == 1
        assert protocol.names[-1] == "connection_lost"
        assert log == []
        peer.close()

    run(main())


def test_trap_12_close_then_peer_reads_everything(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol, at_least=100_000)
        assert protocol.names == ["connection_made", "pause_writing"]
        transport.close()
        assert await off_loop(read_to_end, peer) == written
        await protocol.until_lost()
        await turns()
        assert protocol.names in (
            ["connection_made", "pause_writing", "resume_writing", "connection_lost"],
            ["connection_made", "pause_writing", "connection_lost"],
        )
        peer.close()

    run(main())


# Protocols that raise


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("kind", "callback", "message"),
    [
        (Recorder, "data_received", "Fatal error: protocol.data_received() call failed."),
        (Recorder, "eof_received", "Fatal error: protocol.eof_received() call failed."),
        (BufferedRecorder, "get_buffer", "Fatal error: protocol.get_buffer() call failed."),
        (BufferedRecorder, "buffer_updated", "Fatal error: protocol.buffer_updated() call failed."),
        (BufferedRecorder, "eof_received", "Fatal error: protocol.eof_received() call failed."),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_trap_16_read_callback_that_raises_closes(run: Any, kind: Any, callback: str, message: str) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        error = LookupError("on purpose")
        protocol = kind(**{callback: raising(error)})
        transport, peer = await connected(protocol)
        sock = transport.get_extra_info("socket")
        if callback == "eof_received":
            peer.shutdown(socket.SHUT_WR)
        else:
            peer.sendall(b"x")
        assert await protocol.until_lost() is error
        await turns()
        assert len(log) == 1
        assert log[0]["message"] == message
        assert log[0]["exception"] is error
        assert log[0]["transport"] is transport and log[0]["protocol"] is protocol
        assert context_keys(log[0]) == {"message", "exception", "transport", "protocol"}
        assert protocol.count("connection_lost") == 1 and sock.fileno() == -1
        assert await off_loop(read_until_gone, peer) == b""
        peer.close()

    run(main())


@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_flow_control_callback_that_raises_does_not_close(run: Any, callback: str) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        error = LookupError("on purpose")
        protocol = Recorder(**{callback: raising(error)})
        transport, peer, written = await congested(protocol, at_least=100_000)
        reading = asyncio.ensure_future(off_loop(read_exactly, peer, len(written)))
        await protocol.until_called("resume_writing")
        assert await reading == written
        transport.write(b"still open")
        assert await off_loop(read_exactly, peer, 10) == b"still open"
        assert len(log) == 1
        assert log[0]["message"] == f"protocol.{callback}() failed"
        assert log[0]["exception"] is error and log[0]["protocol"] is protocol and log[0]["transport"] is transport
        assert context_keys(log[0]) == {"message", "exception", "transport", "protocol"}
        transport.close()
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_trap_16_connection_lost_that_raises_still_closes(run: Any) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        error = LookupError("on purpose")
        protocol = Recorder(connection_lost=raising(error))
        transport, peer = await connected(protocol)
        sock = transport.get_extra_info("socket")
        transport.close()
        context = await log.first()
        await turns()
        assert context["exception"] is error and len(log) == 1
        assert context_keys(context) == {"message", "exception", "handle"}
        assert protocol.count("connection_lost") == 1 and sock.fileno() == -1
        assert await off_loop(peer.recv, 1) == b""
        peer.close()

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("callback", ["data_received", "eof_received", "pause_writing", "connection_lost"])
def test_trap_30_exit_exceptions_leave_the_loop(loop: Any, error: type[BaseException], callback: str) -> None:
    reports: list[Any] = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    ours, peer = tcp_pair(send_buffer=8192, receive_buffer=8192)
    protocol = Recorder(**{callback: raising(error())})
    transport, _ = loop.run_until_complete(loop.create_connection(lambda: protocol, sock=ours))
    if callback == "pause_writing":
        loop.call_soon(transport.write, bytes(4 * MIB))
    elif callback == "connection_lost":
        transport.close()
    else:
        peer.send(b"x")
        peer.shutdown(socket.SHUT_WR)
    with pytest.raises(error):
        loop.run_forever()
    assert reports == []
    protocol.hooks.clear()
    transport.abort()
    loop.run_until_complete(turns())  # the loop goes on
    assert protocol.count("connection_lost") == 1
    assert ours.fileno() == -1
    peer.close()


# The object


def test_trap_18_extra_info(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        sock = transport.get_extra_info("socket")
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert transport.get_extra_info("socket") is sock
        assert sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM and sock.fileno() >= 0
        assert transport.get_extra_info("peername") == peer.getsockname() == sock.getpeername()
        assert transport.get_extra_info("sockname") == peer.getpeername() == sock.getsockname()
        assert transport.get_extra_info("sslcontext") is None
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", "default") == "default"
        assert transport.get_extra_info("nothing", default=3) == 3
        peername = transport.get_extra_info("peername")
        transport.close()
        await protocol.until_lost()
        await turns()
        assert transport.get_extra_info("peername") == peername  # still known for a log line
        assert transport.get_extra_info("socket").fileno() == -1
        peer.close()

    run(main())


def test_trap_18_types(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        assert isinstance(transport, asyncio.Transport)
        for base in (asyncio.ReadTransport, asyncio.WriteTransport, asyncio.BaseTransport):
            assert isinstance(transport, base)
        assert not isinstance(transport, asyncio.DatagramTransport)
        assert transport._start_tls_compatible is True
        assert hash(transport) == hash(transport) and transport == transport
        transport.close()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_repr(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        number = transport.get_extra_info("socket").fileno()
        assert f"fd={number}" in repr(transport)
        assert "clos" not in repr(transport)
        transport.close()
        assert "closing" in repr(transport)
        await protocol.until_lost()
        await turns()
        assert "closed" in repr(transport)
        peer.close()

    run(main())


def test_trap_18_weak_references(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        reference = weakref.ref(transport)
        assert reference() is transport
        transport.close()
        await protocol.until_lost()
        await turns()
        protocol.calls.clear()
        protocol.transport = transport = None
        gc.collect()
        assert reference() is None
        peer.close()

    run(main())


def test_instance_attributes_shadow_methods(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        with mock.patch.object(transport, "write") as write:
            transport.write(b"not sent")
            write.assert_called_once_with(b"not sent")
        transport.write = mock.Mock()
        writer = asyncio.StreamWriter(transport, protocol, None, asyncio.get_running_loop())
        writer.write(b"not sent either")
        transport.write.assert_called_once_with(b"not sent either")
        del transport.write
        transport.write(b"sent")
        assert await off_loop(read_exactly, peer, 4) == b"sent"
        transport.close()
        await protocol.until_lost()
        peer.close()

    run(main())


# Transports that nobody closes


def test_collected_transport_warns_and_closes(run: Any) -> None:
    async def main() -> None:
        before = open_descriptors()
        ours, peer = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        transport.pause_reading()  # the loop has no more use for it
        reference = weakref.ref(transport)
        await turns()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            del transport, protocol
            gc.collect()
            await turns()
        assert reference() is None
        del ours
        gc.collect()
        assert await off_loop(peer.recv, 1) == b""
        peer.close()
        assert open_descriptors() == before

    run(main())


def test_open_transport_that_is_watched_is_not_collected(run: Any) -> None:
    async def main() -> None:
        received: list[bytes] = []
        arrived = asyncio.Event()

        class Lonely(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                received.append(data)
                arrived.set()

        ours, peer = tcp_pair()
        await asyncio.get_running_loop().create_connection(Lonely, sock=ours)
        del ours
        gc.collect()
        peer.sendall(b"anybody there?")
        await asyncio.wait_for(arrived.wait(), 20)
        assert received == [b"anybody there?"]
        reset(peer)
        await turns()

    run(main())


def test_transports_of_an_abandoned_loop_warn_and_close(loop_factory: Any) -> None:
    before = open_descriptors()
    loop = loop_factory()
    pairs = [tcp_pair() for _ in range(5)]
    made = [loop.run_until_complete(loop.create_connection(Recorder, sock=ours)) for ours, _ in pairs]
    references = [weakref.ref(transport) for transport, _ in made]
    peers = [peer for _, peer in pairs]
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del made, pairs, loop
        gc.collect()
    assert [reference() for reference in references] == [None] * 5
    for peer in peers:
        with contextlib.suppress(ConnectionError):
            assert peer.recv(1) == b""
        peer.close()
    gc.collect()
    assert open_descriptors() <= before
