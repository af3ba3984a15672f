"""Micro benchmarks of what programs are made of: asyncio's gather, timeouts, queues and locks, on the loop measured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Loop = asyncio.AbstractEventLoop
Batch = Callable[[], Awaitable[int]]  # does some operations and returns how many

BATCH = 1000  # operations
QUEUE_SIZE = 10
LOCK_USERS = 10
FAR_S = 60.0  # a timeout that never comes


async def one_turn() -> None:
    """Wait for the next turn: what is measured around it has something to wait for."""
    await asyncio.sleep(0)


def gather(loop: Loop) -> Batch:
    async def batch() -> int:
        await asyncio.gather(*[one_turn() for _ in range(BATCH)])
        return BATCH

    return batch


def wait_for(loop: Loop) -> Batch:
    async def batch() -> int:
        for _ in range(BATCH):
            await asyncio.wait_for(one_turn(), FAR_S)
        return BATCH

    return batch


def timeout_cancelled(loop: Loop) -> Batch:
    """Set a timeout around something quick."""

    async def batch() -> int:
        for _ in range(BATCH):
            async with asyncio.timeout(FAR_S):
                await asyncio.sleep(0)
        return BATCH

    return batch


def timeout_expired(loop: Loop) -> Batch:
    async def batch() -> int:
        never = loop.create_future()
        for _ in range(BATCH):
            try:
                async with asyncio.timeout(0):
                    await asyncio.shield(never)
            except TimeoutError:
                pass
        never.cancel()
        return BATCH

    return batch


def queue(loop: Loop) -> Batch:
    """Put by one task and got by another, of which each has to wait for the other time and again."""

    async def batch() -> int:
        items: asyncio.Queue[None] = asyncio.Queue(QUEUE_SIZE)

        async def put() -> None:
            for _ in range(BATCH):
                await items.put(None)

        putting = loop.create_task(put())
        for _ in range(BATCH):
            await items.get()
        await putting
        return BATCH

    return batch


def lock(loop: Loop) -> Batch:
    """Tasks that stand in line for a lock; who has it keeps it for a turn."""

    async def batch() -> int:
        shared = asyncio.Lock()

        async def use() -> None:
            for _ in range(BATCH // LOCK_USERS):
                async with shared:
                    await asyncio.sleep(0)

        await asyncio.gather(*[use() for _ in range(LOCK_USERS)])
        return BATCH

    return batch


def create_task(loop: Loop) -> Batch:
    async def empty() -> None:
        pass

    async def batch() -> int:
        for task in [loop.create_task(empty()) for _ in range(BATCH)]:
            await task
        return BATCH

    return batch
