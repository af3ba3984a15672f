"""The pool of a loop: results, bounds, cancelling, statistics, and where jobs end when a loop or a pool closes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from hoop.stats import PoolStats
from interpreter import run_script

DEADLINE_S = 60.0


class Held:
    """A call that tells when it runs, and then waits until it is let go."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.calls: list[Any] = []

    def __call__(self, value: Any = None) -> Any:
        self.calls.append(value)
        self.started.release()
        assert self.release.acquire(timeout=DEADLINE_S)
        return value

    def wait_started(self, count: int) -> None:
        for _ in range(count):
            assert self.started.acquire(timeout=DEADLINE_S)

    def let_go(self, count: int) -> None:
        self.release.release(count)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.let_go(100)  # a failed test leaves no thread behind


def run_on(loop: hoop.Loop, main: Callable[[], Any]) -> Any:
    try:
        return loop.run_until_complete(asyncio.wait_for(main(), DEADLINE_S))
    finally:
        loop.close()


# Results.


def test_run_returns_what_the_call_returns() -> None:
    async def main() -> None:
        pool = asyncio.get_running_loop().pool
        assert await pool.run(divmod, 17, 5) == (3, 2)
        key = await pool.run(hashlib.pbkdf2_hmac, "sha256", b"password", b"salt", 1000)
        assert key == hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1000)
        assert (await pool.run(threading.current_thread)).name.startswith("hoop-pool_")
        future = pool.run(int)
        assert asyncio.isfuture(future) and future.get_loop() is asyncio.get_running_loop()
        assert await future == 0

    hoop.run(main())


def test_trap_42_a_job_that_raises() -> None:
    def fails(error: BaseException) -> None:
        raise error

    async def main() -> None:
        pool = asyncio.get_running_loop().pool
        with pytest.raises(LookupError, match="on purpose"):
            await pool.run(fails, LookupError("on purpose"))
        with pytest.raises(TypeError):
            await pool.run(divmod)
        with pytest.raises(RuntimeError, match="StopIteration interacts badly") as raised:
            await pool.run(fails, StopIteration(5))
        assert isinstance(raised.value.__cause__, StopIteration)
        with pytest.raises(asyncio.CancelledError):
            await pool.run(fails, concurrent.futures.CancelledError())
        with pytest.raises(asyncio.InvalidStateError):
            await pool.run(fails, concurrent.futures.InvalidStateError())
        assert await pool.run(int, "5") == 5  # the thread is still there
        assert pool.stats().threads == 1

    hoop.run(main())


def test_a_job_that_wants_to_end_the_program() -> None:
    future = asyncio.Future[None]

    async def main() -> None:
        nonlocal future
        future = asyncio.get_running_loop().pool.run(exec, "raise SystemExit(3)")
        await asyncio.wait([future])

    hoop.run(main())
    assert isinstance(future.exception(), SystemExit)


def test_what_cannot_be_run() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="'text'"):
            asyncio.get_running_loop().pool.run("text")

    hoop.run(main())
    with hoop.Pool(1) as pool, pytest.raises(RuntimeError):
        pool.run(int)  # no loop runs

    async def on_another_loop() -> None:
        with hoop.Pool(1) as pool, pytest.raises(RuntimeError, match="needs a running hoop loop"):
            pool.run(int)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(on_another_loop())


def test_the_thread_lets_go_of_what_it_called() -> None:
    class Argument:
        pass

    async def main() -> None:
        gone = threading.Event()
        argument = Argument()
        weakref.finalize(argument, gone.set)
        future = asyncio.get_running_loop().pool.run(id, argument)
        del argument
        await future
        assert gone.is_set()

    hoop.run(main())


# Size.


@pytest.mark.parametrize("size", [1, 2, 1024])
def test_sizes(size: int) -> None:
    with hoop.Pool(size) as pool:
        assert pool.size == size == pool.stats().size
    loop = hoop.Loop(pool_size=size)
    assert loop.pool.size == size
    loop.close()


def test_the_default_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOP_THREADPOOL_SIZE", raising=False)
    with hoop.Pool() as pool:
        assert pool.size == 4
    monkeypatch.setenv("HOOP_THREADPOOL_SIZE", "7")
    with hoop.Pool() as pool:
        assert pool.size == 7
    loop = hoop.new_event_loop()
    assert loop.pool.size == 7
    loop.close()
    with hoop.Pool(3) as pool:
        assert pool.size == 3


@pytest.mark.parametrize("size", [0, -1, 1025, 2**70], ids=repr)
def test_sizes_out_of_range(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=str(size)):
        hoop.Pool(size)
    with pytest.raises(ValueError, match=str(size)):
        hoop.Loop(pool_size=size)
    monkeypatch.setenv("HOOP_THREADPOOL_SIZE", str(size))
    with pytest.raises(ValueError, match=f"HOOP_THREADPOOL_SIZE .*{size}"):
        hoop.Pool()
    with pytest.raises(ValueError, match=f"HOOP_THREADPOOL_SIZE .*{size}"):
        hoop.Loop()


@pytest.mark.parametrize("text", ["four", "4.0", " ", "0x4"])
def test_a_size_in_the_environment_that_is_no_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOP_THREADPOOL_SIZE", text)
    with pytest.raises(ValueError, match=f"HOOP_THREADPOOL_SIZE .*{text!r}"):
        hoop.Loop()


@pytest.mark.parametrize("size", ["4", 4.0, True, b"4"], ids=repr)
def test_sizes_that_are_no_numbers(size: Any) -> None:
    with pytest.raises(TypeError, match=repr(size)):
        hoop.Pool(size)
    with pytest.raises(TypeError, match=repr(size)):
        hoop.Loop(pool_size=size)


def test_either_a_size_or_a_pool() -> None:
    with hoop.Pool(1) as pool, pytest.raises(TypeError, match="pool_size=2"):
        hoop.Loop(pool_size=2, pool=pool)
    with pytest.raises(TypeError, match=r"must be a hoop\.Pool, not 5"):
        hoop.Loop(pool=5)  # type: ignore[arg-type]


def test_no_more_jobs_run_than_there_are_threads(held: Held) -> None:
    async def main() -> None:
        pool = asyncio.get_running_loop().pool
        futures = [pool.run(held, number) for number in range(8)]
        held.wait_started(3)
        stats = pool.stats()
        assert (stats.running, stats.queued, stats.threads, stats.idle) == (3, 5, 3, 0)
        held.let_go(8)
        assert await asyncio.gather(*futures) == list(range(8))
        stats = pool.stats()
        assert (stats.running, stats.queued, stats.done) == (0, 0, 8)

    run_on(hoop.Loop(pool_size=3), main)


def test_threads_are_started_when_they_are_needed() -> None:
    async def main() -> None:
        pool = asyncio.get_running_loop().pool
        assert pool.stats().threads == 0
        for _ in range(20):
            await pool.run(int)
            assert pool.stats().threads == 1

    hoop.run(main())


# A limit of the queue.


def test_a_full_queue_refuses(held: Held) -> None:
    async def main() -> None:
        first = pool.run(held)
        held.wait_started(1)
        queued = [pool.run(held), pool.run(held)]
        with pytest.raises(hoop.PoolFull, match="limit is 2 jobs"):
            pool.run(held)
        assert pool.stats().refused == 1
        held.let_go(1)
        await first
        held.wait_started(1)
        queued.append(pool.run(held))  # there is room again
        held.let_go(3)
        await asyncio.gather(*queued)
        assert (pool.stats().done, pool.stats().refused) == (4, 1)

    with hoop.Pool(1, queue_limit=2) as pool:
        run_on(hoop.Loop(pool=pool), main)


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-3, ValueError), ("7", TypeError), (True, TypeError)])
def test_limits_that_make_no_sense(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"queue_limit .*{limit!r}"):
        hoop.Pool(1, queue_limit=limit)


# Cancelling.


def test_trap_40_a_queued_job_that_is_cancelled_never_runs(held: Held) -> None:
    async def main() -> None:
        pool = asyncio.get_running_loop().pool
        futures = [pool.run(held, number) for number in range(4)]
        held.wait_started(1)
        futures[1].cancel()
        futures[3].cancel()
        await asyncio.sleep(0)
        assert (pool.stats().cancelled, pool.stats().queued) == (2, 1)
        held.let_go(2)
        assert await futures[0] == 0
        assert await futures[2] == 2
        for number in (1, 3):
            with pytest.raises(asyncio.CancelledError):
                await futures[number]

    run_on(hoop.Loop(pool_size=1), main)
    assert held.calls == [0, 2]


def test_trap_40_a_running_job_that_is_cancelled_ends_and_is_dropped(held: Held) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        future = loop.pool.run(held)
        held.wait_started(1)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert (loop.pool.stats().running, loop.pool.stats().cancelled) == (1, 0)
        held.let_go(1)
        assert await loop.pool.run(int) == 0  # behind it, on the only thread
        assert loop.pool.stats().done == 2
        assert problems == []

    run_on(hoop.Loop(pool_size=1), main)


def test_a_task_that_awaits_a_job_can_be_cancelled(held: Held) -> None:
    async def main() -> None:
        pool = asyncio.get_running_loop().pool
        first = pool.run(held)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await pool.run(held)
        await asyncio.sleep(0)
        assert pool.stats().cancelled == 1
        held.let_go(1)
        await first

    run_on(hoop.Loop(pool_size=1), main)
    assert len(held.calls) == 1


# Closing.


def test_trap_41_closing_a_loop_cancels_what_is_queued_and_waits_for_what_runs(held: Held) -> None:
    loop = hoop.Loop(pool_size=1)
    pool = loop.pool
    futures = [pool.run_for(loop, held, (number,)) for number in range(3)]
    held.wait_started(1)
    held.let_go(1)
    loop.close()
    assert held.calls == [0]
    assert pool.closed
    stats = pool.stats()
    assert (stats.done, stats.cancelled, stats.queued, stats.running, stats.threads) == (1, 2, 0, 0, 0)
    assert [future.cancelled() for future in futures] == [False, True, True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hoop-pool")]
    with pytest.raises(RuntimeError, match="closed"):
        pool.run_for(loop, int, ())
    other = hoop.Loop(pool=pool)
    with pytest.raises(RuntimeError, match="the pool is closed"):
        pool.run_for(other, int, ())
    other.close()


def test_a_closed_loop_makes_no_pool() -> None:
    loop = hoop.Loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.pool  # noqa: B018


def test_a_pool_that_closes_cancels_the_futures_of_its_loops(held: Held) -> None:
    async def main() -> None:
        pool = hoop.Pool(1)
        futures = [pool.run(held, number) for number in range(3)]
        held.wait_started(1)
        closing = threading.Thread(target=pool.close)
        closing.start()
        for future in futures[1:]:
            with pytest.raises(asyncio.CancelledError):
                await future
        held.let_go(1)
        assert await futures[0] == 0
        closing.join(DEADLINE_S)
        assert pool.closed and not closing.is_alive()
        pool.close()
        with pytest.raises(RuntimeError, match="the pool is closed"):
            pool.run(int)

    hoop.run(main())
    assert held.calls == [0]


def test_a_job_cannot_close_its_own_loop() -> None:
    loop = hoop.Loop(pool_size=1)
    ended = threading.Event()

    def job() -> None:
        try:
            loop.close()
        finally:
            ended.set()

    future = loop.pool.run_for(loop, job, ())
    assert ended.wait(DEADLINE_S)  # before the loop runs: that would be another error
    with pytest.raises(RuntimeError, match=r"a job of the pool cannot close the loop|belongs to another thread"):
        loop.run_until_complete(future)
    assert not loop.is_closed()
    loop.close()


def test_a_job_that_closes_its_own_pool() -> None:
    async def main() -> None:
        pool = hoop.Pool(2)
        await pool.run(pool.close)
        assert pool.closed

    hoop.run(main())


# Several loops.


def test_loops_in_several_threads_share_a_pool() -> None:
    async def main(number: int) -> list[int]:
        loop = asyncio.get_running_loop()
        assert loop.pool is pool
        return await asyncio.gather(*(loop.pool.run(pow, number, exponent) for exponent in range(200)))

    def in_thread(number: int) -> list[int]:
        return run_on(hoop.Loop(pool=pool), lambda: main(number))

    with hoop.Pool(3) as pool, concurrent.futures.ThreadPoolExecutor(4) as threads:
        results = list(threads.map(in_thread, range(4)))
        assert not pool.closed  # it is not the loops'
        assert pool.stats().done == 800
    assert results == [[number**exponent for exponent in range(200)] for number in range(4)]


def test_a_loop_that_closes_leaves_the_jobs_of_others_alone(held: Held) -> None:
    with hoop.Pool(1) as pool:
        staying, closing = hoop.Loop(pool=pool), hoop.Loop(pool=pool)
        first = pool.run_for(staying, held, (1,))
        held.wait_started(1)
        second = pool.run_for(closing, held, (2,))
        third = pool.run_for(staying, held, (3,))
        closing.close()
        held.let_go(2)
        assert second.cancelled()
        assert staying.run_until_complete(asyncio.gather(first, third)) == [1, 3]
        staying.close()
    assert held.calls == [1, 3]


# Statistics.


def test_statistics(held: Held) -> None:
    async def main() -> PoolStats:
        pool = asyncio.get_running_loop().pool
        futures = [pool.run(held) for _ in range(2)]
        held.wait_started(1)
        held.let_go(2)
        await asyncio.gather(*futures)
        return pool.stats()

    stats = run_on(hoop.Loop(pool_size=1), main)
    assert (stats.done, stats.wait.count, stats.run.count) == (2, 2, 2)
    for durations in (stats.wait, stats.run):
        assert 0 < durations.p50_ns <= durations.p99_ns <= durations.max_ns
        assert 0 < durations.mean_ns <= durations.max_ns
    assert stats.wait.max_ns >= stats.run.p50_ns  # the second waited for the first


def test_what_a_pool_says_of_itself() -> None:
    pool = hoop.Pool(5)
    assert repr(pool) == "<hoop.Pool size=5>"
    pool.close()
    assert repr(pool) == "<hoop.Pool size=5 closed>"
    with pytest.raises(RuntimeError, match="once"):
        pool.__init__(3)  # type: ignore[misc]


def test_a_pool_whose_init_was_forgotten() -> None:
    class Forgetful(hoop.Pool):
        def __init__(self) -> None:
            pass

    pool = Forgetful()
    for use in (
        lambda: pool.size,
        lambda: pool.spin_us,
        lambda: pool.closed,
        pool.stats,
        pool.close,
        lambda: repr(pool),
    ):
        with pytest.raises(RuntimeError, match="not called"):
            use()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="not called"):
            asyncio.get_running_loop().pool.run(int)

    run_on(hoop.Loop(pool=pool), main)


# How long to look before sleeping.


@pytest.mark.parametrize("spin_us", [0, 30, 1000])
def test_any_length_of_looking_gives_the_same_results(spin_us: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(100):
            assert await loop.pool.run(int, number) == number
            assert await loop.run_in_executor(None, int, number) == number
        assert await asyncio.gather(*(loop.pool.run(int, number) for number in range(100))) == list(range(100))

    with hoop.Pool(2, spin_us=spin_us) as pool:
        run_on(hoop.Loop(pool=pool), main)
    monkeypatch.setenv("HOOP_POOL_SPIN_US", str(spin_us))
    hoop.run(main())


def test_a_loop_that_looks_for_a_job_still_sees_events_and_timers(held: Held) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        job = loop.pool.run(held)
        held.wait_started(1)
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            for _ in range(20):
                loop.call_soon(right.send, b"x")
                assert await loop.sock_recv(left, 10) == b"x"
                await asyncio.sleep(0.00001)
        held.let_go(1)
        await job

    with hoop.Pool(1, spin_us=1000) as pool:
        run_on(hoop.Loop(pool=pool), main)


@pytest.mark.parametrize(
    ("spin_us", "error"), [(-1, ValueError), (1001, ValueError), ("5", TypeError), (5.0, TypeError), (True, TypeError)]
)
def test_lengths_of_looking_that_make_no_sense(spin_us: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"spin_us .*{spin_us!r}"):
        hoop.Pool(1, spin_us=spin_us)


@pytest.mark.parametrize("text", ["-1", "1001", "many"])
def test_lengths_of_looking_in_the_environment(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOP_POOL_SPIN_US", text)
    with pytest.raises(ValueError, match=f"HOOP_POOL_SPIN_US .*{text}"):
        hoop.Pool(1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity(2)")
def test_nobody_looks_where_there_is_one_cpu() -> None:
    code, output, errors = run_script("""
import os, hoop
cpus = os.sched_getaffinity(0)
print(hoop.Pool(1, spin_us=7).spin_us == (7 if len(cpus) > 1 else 0))
os.sched_setaffinity(0, {min(cpus)})
print(hoop.Pool(1, spin_us=7).spin_us, hoop.Pool(1).spin_us)
""")
    assert (code, output.split()) == (0, ["True", "0", "0"]), errors


def test_joining_an_open_pool_is_refused() -> None:
    """Its threads would never end."""
    pool = hoop.Pool(1)
    with pytest.raises(RuntimeError, match="comes after stop"):
        pool.join()
    pool.stop()
    pool.join()
