"""Types of what the Python modules of hoop use of the compiled datagram transport."""

import asyncio
import socket
from typing import Any

from hoop.loop_methods.base_loop import BaseLoop

def make_datagram(
    reactor: BaseLoop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    address: Any,
    waiter: asyncio.Future[None] | None = None,
) -> asyncio.DatagramTransport: ...
