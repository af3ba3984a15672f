"""A web server with a worker process for each CPU, whose workers come again when they end.

    python examples/clustered_web_server.py [PORT [WORKERS]]
    $ for i in $(seq 20); do curl -s http://127.0.0.1:8000; done     # answers of all workers
    $ curl -s http://127.0.0.1:8000/crash                            # one dies, and is replaced

Ctrl-C or SIGTERM: what is under way is answered, then all ends. `hoop serve` does the same from the command line.
"""

import os
import sys
from pathlib import Path

import hoop.cluster


async def application(scope, receive, send):
    """An ASGI application; with a framework this would be `application = FastAPI()` and its routes."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/crash":
        os._exit(1)  # as a segmentation fault would
    body = f"worker {hoop.cluster.worker.id}, process {os.getpid()}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    hoop.cluster.run(
        "clustered_web_server:application",  # imported by the workers only, so that a reload (SIGHUP) finds new code
        app_dir=str(Path(__file__).parent),
        bind=f"127.0.0.1:{sys.argv[1] if len(sys.argv) > 1 else 8000}",
        workers=int(sys.argv[2]) if len(sys.argv) > 2 else "auto",
    )
