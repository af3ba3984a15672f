"""What orchestrators, balancers and collectors of metrics ask a cluster: /livez, /readyz and /metrics, answered by the
master, at an address for them.

So the answer comes though every worker is busy, and one blocked worker is replaced instead of the whole machine. Not a
web server: one answer for each connection, from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from hoop.cluster.binds import Bind, UnixBind, open_bind
from hoop.limits import Limits
from hoop.prometheus import CONTENT_TYPE

Page = Callable[[], tuple[int, str]]  # the status, and a text

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
REASONS |= {500: "Internal Server Error", 503: "Service Unavailable"}
TYPES = {"/metrics": CONTENT_TYPE}
PLAIN = "text/plain; charset=utf-8"
METHODS = (b"GET", b"HEAD")
LARGEST_HEAD = 8192
BACKLOG = 128
LIMITS = Limits(max_connections=128, idle_timeout=5.0, header_timeout=5.0)

logger: logging.Logger = logging.getLogger("hoop.cluster")


class HealthServer:
    """pages: what is answered, by path."""

    def __init__(self, bind: Bind, pages: Mapping[str, Page]) -> None:
        self._bind = bind
        self._pages = pages
        self._sockets: list[socket.socket] = []
        self._servers: list[Any] = []

    def open(self) -> None:
        """Listen. OSError with the address in its text."""
        self._sockets = open_bind(self._bind, BACKLOG)

    async def start(self) -> None:
        """Answer, in the running loop."""
        loop: Any = asyncio.get_running_loop()
        make = loop.create_unix_server if isinstance(self._bind, UnixBind) else loop.create_server
        for sock in self._sockets:
            self._servers.append(await make(lambda: HealthProtocol(self._pages), sock=sock, limits=LIMITS))

    def addresses(self) -> list[str]:
        """As clients reach it."""
        return [shown(sock) for sock in self._sockets]

    def close(self) -> None:
        """Idempotent."""
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        if isinstance(self._bind, UnixBind) and self._sockets and not self._bind.path.startswith("\0"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._bind.path)
        self._servers, self._sockets = [], []


class HealthProtocol(asyncio.Protocol):
    """One request."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._head = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
            self._answer(*answer_to(self._head, self._pages))
        elif len(self._head) > LARGEST_HEAD:
            self._answer(400, "the head of the request is too large", True)

    def _answer(self, status: int, text: str, has_body: bool, content_type: str = PLAIN) -> None:
        body = f"{text}\n".encode()
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self._transport.pause_reading()
        self._transport.write(head.encode() + (body if has_body else b""))
        self._transport.close()


def answer_to(head: bytes, pages: Mapping[str, Page]) -> tuple[int, str, bool, str]:
    """The status, the text, whether the text is sent, and its type."""
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    target, _, version = rest.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        return 400, "no request of HTTP/1", True, PLAIN
    if method not in METHODS:
        return 405, "GET or HEAD", True, PLAIN
    path = target.partition(b"?")[0].decode("latin-1")
    if path not in pages:
        return 404, f"there is {', '.join(sorted(pages))}", method == b"GET", PLAIN
    try:
        return *pages[path](), method == b"GET", TYPES.get(path, PLAIN)
    except Exception:  # no question may end the master
        logger.exception("%s cannot be answered", path)
        return 500, "the log of the cluster says why", method == b"GET", PLAIN


def shown(sock: socket.socket) -> str:
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{os.fsdecode(name).replace(chr(0), '@', 1)}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"
