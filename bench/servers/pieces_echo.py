"""Messages of ten short pieces through asyncio's streams: as lines_echo, but each piece is read by its size."""

from __future__ import annotations

import asyncio
import socket

from bench.servers.lines_echo import LINES
from bench.servers.serving import BACKLOG, run_server, wait_for_ever
from bench.workloads import LINE


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write each message back, until the end of the stream."""
    try:
        while True:
            message = [await reader.readexactly(LINE) for _ in range(LINES)]
            writer.writelines(message)
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    finally:
        writer.close()


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    server = await asyncio.start_server(echo, sock=listener, backlog=BACKLOG)
    await wait_for_ever()
    server.close()


if __name__ == "__main__":
    run_server(serve)
