"""Finalizers under `-W error`: a warning that raises must not keep a descriptor open. Release comes first."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from conformance.test_lifetime import open_descriptors
from conformance.tls_peers import NAME, client_context, server_context

Scenario = Callable[[asyncio.AbstractEventLoop, Any], Coroutine[Any, Any, Any]]


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[type[BaseException]]]:
    """What finalizers have raised. Nothing but the warnings may be among it."""
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
    yield told
    assert set(told) <= {ResourceWarning}


async def stream(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    return await loop.create_connection(asyncio.Protocol, sock=peer)


async def paused_stream(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    transport, protocol = await loop.create_connection(asyncio.Protocol, sock=peer)
    transport.pause_reading()
    return transport, protocol


async def stream_that_gave_its_socket(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=peer)
    return transport.get_extra_info("socket")


async def stream_with_unsent_bytes(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    transport, protocol = await loop.create_connection(asyncio.Protocol, sock=peer)
    transport.write(bytes(4 << 20))
    return transport, protocol


async def streams(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    return await asyncio.open_connection(sock=peer)


async def accepted_and_server(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    accepted: asyncio.Future[Any] = loop.create_future()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            accepted.set_result(transport)

    server = await loop.create_server(Accepted, "127.0.0.1", 0)
    client, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    return server, client, await accepted


async def tls(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server_context())
    address = server.sockets[0].getsockname()
    return server, await loop.create_connection(asyncio.Protocol, *address, ssl=client_context(), server_hostname=NAME)


async def datagrams(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    return await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))


async def pipes(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> Any:
    reading, writing = os.pipe()
    return [
        await loop.connect_read_pipe(asyncio.Protocol, open(reading, "rb", 0)),
        await loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb", 0)),
    ]


async def nothing(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> None:
    loop.call_soon_threadsafe(int)


SCENARIOS = [
    nothing,
    stream,
    paused_stream,
    stream_that_gave_its_socket,
    stream_with_unsent_bytes,
    streams,
    accepted_and_server,
    tls,
    datagrams,
    pipes,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_an_abandoned_loop_leaks_nothing_although_warnings_raise(loop_factory, scenario, unraisable):
    gc.collect()
    before = open_descriptors()
    left, right = socket.socketpair()
    left.setblocking(False)
    with right, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        loop = loop_factory()
        kept = loop.run_until_complete(scenario(loop, left))
        assert len(open_descriptors()) > len(before) + 2
        del loop, kept, left
        gc.collect()
        gc.collect()
    assert open_descriptors() == before
    assert ResourceWarning in unraisable


def test_an_unowned_transport_leaks_nothing_although_warnings_raise(loop, unraisable):
    """With its loop alive: a transport that nobody reads from is collected, in asyncio, too."""
    loop.run_until_complete(asyncio.sleep(0))  # what a loop opens when it first runs is open
    gc.collect()
    before = open_descriptors()
    left, right = socket.socketpair()
    left.setblocking(False)
    with right, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        kept = loop.run_until_complete(paused_stream(loop, left))
        del kept, left
        gc.collect()
        loop.run_until_complete(asyncio.sleep(0))
        gc.collect()
    assert open_descriptors() == before
    assert ResourceWarning in unraisable


def test_a_childs_pipes_are_closed_although_warnings_raise(loop_factory, loop_name, unraisable):
    if loop_name == "asyncio":
        pytest.skip("asyncio leaks the pidfd")
    gc.collect()
    before = open_descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        loop = loop_factory()
        kept = loop.run_until_complete(
            loop.subprocess_exec(asyncio.SubprocessProtocol, sys.executable, "-c", "input()")
        )
        pid = kept[0].get_pid()
        del loop, kept
        gc.collect()
        gc.collect()
    after = open_descriptors()
    os.waitpid(pid, 0)  # its standard input has ended
    assert after == before


def test_an_abandoned_child_is_killed_although_warnings_raise(loop_factory, loop_name, unraisable):
    if loop_name == "asyncio":
        pytest.skip("asyncio warns before it kills")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        loop = loop_factory()
        program = "import signal; signal.pause()"
        kept = loop.run_until_complete(loop.subprocess_exec(asyncio.SubprocessProtocol, sys.executable, "-c", program))
        pid = kept[0].get_pid()
        del loop, kept
        gc.collect()
        gc.collect()
    assert ResourceWarning in unraisable
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
