"""Protocol factories: what loop.create_server() takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hoop.adapters.serving import ServingWorker


async def serve(factory: Callable[[], asyncio.BaseProtocol], worker: ServingWorker) -> None:
    """See hoop.adapters.serving. A protocol that has a method drain_requested() is told of the drain.

    What a request is, only the protocol knows: it may call hoop.cluster.worker.count_request().
    """
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(factory, sock=sock, ssl=worker.ssl, backlog=worker.backlog) for sock in worker.sockets
    ]
    worker.ready()
    try:
        await loop.create_future()
    finally:
        for server in servers:
            server.close()
