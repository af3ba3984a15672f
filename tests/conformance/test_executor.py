"""run_in_executor and to_thread: results, errors, cancelling, shutdown, jobs that wait for each other (trap 48)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
import time
import warnings
from typing import Any

import pytest

DEADLINE_S = 60.0
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# Results.


def test_a_job_runs_in_another_thread_and_returns_its_result(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, divmod, 17, 5) == (3, 2)
        assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()
        future = loop.run_in_executor(None, int)
        assert asyncio.isfuture(future) and future.get_loop() is loop
        assert await future == 0

    run(main())


def test_a_job_started_before_the_loop_runs(loop):
    future = loop.run_in_executor(None, int, "7")
    assert loop.run_until_complete(future) == 7
    loop.run_until_complete(loop.shutdown_default_executor())


def test_an_exception_reaches_the_awaiter(run):
    def fails() -> None:
        raise LookupError("on purpose")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(LookupError, match="on purpose"):
            await loop.run_in_executor(None, fails)
        with pytest.raises(TypeError):
            await loop.run_in_executor(None, divmod)

    run(main())


def test_hundreds_of_jobs(run):
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, pow, number, 2) for number in range(500)))

    assert run(main()) == [number * number for number in range(500)]


def test_trap_48_five_jobs_that_wait_for_one_another_finish(run):
    barrier = threading.Barrier(5)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, barrier.wait, DEADLINE_S) for _ in range(5)))

    assert sorted(run(main())) == [0, 1, 2, 3, 4]


def test_a_waiting_job_does_not_hold_up_the_loop(run):
    release = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(None, release.wait, DEADLINE_S)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not job.done()
        release.set()
        assert await job is True

    run(main())


def test_a_job_may_call_back_into_the_loop(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        await loop.run_in_executor(None, loop.call_soon_threadsafe, called.set_result, "from the job")
        assert await called == "from the job"

    run(main())


# to_thread.


def test_to_thread_carries_context_and_keywords(run):
    def job(*args: Any, **keywords: Any) -> Any:
        before = variable.get()
        variable.set("changed in the thread")
        return before, args, keywords

    async def main() -> None:
        variable.set("of the caller")
        assert await asyncio.to_thread(job, 1, 2, key=3) == ("of the caller", (1, 2), {"key": 3})
        assert variable.get() == "of the caller"

    run(main())


def test_run_in_executor_does_not_carry_the_context(run, loop_name):
    if loop_name == "asyncio" and getattr(sys.flags, "thread_inherit_context", False):
        pytest.skip("asyncio: a thread begins in the context of the caller that it was started for")

    async def main() -> None:
        variable.set("of the caller")
        assert await asyncio.get_running_loop().run_in_executor(None, variable.get) == "unset"

    run(main())


# Other executors.


def test_an_executor_of_the_caller(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="own") as executor:
            name = await loop.run_in_executor(executor, lambda: threading.current_thread().name)
            assert name.startswith("own")
            assert await loop.run_in_executor(executor, int, "5") == 5

    run(main())


def test_any_object_with_submit_is_an_executor(run):
    class Inline:
        def submit(self, function: Any, *args: Any) -> concurrent.futures.Future[Any]:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(function(*args))
            return future

    async def main() -> None:
        assert await asyncio.get_running_loop().run_in_executor(Inline(), int, "5") == 5

    run(main())


def test_set_default_executor(loop):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        loop.set_default_executor(executor)
        name = loop.run_until_complete(loop.run_in_executor(None, lambda: threading.current_thread().name))
        assert name.startswith("mine")
        name = loop.run_until_complete(name_of_a_thread())
        assert name.startswith("mine")


async def name_of_a_thread() -> str:
    return await asyncio.to_thread(lambda: threading.current_thread().name)


@pytest.mark.parametrize("wrong", [None, 1, "text", object(), concurrent.futures.Executor()], ids=repr)
def test_set_default_executor_takes_thread_pools_only(loop, wrong):
    with pytest.raises(TypeError, match="executor must be ThreadPoolExecutor instance"):
        loop.set_default_executor(wrong)


def test_set_default_executor_refuses_processes(loop):
    with concurrent.futures.ProcessPoolExecutor(1) as executor, pytest.raises(TypeError):
        loop.set_default_executor(executor)


def test_debug_mode_refuses_coroutines(loop):
    async def coroutine_function() -> None:
        """Never runs."""

    loop.set_debug(True)
    with pytest.raises(TypeError, match="run_in_executor"):
        loop.run_in_executor(None, coroutine_function)
    with pytest.raises(TypeError, match="run_in_executor"):
        loop.run_in_executor(None, "not callable")


# Cancelling.


def test_a_queued_job_that_is_cancelled_never_runs(run):
    release = threading.Event()
    seen: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            blocker = loop.run_in_executor(executor, release.wait, DEADLINE_S)
            queued = loop.run_in_executor(executor, seen.append, 1)
            last = loop.run_in_executor(executor, seen.append, 2)
            queued.cancel()
            await asyncio.sleep(0)
            release.set()
            await blocker
            await last
            assert queued.cancelled()

    run(main())
    assert seen == [2]


def test_the_result_of_a_running_job_that_is_cancelled_is_dropped(run):
    started, release = threading.Event(), threading.Event()

    def job() -> str:
        started.set()
        release.wait(DEADLINE_S)
        return "dropped"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        contexts: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
        future = loop.run_in_executor(None, job)
        await loop.run_in_executor(None, started.wait, DEADLINE_S)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        release.set()
        await loop.shutdown_default_executor()
        await asyncio.sleep(0)
        assert contexts == []

    run(main())


# Shutting down.


def test_shutdown_waits_for_the_jobs(run):
    release = threading.Event()
    seen: list[str] = []

    def job() -> None:
        release.wait(DEADLINE_S)
        seen.append("job")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, job)
        loop.call_later(0.001, release.set)
        await loop.shutdown_default_executor()
        seen.append("shut down")

    run(main())
    assert seen == ["job", "shut down"]


def test_after_shutdown_the_default_executor_is_refused(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, int, "1") == 1
        await loop.shutdown_default_executor()
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(None, int)
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            await asyncio.to_thread(int)
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            assert await loop.run_in_executor(executor, int, "5") == 5

    run(main())


def test_shutdown_without_any_job(loop):
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        loop.run_in_executor(None, int)


def test_shutdown_of_an_executor_that_was_set(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    loop.run_until_complete(loop.run_in_executor(None, int))
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError):
        executor.submit(int)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="timeout= came with Python 3.12")
def test_trap_36_shutdown_with_a_timeout(loop, loop_name):
    if loop_name == "asyncio" and sys.version_info < (3, 13):
        pytest.skip("asyncio of 3.12.1 awaits the jobs first and applies the timeout afterwards: this would hang")
    release = threading.Event()
    job = loop.run_in_executor(None, release.wait, DEADLINE_S)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.run_until_complete(loop.shutdown_default_executor(timeout=0.01))
        assert not job.done()
        assert [warning.category for warning in caught] == [RuntimeWarning]
        assert "0.01 seconds" in str(caught[0].message)
    finally:
        release.set()
    assert loop.run_until_complete(job) is True


@pytest.mark.skipif(sys.version_info < (3, 12), reason="timeout= came with Python 3.12")
def test_trap_36_shutdown_within_the_timeout_warns_of_nothing(loop):
    loop.run_until_complete(loop.run_in_executor(None, int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.run_until_complete(loop.shutdown_default_executor(timeout=DEADLINE_S))


def test_closing_the_loop_does_not_wait_for_jobs(loop):
    release, finished = threading.Event(), threading.Event()

    def job() -> None:
        release.wait(DEADLINE_S)
        finished.set()

    loop.run_in_executor(None, job)
    loop.close()
    assert not finished.is_set()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_in_executor(None, int)
    release.set()
    assert finished.wait(DEADLINE_S)


def test_runner_shuts_the_executor_down(loop_factory):
    seen: list[str] = []
    release = threading.Event()

    def job() -> None:
        release.wait(DEADLINE_S)
        seen.append("job")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, job)
        loop.call_soon(release.set)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert seen == ["job"]


def test_no_thread_outlives_a_shut_down_loop(loop):
    before = set(threading.enumerate())
    futures = [loop.run_in_executor(None, time.monotonic) for _ in range(20)]
    loop.run_until_complete(asyncio.gather(*futures))
    loop.run_until_complete(loop.shutdown_default_executor())
    assert set(threading.enumerate()) <= before
