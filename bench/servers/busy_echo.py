"""Echo with asyncio.Protocol beside one thread that computes without a pause, and so wants the interpreter's lock."""

from __future__ import annotations

import socket
import threading

from bench.servers.protocol_echo import Echo
from bench.servers.serving import run_server, serve_protocol


def compute() -> None:
    """What never blocks: the thread gives the lock away only where the interpreter makes it."""
    number = 1
    while True:
        number = number * 48271 % 2147483647


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    threading.Thread(target=compute, daemon=True).start()
    await serve_protocol(listener, Echo)


if __name__ == "__main__":
    run_server(serve)
