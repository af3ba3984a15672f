"""A web application by uvicorn that ends without losing a request.

    python examples/drained_web_server.py [PORT [DELAY]]

SIGTERM (or Ctrl-C): for DELAY seconds it serves on, but GET /readyz answers 503, so that a load balancer goes away;
then it accepts no more, answers what is under way with `connection: close`, runs the end of the application's lifespan,
and exits with status 0. A second signal ends it at once.
"""

import asyncio
import contextlib
import sys

import hoop
import uvicorn
from hoop.asgi import Lifecycle


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            print("started", flush=True)
            await send({"type": f"{message['type']}.complete"})
        print("the lifespan has ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        print("a slow request has begun", flush=True)
        await hoop.draining()  # stands for work that takes until then
    body = b"Hello, world!\n"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    def capture_signals(self):
        return contextlib.nullcontext()  # hoop.run() has the signals


async def main(port: int) -> None:
    server = Server(uvicorn.Config(Lifecycle(application), port=port, log_level="warning"))
    serving = asyncio.ensure_future(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:  # the drain is over: no connection is open
        server.should_exit = True
        await serving


if __name__ == "__main__":
    words = dict(enumerate(sys.argv))
    course = hoop.Drain(delay=float(words.get(2, 0)), idle_grace=0.5)
    hoop.run(main(int(words.get(1, 8000))), drain=course)
