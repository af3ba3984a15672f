"""Echo with the streams that come with the loop: hoop's compiled ones on hoop, asyncio's on every other loop."""

from __future__ import annotations

import asyncio
import socket

from bench.servers.serving import BACKLOG, run_server, wait_for_ever
from bench.servers.streams_echo import echo


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    if type(loop).__module__.partition(".")[0] == "hoop":
        import hoop

        server = await hoop.start_server(echo, sock=listener, backlog=BACKLOG)
    else:
        server = await asyncio.start_server(echo, sock=listener, backlog=BACKLOG)
    await wait_for_ever()
    server.close()


if __name__ == "__main__":
    run_server(serve)
