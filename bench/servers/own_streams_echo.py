"""Echo with the streams that come with the loop: hoop's compiled ones on hoop, asyncio's on every other loop."""

from __future__ import annotations

import asyncio
import socket

from bench.servers.serving import BACKLOG, run_server, wait_for_ever
from bench.servers.streams_echo import Handler, echo, serve_with_asyncio_streams


async def serve_with_own_streams(listener: socket.socket, handler: Handler) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    if type(loop).__module__.partition(".")[0] != "hoop":
        await serve_with_asyncio_streams(listener, handler)
        return
    import hoop

    server = await hoop.start_server(handler, sock=listener, backlog=BACKLOG)
    await wait_for_ever()
    server.close()


if __name__ == "__main__":
    run_server(lambda listener: serve_with_own_streams(listener, echo))
