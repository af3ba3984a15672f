"""What the tests of socket handles share: a log of events, and waiting for one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import hoop
from conformance.peers import DEADLINE_S


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


def dial(server: hoop.SocketServer) -> socket.socket:
    return socket.create_connection(server.address, DEADLINE_S)


async def until(predicate: Callable[[], bool]) -> None:
    """For what a callback does that tells nobody: look once a turn."""
    while not predicate():
        await asyncio.sleep(0)
