"""The queue of chunks against a model, through what it serves: a StreamReader, and the writing half of a transport.

The model of a reader is one sentence: what was fed and not yet read is one string of bytes, from whose front each read
takes. That of a transport: what the peer has read, what the kernel has and what `_buffer` shows are, in this order,
what was written.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import hoop
import pytest
from conformance.peers import turns
from hypothesis import given, settings
from hypothesis import strategies as st

# Few letters, so that separators begin in one chunk and end in another.
CHUNKS = st.binary(max_size=6).map(lambda data: bytes(b"ab\n"[byte % 3] for byte in data))
READER_STEPS = st.one_of(
    st.tuples(st.just("feed"), CHUNKS),
    st.tuples(st.just("feed"), CHUNKS),
    st.tuples(st.just("read"), st.integers(0, 20)),
    st.tuples(st.just("readexactly"), st.integers(0, 20)),
    st.tuples(st.just("readuntil"), st.sampled_from([b"\n", b"ab", b"a\nb"])),
    st.tuples(st.just("readuntil"), st.just(b"\n")),
    st.tuples(st.just("look"), st.none()),
)
SIZES = st.one_of(st.integers(0, 100), st.integers(4000, 20_000))
WRITER_STEPS = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("view"), SIZES),
    st.tuples(st.just("writelines"), st.lists(SIZES, max_size=80)),
    st.tuples(st.just("peer reads"), st.integers(1, 50_000)),
    st.tuples(st.just("wait"), st.integers(1, 3)),
)


@pytest.fixture
def loop_name() -> str:
    return "hoop"


def expected(unread: bytes, name: str, argument: Any) -> bytes | None:
    """What a read returns at once; None if it would wait."""
    if name == "read":
        return unread[:argument] if unread or argument == 0 else None
    if name == "readexactly":
        return unread[:argument] if len(unread) >= argument else None
    found = unread.find(argument)
    return unread[: found + len(argument)] if found >= 0 else None


async def started(reader: hoop.StreamReader, name: str, argument: Any) -> bytes:
    data: bytes = await getattr(reader, name)(argument)
    return data


async def drive_reader(steps: list[tuple[str, Any]]) -> None:
    reader = hoop.StreamReader()
    unread = b""
    waiting: tuple[str, Any, asyncio.Task[bytes]] | None = None  # a read that had to wait
    for name, argument in steps:
        if name == "feed":
            reader.feed_data(argument)
            unread += argument
            await turns(2)
        elif name == "look":
            assert bytes(reader._buffer) == unread  # type: ignore[attr-defined]
        elif waiting is None:
            waiting = (name, argument, asyncio.create_task(started(reader, name, argument)))
            await turns(1)
        if waiting is not None:
            answer = expected(unread, *waiting[:2])
            assert waiting[2].done() == (answer is not None)
            if answer is not None:
                taken = await waiting[2]
                assert type(taken) is bytes and taken == answer
                unread = unread[len(answer) :]
                waiting = None
    if waiting is not None:
        waiting[2].cancel()
        await turns(2)
    reader.feed_eof()
    assert reader.at_eof() == (not unread)
    assert await reader.read() == unread
    assert reader.at_eof()


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(READER_STEPS, max_size=30))
def test_a_reader(steps: list[tuple[str, Any]]) -> None:
    hoop.run(drive_reader(steps))


def test_a_whole_chunk_is_handed_out_as_it_came() -> None:
    async def main() -> None:
        reader = hoop.StreamReader()
        first, second = b"first" * 10, b"second" * 10
        reader.feed_data(first)
        reader.feed_data(second)
        assert await reader.read(len(first)) is first
        assert await reader.readexactly(len(second)) is second

    hoop.run(main())


class Written:
    """Bytes that tell their place, however they are cut."""

    def __init__(self) -> None:
        self.all = b""

    def next(self, size: int) -> bytes:
        begin = len(self.all) // 4
        data = b"".join(number.to_bytes(4, "big") for number in range(begin, begin + size // 4 + 2))
        data = data[len(self.all) % 4 :][:size]
        self.all += data
        return data


async def drive_transport(steps: list[tuple[str, Any]]) -> None:
    ours, peer = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.setblocking(False)
    transport: Any
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=ours)
    written = Written()
    read = b""
    for name, argument in steps:
        if name == "write":
            transport.write(written.next(argument))
        elif name == "view":
            data = written.next(argument + 2)
            transport.write(data[:1])
            transport.write(memoryview(data)[1:-1])
            transport.write(bytearray(data[-1:]))
        elif name == "writelines":
            transport.writelines([written.next(size) for size in argument])
        elif name == "wait":
            await turns(argument)
        else:
            try:
                read += peer.recv(argument)
            except BlockingIOError:
                await turns(1)
        held = b"".join(transport._buffer)
        assert written.all.startswith(read) and written.all.endswith(held)
        assert len(read) + len(held) <= len(written.all)
        assert len(held) >= transport.get_write_buffer_size()  # which sends what was only deferred
    transport.close()
    while len(read) < len(written.all):
        try:
            read += peer.recv(100_000)
        except BlockingIOError:
            await turns(1)
    assert read == written.all
    peer.close()
    await turns(3)


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(WRITER_STEPS, max_size=25))
def test_a_transport(steps: list[tuple[str, Any]]) -> None:
    hoop.run(drive_transport(steps))
