"""ASGI applications by hypercorn: HTTP/1 and, over TLS, HTTP/2."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

import hypercorn.asyncio
import hypercorn.config

from hoop.adapters.asgi_application import ServedApplication
from hoop.adapters.end import serve_until_cancelled
from hoop.adapters.serving import ServingWorker
from hoop.adapters.target import TargetError


class Config(hypercorn.config.Config):
    """Takes sockets and the TLS context from the worker, and leaves logging to the application."""

    def __init__(self, worker: ServingWorker) -> None:
        self._worker = worker
        self.backlog: int = worker.backlog
        self.accesslog: logging.Logger | None = logging.getLogger("hypercorn.access") if worker.access_log else None
        self.errorlog: logging.Logger | str | None = logging.getLogger("hypercorn.error")
        self.startup_timeout: Any = None  # ServedApplication has the limit

    @property
    def ssl_enabled(self) -> bool:
        return self._worker.ssl is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        context = self._worker.ssl
        if context is not None:
            context.set_alpn_protocols(self.alpn_protocols)
        return context

    def create_sockets(self) -> hypercorn.config.Sockets:
        """Duplicates: hypercorn closes them, and the worker's are not its own."""
        sockets = [sock.dup() for sock in self._worker.sockets]
        return hypercorn.config.Sockets(sockets if self.ssl_enabled else [], [] if self.ssl_enabled else sockets, [])


async def serve(application: Any, worker: ServingWorker) -> None:
    """See hoop.adapters.serving."""
    served: Any = ServedApplication(application, start_timeout=worker.start_timeout, on_request=worker.count_request)
    config = Config(worker)
    ending = asyncio.Event()

    async def shutdown_trigger() -> None:  # hypercorn waits for it once it listens
        worker.ready()
        await ending.wait()

    def end(seconds: float | None) -> None:
        config.graceful_timeout = seconds  # type: ignore[assignment]  # wait_for() knows None
        ending.set()

    async def serving() -> None:
        try:
            await hypercorn.asyncio.serve(served, config, shutdown_trigger=shutdown_trigger, mode="asgi")
        except Exception as error:
            if served.failure is None:
                raise
            raise served.failure from error
        if served.failure is not None:
            raise served.failure
        if not ending.is_set():
            raise TargetError("hypercorn ended by itself")

    await serve_until_cancelled(serving(), worker.drain, end)
