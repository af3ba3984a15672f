"""What CPython's asyncio has mended since 3.11.0, where hoop has a part of its own: on every Python, fixed or not.

docs/asyncio_fixes.md lists them all; those that a test of the subject itself covers are not repeated here. Where the
running asyncio has a fix not yet, its half is skipped, by the version that has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import socket
import ssl
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from conformance.peers import (
    LOCALHOST,
    HandlerLog,
    Recorder,
    address_of,
    closed,
    congested,
    connected,
    dial,
    off_loop,
    open_descriptors,
    read_exactly,
    refused_port,
    reset,
    soon,
    tcp_pair,
    turns,
)
from conformance.tls_peers import client_context, tls_connected

needs_eager_tasks = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")


def skip_before(loop_name: str, *version: int) -> None:
    if loop_name == "asyncio" and sys.version_info < version:
        pytest.skip(f"asyncio: mended in Python {'.'.join(map(str, version))}")


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """What is let go of inside is gone because nothing refers to it, not because a cycle was found."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# Connecting


ADDRESSES = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOCALHOST, 0))] * 3


def race_of(loop: Any, monkeypatch: pytest.MonkeyPatch, outcomes: list[Any]) -> list[str]:
    """Have create_connection(happy_eyeballs_delay=...) try one address for each outcome: an exception, or None for one
    that never answers. What became of the attempts."""
    events: list[str] = []

    async def getaddrinfo(*arguments: Any, **options: Any) -> list[Any]:
        return [(*ADDRESSES[0][:4], (LOCALHOST, 1 + number)) for number in range(len(outcomes))]

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        outcome = outcomes[address[1] - 1]
        events.append(f"began {address[1]}")
        if outcome is not None:
            raise outcome
        try:
            await loop.create_future()
        finally:
            events.append(f"left {address[1]}")

    loop.getaddrinfo = getaddrinfo
    loop.sock_connect = sock_connect
    return events


@needs_eager_tasks
@pytest.mark.parametrize("eager", [False, True])
def test_a_race_that_everybody_loses(run: Any, loop_name: str, monkeypatch: pytest.MonkeyPatch, eager: bool) -> None:
    """cpython#124390 (AssertionError for eager tasks), #135836 (IndexError)"""
    skip_before(loop_name, 3, 14)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        events = race_of(loop, monkeypatch, [OSError("first"), OSError("second")])
        with pytest.raises(OSError, match=r"Multiple exceptions: first, second"):
            await soon(loop.create_connection(Recorder, "host", 1, happy_eyeballs_delay=0.01))
        assert events == ["began 1", "began 2"]

    run(main())


@needs_eager_tasks
@pytest.mark.parametrize("eager", [False, True])
def test_a_race_that_is_cancelled_leaves_no_task(
    run: Any, loop_name: str, monkeypatch: pytest.MonkeyPatch, eager: bool
) -> None:
    """cpython#128479: the race leaked its tasks, and reported exceptions that nobody could handle."""
    skip_before(loop_name, 3, 14)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        log = HandlerLog(loop)
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)
        others = asyncio.all_tasks()
        before = open_descriptors()
        events = race_of(loop, monkeypatch, [None, None])
        racing = asyncio.ensure_future(loop.create_connection(Recorder, "host", 1, happy_eyeballs_delay=0.001))
        while "began 2" not in events:
            await asyncio.sleep(0.001)
        racing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await racing
        assert sorted(events) == ["began 1", "began 2", "left 1", "left 2"]
        del racing
        assert asyncio.all_tasks() == others and open_descriptors() == before and log == []

    run(main())


def test_a_failed_race_leaves_no_cycle(run: Any, loop_name: str) -> None:
    """cpython#124858, #88863: an exception whose traceback leads back to it keeps everything of a failed connection."""
    skip_before(loop_name, 3, 14)

    async def main(**options: Any) -> None:
        loop = asyncio.get_running_loop()
        port = refused_port()
        with without_collector():

            def factory() -> asyncio.Protocol:
                raise AssertionError("nobody listens there")

            kept = weakref.ref(factory)
            with contextlib.suppress(ConnectionRefusedError):
                await loop.create_connection(factory, LOCALHOST, port, **options)
            del factory
            await turns(3)
            assert kept() is None

    run(main())
    run(main(happy_eyeballs_delay=0.25))


def test_a_transport_that_cannot_be_made_closes_the_socket(run: Any, loop_name: str) -> None:
    """cpython#153133"""
    skip_before(loop_name, 3, 15)

    class Odd(asyncio.Protocol):
        @property
        def __class__(self) -> Any:
            raise LookupError("on purpose")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        with pytest.raises(LookupError, match="on purpose"):
            await loop.create_connection(Odd, sock=ours)
        await turns(3)
        assert ours.fileno() == -1
        peer.close()

    run(main())


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("way", ["create_connection", "start_tls"])
def test_a_certificate_is_never_checked_against_no_name(run: Any, loop_name: str, way: str) -> None:
    """cpython#156793: a context with check_hostname, but no name to check, let every valid certificate pass."""
    skip_before(loop_name, 3, 15)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert client_context().check_hostname
        ours, peer = tcp_pair()
        with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
            if way == "create_connection":
                await soon(loop.create_connection(Recorder, sock=ours, ssl=client_context(), server_hostname=""))
            else:
                transport, protocol = await loop.create_connection(Recorder, sock=ours)
                await soon(loop.start_tls(transport, protocol, client_context()))
        peer.close()

    run(main())


# Serving


def test_serve_forever_does_not_wait_for_a_client_that_stays(run: Any, loop_name: str) -> None:
    """cpython#123720: since Python 3.12 wait_closed() waits for connections, so cancelling hung."""
    skip_before(loop_name, 3, 15)
    if sys.version_info < (3, 12):
        pytest.skip("Python 3.11: wait_closed() does not wait, and connections go on")

    async def main() -> None:
        protocol = Recorder()
        server = await asyncio.get_running_loop().create_server(lambda: protocol, LOCALHOST, 0)
        serving = asyncio.ensure_future(server.serve_forever())
        peer = dial(address_of(server))
        await protocol.until_called("connection_made")
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(serving)
        assert await off_loop(peer.recv, 1) == b""
        peer.close()

    run(main())


def test_a_plain_client_callback_that_raises(run: Any, loop_name: str) -> None:
    """cpython#155941: the connection stayed open for ever, and Server.wait_closed() with it."""
    if loop_name == "asyncio":
        skip_before(loop_name, 3, 15, 1)
        start_server: Any = asyncio.start_server
    else:
        import hoop

        start_server = hoop.start_server

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())

        def fail(reader: Any, writer: Any) -> None:
            raise LookupError("on purpose")

        server = await start_server(fail, LOCALHOST, 0)
        peer = dial(address_of(server))
        context = await log.first()
        assert context["message"] == "Unhandled exception in client_connected_cb"
        assert isinstance(context["exception"], LookupError)
        assert await off_loop(peer.recv, 1) == b""
        peer.close()
        server.close()
        await closed(server)
        assert len(log) == 1

    run(main())


def test_an_address_that_this_machine_has_not_is_passed_over(
    run: Any, loop_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cpython#75128: IPv6 that is compiled in, but not enabled."""
    skip_before(loop_name, 3, 13)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        async def getaddrinfo(*arguments: Any, **options: Any) -> list[Any]:
            absent = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))  # TEST-NET-1, RFC 5737
            return [absent, (socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOCALHOST, 0))]

        loop.getaddrinfo = getaddrinfo
        server = await loop.create_server(Recorder, "host", 0)
        assert [sock.getsockname()[0] for sock in server.sockets] == [LOCALHOST]
        server.close()
        await closed(server)

    run(main())


# Streams and transports


def test_writelines_whose_last_piece_is_empty(run: Any, loop_name: str) -> None:
    """cpython#155888: what was written after it never left."""
    skip_before(loop_name, 3, 15)

    async def main() -> None:
        protocol = Recorder()
        transport, peer, written = await congested(protocol)
        transport.writelines([b"one", b"two", b""])
        transport.writelines([b""])
        transport.write(b"three")
        transport.close()
        expected = written + b"onetwothree"
        assert await off_loop(read_exactly, peer, len(expected)) == expected
        await protocol.until_lost()
        peer.close()

    run(main())


def test_writelines_pauses_the_protocol(run: Any, loop_name: str) -> None:
    """cpython#127655"""
    skip_before(loop_name, 3, 13, 2)

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=8192, receive_buffer=8192)
        transport.set_write_buffer_limits(high=1000)
        paused: list[int] = []
        protocol.pause_writing = lambda: paused.append(1)
        transport.writelines([bytes(1024 * 1024)] * 4)
        assert paused == [1]
        transport.abort()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_a_closed_transport_is_no_cycle(run: Any, loop_name: str) -> None:
    """cpython#100348, #106503"""
    skip_before(loop_name, 3, 13)

    async def main() -> None:
        with without_collector():
            protocol = Recorder()
            transport, peer = await connected(protocol)
            transport.write(b"x")
            transport.close()
            await protocol.until_lost()
            kept = weakref.ref(transport)
            protocol.transport = None
            del transport, protocol
            await turns(3)
            assert kept() is None
            peer.close()

    run(main())


def test_an_abandoned_stream_is_collected(run: Any, loop_name: str) -> None:
    """cpython#114914, #106684"""
    if loop_name == "asyncio":
        skip_before(loop_name, 3, 13)
        open_connection: Any = asyncio.open_connection
    else:
        import hoop

        open_connection = hoop.open_connection

    async def main() -> None:
        ours, peer = tcp_pair()
        reader, writer = await open_connection(sock=ours)
        kept = weakref.ref(writer)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del reader, writer
            gc.collect()
            await turns(3)
        assert kept() is None
        assert await off_loop(peer.recv, 1) == b""
        peer.close()

    run(main())


@pytest.mark.each_tls_engine
def test_closing_tls_is_bounded_though_the_peer_has_ended_and_does_not_read(run: Any, loop_name: str) -> None:
    """cpython#160520: ssl_shutdown_timeout was given up as soon as the peer's end had come."""
    skip_before(loop_name, 3, 15, 2)

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(
            protocol, ssl_shutdown_timeout=0.2, sizes={"send_buffer": 8192, "receive_buffer": 8192}
        )
        transport.write(bytes(3 * 1024 * 1024))
        await off_loop(end_without_reading, peer)
        await turns(5)
        transport.close()
        await protocol.until_lost()
        peer.close()

    run(main())


def end_without_reading(peer: ssl.SSLSocket) -> None:
    """Blocking: the writing direction of the connection below ends, without a word of TLS."""
    peer.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("fallback", [False, True])
def test_sendfile_begins_at_its_offset_though_the_file_stands_elsewhere(
    run: Any, loop_name: str, tmp_path: Any, fallback: bool
) -> None:
    """cpython#150107: an offset of 0 was taken for wherever the file stood."""
    skip_before(loop_name, 3, 15)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        protocol = Recorder()
        transport, peer = await connected(protocol)
        with io.BytesIO(path.read_bytes()) if fallback else path.open("rb") as file:
            file.seek(7)
            sent = await loop.sendfile(transport, file)
        assert sent == 10
        assert await off_loop(read_exactly, peer, 10) == b"0123456789"
        transport.close()
        await protocol.until_lost()
        peer.close()

    run(main())


# The loop itself


def test_a_run_that_is_refused_changes_nothing(loop_factory: Any, loop_name: str) -> None:
    """cpython#130145: another loop runs in this thread, and goes on with its own hooks."""
    skip_before(loop_name, 3, 13, 3)
    one, two = loop_factory(), loop_factory()

    async def main() -> None:
        before = sys.get_asyncgen_hooks()
        with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
            two.run_forever()
        assert asyncio.get_running_loop() is one and sys.get_asyncgen_hooks() == before

    try:
        one.run_until_complete(main())
    finally:
        one.close()
        two.close()


def test_arguments_of_callbacks_are_no_text_but_in_debug_mode(loop: Any, loop_name: str) -> None:
    """cpython#112997: they may be secrets, and reprs end in logs."""
    skip_before(loop_name, 3, 12, 2)
    for callback in (print, functools.partial(functools.partial(print, "secret"), word="secret")):
        handle = loop.call_soon(callback, "secret")
        assert "secret" not in repr(handle) and "print()" in repr(handle)
        loop.set_debug(True)
        assert "secret" in repr(handle)
        loop.set_debug(False)
        handle.cancel()


@needs_eager_tasks
def test_an_eager_task_that_has_ended_is_no_cycle(loop: Any, loop_name: str) -> None:
    """cpython#128552"""
    skip_before(loop_name, 3, 13, 2)
    loop.set_task_factory(asyncio.eager_task_factory)

    async def nothing() -> None:
        """Ends at once."""

    async def main() -> None:
        with without_collector():
            kept = weakref.ref(loop.create_task(nothing()))
            assert kept() is None

    loop.run_until_complete(main())


@pytest.fixture
def streams(loop_name: str) -> Any:
    """The module that has the streams of the loop: asyncio's own, or hoop's."""
    if loop_name == "asyncio":
        return asyncio
    import hoop

    return hoop


def test_a_handler_of_a_server_is_not_collected(run: Any, streams: Any) -> None:
    """cpython#90467: nobody but the protocol knew of its task."""

    async def main() -> None:
        ended: list[bytes] = []

        async def handle(reader: Any, writer: Any) -> None:
            ended.append(await reader.read())
            writer.close()

        server = await streams.start_server(handle, LOCALHOST, 0)
        peer = dial(address_of(server))
        await turns(10)
        for _ in range(3):
            gc.collect()
            await turns(2)
        peer.sendall(b"late")
        peer.shutdown(socket.SHUT_WR)
        assert await off_loop(peer.recv, 1) == b"" and ended == [b"late"]
        peer.close()
        server.close()
        await closed(server)

    run(main())


def test_a_lost_connection_that_nobody_asks_about_is_not_reported(run: Any, streams: Any) -> None:
    """cpython#104340: wait_closed() is optional."""

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        ours, peer = tcp_pair()
        reader, writer = await streams.open_connection(sock=ours)
        peer.sendall(b"unread")
        reset(peer)
        with pytest.raises(ConnectionError):
            while True:
                await soon(reader.read(1))
        writer.close()
        await turns(3)
        del reader, writer
        gc.collect()
        await turns(3)
        assert log == []

    run(main())


def test_received_data_is_bytes(run: Any) -> None:
    """cpython#99941"""

    async def main() -> None:
        seen: list[type] = []
        protocol = Recorder(data_received=lambda protocol, data: seen.append(type(data)))
        transport, peer = await connected(protocol)
        peer.sendall(b"x")
        await protocol.until_called("data_received")
        assert seen == [bytes]
        transport.abort()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_each_datagram_that_waits_counts_more_than_its_bytes(run: Any, loop_name: str, tmp_path: Any) -> None:
    """cpython#135444: empty ones filled the memory, and nobody was told to pause."""
    skip_before(loop_name, 3, 14)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        peer.bind(str(tmp_path / "peer"))
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.connect(str(tmp_path / "peer"))
        ours.setblocking(False)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=ours)
        for _ in range(100_000):
            transport.sendto(bytes(1000))
            if transport.get_write_buffer_size() > 0:
                break
        assert transport.get_write_buffer_size() == 1008
        transport.sendto(b"")
        assert transport.get_write_buffer_size() == 1016
        transport.abort()
        await turns(3)
        peer.close()

    run(main())
