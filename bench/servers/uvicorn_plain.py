"""Plain text over HTTP/1.1 with uvicorn and httptools: the smallest ASGI application, head and body sent apart."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from bench.servers.serving import BACKLOG, run_server

Message = MutableMapping[str, Any]

BODY = b"Hello, world!"


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer every request with BODY."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def make_server(served: Any = application) -> uvicorn.Server:
    """A server with uvicorn's defaults, but without a log line for each request."""
    config = uvicorn.Config(
        served, http="httptools", ws="none", lifespan="off", log_level="warning", access_log=False, backlog=BACKLOG
    )
    return uvicorn.Server(config)


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    await make_server().serve(sockets=[listener])


if __name__ == "__main__":
    run_server(serve)
