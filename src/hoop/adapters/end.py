"""The end of a server in a worker: what is left to do when the loop has drained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import hoop
from hoop.drain import Drain

LEAST_S = 1.0


async def serve_until_cancelled(
    serving: Coroutine[Any, Any, None],
    drain: Drain,
    end: Callable[[float | None], object],
    begin: Callable[[], object] | None = None,
) -> None:
    """Run the coroutine of a server; when this is cancelled, call end(seconds) and wait until it has ended.

    begin: called when the loop begins to drain, before the application that waits for that is told.
    seconds: what is left of the drain for tasks that outlive their connections; None: there is no limit.
    """
    loop = asyncio.get_running_loop()
    began: list[float] = []
    watching = loop.create_task(note_drain(began, begin))
    server = loop.create_task(serving)
    try:
        await asyncio.shield(server)
    except asyncio.CancelledError:
        if server.cancelled():
            raise
        end(remaining(drain, *began, now=loop.time()))
        await server
    finally:
        watching.cancel()


async def note_drain(began: list[float], begin: Callable[[], object] | None) -> None:
    await hoop.draining()
    if begin is not None:
        begin()
    began.append(asyncio.get_running_loop().time())


def remaining(drain: Drain, began: float | None = None, *, now: float) -> float | None:
    """Seconds until the timeout of a drain that began then, and at least one."""
    if drain.timeout is None:
        return None
    return max(LEAST_S, (now if began is None else began) + drain.delay + drain.timeout - now)
