"""Pools at the edges of a process: fork with busy threads, the interpreter's end, threads that never start, garbage."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
import weakref
from typing import Any

import hoop
import pytest
from interpreter import IN_CHILD, run_script

DEADLINE_S = 60.0

HEADER = """
import asyncio, concurrent.futures, gc, os, sys, threading, warnings
import hoop

def use(loop):
    "Both lanes at once."
    async def main():
        return await asyncio.gather(
            *(loop.pool.run(pow, number, 2) for number in range(20)),
            *(loop.run_in_executor(None, pow, number, 3) for number in range(20)))
    expected = [number ** 2 for number in range(20)] + [number ** 3 for number in range(20)]
    assert loop.run_until_complete(asyncio.wait_for(main(), 30)) == expected

started, release = threading.Semaphore(0), threading.Semaphore(0)

def held():
    started.release()
    assert release.acquire(timeout=30)
    return "released"
"""


def output_of(body: str, *options: str) -> tuple[str, str]:
    """Run body after HEADER in a new interpreter; what it wrote to stdout and stderr."""
    code, output, errors = run_script(IN_CHILD + HEADER + body, *options)
    assert code == 0, errors
    return output, errors


# Fork (trap 43).


def test_trap_43_fork_with_a_busy_pool() -> None:
    output, errors = output_of("""
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork in a process with threads
loop = hoop.Loop(pool_size=2)
shared = hoop.Pool(2)
jobs = [loop.pool.run_for(loop, held, ()) for _ in range(4)]
jobs += [loop.run_in_executor(None, held) for _ in range(3)]
jobs += [shared.run_for(loop, held, ()) for _ in range(3)]
for _ in range(2 + 3 + 2):
    started.acquire()

def refused(function, *args):
    try:
        function(*args)
    except RuntimeError as error:
        assert "parent process" in str(error), error
    else:
        raise AssertionError(f"{function} works in the child")

def child():
    with_new_pool = hoop.Loop()
    use(with_new_pool)
    with_new_pool.close()
    refused(shared.stats)
    with_copied_pool = hoop.Loop(pool=shared)
    refused(shared.run_for, with_copied_pool, int, ())
    with_copied_pool.close()
    shared.close()
    jobs[0].cancel()
    jobs[3].cancel()
    loop.close()
    gc.collect()

for _ in range(3):
    assert in_child(child) == 0
release.release(10)
assert loop.run_until_complete(asyncio.wait_for(asyncio.gather(*jobs), 30)) == ["released"] * 10
use(loop)
loop.close()
shared.close()
print("done")
""")
    assert (output, errors) == ("done", "")


def test_trap_43_fork_while_threads_submit_and_run() -> None:
    """The child's copy of a lock may be taken, by a thread that it does not have."""
    output, _ = output_of("""
warnings.simplefilter("ignore")
pool = hoop.Pool(3)
ending = threading.Event()

async def storm():
    loop = asyncio.get_running_loop()
    while not ending.is_set():
        await asyncio.gather(*(pool.run(int) for _ in range(20)), *(loop.run_in_executor(None, int) for _ in range(20)))

def run_storm():
    loop = hoop.Loop(pool=pool)
    loop.run_until_complete(storm())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

threads = [threading.Thread(target=run_storm) for _ in range(2)]
for thread in threads:
    thread.start()

def child():
    loop = hoop.Loop()
    use(loop)
    loop.close()
    gc.collect()

for _ in range(6):  # without a GIL the storm takes all processors: each fork is slow
    assert in_child(child) == 0
ending.set()
for thread in threads:
    thread.join()
pool.close()
print("done")
""")
    assert output == "done"


# The end of the interpreter.


@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "dev"])
@pytest.mark.parametrize(
    "state",
    [
        "loop.pool",
        "use(loop)",
        "use(loop); loop.me = loop; del loop",
        "loop.run_until_complete(loop.pool.run_for(loop, int, ()))",
        "loop.run_until_complete(loop.run_in_executor(None, int))",
        "pool = hoop.Pool(); loop.run_until_complete(pool.run_for(loop, int, ()))",
    ],
)
def test_an_unclosed_loop_lets_the_interpreter_exit(state: str, options: tuple[str, ...]) -> None:
    output, _ = output_of(f"loop = hoop.Loop()\n{state}\nprint('done')", *options)
    assert output == "done"


def test_jobs_of_an_unclosed_loop_are_finished_before_the_interpreter_exits() -> None:
    """As with concurrent.futures: what was accepted is done."""
    output, _ = output_of("""
loop = hoop.Loop(pool_size=1)
shared = hoop.Pool(1)
for number in range(5):
    loop.pool.run_for(loop, os.write, (1, b"p"))
    shared.run_for(loop, os.write, (1, b"s"))
    loop.run_in_executor(None, os.write, 1, b"e")
""")
    assert sorted(output) == sorted("p" * 5 + "s" * 5 + "e" * 5)


@pytest.mark.skipif(
    hasattr(sys, "gettotalrefcount") and sys.version_info < (3, 12),
    reason="a debug build of Python 3.11 crashes when daemon threads start threads at its end, with asyncio alone too",
)
def test_daemon_threads_that_use_pools_at_the_end_of_the_interpreter() -> None:
    output, _ = output_of("""
warnings.simplefilter("ignore")
used = threading.Event()

async def hammer():
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.gather(*(loop.pool.run(int) for _ in range(5)), *(asyncio.to_thread(int) for _ in range(5)))
        used.set()

def run():
    try:
        hoop.run(hammer())
    except RuntimeError:
        pass  # there are no threads to be had any more

for _ in range(2):
    threading.Thread(target=run, daemon=True).start()
assert used.wait(30)
print("done")
""")
    assert output == "done"


# Ctrl-C.


def test_ctrl_c_ends_the_wait_for_running_jobs() -> None:
    """A lookup may take half a minute: close() can be interrupted, and called again."""
    output, errors = output_of("""
import signal
loop = hoop.Loop(pool_size=1)
closing = threading.Event()

def job():
    started.release()
    assert closing.wait(30)
    os.kill(os.getpid(), signal.SIGINT)
    assert release.acquire(timeout=30)

future = loop.pool.run_for(loop, job, ())
loop.pool.run_for(loop, print, ("never",))
started.acquire()
try:
    closing.set()
    loop.close()
except KeyboardInterrupt:
    print("interrupted", loop.is_closed())
release.release()
loop.close()
print(loop.is_closed(), future.done())
""")
    assert output.split() == ["interrupted", "False", "True", "False"], errors


# Threads that do not start.


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    return monkeypatch


@pytest.mark.parametrize("lane", ["pool", "executor"])
def test_the_first_thread_does_not_start(lane: str, no_threads: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        for number in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                if lane == "pool":
                    loop.pool.run(calls.append, number)
                else:
                    loop.run_in_executor(None, calls.append, number)
        no_threads.undo()
        assert await loop.pool.run(int) == 0
        assert await loop.run_in_executor(None, int) == 0
        assert calls == []

    hoop.run(main())


def test_a_further_thread_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued waits for the threads that are there."""
    started, release = threading.Event(), threading.Event()

    def held() -> None:
        started.set()
        assert release.wait(DEADLINE_S)

    async def main() -> None:
        pool = asyncio.get_running_loop().pool
        first = pool.run(held)
        assert started.wait(DEADLINE_S)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no more")))
            second = pool.run(int, "5")
        assert pool.stats().threads == 1
        release.set()
        await first
        assert await second == 5

    hoop.run(main())


@pytest.mark.parametrize("size", [1, 2])
def test_the_first_threads_of_two_loops_do_not_start(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One loop submits while the other's thread is being started, and relies on that."""
    asked: list[threading.Thread] = []
    queued: list[asyncio.Future[int]] = []

    def start(self: threading.Thread) -> None:
        asked.append(self)
        if len(asked) == 1:
            queued.append(pool.run_for(second, int, ()))
        raise RuntimeError("can't start new thread")

    async def result() -> int:
        return await asyncio.wait_for(queued[0], DEADLINE_S)

    with hoop.Pool(size) as pool:
        first, second = hoop.Loop(pool=pool), hoop.Loop(pool=pool)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.run_for(first, int, ())
        with pytest.raises(RuntimeError, match="can't start new thread"):
            second.run_until_complete(result())
        assert (pool.stats().threads, pool.stats().queued) == (0, 0)
        for loop in (first, second):
            assert loop.metrics().jobs_in_flight == 0
            assert loop.run_until_complete(pool.run_for(loop, int, ())) == 0
            loop.close()


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("lane", ["pool", "executor"])
def test_an_interrupt_while_a_thread_starts(lane: str, has_begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets no future. Whether the job is taken back or runs, the loop's count of jobs stays right."""
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        if has_begun:
            start(self)
        raise KeyboardInterrupt

    def submit(loop: Any) -> Any:
        return loop.pool.run(int) if lane == "pool" else loop.run_in_executor(None, int)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                submit(loop)
        for _ in range(2):
            # A thread that still runs the first job would rightly be joined by another.
            while loop.metrics().jobs_in_flight > 0:
                await asyncio.sleep(0)
            assert await submit(loop) == 0
        while loop.metrics().jobs_in_flight > 0:
            await asyncio.sleep(0)
        if lane == "pool":
            stats = loop.pool.stats()
            assert (stats.queued, stats.threads) == (0, 1)

    hoop.run(asyncio.wait_for(main(), DEADLINE_S))


def test_no_memory_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is taken back, and the next one gets a thread."""

    def start(self: threading.Thread) -> None:
        raise MemoryError

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        calls: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(MemoryError):
                loop.pool.run(calls.append, 1)
        assert loop.metrics().jobs_in_flight == 0
        assert loop.pool.stats().threads == 0
        assert await loop.pool.run(int) == 0
        assert calls == []

    hoop.run(asyncio.wait_for(main(), DEADLINE_S))


def test_a_thread_that_comes_after_its_start_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody expects it any more: it ends at once."""
    late: list[threading.Thread] = []

    def start(self: threading.Thread) -> None:
        late.append(self)
        raise KeyboardInterrupt

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(KeyboardInterrupt):
                loop.pool.run(int)
        late[0].start()
        await loop.run_in_executor(None, late[0].join, DEADLINE_S)
        assert not late[0].is_alive()
        assert loop.pool.stats().threads == 0
        assert await loop.pool.run(int) == 0

    hoop.run(asyncio.wait_for(main(), DEADLINE_S))


# Garbage.


def pool_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("hoop-pool_", "hoop_"))]


def end_of(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), thread


def abandon_with_pool(ended: threading.Semaphore) -> weakref.ref[hoop.Loop]:
    """A loop in cycles through its jobs and their futures, which nobody closes; all of its jobs have run."""
    loop = hoop.Loop(pool_size=2)

    def job(*args: Any) -> Any:
        ended.release()
        return args

    for _ in range(4):
        for future in (loop.pool.run_for(loop, job, (loop, job)), loop.run_in_executor(None, job, loop)):
            future.add_done_callback(lambda future, loop=loop: None)
    loop.me = loop  # type: ignore[attr-defined]
    return weakref.ref(loop)


@pytest.mark.parametrize("where", ["here", "another thread"])
def test_a_hundred_abandoned_loops_with_pools_are_collected(where: str) -> None:
    before = pool_threads()
    ended = threading.Semaphore(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.disable()
        refs = [abandon_with_pool(ended) for _ in range(100)]
        threads = [thread for thread in pool_threads() if thread not in before]
        gc.enable()
        for _ in range(800):
            assert ended.acquire(timeout=DEADLINE_S)
        if where == "here":
            gc.collect()
        else:
            collector = threading.Thread(target=gc.collect)
            collector.start()
            collector.join(DEADLINE_S)
        while any(ref() is not None for ref in refs):  # the last jobs may have been on their way to the inbox
            gc.collect()
    assert len(threads) >= 100  # 200, unless they run in parallel: then one is free again before the next job comes
    end_of(threads)


def test_a_pool_that_nobody_holds_ends_its_threads() -> None:
    before = pool_threads()
    loop = hoop.Loop(pool=hoop.Pool(3))
    assert loop.run_until_complete(loop.pool.run_for(loop, int, ())) == 0
    threads = [thread for thread in pool_threads() if thread not in before]
    assert len(threads) == 1
    loop.close()
    assert threads[0].is_alive()  # the pool was made by hand
    del loop
    gc.collect()
    end_of(threads)


def test_a_loop_forgets_pools_that_are_over() -> None:
    def crews() -> int:
        """How many there are in the process."""
        return sum(type(thing) is hoop.jobs.crew.Crew for thing in gc.get_objects())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = crews()
        for _ in range(20):
            with hoop.Pool(1) as pool:
                assert await pool.run(int) == 0
            assert await loop.pool.run(int) == 0
        del pool
        gc.collect()
        assert crews() <= before + 2  # the loop's own, and the latest

    hoop.run(main())


def test_a_job_that_collects_garbage_may_end_other_pools() -> None:
    """Finalizers run on any thread, also on one of a pool: nobody may wait for threads there."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = threading.Semaphore(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ref = abandon_with_pool(ended)
            for _ in range(8):
                assert ended.acquire(timeout=DEADLINE_S)
            while ref() is not None:
                await loop.pool.run(gc.collect)

    hoop.run(main())


def test_jobs_leave_no_references_behind() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        argument = object()
        before = sys.getrefcount(argument)
        release = threading.Event()
        for run in (loop.pool.run, lambda *args: loop.run_in_executor(None, *args)):
            await asyncio.gather(*(run(id, argument) for _ in range(50)))
            waiting = [run(release.wait, DEADLINE_S) for _ in range(40)]
            queued = [run(id, argument) for _ in range(10)]
            for future in queued:
                future.cancel()
            await asyncio.sleep(0)
            release.set()
            await asyncio.gather(*waiting)
        gc.collect()
        assert sys.getrefcount(argument) == before

    hoop.run(main())
