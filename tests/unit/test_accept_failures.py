"""A connection that fails while it is being accepted: its descriptor is closed once, its listener goes on.

Each failure is met twice: before the transport owns the descriptor, and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from hoop.net.stream import make_stream

DEADLINE_S = 60.0


class Accepting:
    """A server whose connections may fail, seen from a client that connects once at a time."""

    def __init__(self, loop: hoop.Loop, factory: Callable[[], Any], **arguments: Any) -> None:
        self.loop = loop
        self.reported: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.reported.append(context))
        self.server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0, **arguments))

    def dial(self) -> bytes:
        """What a client gets up to the end of its connection."""

        async def talk() -> bytes:
            reader, writer = await asyncio.open_connection(*self.server.sockets[0].getsockname())
            try:
                with contextlib.suppress(ConnectionError):
                    return await reader.read()
                return b"reset"
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        return self.loop.run_until_complete(asyncio.wait_for(talk(), DEADLINE_S))


class Hello(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


@pytest.fixture
def loop() -> Iterator[hoop.Loop]:
    with contextlib.closing(hoop.Loop()) as loop:
        yield loop


@pytest.fixture
def closings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[int]]]:
    """What stands on the numbers that have been free: a descriptor closed twice would take one of these away."""
    taken: list[int] = []

    def occupy() -> int:
        taken.append(os.open(os.devnull, os.O_RDONLY))
        return taken[-1]

    yield occupy  # type: ignore[misc]
    for fd in taken:
        os.close(fd)  # OSError: somebody else has closed it


class Awkward:
    """A protocol of which isinstance() cannot be asked: the transport fails to bind it."""

    @property
    def __class__(self) -> Any:
        raise LookupError("no class")


def test_a_factory_that_raises(loop: hoop.Loop) -> None:
    def factory() -> asyncio.Protocol:
        if not failed:
            failed.append(True)
            raise LookupError("no protocol")
        return Hello()

    failed: list[bool] = []
    accepting = Accepting(loop, factory)
    assert accepting.dial() in (b"", b"reset")
    assert accepting.dial() == b"hello"
    (report,) = accepting.reported
    assert isinstance(report["exception"], LookupError)
    assert accepting.server.stats().active == 0


def test_a_protocol_that_cannot_be_bound(loop: hoop.Loop) -> None:
    protocols: list[Any] = [Awkward(), Hello()]
    accepting = Accepting(loop, lambda: protocols.pop(0))
    assert accepting.dial() in (b"", b"reset")
    assert accepting.dial() == b"hello"
    (report,) = accepting.reported
    assert isinstance(report["exception"], LookupError)
    assert accepting.server.stats().active == 0


@pytest.mark.parametrize("limits", [None, hoop.Limits(max_connections=4, max_connections_per_host=4)])
def test_a_server_that_fails_to_count_a_connection(
    loop: hoop.Loop, closings: Callable[[], int], monkeypatch: pytest.MonkeyPatch, limits: hoop.Limits | None
) -> None:
    """The last step of adoption. Its number is taken at once by somebody else, whose descriptor must stay open."""
    accepting = Accepting(loop, Hello, limits=limits)
    attach = accepting.server._attach

    def failing(transport: Any = None) -> None:
        monkeypatch.setattr(accepting.server, "_attach", attach)
        raise LookupError("not counted")

    monkeypatch.setattr(accepting.server, "_attach", failing)
    loop.set_exception_handler(lambda _, context: (accepting.reported.append(context), closings()))
    assert accepting.dial() in (b"", b"reset")
    assert accepting.dial() == b"hello"
    (report,) = accepting.reported
    assert isinstance(report["exception"], LookupError)
    assert accepting.server.stats().active == 0


def test_descriptors_are_not_leaked_either(loop: hoop.Loop) -> None:
    protocols: list[Any] = [Awkward() for _ in range(8)]
    accepting = Accepting(loop, lambda: protocols.pop())
    accepting.dial()
    gc.collect()  # what earlier tests have left is not to go in between
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    while protocols:
        accepting.dial()
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_a_socket_that_could_not_be_adopted_is_closed(loop: hoop.Loop) -> None:
    """create_connection(sock=): whatever fails closes the socket, and only once."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(DEADLINE_S)
        with pytest.raises(LookupError):
            make_stream(loop, ours, Awkward())
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""
