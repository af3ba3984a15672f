"""What the reads and drain() of the compiled streams return: it must behave as the coroutines of the compiler."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import sys
import weakref
from collections.abc import Coroutine, Iterator
from typing import Any

import hoop
import pytest


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = hoop.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def reader(loop: asyncio.AbstractEventLoop) -> hoop.StreamReader:
    return hoop.StreamReader(limit=100, loop=loop)


def one_step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The value of a coroutine that has nothing to wait for."""
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    return caught.value.value


def test_it_is_a_coroutine_for_whoever_asks(reader: hoop.StreamReader) -> None:
    reader.feed_data(b"abc")
    coroutine = reader.read(2)
    assert isinstance(coroutine, collections.abc.Coroutine) and asyncio.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert "StreamReader.read" in repr(coroutine) and coroutine.__qualname__ == "StreamReader.read"
    assert one_step(coroutine) == b"ab"
    reader.feed_eof()
    assert one_step(reader.read(5)) == b"c"


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("read", (2,), b"ab"),
        ("readexactly", (3,), b"abc"),
        ("readuntil", (b";",), b"abc;"),
        ("readline", (), b"abc;\n"),
        ("__anext__", (), b"abc;\n"),
    ],
)
def test_every_read_is_such_a_coroutine(
    reader: hoop.StreamReader, name: str, arguments: tuple[Any, ...], answer: bytes
) -> None:
    waiting = getattr(reader, name)(*arguments)
    assert asyncio.iscoroutine(waiting) and waiting.__qualname__ == f"StreamReader.{name}"
    waiting.send(None)
    reader.feed_data(b"abc;\nabc")
    assert one_step(waiting) == answer


def test_lines_one_by_one(reader: hoop.StreamReader) -> None:
    reader.feed_data(b"one\ntwo\nth")
    reader.feed_data(b"ree\n")
    lines = aiter(reader)
    assert [one_step(anext(lines)) for _ in range(3)] == [b"one\n", b"two\n", b"three\n"]
    reader.feed_data(b"no end")
    reader.feed_eof()
    assert one_step(anext(lines)) == b"no end"
    with pytest.raises(StopAsyncIteration):
        anext(lines).__await__().__next__()


def test_readexactly_waits_once_and_pauses_nothing(reader: hoop.StreamReader) -> None:
    """It knows how much it needs: neither the coroutine nor the transport hears of the pieces."""
    transport: Any = PausingTransport()
    reader.set_transport(transport)
    coroutine = reader.readexactly(1000)  # ten times the limit
    future = coroutine.send(None)
    for _ in range(9):
        reader.feed_data(b"x" * 100)
        assert not future.done()
    assert transport.calls == []
    reader.feed_data(b"x" * 350)
    assert future.done() and transport.calls == ["pause"]
    assert one_step(coroutine) == b"x" * 1000 and transport.calls == ["pause"]
    assert one_step(reader.read(200)) == b"x" * 200 and transport.calls == ["pause", "resume"]


def test_an_error_that_follows_data_ends_a_read_that_needs_more(reader: hoop.StreamReader) -> None:
    """asyncio's reader would wait for ever."""
    coroutine = reader.readline()
    coroutine.send(None)
    reader.feed_data(b"half a line")
    reader.set_exception(ConnectionResetError("on purpose"))
    with pytest.raises(ConnectionResetError, match="on purpose"):
        coroutine.send(None)


class PausingTransport:
    """Notes what a reader asks of its transport."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


def test_it_runs_once(reader: hoop.StreamReader) -> None:
    reader.feed_data(b"abc")
    coroutine = reader.read(1)
    assert one_step(coroutine) == b"a"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)
    closed = reader.read(1)
    closed.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        closed.send(None)
    assert one_step(reader.read(5)) == b"bc"


def test_a_value_cannot_be_sent_to_one_that_has_not_begun(reader: hoop.StreamReader) -> None:
    coroutine = reader.read(1)
    with pytest.raises(TypeError, match="just-started coroutine"):
        coroutine.send(1)
    coroutine.close()


def test_waiting_and_going_on(loop: asyncio.AbstractEventLoop, reader: hoop.StreamReader) -> None:
    coroutine = reader.read(10)
    future = coroutine.send(None)
    assert asyncio.isfuture(future) and future._asyncio_future_blocking
    assert coroutine.cr_await is future
    reader.feed_data(b"came")
    assert one_step(coroutine) == b"came"


@pytest.mark.parametrize("how", ["throw", "close", "throw a class", "throw as of old"])
def test_one_that_is_given_up_lets_another_wait(reader: hoop.StreamReader, how: str) -> None:
    coroutine = reader.read(10)
    coroutine.send(None)
    second = reader.read(10)
    with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
        second.send(None)
    if how == "close":
        coroutine.close()
    else:
        with pytest.raises(asyncio.CancelledError, match="no" if how != "throw a class" else None):
            if how == "throw":
                coroutine.throw(asyncio.CancelledError("no"))
            elif how == "throw a class":
                coroutine.throw(asyncio.CancelledError)
            else:
                coroutine.throw(asyncio.CancelledError, asyncio.CancelledError("no"), None)
    third = reader.read(10)
    assert asyncio.isfuture(third.send(None))
    third.close()


def test_what_the_future_raises_is_raised(reader: hoop.StreamReader) -> None:
    coroutine = reader.read(10)
    coroutine.send(None)
    reader.set_exception(LookupError("on purpose"))
    with pytest.raises(LookupError, match="on purpose"):
        coroutine.send(None)
    with pytest.raises(LookupError, match="on purpose"):
        reader.read(10).send(None)


def test_reading_to_the_end_goes_through_another_coroutine(
    loop: asyncio.AbstractEventLoop, reader: hoop.StreamReader
) -> None:
    coroutine = reader.read()
    assert asyncio.isfuture(coroutine.send(None))
    reader.feed_data(b"first ")
    assert asyncio.isfuture(coroutine.send(None))
    reader.feed_data(b"last")
    assert asyncio.isfuture(coroutine.send(None))
    reader.feed_eof()
    assert one_step(coroutine) == b"first last"
    again = hoop.StreamReader(loop=loop).read()
    again.send(None)
    with pytest.raises(KeyError):
        again.throw(KeyError("thrown through"))
    again.close()


def test_only_one_that_never_began_warns(reader: hoop.StreamReader, recwarn: pytest.WarningsRecorder) -> None:
    reader.feed_data(b"abc")
    one_step(reader.read(1))
    reader.read(1).close()
    gc.collect()
    assert not recwarn.list
    with pytest.warns(RuntimeWarning, match="coroutine 'StreamReader.read' was never awaited"):
        reader.read(1)
        gc.collect()


def test_cycles_through_it_are_collected(loop: asyncio.AbstractEventLoop) -> None:
    reader = hoop.StreamReader(loop=loop)
    coroutine = reader.read(1)
    coroutine.send(None)
    reader.waiting = coroutine  # type: ignore[attr-defined]
    gone = weakref.ref(reader)
    del reader, coroutine
    gc.collect()
    assert gone() is None


def test_results_leave_no_references(reader: hoop.StreamReader) -> None:
    data = bytes(range(90))
    before = sys.getrefcount(data)
    for _ in range(50):
        reader.feed_data(data)
        assert one_step(reader.read(1000)) is data
    gc.collect()  # what pytest.raises() keeps
    assert sys.getrefcount(data) == before


def test_attributes_can_be_set(reader: hoop.StreamReader) -> None:
    assert vars(reader) == {}
    reader.note = "mine"  # type: ignore[attr-defined]
    assert vars(reader) == {"note": "mine"}
    with pytest.raises(AttributeError):
        _ = reader.other  # type: ignore[attr-defined]


def test_a_derived_protocol_and_a_patched_transport_are_asked() -> None:
    """The short ways are for what nobody has changed."""

    class Counting(hoop.StreamReaderProtocol):
        received = 0

        def data_received(self, data: bytes) -> None:
            self.received += len(data)
            super().data_received(data)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        echoing = await hoop.start_server(echo, "127.0.0.1", 0)
        reader = hoop.StreamReader(loop=loop)
        protocol = Counting(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, *echoing.sockets[0].getsockname())
        writer = hoop.StreamWriter(transport, protocol, reader, loop)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert protocol.received == 5
        written: list[bytes] = []
        transport.write = written.append
        writer.write(b"not sent")
        assert written == [b"not sent"]
        del transport.write
        writer.write(b"sent")
        await writer.drain()
        assert await reader.readexactly(4) == b"sent"
        writer.close()
        await writer.wait_closed()
        echoing.close()

    async def echo(reader: Any, writer: Any) -> None:
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()

    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 20))
