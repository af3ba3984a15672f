"""Attempts that start one after another until one succeeds (RFC 8305, section 5).

asyncio has such a race, too, with other defects in each version (docs/asyncio_fixes.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def first_to_succeed(
    loop: asyncio.AbstractEventLoop, attempts: Iterable[Callable[[], Coroutine[Any, Any, T]]], delay_s: float
) -> T | None:
    """Return the result of the first attempt that succeeds, or None if all have failed with OSError.

    The next attempt starts when the latest one has failed, or delay_s seconds after that began. Cancel the others, and
    return once they have ended. Raise any other exception: it is a fault of the attempt itself.
    """
    tasks: list[asyncio.Future[T]] = []
    running: set[asyncio.Future[T]] = set()
    waiting = iter(attempts)
    is_abandoned = False
    try:
        for attempt in waiting:
            latest: asyncio.Future[T] = loop.create_task(attempt())
            tasks.append(latest)
            running.add(latest)
            next_start_s = loop.time() + delay_s
            while latest in running and (left_s := next_start_s - loop.time()) > 0:
                done, running = await asyncio.wait(running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if (winner := succeeded(done)) is not None:
                    return winner.result()
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if (winner := succeeded(done)) is not None:
                return winner.result()
        return None
    except GeneratorExit:  # we may await nothing more: leave the attempts to the collector, as this coroutine is
        is_abandoned = True
        raise
    finally:
        if not is_abandoned:
            await end(tasks)
        tasks.clear()  # their errors' tracebacks lead back to this frame
        running.clear()


def succeeded(done: Iterable[asyncio.Future[T]]) -> asyncio.Future[T] | None:
    """Return a task that has a result, if one has. Raises an error that is no OSError."""
    for task in done:
        if task.cancelled():
            continue
        error = task.exception()
        if error is None:
            return task
        if not isinstance(error, OSError):
            raise error
    return None


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel the tasks that run, and wait for them. Ignore their results and errors."""
    unfinished = [task for task in tasks if not task.done()]
    for task in unfinished:
        task.cancel()
    if unfinished:
        await asyncio.wait(unfinished)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()
