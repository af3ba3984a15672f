"""A file of 1 MiB over HTTP by loop.sendfile(), which may not copy it: without os.sendfile() it raises."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from typing import cast

from bench.servers.serving import run_server, serve_protocol

SIZE = 1 << 20  # bytes
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode()
END_OF_REQUEST = b"\r\n\r\n"


class FileServer(asyncio.Protocol):
    """Each request is answered with the same file; the client sends the next one when it has that."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "rb")  # noqa: SIM115  (closed with the connection)
        self.received = b""
        self.transport: asyncio.Transport
        self.sending: asyncio.Task[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(END_OF_REQUEST):
            self.received = b""
            self.transport.write(HEAD)
            loop = asyncio.get_running_loop()
            self.sending = loop.create_task(loop.sendfile(self.transport, self.file, 0, SIZE, fallback=False))
            self.sending.add_done_callback(self.sent)

    def sent(self, sending: asyncio.Task[int]) -> None:
        """A loop that cannot do it says so by the end of the connection."""
        if not sending.cancelled() and sending.exception() is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.file.close()


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(SIZE))
        file.flush()
        await serve_protocol(listener, lambda: FileServer(file.name))


if __name__ == "__main__":
    run_server(serve)
