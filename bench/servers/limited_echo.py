"""As protocol_echo, with an idle timeout on every connection: what hoop.Limits cost. On hoop only."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import hoop

from bench.servers.protocol_echo import Echo
from bench.servers.serving import BACKLOG, run_server, wait_for_ever

LIMITS = hoop.Limits(idle_timeout=60)  # longer than any measurement: nothing expires


async def serve(listener: socket.socket) -> None:
    loop: Any = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sock=listener, backlog=BACKLOG, limits=LIMITS)
    await wait_for_ever()
    server.close()


if __name__ == "__main__":
    run_server(serve)
