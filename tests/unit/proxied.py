"""Servers behind a balancer, of every kind: headers, and peers that begin with them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator
from typing import Any

import hoop
import pytest
from conformance.peers import LOCALHOST, off_loop, read_until_gone, soon, turns
from conformance.tls_peers import wrap_client
from hoop.proxy_protocol import encode
from limited import KINDS, Served, serving

SOURCE, DESTINATION = ("203.0.113.7", 4711), ("198.51.100.1", 443)
HEADERS = {
    "v1": encode(SOURCE, DESTINATION, version=1),
    "v2": encode(SOURCE, DESTINATION),
    "v2-tlvs": encode(SOURCE, DESTINATION, authority="host.example", checksum=True),
    "v2-large": encode(SOURCE, DESTINATION, tlvs=[(0xE0, bytes(65000))]),
}
PLAIN = ["tcp", "unix", "handles", "unix-handles"]
every_kind = pytest.mark.parametrize("kind", list(KINDS))
every_plain_kind = pytest.mark.parametrize("kind", PLAIN)
every_header = pytest.mark.parametrize("header", HEADERS.values(), ids=list(HEADERS))


@contextlib.asynccontextmanager
async def proxied(kind: str = "tcp", limits: hoop.Limits | None = None, **options: Any) -> AsyncIterator[Any]:
    """A server of some kind with PROXY protocol, by the defaults of its loop."""
    loop: Any = asyncio.get_running_loop()
    loop.server_defaults.proxy_protocol = hoop.ProxyProtocol(trusted=[LOCALHOST], **options)
    async with serving(kind, limits) as served:
        yield served


async def arrive(served: Served, first: bytes) -> tuple[Any, Any]:
    """A peer that begins with these bytes (with TLS: which are in clear), and the server's connection to it."""
    count = len(served.connections)
    raw = served.connect()
    await off_loop(raw.sendall, first)
    peer = await off_loop(functools.partial(wrap_client, raw)) if served.is_tls else raw
    await soon(served.until(lambda: len(served.connections) > count))
    return peer, served.connections[count]


def info(connection: Any, name: str) -> Any:
    transport = connection.transport
    return getattr(transport, "transport", transport).get_extra_info(name)


async def is_closed(peer: socket.socket) -> bool:
    return await off_loop(read_until_gone, peer) == b""


def counts(served: Served) -> tuple[int, int, int]:
    stats = served.stats()
    return stats.refused_untrusted, stats.invalid_proxy_headers, stats.proxy_header_timeouts


async def until_active(served: Served, count: int = 1) -> None:
    while served.stats().active < count:
        await asyncio.sleep(0)
    await turns()
