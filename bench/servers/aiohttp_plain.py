"""The page of uvicorn_plain with aiohttp's own server and its parser in C."""

from __future__ import annotations

import socket

from aiohttp import http_parser, web

from bench.servers.serving import BACKLOG, run_server, wait_for_ever

BODY = b"Hello, world!"


async def page(_request: web.Request) -> web.Response:
    """Answer every request with BODY."""
    return web.Response(body=BODY, content_type="text/plain")


async def serve(listener: socket.socket) -> None:
    """Serve for ever, with aiohttp's defaults, but without a log line for each request."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp's parser in C is missing here")
    application = web.Application()
    application.router.add_get("/", page)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    await wait_for_ever()
    await runner.cleanup()


if __name__ == "__main__":
    run_server(serve)
