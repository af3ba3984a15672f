"""A counter that all workers share: processes share no memory, so Redis keeps it.

    redis-server --port 6379 &
    python examples/counter.py [PORT [REDIS_PORT]]
    $ curl -s http://127.0.0.1:8000      # 1, then 2, then 3, whichever worker answers

Each worker has connections of its own, made when it starts: a connection from before the fork would be everybody's.
"""

import contextlib
import os
import sys
from pathlib import Path

import hoop.cluster
import redis.asyncio

REDIS_PORT = int(os.environ.get("REDIS_PORT", "6379"))
store = redis.asyncio.Redis(port=REDIS_PORT)  # connects when it is first used


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    count = await store.incr("visitors")
    body = f"visitor {count}, answered by worker {hoop.cluster.worker.id}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive, send):
    """Begin and end with the worker."""
    async with contextlib.AsyncExitStack() as stack:
        await receive()
        await store.ping()  # a worker without Redis is not ready
        stack.push_async_callback(store.aclose)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    hoop.cluster.run(
        "counter:application",
        app_dir=str(Path(__file__).parent),
        bind=f"127.0.0.1:{sys.argv[1] if len(sys.argv) > 1 else 8000}",
        env={"REDIS_PORT": sys.argv[2]} if len(sys.argv) > 2 else {},
        workers=2,
    )
