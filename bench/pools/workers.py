"""Figures of hoop.WorkerPool, beside process pools of others in the same run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import hoop

Found = dict[str, float]

CALLS, ROUNDS = 300, 9
LARGE, LARGE_CALLS = 8 << 20, 12
DEATHS = 15
BUSY_S = 5.0
TICK_S = 0.001


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@contextlib.contextmanager
def executors() -> Iterator[dict[str, concurrent.futures.Executor]]:
    """The peers that are installed, with one worker each that has done something."""
    with contextlib.ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        found: dict[str, Any] = {
            "ProcessPoolExecutor": stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=spawn)
            )
        }
        if importlib.util.find_spec("loky"):
            import loky

            found["loky"] = stack.enter_context(loky.ProcessPoolExecutor(max_workers=1))
        for executor in found.values():
            executor.submit(abs, -1).result()
        yield found


async def beside_peers(call: Callable[[Callable[..., Awaitable[Any]]], Awaitable[float]]) -> Found:
    """The median over the rounds, in which each contender has its turn."""
    times: dict[str, list[float]] = {}
    with executors() as peers:
        async with hoop.WorkerPool("process", min_workers=1, max_workers=1) as pool:
            await pool.run(abs, -1)
            loop = asyncio.get_running_loop()
            runners: dict[str, Callable[..., Awaitable[Any]]] = {"hoop": pool.run}
            for name, executor in peers.items():
                runners[name] = lambda *call, executor=executor: loop.run_in_executor(executor, *call)
            for _ in range(ROUNDS):
                for name, runner in runners.items():
                    times.setdefault(name, []).append(await call(runner))
    return {name: statistics.median(found) for name, found in times.items()}


async def small_round_trip() -> Found:
    """Microseconds from the call to the result, one call after another: the median."""

    async def call(run: Callable[..., Awaitable[Any]]) -> float:
        times = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            await run(abs, -1)
            times.append(time.perf_counter() - begun)
        return round(statistics.median(times) * 1e6, 1)

    return await beside_peers(call)


async def large_argument() -> Found:
    """Milliseconds for 8 MiB of bytes in and a number out: the median."""
    data = os.urandom(LARGE)

    async def call(run: Callable[..., Awaitable[Any]]) -> float:
        times = []
        for _ in range(LARGE_CALLS):
            begun = time.perf_counter()
            assert await run(len, data) == LARGE
            times.append(time.perf_counter() - begun)
        return round(statistics.median(times) * 1e3, 2)

    return await beside_peers(call)


@contextlib.contextmanager
def usual_scheduling() -> Iterator[None]:
    """Where the benchmark has real-time priority, its processes do not give way to one another: be of the usual kind,
    but before all others."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    if policy == os.SCHED_OTHER:
        yield
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setscheduler(0, policy, priority)


async def after_a_death() -> Found:
    """Milliseconds from the start of a task that kills its worker to the result of the next: the median, the worst."""
    with usual_scheduling():
        return {
            **await _after_a_death("hoop", 2),
            **await _after_a_death("hoop, no spare worker", 1),
        }


async def _after_a_death(title: str, workers: int) -> Found:
    times = []
    async with hoop.WorkerPool("process", min_workers=workers, max_workers=workers) as pool:
        for _ in range(DEATHS):
            while pool.stats().idle < workers:
                await asyncio.sleep(0.01)
            begun = time.perf_counter()
            with contextlib.suppress(hoop.WorkerDied):
                await pool.run(signal.raise_signal, signal.SIGKILL)
            await pool.run(abs, -1)
            times.append(time.perf_counter() - begun)
    return {title: round(statistics.median(times) * 1e3, 1), f"{title}: worst": round(max(times) * 1e3, 1)}


async def lag_beside_busy_workers() -> Found:
    """p99, in ms, of how late a timer of each ms is, while two workers compute; and of the loop's own lag."""
    with usual_scheduling():
        return {**await _lag("hoop, nice=5", 5), **await _lag("hoop, nice=0", 0)}


async def _lag(title: str, nice: int) -> Found:
    loop: Any = asyncio.get_running_loop()
    async with hoop.WorkerPool("process", min_workers=2, max_workers=2, nice=nice) as pool:
        while pool.stats().idle < 2:
            await asyncio.sleep(0.01)
        tasks = [asyncio.ensure_future(pool.run(spin, BUSY_S)) for _ in range(2)]
        await asyncio.sleep(0.1)
        loop.reset_metrics()
        late = []
        while not any(task.done() for task in tasks):
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            late.append(time.perf_counter() - due)
        lag_ms = round(loop.metrics().lag.p99_ns / 1e6, 2)
        await asyncio.gather(*tasks)
    return {title: round(sorted(late)[int(len(late) * 0.99)] * 1e3, 2), f"{title}: lag": lag_ms}
