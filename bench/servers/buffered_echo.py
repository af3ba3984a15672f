"""Echo with asyncio.BufferedProtocol: received into the protocol's own buffer, a copy of it written back."""

from __future__ import annotations

import asyncio
from typing import cast

from bench.servers.serving import run_server, serve_protocol

BUFFER_SIZE = 256 * 1024  # bytes


class BufferedEcho(asyncio.BufferedProtocol):
    """One buffer for each connection, as an application with its own parser has."""

    __slots__ = ("buffer", "transport", "view")

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        # A copy: the buffer is filled again before the transport has sent what it could not send at once.
        self.transport.write(bytes(self.view[:nbytes]))


if __name__ == "__main__":
    run_server(lambda listener: serve_protocol(listener, BufferedEcho))
