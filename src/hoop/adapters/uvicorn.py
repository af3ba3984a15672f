"""ASGI applications by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Callable
from socket import socket
from typing import Any, cast

import uvicorn

import hoop
from hoop.adapters.asgi_application import ServedApplication
from hoop.adapters.end import serve_until_cancelled
from hoop.adapters.serving import ServingWorker
from hoop.adapters.target import TargetError
from hoop.asgi import CLOSE


class Server(uvicorn.Server):
    """Tells the worker when it serves, leaves signals to it, and says when it drains.

    uvicorn begins each answer with the headers of server_state.default_headers, which are new once in a second, and a
    request has those of the moment at which it came. Here they are always in one list, so that `connection: close`
    reaches the requests under way too, and those that come before the drain cost nothing.
    """

    def __init__(self, config: uvicorn.Config, worker: ServingWorker) -> None:
        super().__init__(config)
        self._worker = worker
        self._headers = self.server_state.default_headers
        self._is_draining = False

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._worker.ready()

    async def on_tick(self, counter: int) -> bool:
        should_exit = await super().on_tick(counter)
        headers = self.server_state.default_headers
        if headers is not self._headers:
            self._headers[:] = [*headers, CLOSE] if self._is_draining else headers
            self.server_state.default_headers = self._headers
        return should_exit

    def begin_to_drain(self) -> None:
        """From now on each answer says `connection: close`, and uvicorn ends the connection after it."""
        self._is_draining = True
        self._headers.append(CLOSE)


async def serve(application: Any, worker: ServingWorker) -> None:
    """See hoop.adapters.serving."""
    served = ServedApplication(
        application, start_timeout=worker.start_timeout, on_request=worker.count_request, says_close=False
    )
    server = Server(configuration(served, worker), worker)

    def end(seconds: float | None) -> None:
        server.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]
        server.should_exit = True

    await serve_until_cancelled(until_exit(server, served, worker), worker.drain, end, server.begin_to_drain)


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
        served.__call__,  # found once, not with each request
        interface="asgi3",
        loop="none",
        backlog=worker.backlog,
        log_config=None,
        access_log=worker.access_log,
    )
    config.load()
    config.ssl = worker.ssl
    limits = cast("hoop.Loop", asyncio.get_running_loop()).server_defaults.limits
    if limits is not None and limits.max_connection_age is not None and isinstance(config.http_protocol_class, type):
        config.http_protocol_class = with_close_when_old(config.http_protocol_class)
    if config.ws_protocol_class is not None:
        config.ws_protocol_class = without_close(config.ws_protocol_class)  # type: ignore[assignment]
    return config


def with_close_when_old(http: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """A protocol of HTTP/1 whose next answer says `connection: close` once hoop asks the connection to drain, which it
    does at its max_connection_age. While all drain, answers say so already."""

    def drain_requested(protocol: Any) -> None:
        state = protocol.server_state
        if CLOSE not in state.default_headers:
            protocol.server_state = copy.copy(state)
            protocol.server_state.default_headers = [*state.default_headers, CLOSE]

    return type(http.__name__, (http,), {"drain_requested": drain_requested})


def without_close(websocket: Callable[..., Any]) -> Callable[..., Any]:
    """A WebSocket's protocol, whose handshake has the headers of the server, too: there the connection goes on."""

    def protocol(*, server_state: Any, **others: Any) -> Any:
        state = copy.copy(server_state)
        state.default_headers = [header for header in server_state.default_headers if header != CLOSE]
        return websocket(server_state=state, **others)

    return protocol
