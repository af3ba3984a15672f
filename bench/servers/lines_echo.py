"""Messages of ten short lines through asyncio's streams: read line by line, answered at once. Redis' protocol is so."""

from __future__ import annotations

import asyncio
import socket

from bench.servers.serving import BACKLOG, run_server, wait_for_ever

LINES = 10  # of a message


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write each message back, until the end of the stream."""
    try:
        while line := await reader.readline():
            message = [line]
            while len(message) < LINES:
                message.append(await reader.readline())
            writer.writelines(message)
            await writer.drain()
    finally:
        writer.close()


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    server = await asyncio.start_server(echo, sock=listener, backlog=BACKLOG)
    await wait_for_ever()
    server.close()


if __name__ == "__main__":
    run_server(serve)
