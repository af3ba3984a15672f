"""The default executor of a loop, used directly: it is a concurrent.futures.Executor, if not a ThreadPoolExecutor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Iterator

import hoop
import pytest
from hoop.jobs.default_executor import DefaultExecutor

DEADLINE_S = 60.0


@pytest.fixture
def executor() -> Iterator[DefaultExecutor]:
    executor = DefaultExecutor()
    yield executor
    executor.shutdown()


def test_a_loop_makes_one_at_first_use() -> None:
    loop = hoop.new_event_loop()
    assert loop._default_executor is None
    loop.run_until_complete(loop.run_in_executor(None, int))
    executor = loop._default_executor
    assert isinstance(executor, concurrent.futures.Executor)
    assert loop.run_until_complete(loop.run_in_executor(executor, int, "5")) == 5
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert loop._default_executor is None
    executor.shutdown(wait=True)  # once more does no harm


def test_the_cap_is_asyncios(executor: DefaultExecutor) -> None:
    cpus = getattr(os, "process_cpu_count", os.cpu_count)()
    assert executor._max_workers == min(32, cpus + 4) == concurrent.futures.ThreadPoolExecutor()._max_workers


def test_no_more_threads_than_the_cap(executor: DefaultExecutor) -> None:
    started, release = threading.Semaphore(0), threading.Event()

    def held() -> str:
        started.release()
        assert release.wait(DEADLINE_S)
        return threading.current_thread().name

    futures = [executor.submit(held) for _ in range(2 * executor._max_workers)]
    for _ in range(executor._max_workers):
        assert started.acquire(timeout=DEADLINE_S)
    assert not started.acquire(blocking=False)
    release.set()
    names = {future.result(DEADLINE_S) for future in futures}
    assert names == {f"asyncio_{number}" for number in range(executor._max_workers)}
    assert executor.stats().threads == executor.stats().size == executor._max_workers
    assert executor.stats().done == 2 * executor._max_workers


def test_submit_and_map(executor: DefaultExecutor) -> None:
    assert executor.submit(divmod, 17, 5).result(DEADLINE_S) == (3, 2)
    assert executor.submit(int, "ff", base=16).result(DEADLINE_S) == 255
    assert isinstance(executor.submit(int, "x").exception(DEADLINE_S), ValueError)
    assert list(executor.map(pow, range(50), range(50), timeout=DEADLINE_S)) == [n**n for n in range(50)]


def test_a_future_that_is_cancelled_while_queued_does_not_run(executor: DefaultExecutor) -> None:
    release = threading.Event()
    calls: list[int] = []
    held = [executor.submit(release.wait, DEADLINE_S) for _ in range(executor._max_workers)]
    queued = executor.submit(calls.append, 1)
    assert queued.cancel()
    release.set()
    assert concurrent.futures.wait(held, DEADLINE_S).not_done == set()
    executor.shutdown()
    assert calls == [] and queued.cancelled()


@pytest.mark.parametrize("cancels", [False, True])
def test_shutdown_with_calls_in_the_queue(cancels: bool) -> None:
    executor = DefaultExecutor()
    running = threading.Barrier(executor._max_workers + 1)
    release = threading.Event()

    def hold() -> bool:
        running.wait(DEADLINE_S)
        return release.wait(DEADLINE_S)

    held = [executor.submit(hold) for _ in range(executor._max_workers)]
    queued = [executor.submit(int, "5") for _ in range(3)]
    running.wait(DEADLINE_S)
    executor.shutdown(wait=False, cancel_futures=cancels)
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(int)
    release.set()
    executor.shutdown()
    assert [future.cancelled() for future in queued] == [cancels] * 3
    if not cancels:
        assert [future.result(0) for future in queued] == [5] * 3
    assert all(future.result(0) for future in held)


def test_futures_of_a_loop_are_cancelled_with_the_queue() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        release = threading.Event()
        await loop.run_in_executor(None, int)
        executor = loop._default_executor
        running = threading.Barrier(executor._max_workers + 1)

        def hold() -> bool:
            running.wait(DEADLINE_S)
            return release.wait(DEADLINE_S)

        held = [loop.run_in_executor(None, hold) for _ in range(executor._max_workers)]
        queued = [loop.run_in_executor(None, int) for _ in range(3)]
        running.wait(DEADLINE_S)
        executor.shutdown(wait=False, cancel_futures=True)
        for future in queued:
            with pytest.raises(asyncio.CancelledError):
                await future
        release.set()
        await asyncio.wait(held)

    hoop.run(main())
