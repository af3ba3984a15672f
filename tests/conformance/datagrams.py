"""A datagram protocol that notes every callback, and raw peers for it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from conformance.peers import DEADLINE_S, LOCALHOST, Recording


class DatagramRecorder(Recording, asyncio.DatagramProtocol):
    """Hooks as for Recording; datagrams is what has been received, as (data, address)."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.datagrams: list[tuple[bytes, Any]] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.append((data, addr))
        self._called("datagram_received", data, addr)

    def error_received(self, exc: OSError) -> None:
        self._called("error_received", exc)

    @property
    def payloads(self) -> list[bytes]:
        return [data for data, _ in self.datagrams]

    async def until_received(self, size: int) -> Any:
        """Wait for a number of datagrams."""
        await self.until(lambda: len(self.datagrams) >= size)


async def endpoint(protocol: DatagramRecorder | None = None, **options: Any) -> tuple[Any, DatagramRecorder]:
    """create_datagram_endpoint of the running loop."""
    made = protocol if protocol is not None else DatagramRecorder()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, **options)
    return transport, made


def raw_udp() -> socket.socket:
    """A raw blocking UDP socket with a timeout, bound on the loopback."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOCALHOST, 0))
    sock.settimeout(DEADLINE_S)
    return sock
