"""After a read that filled its room a connection is read again in the same turn: how often, what comes between."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from typing import Any

import hoop
import pytest
from conformance.peers import BufferedRecorder, HandlerLog, Recorder, Recording, connected, pattern, turns

LARGEST = 256 * 1024
MOST_READS = 4
MIB = 1024 * 1024


class Reading(Recording):
    """Notes in which turn of the loop each piece came."""

    largest = LARGEST  # bytes of a piece after which the connection is read again

    def begin(self, loop: hoop.Loop) -> None:
        self.loop = loop
        self.pieces: list[tuple[int, int]] = []
        self.ticks: list[int] = []

    def note(self, size: int) -> None:
        self.pieces.append((self.loop.metrics().turns, size))
        self.loop.next_tick(lambda: self.ticks.append(len(self.pieces)))

    def in_turns(self) -> list[list[int]]:
        """The sizes of the pieces, by turn."""
        found: dict[int, list[int]] = {}
        for turn, size in self.pieces:
            found.setdefault(turn, []).append(size)
        return list(found.values())


class BytesReading(Reading, Recorder):
    def __init__(self, loop: hoop.Loop, on_piece: Callable[..., Any] | None = None) -> None:
        super().__init__(**({"data_received": on_piece} if on_piece else {}))
        self.begin(loop)

    def data_received(self, data: bytes) -> None:
        self.note(len(data))
        super().data_received(data)


class BufferedReading(Reading, BufferedRecorder):
    """Into a buffer of its own."""

    def __init__(self, loop: hoop.Loop, on_piece: Callable[..., Any] | None = None, size: int = LARGEST) -> None:
        super().__init__(size, **({"buffer_updated": on_piece} if on_piece else {}))
        self.begin(loop)
        self.largest = size

    def buffer_updated(self, nbytes: int) -> None:
        self.note(nbytes)
        super().buffer_updated(nbytes)


MAKERS = {
    "bytes": BytesReading,
    "buffer": BufferedReading,
    "small-buffer": functools.partial(BufferedReading, size=64 * 1024),
    "large-buffer": functools.partial(BufferedReading, size=MIB),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Reading]:
    return MAKERS[request.param]


def fill(peer: socket.socket, data: bytes) -> int:
    """Send as much as the kernel takes."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += peer.send(data[sent : sent + MIB])
    return sent


async def transferred(protocol: Reading, size: int) -> bytes:
    """Have a peer send size bytes, as fast as they are received; returns what was sent."""
    transport, peer = await connected(protocol)
    peer.setblocking(False)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
    data = pattern(size)
    sent = 0
    while sent < size or sum(piece for _, piece in protocol.pieces) < sent:
        sent += fill(peer, data[sent:])
        if not transport.is_reading():
            transport.resume_reading()
        await turns(1)
        if transport.is_closing():
            break
    transport.abort()
    peer.close()
    await protocol.until_lost()
    return data[:sent]


def test_full_reads_follow_one_another(make: Callable[..., Reading]) -> None:
    async def main() -> None:
        protocol = make(asyncio.get_running_loop())
        sent = await transferred(protocol, 24 * MIB)
        assert protocol.data == sent
        for sizes in protocol.in_turns():
            assert len(sizes) <= MOST_READS
            assert all(size == protocol.largest for size in sizes[:-1])
        if protocol.largest <= LARGEST:  # more than that need not fit into the kernel's buffer
            assert max(map(len, protocol.in_turns())) > 1
        assert protocol.ticks == list(range(1, len(protocol.pieces) + 1))  # microtasks run after each

    hoop.run(main())


def test_a_buffer_that_is_full_because_it_is_small_is_filled_once_a_turn() -> None:
    async def main() -> None:
        protocol = BufferedReading(asyncio.get_running_loop(), size=64 * 1024 - 1)  # type: ignore[arg-type]
        sent = await transferred(protocol, 4 * MIB)
        assert protocol.data == sent
        assert all(len(sizes) == 1 for sizes in protocol.in_turns())

    hoop.run(main())


def test_pause_ends_it(make: Callable[..., Reading]) -> None:
    async def main() -> None:
        protocol = make(asyncio.get_running_loop(), lambda self, _: self.transport.pause_reading())
        sent = await transferred(protocol, 8 * MIB)
        assert protocol.data == sent
        assert all(len(sizes) == 1 for sizes in protocol.in_turns())

    hoop.run(main())


@pytest.mark.parametrize("ending", ["close", "abort", "raise"])
def test_end_of_the_connection_ends_it(ending: str, make: Callable[..., Reading]) -> None:
    def end(self: Reading, _piece: Any) -> None:
        if self.pieces[-1][1] == self.largest:
            if ending == "raise":
                raise ValueError("enough")
            getattr(self.transport, ending)()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        protocol = make(loop, end)
        sent = await transferred(protocol, 24 * MIB)
        assert sent.startswith(protocol.data)
        assert [size for _, size in protocol.pieces].count(protocol.largest) <= 1
        assert len(log) == (ending == "raise" and protocol.pieces[-1][1] == protocol.largest)

    hoop.run(main())
