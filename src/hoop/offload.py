"""Bounded work of hoop's own, on the running loop's pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

from hoop.loop import Loop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def running_loop(module: str) -> Loop:
    """The hoop loop that runs in this thread. RuntimeError, naming the module that needs one, if there is none."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, Loop):
        raise RuntimeError(f"{module} needs a running hoop loop (hoop.run, hoop.new_event_loop), not {loop!r}")
    return loop


def frozen(data: object) -> bytes:
    """The bytes of a buffer as they are now. What is not bytes is copied: it may be changed while a thread reads.

    TypeError for what has no buffer.
    """
    return data if type(data) is bytes else bytes(memoryview(data))  # type: ignore[arg-type]


async def run(module: str, is_small: bool, func: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
    """func(*args): at once if that takes less than the way to a thread and back, else in a thread of the pool."""
    loop = running_loop(module)
    if is_small:
        return func(*args)
    return await loop.pool.run(func, *args)
