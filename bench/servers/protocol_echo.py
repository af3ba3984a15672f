"""Echo with asyncio.Protocol: what is received is written back as it came."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from bench.servers.serving import run_server, serve_protocol


class Echo(asyncio.Protocol):
    """No flow control: the load generator bounds what is in flight."""

    __slots__ = ("transport",)

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    await serve_protocol(listener, Echo)


if __name__ == "__main__":
    run_server(serve)
