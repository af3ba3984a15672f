"""Server: what closing does, which calls wait for it, and what becomes of the connections, per Python version."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import weakref
from typing import Any

import pytest
from conformance.peers import (
    DEADLINE_S,
    LOCALHOST,
    Clients,
    Recorder,
    address_of,
    closed,
    dial,
    echo,
    off_loop,
    open_descriptors,
    read_to_end,
    turns,
)

needs_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 does not wait")
needs_3_13 = pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")


def test_close_is_idempotent_and_refuses_new_connections(run: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
        address = address_of(server)
        server.close()
        server.close()
        assert not server.is_serving() and server.sockets == ()
        with pytest.raises(ConnectionRefusedError):
            dial(address)
        await closed(server)
        await closed(server)

    run(main())


def test_close_leaves_connections_alone(run: Any) -> None:
    async def main() -> None:
        clients = Clients(data_received=echo)
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peer = dial(address_of(server))
        protocol = await clients.until_made()
        server.close()
        peer.sendall(b"still served")
        assert await off_loop(peer.recv, 100) == b"still served"
        peer.close()
        await protocol.until_lost()

    run(main())


@needs_3_12
def test_trap_19_wait_closed_waits_for_the_last_connection(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peers = [dial(address_of(server)) for _ in range(2)]
        await clients.until_made(2)
        waiting = asyncio.ensure_future(server.wait_closed())
        await turns()
        assert not waiting.done()  # not closed yet
        server.close()
        await turns()
        assert not waiting.done()  # closed, but connections are left
        by_address = {protocol.transport.get_extra_info("peername"): protocol for protocol in clients.protocols}
        first = by_address[peers[0].getsockname()]
        peers[0].close()
        await first.until_lost()
        await turns()
        assert not waiting.done()  # one is left
        peers[1].close()
        await asyncio.wait_for(waiting, DEADLINE_S)
        assert all(protocol.count("connection_lost") == 1 for protocol in clients.protocols)

    run(main())


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.11's rule")
def test_wait_closed_of_3_11_returns_at_once_when_closed(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peer = dial(address_of(server))
        protocol = await clients.until_made()
        server.close()
        await closed(server)
        assert protocol.count("connection_lost") == 0
        peer.close()
        await protocol.until_lost()

    run(main())


@needs_3_12
def test_trap_19_wait_closed_of_an_open_server_waits(run: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
        waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(2)]
        await turns()
        assert not any(task.done() for task in waiting)
        server.close()
        await asyncio.wait_for(asyncio.gather(*waiting), DEADLINE_S)

    run(main())


@needs_3_13
def test_trap_19_close_clients_delivers_what_is_buffered(run: Any) -> None:
    size = 4 * 1024 * 1024

    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peers = [dial(address_of(server)) for _ in range(3)]
        await clients.until_made(3)
        for protocol in clients.protocols:
            protocol.transport.write(bytes(size))
        server.close()
        server.close_clients()
        assert all(protocol.transport.is_closing() for protocol in clients.protocols)
        for peer in peers:
            assert len(await off_loop(read_to_end, peer)) == size
            peer.close()
        await closed(server)
        assert [protocol.lost_with for protocol in clients.protocols] == [None] * 3

    run(main())


@needs_3_13
def test_trap_19_abort_clients_drops_what_is_buffered(run: Any) -> None:
    size = 16 * 1024 * 1024

    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peer = dial(address_of(server))
        protocol = await clients.until_made()
        protocol.transport.write(bytes(size))
        server.close()
        server.abort_clients()
        await closed(server)
        assert protocol.lost_with is None
        assert len(await off_loop(read_to_end, peer)) < size
        peer.close()
        server.close_clients()  # nobody left
        server.abort_clients()

    run(main())


@needs_3_13
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_trap_19_a_client_that_was_never_read_from_is_closed_too(run: Any, how: str) -> None:
    async def main() -> None:
        clients = Clients(connection_made=lambda protocol, transport: transport.pause_reading())
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peer = dial(address_of(server))
        protocol = await clients.until_made()
        await turns()
        server.close()
        getattr(server, how)()
        assert protocol.transport.is_closing()
        await closed(server)
        assert await off_loop(read_to_end, peer) == b""
        peer.close()

    run(main())


@needs_3_13
def test_trap_19_a_collected_transport_does_not_hold_wait_closed(run: Any) -> None:
    class Forgetful(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(weakref.ref(transport))
            transport.pause_reading()  # from here on nobody needs it

    made: list[weakref.ref[Any]] = []

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Forgetful, LOCALHOST, 0)
        peer = dial(address_of(server))
        await turns()  # hoop's transport is in no cycle: it may be gone at once
        gc.collect()
        await turns()
        assert await off_loop(peer.recv, 1) == b""
        server.close()
        await closed(server)
        peer.close()

    # Around the loop, not in the task: without a GIL the filters of warnings are the context's, and hoop's warning may
    # come between callbacks.
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        run(main())
    gc.collect()  # what was warned of has it, as the source
    assert made[0]() is None


def test_async_with(run: Any) -> None:
    async def main() -> None:
        async with await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0) as server:
            assert server.is_serving()
        assert not server.is_serving()

    run(main())


def test_trap_19_serve_forever_cancelled(run: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0, start_serving=False)
        serving = asyncio.ensure_future(server.serve_forever())
        await turns()
        assert server.is_serving() and not serving.done()
        with pytest.raises(RuntimeError, match="already being awaited on serve_forever"):
            await server.serve_forever()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(serving, DEADLINE_S)
        assert not server.is_serving() and server.sockets == ()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    run(main())


@needs_3_13
def test_trap_19_serve_forever_cancelled_while_a_client_hangs(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio" and sys.version_info < (3, 14):
        pytest.skip("std waits for the client for ever")

    async def main() -> None:
        protocol = Recorder()
        server = await asyncio.get_running_loop().create_server(lambda: protocol, LOCALHOST, 0)
        serving = asyncio.ensure_future(server.serve_forever())
        with socket.create_connection(server.sockets[0].getsockname()):
            await protocol.until_called("connection_made")
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(serving, DEADLINE_S)
            assert await protocol.until_lost() is None

    run(main())


def test_trap_19_close_ends_serve_forever(run: Any) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
        serving = asyncio.ensure_future(server.serve_forever())
        await turns()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(serving, DEADLINE_S)

    run(main())


def test_close_with_connections_in_the_queue(run: Any) -> None:
    async def main() -> None:
        before = open_descriptors()
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, LOCALHOST, 0)
        peers = [dial(address_of(server)) for _ in range(5)]
        server.close()  # in the same turn: nothing has been accepted
        await turns()
        for protocol in clients.protocols:
            protocol.transport.abort()
        await turns()
        for peer in peers:
            peer.close()
        await closed(server)
        assert open_descriptors() <= before

    run(main())
