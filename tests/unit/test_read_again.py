"""After a read of the largest size a connection is read again in the same turn: how often, and what comes between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import hoop
import pytest
from conformance.peers import HandlerLog, Recorder, connected, pattern, turns

LARGEST = 256 * 1024
MOST_READS = 4
MIB = 1024 * 1024


class Reading(Recorder):
    """Notes in which turn of the loop each piece came."""

    def __init__(self, loop: hoop.Loop, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.loop = loop
        self.pieces: list[tuple[int, int]] = []
        self.ticks: list[int] = []

    def data_received(self, data: bytes) -> None:
        self.pieces.append((self.loop.metrics().turns, len(data)))
        self.loop.next_tick(lambda: self.ticks.append(len(self.pieces)))
        super().data_received(data)

    def in_turns(self) -> list[list[int]]:
        """The sizes of the pieces, by turn."""
        found: dict[int, list[int]] = {}
        for turn, size in self.pieces:
            found.setdefault(turn, []).append(size)
        return list(found.values())


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


def test_reads_of_the_largest_size_follow_one_another() -> None:
    async def main() -> None:
        protocol = Reading(asyncio.get_running_loop())  # type: ignore[arg-type]
        sent = await transferred(protocol, 24 * MIB)
        assert protocol.data == sent
        for sizes in protocol.in_turns():
            assert len(sizes) <= MOST_READS
            assert all(size == LARGEST for size in sizes[:-1])
        assert protocol.ticks == list(range(1, len(protocol.pieces) + 1))  # microtasks run after each

    hoop.run(main())


def test_pause_ends_it() -> None:
    async def main() -> None:
        protocol = Reading(asyncio.get_running_loop(), data_received=lambda self, _: self.transport.pause_reading())  # type: ignore[arg-type]
        sent = await transferred(protocol, 8 * MIB)
        assert protocol.data == sent
        assert all(len(sizes) == 1 for sizes in protocol.in_turns())

    hoop.run(main())


@pytest.mark.parametrize("ending", ["close", "abort", "raise"])
def test_end_of_the_connection_ends_it(ending: str) -> None:
    def end(self: Reading, _data: bytes) -> None:
        if self.pieces[-1][1] == LARGEST:
            if ending == "raise":
                raise ValueError("enough")
            getattr(self.transport, ending)()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        log = HandlerLog(loop)
        protocol = Reading(loop, data_received=end)  # type: ignore[arg-type]
        sent = await transferred(protocol, 24 * MIB)
        assert sent.startswith(protocol.data)
        assert [size for _, size in protocol.pieces].count(LARGEST) <= 1
        assert len(log) == (ending == "raise" and protocol.pieces[-1][1] == LARGEST)

    hoop.run(main())
