"""Bounded work of hoop's own, on the running loop's pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from hoop.core.running import running_loop
from hoop.jobs.pool import loop_pool

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def immutable_bytes(data: object) -> bytes:
    """The bytes of a buffer as they are now. Other types than bytes are copied: they may change while a thread reads.

    TypeError for an object without a buffer.
    """
    return data if type(data) is bytes else bytes(memoryview(data))  # type: ignore[arg-type]


async def run(module: str, is_small: bool, func: Callable[[*Ts], T], *args: *Ts) -> T:
    """func(*args): at once if that takes less than the way to a thread and back, else in a thread of the pool."""
    loop = running_loop(module)
    if is_small:
        return func(*args)
    return await loop_pool(loop).run(func, *args)
