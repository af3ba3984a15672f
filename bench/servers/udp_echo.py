"""Echo with asyncio.DatagramProtocol: what is received goes back to its sender."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from bench.servers.serving import bound_on_loopback, run_server, wait_for_ever


class Echo(asyncio.DatagramProtocol):
    """No flow control: the load generator bounds what is in flight."""

    __slots__ = ("transport",)

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def serve(sock: socket.socket) -> None:
    """Serve for ever."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=sock)
    await wait_for_ever()
    transport.close()


if __name__ == "__main__":
    run_server(serve, bound_on_loopback)
