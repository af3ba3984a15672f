"""Messages of ten short pieces through asyncio's streams: as lines_echo, but each piece is read by its size."""

from __future__ import annotations

import asyncio

from bench.servers.lines_echo import LINES
from bench.servers.serving import run_server
from bench.servers.streams_echo import serve_with_asyncio_streams
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


if __name__ == "__main__":
    run_server(lambda listener: serve_with_asyncio_streams(listener, echo))
