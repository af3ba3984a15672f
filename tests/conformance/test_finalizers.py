"""Finalizers under `-W error`: a warning that raises must not keep a descriptor open. Release comes first."""

from __future__ import annotations

import asyncio
import contextlib
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


class Closing:
    """Garbage that closes its transport when it is collected."""

    transport: Any = None

    def __del__(self) -> None:
        self.transport.close()


class Unwatched(asyncio.Protocol):
    """A protocol in a cycle with its transport, and with two that close it: one made before it, and one after, so that
    one of them is collected before the transport, whichever way the collector goes."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.closing = [Closing(), Closing()]

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.closing.append(Closing())
        for closing in self.closing:
            closing.transport = transport
        transport.get_extra_info("socket")  # where there is one, garbage that closes the descriptor itself

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(exc)


class Unread(Unwatched):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.pause_reading()


async def connected_unread(loop: asyncio.AbstractEventLoop, calls: list[Any], peer: socket.socket) -> None:
    await loop.create_connection(lambda: Unread(calls), sock=peer)


async def accepted_unread(loop: asyncio.AbstractEventLoop, calls: list[Any], peer: socket.socket) -> None:
    server = await loop.create_server(lambda: Unread(calls), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()):
        while not calls:
            await asyncio.sleep(0)
    server.close()


async def unread_pipe(loop: asyncio.AbstractEventLoop, calls: list[Any], peer: socket.socket) -> None:
    await loop.connect_read_pipe(lambda: Unread(calls), peer)


async def unwatched_pipe(loop: asyncio.AbstractEventLoop, calls: list[Any], peer: socket.socket) -> None:
    await loop.connect_write_pipe(lambda: Unwatched(calls), open(os.devnull, "wb", 0))


@pytest.mark.usefixtures("can_pause_anywhere")
@pytest.mark.parametrize(
    "connect", [connected_unread, accepted_unread, unread_pipe, unwatched_pipe], ids=lambda connect: connect.__name__
)
def test_a_transport_that_a_finalizer_of_the_same_garbage_closes_is_lost_once(loop, connect):
    """The transport's own finalizer comes between close() and connection_lost()."""
    calls: list[Any] = []
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    left, right = socket.socketpair()
    left.setblocking(False)
    gc.collect()
    gc.disable()
    try:
        with left, right, warnings.catch_warnings(), contextlib.ExitStack() as others:
            warnings.simplefilter("ignore")
            loop.run_until_complete(connect(loop, calls, left))
            loop.run_until_complete(asyncio.sleep(0))
            assert calls == ["made"]
            gc.collect()
            # One of these has the number of a descriptor that the collector has closed, if it has.
            files = [others.enter_context(open(os.devnull, "rb", 0)) for _ in range(10)]
            loop.run_until_complete(asyncio.sleep(0))
            assert [file.read() for file in files] == [b""] * len(files)
    finally:
        gc.enable()
    assert (calls, reports) == (["made", None], [])
