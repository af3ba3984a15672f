"""Attempts that start one after another until one succeeds (RFC 8305, section 5).

asyncio has such a race, too, but what has been wrong with it differs from version to version (docs/asyncio_fixes.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def first_to_succeed(
    loop: asyncio.AbstractEventLoop, attempts: Iterable[Callable[[], Coroutine[Any, Any, T]]], delay_s: float
) -> T | None:
    """The result of the first attempt that succeeds, or None if all have failed with OSError.

    Start the next attempt when the latest one has failed, or delay_s seconds after that began. Cancel the losers, and
    wait for their end. Raise any other exception of an attempt.
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
    except GeneratorExit:  # nothing may be awaited any more; the attempts are left to the collector, as this is
        is_abandoned = True
        raise
    finally:
        if not is_abandoned:
            await end(tasks)
        tasks.clear()  # their errors' tracebacks lead back to this frame
        running.clear()


def succeeded(done: Iterable[asyncio.Future[T]]) -> asyncio.Future[T] | None:
    """The one of them that has a result. Raise any exception that is no OSError."""
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
    """Cancel the attempts that run, and wait for them. Drop what they end with."""
    unfinished = [task for task in tasks if not task.done()]
    for task in unfinished:
        task.cancel()
    if unfinished:
        await asyncio.wait(unfinished)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()
