"""Echo over TLS 1.3 with asyncio.Protocol. The protocol is the plain one: TLS is the loop's work."""

from __future__ import annotations

import asyncio
import socket
import ssl

from bench.build import TLS_FILE
from bench.servers.protocol_echo import Echo
from bench.servers.serving import BACKLOG, run_server, wait_for_ever


def server_context() -> ssl.SSLContext:
    """What a server offers by default, with the benchmark's own certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS_FILE)
    return context


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Echo, sock=listener, backlog=BACKLOG, ssl=server_context())
    await wait_for_ever()
    server.close()


if __name__ == "__main__":
    run_server(serve)
