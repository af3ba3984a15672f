"""Connections whose other end the test reads while the callback that has written still runs."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from typing import Any

from conformance.peers import DEADLINE_S, Recorder, connected
from conformance.tls_peers import tls_connected

PATIENCE_S = 5.0
KINDS = ("tcp", "unix", "tls")


@contextlib.asynccontextmanager
async def opened(kind: str):
    """(transport, the blocking socket at its other end)"""
    protocol = Recorder()
    if kind == "tls":
        transport, peer = await tls_connected(protocol)
    elif kind == "tcp":
        transport, peer = await connected(protocol)
    else:
        ours, peer = socket.socketpair()
        peer.settimeout(DEADLINE_S)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
    try:
        yield transport, peer
    finally:
        transport.abort()
        await protocol.until_lost()
        peer.close()


def seen(peer: Any, patience_s: float = PATIENCE_S) -> bool:
    """Whether something can be read, now or soon. Blocks."""
    if isinstance(peer, ssl.SSLSocket) and peer.pending():
        return True
    fd = peer if isinstance(peer, int) else peer.fileno()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return poller.poll(patience_s * 1000) != []
