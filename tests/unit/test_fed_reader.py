"""Where hoop leaves out the Python functions on the way to asyncio's StreamReader, and where it must not."""

from __future__ import annotations

import asyncio
import sys
from asyncio import streams
from typing import Any

import hoop
import pytest
from conformance.peers import soon, tcp_pair

ON_THE_WAY = {"data_received", "feed_data", "_wakeup_waiter"}


async def functions_called(reader: Any, peer: Any) -> set[str]:
    """Which Python functions run while bytes arrive that a read waits for."""
    called = set()
    reading = asyncio.ensure_future(reader.read(100))
    await asyncio.sleep(0)
    sys.setprofile(lambda frame, event, argument: called.add(frame.f_code.co_name))
    try:
        peer.sendall(b"data")
        assert await soon(reading) == b"data"
    finally:
        sys.setprofile(None)
    return called & ON_THE_WAY


async def connect(reader: Any, protocol_class: Any = streams.StreamReaderProtocol) -> tuple[Any, Any]:
    loop = asyncio.get_running_loop()
    ours, peer = tcp_pair()
    transport, _ = await loop.create_connection(lambda: protocol_class(reader, loop=loop), sock=ours)
    return transport, peer


def test_no_python_function_on_the_way() -> None:
    async def main() -> None:
        reader: Any = streams.StreamReader()
        transport, peer = await connect(reader)
        assert await functions_called(reader, peer) == set()
        reader.mine = True  # an attribute that is no method on the way
        assert await functions_called(reader, peer) == set()
        transport.abort()
        peer.close()

    hoop.run(main())


def test_patch_is_called_and_its_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        reader = streams.StreamReader()
        transport, peer = await connect(reader)
        assert await functions_called(reader, peer) == set()
        original = streams.StreamReader.feed_data

        def feed_data(self: Any, data: bytes) -> None:
            original(self, data)

        monkeypatch.setattr(streams.StreamReader, "feed_data", feed_data)
        assert await functions_called(reader, peer) == ON_THE_WAY
        monkeypatch.undo()
        assert await functions_called(reader, peer) == set()
        transport.abort()
        peer.close()

    hoop.run(main())


def test_derived_protocol_is_called() -> None:
    class Protocol(streams.StreamReaderProtocol):
        pass

    async def main() -> None:
        reader = streams.StreamReader()
        transport, peer = await connect(reader, Protocol)
        assert await functions_called(reader, peer) == ON_THE_WAY
        transport.abort()
        peer.close()

    hoop.run(main())
