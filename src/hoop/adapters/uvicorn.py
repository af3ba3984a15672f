"""ASGI applications by uvicorn."""

from __future__ import annotations

import contextlib
import logging
from socket import socket
from typing import Any

import uvicorn

from hoop.adapters.asgi_application import ServedApplication
from hoop.adapters.end import serve_until_cancelled
from hoop.adapters.serving import ServingWorker
from hoop.adapters.target import TargetError


class Server(uvicorn.Server):
    """Tells the worker when it serves, and leaves signals to it."""

    def __init__(self, config: uvicorn.Config, worker: ServingWorker) -> None:
        super().__init__(config)
        self._worker = worker

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._worker.ready()


async def serve(application: Any, worker: ServingWorker) -> None:
    """See hoop.adapters.serving."""
    served = ServedApplication(application, start_timeout=worker.start_timeout, on_request=worker.count_request)
    server = Server(configuration(served, worker), worker)

    def end(seconds: float | None) -> None:
        server.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]
        server.should_exit = True

    await serve_until_cancelled(until_exit(server, served, worker), worker.drain, end)


async def until_exit(server: Server, served: ServedApplication, worker: ServingWorker) -> None:
    logger = logging.getLogger("uvicorn.error")

    def is_news(record: logging.LogRecord) -> bool:
        return served.failure is None

    logger.addFilter(is_news)  # the worker tells why the application has not started
    try:
        await server.serve(sockets=list(worker.sockets))
    except SystemExit:  # uvicorn's way to tell that the lifespan has failed
        raise served.failure or TargetError("uvicorn gave up at its start") from None
    finally:
        logger.removeFilter(is_news)


def configuration(served: ServedApplication, worker: ServingWorker) -> uvicorn.Config:
    config = uvicorn.Config(
        served,
        interface="asgi3",
        loop="none",
        backlog=worker.backlog,
        log_config=None,
        access_log=worker.access_log,
    )
    config.load()
    config.ssl = worker.ssl
    return config
