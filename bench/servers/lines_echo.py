"""Messages of ten short lines through asyncio's streams: read line by line, answered at once. Redis' protocol is so."""

from __future__ import annotations

import asyncio

from bench.servers.serving import run_server
from bench.servers.streams_echo import serve_with_asyncio_streams

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


if __name__ == "__main__":
    run_server(lambda listener: serve_with_asyncio_streams(listener, echo))
