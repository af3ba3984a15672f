"""A protocol that ends its connection, or raises, inside its own callbacks: waiting callers go on, and all ends once.

asyncio waits for ever in some of these places, and leaves the connection of a connection_made() that raised open; hoop
does neither. What is asserted for both loops is what both do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from conformance.peers import (
    LOCALHOST,
    BufferedRecorder,
    HandlerLog,
    Recorder,
    address_of,
    connected,
    off_loop,
    read_until_gone,
    soon,
    tcp_pair,
    turns,
)
from conformance.tls_peers import NAME, client_context, server_context, wrap_server

ENDS = ["abort", "close", "raise", "abort and raise"]
KINDS = ["tcp", "unix", "tls", "tls over unix"]


def ending(how: str) -> Callable[..., None]:
    """A hook that ends its protocol's connection."""

    def end(protocol: Any, *arguments: Any) -> None:
        if how == "close":
            protocol.transport.close()
        elif how.startswith("abort"):
            protocol.transport.abort()
        if how.endswith("raise"):
            raise ValueError("of the protocol")

    return end


async def server_of(kind: str, folder: Any, factory: Any) -> Any:
    loop = asyncio.get_running_loop()
    context = server_context() if "tls" in kind else None
    if "unix" in kind:
        return await loop.create_unix_server(factory, str(folder / "socket"), ssl=context)
    return await loop.create_server(factory, LOCALHOST, 0, ssl=context)


async def connect(kind: str, folder: Any, factory: Any, server: Any) -> Any:
    loop: Any = asyncio.get_running_loop()
    tls = {"ssl": client_context(), "server_hostname": NAME} if "tls" in kind else {}
    if "unix" in kind:
        return await soon(loop.create_unix_connection(factory, str(folder / "socket"), **tls))
    return await soon(loop.create_connection(factory, *address_of(server), **tls))


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("kind", KINDS)
def test_ending_it_inside_connection_made(
    run: Any, loop_name: str, kind: str, side: str, how: str, tmp_path: Any
) -> None:
    """create_connection returns or raises, both ends are told once; at most one report (uvloop#166 and its kin)."""
    if loop_name == "asyncio" and how == "raise":
        pytest.skip("asyncio leaves the connection of a connection_made() that raised open")
    if loop_name == "asyncio" and (side, how != "close", "tls" in kind) == ("client", True, True):
        pytest.skip("asyncio's server waits for a handshake that has been given up, a minute long")

    async def main() -> None:
        reports = HandlerLog(asyncio.get_running_loop())
        ends, bystander = Recorder(connection_made=ending(how)), Recorder()
        client, served = (ends, bystander) if side == "client" else (bystander, ends)
        server = await server_of(kind, tmp_path, lambda: served)
        failure = None
        try:
            await connect(kind, tmp_path, lambda: client, server)
        except (OSError, ValueError) as error:
            failure = error
        lost_with = await ends.until_lost()
        await turns()
        assert ends.count("connection_made") == ends.count("connection_lost") == 1
        if how == "raise":
            assert isinstance(lost_with, ValueError)
        else:
            assert lost_with is None
        if bystander.calls:  # with TLS it may never have been connected
            await bystander.until_lost()
        if failure is not None:
            assert isinstance(failure, ValueError if side == "client" else OSError)
            assert side == "server" or how == "raise"
        raised = [report for report in reports if str(report.get("exception")) == "of the protocol"]
        assert len(raised) == how.endswith("raise")
        server.close()
        await soon(server.wait_closed())

    run(main())


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("end", ["abort", "close"])
@pytest.mark.parametrize("peer", ["silent", "shakes hands"])
def test_start_tls_whose_transport_is_ended_meanwhile(run: Any, loop_name: str, peer: str, end: str) -> None:
    """The caller of start_tls learns of it (cpython#118950 is a sibling)."""
    if loop_name == "asyncio":
        pytest.skip("asyncio returns from start_tls() as if it had worked, and never calls connection_lost()")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        protocol = Recorder()
        transport, raw = await connected(protocol)
        shaking = asyncio.ensure_future(off_loop(wrap_server if peer != "silent" else read_until_gone, raw))
        loop.call_soon(getattr(transport, end))
        with pytest.raises(ConnectionError):  # aborted or, where wait_for() takes a turn, found closing
            await soon(loop.start_tls(transport, protocol, client_context(), server_hostname=NAME))
        assert await protocol.until_lost() is None
        await asyncio.gather(shaking, return_exceptions=True)
        raw.close()

    run(main())


class Odd(Exception):
    pass


def refuse(*arguments: Any) -> None:
    raise Odd("of the protocol")


def abort_and_refuse(protocol: Any, *arguments: Any) -> None:
    protocol.transport.abort()
    raise Odd("of the protocol")


def released(*arguments: Any) -> memoryview:
    view = memoryview(bytearray(10))
    view.release()
    return view


BUFFER_FAULTS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "get_buffer raises": ({"get_buffer": refuse}, Odd),
    "get_buffer returns None": ({"get_buffer": lambda *_: None}, TypeError),
    "get_buffer returns no room": ({"get_buffer": lambda *_: bytearray()}, RuntimeError),
    "get_buffer returns a number": ({"get_buffer": lambda *_: 100}, TypeError),
    "get_buffer returns bytes": ({"get_buffer": lambda *_: b"read only"}, (TypeError, BufferError)),  # type: ignore[dict-item]
    "get_buffer returns a released view": ({"get_buffer": released}, ValueError),
    "get_buffer returns every second byte": (
        {"get_buffer": lambda *_: memoryview(bytearray(10))[::2]},
        (BufferError, ValueError, TypeError),  # type: ignore[dict-item]
    ),
    "buffer_updated raises": ({"buffer_updated": refuse}, Odd),
    "get_buffer aborts and raises": ({"get_buffer": abort_and_refuse}, Odd),
    "buffer_updated aborts and raises": ({"buffer_updated": abort_and_refuse}, Odd),
}


def greet(peer: socket.socket) -> None:
    """Blocking: shake hands as a server and send something; the client may have ended it by then."""
    with contextlib.suppress(OSError):
        wrap_server(peer).sendall(b"data")


async def tls_talking(protocol: Any) -> tuple[Any, socket.socket]:
    """A TLS client that is sent something. asyncio asks for a buffer before the handshake's last bytes have left."""
    ours, peer = tcp_pair()
    greeting = asyncio.ensure_future(off_loop(greet, peer))
    transport, _ = await soon(
        asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=ours, ssl=client_context(), server_hostname=NAME
        )
    )
    await greeting
    return transport, peer


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("fault", BUFFER_FAULTS)
@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_a_buffered_protocol_that_fails(run: Any, loop_name: str, kind: str, fault: str) -> None:
    """The connection ends with what was raised, and it is reported once."""
    hooks, expected = BUFFER_FAULTS[fault]
    if (loop_name, kind, fault) == ("asyncio", "tls", "get_buffer returns no room"):
        pytest.skip("asyncio takes that for the end of the stream")

    async def main() -> None:
        reports = HandlerLog(asyncio.get_running_loop())
        protocol = BufferedRecorder(**hooks)
        if kind == "tls":
            transport, peer = await tls_talking(protocol)
        else:
            transport, peer = await connected(protocol)
            await off_loop(peer.sendall, b"data")
        lost_with = await protocol.until_lost()
        await turns()
        assert protocol.count("connection_lost") == 1
        assert transport.is_closing()
        (report,) = reports
        assert isinstance(report["exception"], expected), report
        assert report["transport"] is transport or kind == "tls"
        if "aborts" in fault:
            assert lost_with is None or isinstance(lost_with, expected)
        else:
            assert lost_with is report["exception"]
        await off_loop(peer.close)

    run(main())
