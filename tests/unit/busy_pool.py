"""A pool whose threads are all busy, so that what is submitted next stays in the queue."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any


@contextlib.asynccontextmanager
async def busy_pool() -> AsyncIterator[Callable[[], None]]:
    """The running loop's pool is busy until the function given is called, or until the end."""
    loop: Any = asyncio.get_running_loop()
    released = threading.Event()
    blockers = [loop.pool.run(released.wait) for _ in range(loop.pool.size)]
    try:
        while loop.pool.stats().running < loop.pool.size:
            await asyncio.sleep(0)
        yield released.set
    finally:
        released.set()
        await asyncio.gather(*blockers)
