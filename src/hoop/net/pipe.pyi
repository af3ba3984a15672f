"""Types of what the Python modules of hoop use of the compiled pipe transports."""

import asyncio
from typing import Any

from hoop.loop_methods.base_loop import BaseLoop

def make_read_pipe(
    reactor: BaseLoop,
    pipe: Any,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None = None,
) -> asyncio.ReadTransport: ...
def make_write_pipe(
    reactor: BaseLoop,
    pipe: Any,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None = None,
) -> asyncio.WriteTransport: ...
