"""Applications of aiohttp.web."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, cast

from aiohttp import web

import hoop
from hoop.adapters.end import serve_until_cancelled
from hoop.adapters.serving import ServingWorker
from hoop.adapters.target import TargetError, application_traceback, in_a_line
from hoop.loop_methods.ageing import random_age

LIVEZ, READYZ = "/livez", "/readyz"


async def serve(application: web.Application, worker: ServingWorker) -> None:
    """See hoop.adapters.serving. As hoop.asgi.Lifecycle for ASGI: while the loop drains, answers end their connections.

    So does the answer on a connection that has reached its max_connection_age. /livez and /readyz are answered where
    the application does not know them.
    """
    ages = Ages()

    async def on_response_prepare(request: web.BaseRequest, response: web.StreamResponse) -> None:
        worker.count_request()
        is_last = hoop.is_draining() or ages.is_old(request.transport)
        if is_last and response.headers.get("Connection", "").lower() != "upgrade":
            response.force_close()
            response.headers["Connection"] = "close"  # by now aiohttp has written what it thought

    application.on_response_prepare.append(on_response_prepare)
    application.middlewares.append(web.middleware(health))
    options: dict[str, Any] = {} if worker.access_log else {"access_log": None}
    runner = Runner(application, handle_signals=False, **options)
    ending = asyncio.Event()

    def end(seconds: float | None) -> None:
        runner.seconds_left = seconds
        ending.set()

    await serve_until_cancelled(serve_until(ending, runner, worker), worker.drain, end)


class Ages:
    """How old connections are, from their first answer on: aiohttp's own protocols cannot be asked to drain."""

    def __init__(self) -> None:
        loop = cast("hoop.Loop", asyncio.get_running_loop())
        limits = loop.server_defaults.limits
        self._time = loop.time
        self._age_s = None if limits is None else limits.max_connection_age
        self._due: weakref.WeakKeyDictionary[asyncio.Transport, float] = weakref.WeakKeyDictionary()

    def is_old(self, transport: asyncio.Transport | None) -> bool:
        """Whether its age is reached."""
        if self._age_s is None or transport is None:
            return False
        now = self._time()
        due = self._due.get(transport)
        if due is None:
            due = self._due[transport] = now + random_age(self._age_s)
        return now >= due


class Runner(web.AppRunner):
    """Waits as long as the drain allows for handlers that outlive their connections."""

    seconds_left: float | None = None

    async def shutdown(self) -> None:
        await super().shutdown()
        if self.server is not None:
            await self.server.shutdown(self.seconds_left)


async def serve_until(ending: asyncio.Event, runner: Runner, worker: ServingWorker) -> None:
    await start(runner, worker.start_timeout)
    try:
        for sock in worker.sockets:
            await web.SockSite(runner, sock, ssl_context=worker.ssl, backlog=worker.backlog).start()
        worker.ready()
        await ending.wait()
    finally:
        await runner.cleanup()


async def start(runner: web.AppRunner, timeout: float | None) -> None:
    """TargetError if the application's start-up fails, or takes longer."""
    try:
        async with asyncio.timeout(timeout) as limit:
            await runner.setup()
    except Exception as error:
        text = f"the application failed to start: {in_a_line(error)}"
        if limit.expired():
            text = f"the application did not start: its start-up was not through after {timeout:g} s"
        raise TargetError(text, application_traceback(error)) from error


async def health(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path not in (LIVEZ, READYZ) or request.method not in ("GET", "HEAD"):
        answer: web.StreamResponse = await handler(request)
        return answer
    if request.path == READYZ and hoop.is_draining():
        return web.Response(text="not ready\n", status=503)
    try:
        answer = await handler(request)
    except web.HTTPNotFound:
        return web.Response(text="ok\n")
    return web.Response(text="ok\n") if answer.status == web.HTTPNotFound.status_code else answer
