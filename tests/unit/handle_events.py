"""What the tests of socket handles share: a log of events, waiting for one, and fixtures to import."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from conformance.peers import DEADLINE_S


@pytest.fixture
def loop_name() -> str:
    return "hoop"


@pytest.fixture
def problems(loop: Any) -> Iterator[list[dict[str, Any]]]:
    """What the exception handler was told: nothing, unless the test takes it away. And loop.run() ends in time."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    timer = loop.call_later(DEADLINE_S, loop.stop).unref()
    yield told
    timer.cancel()
    assert told == []


class Log(list[Any]):
    """The events of sockets, in order: (label, event, ...)."""

    def watch(self, handle: hoop.Socket, label: str, *, data: bool = True) -> hoop.Socket:
        handle.on_connect = lambda _: self.append((label, "connect"))
        if data:
            handle.on_data = lambda _, data: self.append((label, "data", data))
        handle.on_end = lambda _: self.append((label, "end"))
        handle.on_drain = lambda _: self.append((label, "drain"))
        handle.on_timeout = lambda _: self.append((label, "timeout"))
        handle.on_error = lambda _, error: self.append((label, "error", error))
        handle.on_close = lambda _: self.append((label, "close"))
        return handle

    def of(self, label: str) -> list[Any]:
        return [event[1:] if len(event) > 2 else event[1] for event in self if event[0] == label]


@pytest.fixture
def log() -> Log:
    return Log()


def dial(server: hoop.SocketServer) -> socket.socket:
    return socket.create_connection(server.address, DEADLINE_S)


async def until(predicate: Callable[[], bool]) -> None:
    """For what a callback does that tells nobody: look once a turn."""
    while not predicate():
        await asyncio.sleep(0)
