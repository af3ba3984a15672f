"""Echo with asyncio's streams: one handler task for each connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from bench.servers.serving import BACKLOG, run_server, wait_for_ever

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

READ_SIZE = 256 * 1024  # bytes


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write back what is read until the end of the stream."""
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def serve_with_asyncio_streams(listener: socket.socket, handler: Handler) -> None:
    """Serve for ever."""
    server = await asyncio.start_server(handler, sock=listener, backlog=BACKLOG)
    await wait_for_ever()
    server.close()


if __name__ == "__main__":
    run_server(lambda listener: serve_with_asyncio_streams(listener, echo))
