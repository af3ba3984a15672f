"""Received bytes on their way into asyncio's own StreamReader: hoop leaves Python functions out, no program can tell.

Whatever a program patches, derives or sets is called and seen, also while the connection lives.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import streams
from collections.abc import Callable
from typing import Any

import pytest
from conformance.peers import HandlerLog, Recorder, soon, tcp_pair, turns


async def connect(
    protocol_class: type[asyncio.StreamReaderProtocol] = streams.StreamReaderProtocol,
    reader_class: type[asyncio.StreamReader] = streams.StreamReader,
    limit: Any = 65536,
) -> tuple[Any, Any, Any, socket.socket]:
    """Reader, protocol, transport and the raw socket at the other end."""
    loop = asyncio.get_running_loop()
    ours, peer = tcp_pair()
    reader = reader_class(limit=limit, loop=loop)
    transport, protocol = await loop.create_connection(lambda: protocol_class(reader, loop=loop), sock=ours)
    return reader, protocol, transport, peer


async def ask_once(reader: Any, peer: socket.socket, data: bytes = b"plain") -> None:
    """What comes before a change: the connection has been served the usual way."""
    peer.sendall(data)
    assert await soon(reader.readexactly(len(data))) == data


def end(transport: Any, peer: socket.socket) -> None:
    transport.abort()
    peer.close()


def seen_by(log: list[bytes], original: Callable[[Any, bytes], None]) -> Callable[[Any, bytes], None]:
    """A function in place of a method that takes data."""

    def method(self: Any, data: bytes) -> None:
        log.append(bytes(data))
        original(self, data)

    return method


# Patched classes


@pytest.mark.parametrize(
    ("owner", "name"), [(streams.StreamReaderProtocol, "data_received"), (streams.StreamReader, "feed_data")]
)
def test_method_of_the_class_is_patched_and_put_back(
    run: Any, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    async def main() -> None:
        log: list[bytes] = []
        reader, _, transport, peer = await connect()
        await ask_once(reader, peer)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, seen_by(log, getattr(owner, name)))
            await ask_once(reader, peer, b"patched")
            await ask_once(reader, peer, b"again")
        await ask_once(reader, peer, b"as it was")
        assert log == [b"patched", b"again"]
        end(transport, peer)

    run(main())


def test_property_of_the_protocol_is_patched(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect()
        await ask_once(reader, peer)
        other = streams.StreamReader(loop=asyncio.get_running_loop())
        monkeypatch.setattr(streams.StreamReaderProtocol, "_stream_reader", property(lambda self: other))
        peer.sendall(b"elsewhere")
        assert await soon(other.readexactly(9)) == b"elsewhere"
        assert reader._buffer == b""
        monkeypatch.undo()
        end(transport, peer)

    run(main())


def test_wake_up_of_the_class_is_patched(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect()
        await ask_once(reader, peer)
        woken: list[Any] = []
        original = streams.StreamReader._wakeup_waiter  # type: ignore[attr-defined]
        monkeypatch.setattr(streams.StreamReader, "_wakeup_waiter", lambda self: (woken.append(self), original(self)))
        await ask_once(reader, peer)
        assert woken == [reader]
        monkeypatch.undo()
        end(transport, peer)

    run(main())


def test_field_becomes_a_property(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect()
        await ask_once(reader, peer)
        elsewhere = bytearray()
        monkeypatch.setattr(streams.StreamReader, "_buffer", property(lambda self: elsewhere), raising=False)
        await ask_once(reader, peer, b"kept elsewhere")
        peer.sendall(b"rest")
        while len(elsewhere) < 4:
            await turns()
        monkeypatch.undo()
        assert elsewhere == b"rest" and vars(reader)["_buffer"] == b""
        end(transport, peer)

    run(main())


def test_attribute_access_of_the_class_is_patched(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect()
        await ask_once(reader, peer)
        asked: list[str] = []

        def getattribute(self: Any, name: str) -> Any:
            asked.append(name)
            return object.__getattribute__(self, name)

        monkeypatch.setattr(streams.StreamReader, "__getattribute__", getattribute)
        peer.sendall(b"looked at")
        while len(vars(reader)["_buffer"]) < 9:
            await turns()
        monkeypatch.undo()
        assert {"feed_data", "_eof", "_buffer", "_wakeup_waiter", "_limit"} <= set(asked)
        end(transport, peer)

    run(main())


# Patched objects


def test_methods_of_the_objects_are_patched(run: Any) -> None:
    async def main() -> None:
        log: list[bytes] = []
        reader, protocol, transport, peer = await connect()
        await ask_once(reader, peer)
        reader.feed_data = lambda data: (log.append(b"reader"), streams.StreamReader.feed_data(reader, data))
        await ask_once(reader, peer)
        protocol.data_received = lambda data: (log.append(b"protocol"), reader.feed_data(data))
        await ask_once(reader, peer)
        del reader.feed_data
        await ask_once(reader, peer)
        del protocol.data_received
        await ask_once(reader, peer)
        reader._wakeup_waiter = lambda: (log.append(b"wake"), streams.StreamReader._wakeup_waiter(reader))  # type: ignore[attr-defined]
        await ask_once(reader, peer)
        assert log == [b"reader", b"protocol", b"reader", b"protocol", b"wake"]
        end(transport, peer)

    run(main())


def test_objects_have_attributes_of_the_program(run: Any) -> None:
    async def main() -> None:
        reader, protocol, transport, peer = await connect()
        reader.name = protocol.name = "mine"
        await ask_once(reader, peer)
        vars(reader)["another"] = 1
        await ask_once(reader, peer)
        assert (reader.name, protocol.name, reader.another) == ("mine", "mine", 1)
        end(transport, peer)

    run(main())


def test_dict_is_replaced(run: Any) -> None:
    async def main() -> None:
        reader, protocol, transport, peer = await connect()
        await ask_once(reader, peer)
        former = vars(reader)
        reader.__dict__ = dict(former, _buffer=bytearray(b"before "))
        protocol.__dict__ = dict(vars(protocol))
        peer.sendall(b"after")
        assert await soon(reader.readexactly(12)) == b"before after"
        assert former["_buffer"] == b""
        end(transport, peer)

    run(main())


# Derived classes


def test_derived_classes(run: Any) -> None:
    async def main() -> None:
        log: list[tuple[str, bytes]] = []

        class Protocol(streams.StreamReaderProtocol):
            def data_received(self, data: bytes) -> None:
                log.append(("protocol", data))
                super().data_received(data)

        class Reader(streams.StreamReader):
            def feed_data(self, data: bytes) -> None:
                log.append(("reader", data))
                super().feed_data(data)

        for protocol_class in (streams.StreamReaderProtocol, Protocol):
            for reader_class in (streams.StreamReader, Reader):
                reader, _, transport, peer = await connect(protocol_class, reader_class)
                await ask_once(reader, peer, b"derived")
                end(transport, peer)
        assert log == [(name, b"derived") for name in ("reader", "protocol", "protocol", "reader")]

    run(main())


def test_object_changes_its_class(run: Any) -> None:
    async def main() -> None:
        log: list[bytes] = []

        class Protocol(streams.StreamReaderProtocol):
            data_received = seen_by(log, streams.StreamReaderProtocol.data_received)

        class Reader(streams.StreamReader):
            feed_data = seen_by(log, streams.StreamReader.feed_data)

        reader, protocol, transport, peer = await connect()
        await ask_once(reader, peer)
        reader.__class__ = Reader
        await ask_once(reader, peer, b"reader")
        protocol.__class__ = Protocol
        await ask_once(reader, peer, b"both")
        assert log == [b"reader", b"both", b"both"]
        end(transport, peer)

    run(main())


# What feed_data() heeds


def test_reader_is_paused_beyond_twice_the_limit(run: Any) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect(limit=100)
        sizes = []
        for size in (200, 1):
            peer.sendall(b"x" * size)
            while len(reader._buffer) < sum(sizes) + size:
                await turns()
            sizes.append(size)
            assert reader._paused == (sum(sizes) > 200) == (not transport.is_reading())
        assert await soon(reader.readexactly(101)) == b"x" * 101
        assert not reader._paused and transport.is_reading()
        end(transport, peer)

    run(main())


@pytest.mark.parametrize("limit", [1e9, 10.5, 2**100, True])
def test_limits_that_are_no_usual_number(run: Any, limit: Any) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect(limit=limit)
        peer.sendall(b"x" * 22)
        while len(reader._buffer) < 22:
            await turns()
        assert reader._paused == (22 > 2 * limit)
        assert await soon(reader.readexactly(22)) == b"x" * 22
        end(transport, peer)

    run(main())


def test_limit_that_has_become_negative(run: Any) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect()
        reader._limit = -1
        peer.sendall(b"x")
        while not reader._buffer:
            await turns()
        assert reader._paused and not transport.is_reading()
        end(transport, peer)

    run(main())


def test_transport_that_the_reader_knows(run: Any) -> None:
    class CannotPause:
        def pause_reading(self) -> None:
            raise NotImplementedError

    async def main() -> None:
        reader, _, transport, peer = await connect(limit=10)
        reader._transport = CannotPause()
        await ask_once(reader, peer, b"x" * 30)
        assert reader._transport is None and not reader._paused
        await ask_once(reader, peer, b"y" * 30)
        assert not reader._paused and transport.is_reading()
        end(transport, peer)

    run(main())


def test_waiter_is_cancelled(run: Any) -> None:
    async def main() -> None:
        reader, _, transport, peer = await connect()
        reading = asyncio.ensure_future(reader.read(10))
        await turns()
        reader._waiter.cancel()
        peer.sendall(b"late")
        while not reader._buffer:
            await turns()
        assert reader._waiter is None and reading.cancelled()
        assert await soon(reader.read(10)) == b"late"
        end(transport, peer)

    run(main())


def test_waiter_of_another_kind(run: Any) -> None:
    class Waiter:
        def __init__(self) -> None:
            self.results: list[Any] = []

        def cancelled(self) -> bool:
            return False

        def set_result(self, result: Any) -> None:
            self.results.append(result)

    async def main() -> None:
        reader, _, transport, peer = await connect()
        waiter = reader._waiter = Waiter()
        peer.sendall(b"data")
        while not waiter.results:
            await turns()
        assert waiter.results == [None] and reader._waiter is None and reader._buffer == b"data"
        end(transport, peer)

    run(main())


def test_reader_that_no_code_has_any_more(run: Any) -> None:
    async def main() -> None:
        reader, protocol, transport, peer = await connect()
        await ask_once(reader, peer)
        del reader
        peer.sendall(b"for none")
        peer.shutdown(socket.SHUT_WR)
        await turns()
        assert protocol._stream_reader is None
        end(transport, peer)

    run(main())


def test_protocol_without_a_reader(run: Any) -> None:
    async def main() -> None:
        reader, protocol, transport, peer = await connect()
        protocol._stream_reader_wr = None
        peer.sendall(b"for none")
        await turns(20)
        assert reader._buffer == b"" and not transport.is_closing()
        end(transport, peer)

    run(main())


# What fails


@pytest.mark.parametrize("failure", ["end", "view", "waiter", "no buffer"])
def test_delivery_fails(run: Any, failure: str) -> None:
    class Waiter:
        def cancelled(self) -> bool:
            raise ValueError("no waiter")

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        reader, protocol, transport, peer = await connect()
        await ask_once(reader, peer)
        held = None
        if failure == "end":
            reader.feed_eof()
        elif failure == "view":
            reader.feed_data(b"seen")
            held = memoryview(reader._buffer)
        elif failure == "waiter":
            reader._waiter = Waiter()
        else:
            del reader._buffer
        peer.sendall(b"too late")
        context = await log.first()
        assert context["message"] == "Fatal error: protocol.data_received() call failed."
        assert context["protocol"] is protocol and context["transport"] is transport
        kinds = {"end": AssertionError, "view": BufferError, "waiter": ValueError, "no buffer": AttributeError}
        assert isinstance(context["exception"], kinds[failure])
        assert transport.is_closing()
        del held
        peer.close()
        await turns()

    run(main())


def test_another_protocol_and_back(run: Any) -> None:
    async def main() -> None:
        reader, protocol, transport, peer = await connect()
        await ask_once(reader, peer)
        recorder = Recorder()
        transport.set_protocol(recorder)
        peer.sendall(b"recorded")
        assert await recorder.until_received(8) == b"recorded"
        transport.set_protocol(protocol)
        await ask_once(reader, peer, b"read")
        end(transport, peer)

    run(main())


@pytest.mark.parametrize("size", [1, 40_000, 400_000])
def test_sizes(run: Any, size: int) -> None:
    async def main() -> None:
        data = bytes(range(251)) * (size // 251 + 1)
        reader, _, transport, peer = await connect(limit=1 << 20)
        loop = asyncio.get_running_loop()
        peer.setblocking(False)
        for _ in range(3):
            sending = asyncio.ensure_future(loop.sock_sendall(peer, data[:size]))
            assert await soon(reader.readexactly(size)) == data[:size]
            await soon(sending)
        end(transport, peer)

    run(main())
