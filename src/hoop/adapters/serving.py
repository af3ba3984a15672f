"""The servers that a worker can run an application by. Each is a module beside this one, with one function:

    async def serve(application, worker) -> None

It serves on worker.sockets, calls worker.ready() once clients are answered, and goes on until it is cancelled. By then
the worker has drained its loop; what is left is the end of the application, and of the server itself.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from socket import socket
from typing import Any, Protocol

from hoop.adapters.target import TargetError, is_aiohttp, is_protocol_factory
from hoop.drain import Drain


class ServingWorker(Protocol):
    """What an adapter needs of the worker that it serves for."""

    @property
    def sockets(self) -> Sequence[socket]:
        """Bound and listening; the adapter must not close the last descriptor of them that others serve on."""
        ...

    @property
    def ssl(self) -> ssl.SSLContext | None:
        """For TLS on all of them."""
        ...

    @property
    def backlog(self) -> int:
        """Length of the kernel's queue: a server that calls listen() anew must not shorten it."""
        ...

    @property
    def drain(self) -> Drain:
        """How the worker will end."""
        ...

    @property
    def start_timeout(self) -> float | None:
        """Seconds that the application's own start may take from now on."""
        ...

    @property
    def access_log(self) -> bool:
        """Whether each request makes a line of log."""
        ...

    def ready(self) -> None:
        """Clients are answered from now on."""
        ...

    @property
    def count_request(self) -> Callable[[], object]:
        """To be called when the application begins to answer one more request; each request pays for what it does."""
        ...


Serve = Callable[[Any, ServingWorker], Awaitable[None]]

PACKAGE_OF = {"uvicorn": "uvicorn", "hypercorn": "hypercorn", "aiohttp": "aiohttp"}


def serve_by(server: str, application: Any) -> Serve:
    """The adapter of that name. TargetError if the server is not installed, or is none for such an application."""
    if server == "aiohttp" and not is_aiohttp(application):
        raise TargetError(f"server aiohttp serves an aiohttp.web.Application, not {application!r}")
    if server in ("uvicorn", "hypercorn") and (is_aiohttp(application) or is_protocol_factory(application)):
        raise TargetError(f"server {server} serves an ASGI application, not {application!r}")
    if not callable(application):
        raise TargetError(f"server {server} needs a callable, not {application!r}")
    try:
        module = importlib.import_module(f"hoop.adapters.{server}")
    except ModuleNotFoundError as error:
        if error.name != PACKAGE_OF.get(server):
            raise
        raise TargetError(f"server {server} is not installed: pip install {server}") from None
    serve: Serve = module.serve
    return serve
