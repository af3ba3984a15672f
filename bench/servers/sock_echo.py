"""Echo with loop.sock_recv and loop.sock_sendall: one task for each connection, no transport."""

from __future__ import annotations

import asyncio
import socket

from bench.servers.serving import run_server

READ_SIZE = 64 * 1024  # bytes


async def echo(connection: socket.socket) -> None:
    """Send back what is received until the end of the stream."""
    loop = asyncio.get_running_loop()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while data := await loop.sock_recv(connection, READ_SIZE):
            await loop.sock_sendall(connection, data)


async def serve(listener: socket.socket) -> None:
    """Accept for ever."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    while True:
        connection, _address = await loop.sock_accept(listener)
        task = loop.create_task(echo(connection))
        tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    run_server(serve)
