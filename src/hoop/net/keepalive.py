"""TCP keep-alive of a socket."""

from __future__ import annotations

import socket


def set_keepalive(sock: socket.socket, idle: int | None, interval: int | None, count: int | None) -> None:
    """Switch TCP keep-alive on if the caller gives any value. OSError for a value that the kernel refuses."""
    if idle is None and interval is None and count is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if idle is not None:
        option = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)  # macOS: the latter
        if option is None:
            raise ValueError(f"keepalive_idle={idle!r}: this Python has no name for the option on this system")
        sock.setsockopt(socket.IPPROTO_TCP, option, idle)
    if interval is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    if count is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
