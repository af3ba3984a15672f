"""asyncio's StreamReader behind a transport against the same reader that is fed by hand.

The model is asyncio's own feed_data(). What random reads of a reader return, raise and leave is the same whether a
transport's bytes come over a socket or the same pieces are fed, and so is when it pauses its transport.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from conformance.peers import soon, tcp_pair, turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loop_factories import loop_factory_named

READS = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 300)),
    st.tuples(st.just("readexactly"), st.integers(0, 300)),
    st.tuples(st.just("readline"), st.none()),
)
PIECES = st.tuples(st.just("piece"), st.text("ab\n", min_size=1, max_size=200).map(str.encode))


@dataclass
class Script:
    """What one example does: pieces that arrive and reads that begin, one after the other."""

    limit: int
    steps: list[tuple[str, Any]]
    attribute: bool  # whether the program has given the reader one of its own
    ends: bool


SCRIPTS = st.builds(
    Script,
    limit=st.sampled_from([1, 20, 100, 65536]),
    steps=st.lists(st.one_of(PIECES, PIECES, READS), max_size=12),
    attribute=st.booleans(),
    ends=st.booleans(),
)


class FedTransport(asyncio.Transport):
    """In place of a socket's: it keeps what it may not deliver."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self.reader = reader
        self.is_paused = False
        self.held = b""
        self.has_ended = False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False
        asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self) -> None:
        held, self.held = self.held, b""
        if self.is_paused:
            self.held = held
            return
        if held:
            self.reader.feed_data(held)
        if self.has_ended and not self.is_paused and not self.reader._eof:  # type: ignore[attr-defined]
            self.reader.feed_eof()

    async def arrive(self, data: bytes) -> None:
        self.held += data
        self.deliver()

    async def end(self) -> None:
        self.has_ended = True
        self.deliver()


class Wire:
    """A real transport with the reader, and the socket at the other end."""

    async def open(self, reader: Any) -> None:
        loop = asyncio.get_running_loop()
        ours, self.peer = tcp_pair()
        self.transport, _ = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), sock=ours
        )

    async def arrive(self, data: bytes) -> None:
        self.peer.sendall(data)

    async def end(self) -> None:
        self.peer.close()


async def outcome(reading: asyncio.Task[bytes]) -> Any:
    try:
        return await soon(reading)
    except (asyncio.IncompleteReadError, ValueError, RuntimeError) as error:
        return type(error).__name__, str(error)


async def settled(reader: Any) -> None:
    """Until what has been sent has arrived, or stays in the socket because the reader is paused."""
    former = None
    while former != (len(reader._buffer), reader._paused, reader._eof, reader._waiter is None):
        former = (len(reader._buffer), reader._paused, reader._eof, reader._waiter is None)
        await turns(8)


async def perform(script: Script, reader: Any, wire: Any) -> list[Any]:
    log: list[Any] = []
    reading: asyncio.Task[bytes] | None = None
    if script.attribute:
        reader.mine = True
    for kind, argument in script.steps:
        if kind == "piece":
            await wire.arrive(argument)
        elif reading is None:
            method = getattr(reader, kind)
            reading = asyncio.ensure_future(method() if argument is None else method(argument))
        await settled(reader)
        if reading is not None and reading.done():
            log.append(await outcome(reading))
            reading = None
        log.append((bytes(reader._buffer), reader._paused, reader._waiter is None))
    if script.ends:
        await wire.end()
        await settled(reader)
    if reading is not None:
        if not script.ends:
            reading.cancel()
            await asyncio.wait([reading])
        else:
            log.append(await outcome(reading))
    log.append((bytes(reader._buffer), reader._eof))
    return log


async def over_a_socket(script: Script) -> list[Any]:
    reader = asyncio.StreamReader(limit=script.limit, loop=asyncio.get_running_loop())
    wire = Wire()
    await wire.open(reader)
    log = await perform(script, reader, wire)
    wire.transport.abort()
    wire.peer.close()
    return log


async def by_hand(script: Script) -> list[Any]:
    reader = asyncio.StreamReader(limit=script.limit, loop=asyncio.get_running_loop())
    transport = FedTransport(reader)
    reader.set_transport(transport)
    return await perform(script, reader, transport)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(script=SCRIPTS)
def test_reader_behind_a_transport(loop_name: str, script: Script) -> None:
    with asyncio.Runner(loop_factory=loop_factory_named(loop_name)) as runner:
        assert runner.run(over_a_socket(script)) == runner.run(by_hand(script))
