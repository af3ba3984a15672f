"""Types of what the Python modules of hoop use of the compiled stream transport."""

import asyncio
import socket
from typing import Any

from hoop.loop_methods.base_loop import BaseLoop

def make_stream(
    reactor: BaseLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None = None,
    peer: Any = None,
    head: bytes | None = None,
) -> asyncio.Transport: ...
def request_drain(transport: asyncio.Transport) -> None: ...
