"""The reason that connection_lost() gets: what the peer did, or what came first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conformance.peers import (
    HandlerLog,
    Recorder,
    congested,
    connected,
    reset,
    turns,
)

MIB = 1024 * 1024


def test_peer_closes(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        _, peer = await connected(protocol)
        peer.close()
        assert await protocol.until_lost() is None

    run(main())


def test_peer_resets_while_idle(run: Any) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        protocol = Recorder()
        transport, peer = await connected(protocol)
        reset(peer)
        assert isinstance(await protocol.until_lost(), ConnectionResetError)
        assert protocol.names == ["connection_made", "connection_lost"]
        assert transport.is_closing()
        assert log == []  # an everyday event, not an error of the program

    run(main())


def test_write_eof_to_a_peer_that_has_reset(run: Any, loop_name: str) -> None:
    """shutdown(2) calls that ENOTCONN."""

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        reset(peer)
        try:
            transport.write_eof()
        except OSError:
            transport.abort()
            if loop_name == "asyncio":
                pytest.xfail("std: write_eof() raises ENOTCONN")
            raise
        assert isinstance(await protocol.until_lost(), ConnectionResetError)

    run(main())


def test_peer_resets_in_mid_write(run: Any) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        protocol = Recorder()
        transport, peer, _ = await congested(protocol, at_least=100_000)
        reset(peer)
        assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))
        await turns()
        assert protocol.names == ["connection_made", "pause_writing", "connection_lost"]
        assert transport.get_write_buffer_size() == 0
        assert log == []

    run(main())


def test_peer_resets_in_mid_write_while_reading_is_paused(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, _ = await congested(protocol)
        transport.pause_reading()
        reset(peer)
        assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))

    run(main())


def test_trap_13_peer_resets_after_close(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer, _ = await congested(protocol)
        transport.close()
        reset(peer)
        assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))
        await turns()
        assert protocol.count("connection_lost") == 1

    run(main())


def test_trap_13_the_first_cause_stays(run: Any) -> None:
    error = LookupError("the first cause")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

        def fail(protocol: Recorder, data: bytes) -> None:
            protocol.hooks["data_received"] = lambda protocol, data: None
            asyncio.get_running_loop().call_soon(protocol.transport.abort)
            raise error

        protocol = Recorder(data_received=fail)
        transport, peer = await connected(protocol)
        peer.sendall(b"x")
        await protocol.until_called("data_received")
        transport.close()
        assert await protocol.until_lost() is error
        peer.close()

        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.abort()
        reset(peer)
        transport.write(b"x")
        assert await protocol.until_lost() is None

    run(main())
