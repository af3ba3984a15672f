"""What every server serves: an answer that says which process and which version of the code it is of.

`code_of()` makes the versions that are deployed in the course of a measurement out of this file.
"""

import os
import time
from pathlib import Path

GENERATION = 1


async def application(scope, receive, send):
    """The ASGI application; GET /block is a handler that forgets to await."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/block":
        block_the_loop()
    body = b"%d %d" % (os.getpid(), GENERATION)
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def block_the_loop() -> None:
    """Hold the loop for longer than any server here waits."""
    time.sleep(BLOCKED_S)


BLOCKED_S = 40.0


def code_of(generation: int, *, broken: bool = False) -> str:
    """The text of a version; a broken one raises when it is imported."""
    text = Path(__file__).read_text().replace("GENERATION = 1\n", f"GENERATION = {generation}\n", 1)
    return text + ('\n\nraise RuntimeError("broken deploy")\n' if broken else "")
