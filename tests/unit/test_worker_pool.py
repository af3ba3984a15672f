"""hoop.WorkerPool: what it takes and gives, and the traps of docs/worker_pool.md, each by its number."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop.stats import WorkerPoolStats
from unit.agents import on_hoop, settle

KINDS = ["process", "thread"]


# ---- what workers run: found by their names in another process -----------------------------------------------------


def add(left: int, right: int = 0) -> int:
    return left + right


def echo(value: Any) -> Any:
    return value


def fail(text: str) -> None:
    raise LookupError(text)


def wait_for_file(path: str) -> str:
    """Until somebody makes the file."""
    while not os.path.exists(path):
        time.sleep(0.001)
    return path


def say_and_wait(begun: str, path: str) -> str:
    Path(begun).touch()
    return wait_for_file(path)


def say_pid_and_wait(begun: str) -> None:
    Path(begun + ".part").write_text(str(os.getpid()))
    os.rename(begun + ".part", begun)
    while True:
        time.sleep(1)


def return_what_does_not_pickle() -> Any:
    return threading.Lock()


class Awkward(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("awkward")


def raise_what_does_not_unpickle() -> None:
    raise Awkward(1, 2)


def raise_interrupt() -> None:
    raise KeyboardInterrupt


MEMORY: list[bytes] = []


def keep_memory(size: int) -> int:
    MEMORY.append(b"x" * size)
    return os.getpid()


def memory_in_use() -> int:
    """Resident bytes of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def set_up(path: str) -> None:
    MEMORY.append(path.encode())


def show_set_up() -> bytes:
    return MEMORY[0]


def fail_to_set_up() -> None:
    raise RuntimeError("no licence")


def niceness() -> int:
    return os.nice(0)


def touch_at_exit(path: str) -> None:
    import atexit

    atexit.register(Path(path).touch)


def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# ---- what everybody may rely on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_results_and_errors_come_back(kind: Any) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool(kind, max_workers=2) as pool:
            assert await pool.run(add, 1, right=2) == 3
            with pytest.raises(LookupError, match="lost") as caught:
                await pool.run(fail, "lost")
            if kind == "process":
                assert "in fail" in str(caught.value.__cause__)
            assert sorted(await asyncio.gather(*(pool.run(add, number) for number in range(100)))) == list(range(100))
            assert pool.stats().done == 101
            assert pool.stats().started <= 2
        with pytest.raises(RuntimeError, match="closed"):
            await pool.run(add, 1)

    main()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"kind": "fibre"}, ValueError),
        ({"max_workers": 0}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"min_workers": -1}, ValueError),
        ({"min_workers": 3, "max_workers": 2}, ValueError),
        ({"idle_timeout": 0}, ValueError),
        ({"queue_limit": -1}, ValueError),
        ({"max_tasks_per_worker": 0}, ValueError),
        ({"max_memory": 0, "kind": "process"}, ValueError),
        ({"max_memory": 1 << 30, "kind": "thread"}, ValueError),
        ({"nice": 1, "kind": "thread"}, ValueError),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        hoop.WorkerPool(**options)


@on_hoop
async def test_large_buffers_keep_their_type_and_content() -> None:
    async with hoop.WorkerPool("process", max_workers=1) as pool:
        for size in (0, 100, 256 * 1024 - 1, 256 * 1024, 3_000_000, 1_000_000, 5_000_000):
            data = random.Random(size).randbytes(size)
            assert await pool.run(echo, data) == data
            answer = await pool.run(echo, [bytearray(data), data])
            assert answer == [data, data]
            assert list(map(type, answer)) == [bytearray, bytes]


@on_hoop
async def test_workers_are_set_up_before_their_first_task() -> None:
    async with hoop.WorkerPool("process", max_workers=1, initializer=set_up, initargs=("here",), nice=3) as pool:
        assert await pool.run(show_set_up) == b"here"
        assert await pool.run(niceness) == os.nice(0) + 3
    async with hoop.WorkerPool("process", max_workers=1) as pool:
        loaded = await pool.run(eval, "set(__import__('sys').modules)")
        assert not {name for name in loaded if name.partition(".")[0] == "hoop"}


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_hear_why_no_worker_can_start(kind: Any) -> None:
    @on_hoop
    async def main() -> None:
        pool = hoop.WorkerPool(kind, max_workers=2, initializer=fail_to_set_up)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no licence"):
                await pool.run(add, 1)
        await pool.close()

    main()


@on_hoop
async def test_idle_workers_end_but_for_min_workers() -> None:
    async with hoop.WorkerPool("process", min_workers=1, max_workers=3, idle_timeout=0.05) as pool:
        await asyncio.gather(*(pool.run(time.sleep, 0.01) for _ in range(3)))
        await until(lambda: pool.stats().idle == 1)
        pid = await pool.run(os.getpid)
        assert await pool.run(os.getpid) == pid


def test_a_worker_that_is_not_wanted_any_more_ends_as_programs_do(tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool("process", max_workers=1) as pool:
            await pool.run(touch_at_exit, str(tmp_path / "ended"))
        assert (tmp_path / "ended").exists()

    main()


@pytest.mark.parametrize("kind", KINDS)
def test_the_queue_has_a_limit(kind: Any, tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool(kind, max_workers=1, queue_limit=1) as pool:
            await pool.run(add, 1)
            running = start(pool.run(wait_for_file, str(tmp_path / "go")))
            await settle()
            waiting = start(pool.run(add, 1))
            await settle()
            with pytest.raises(hoop.PoolFull):
                await pool.run(add, 2)
            (tmp_path / "go").touch()
            assert (await waiting, pool.stats().refused) == (1, 1)
            await running

    main()


@pytest.mark.parametrize("kind", KINDS)
def test_run_in_executor(kind: Any) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool(kind, max_workers=1) as pool:
            executor = pool.executor()
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(executor, add, 1, 2) == 3
            with pytest.raises(LookupError):
                await loop.run_in_executor(executor, fail, "x")

    main()


def test_a_pool_belongs_to_one_loop() -> None:
    pool = hoop.WorkerPool("thread", max_workers=1)

    async def main() -> None:
        await pool.run(add, 1)

    hoop.run(main())
    with pytest.raises(RuntimeError, match="one loop"):
        hoop.run(main())


def test_asyncios_own_loop_runs_it_too() -> None:
    async def main() -> int:
        async with hoop.WorkerPool("process", max_workers=1) as pool:
            return await pool.run(add, 1, 2)

    assert asyncio.run(main()) == 3


# ---- the traps -----------------------------------------------------------------------------------------------------


def test_trap_w1_after_an_abort_of_the_queued_and_the_running_task_the_third_starts(tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool("process", max_workers=1) as pool:
            await pool.run(add, 1)
            running = start(pool.run(wait_for_file, str(tmp_path / "never")))
            await settle()
            queued, third = start(pool.run(add, 2)), start(pool.run(add, 3))
            await settle()
            queued.cancel()
            running.cancel()
            assert await third == 3
            assert pool.stats().cancelled == 2

    main()


def test_trap_w2_an_abort_ends_its_own_worker_and_no_other(tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool("process", max_workers=2) as pool:
            await asyncio.gather(pool.run(time.sleep, 0.05), pool.run(time.sleep, 0.05))
            aborted = start(pool.run(say_and_wait, str(tmp_path / "a"), str(tmp_path / "never")))
            neighbour = start(pool.run(say_and_wait, str(tmp_path / "b"), str(tmp_path / "go")))
            await until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
            aborted.cancel()
            await settle()
            (tmp_path / "go").touch()
            assert await neighbour == str(tmp_path / "go")
            assert pool.stats().deaths == 0
            stats = pool.stats()
            assert stats.idle + stats.running + stats.starting <= 2, "no spare worker is left behind"

    main()


def test_trap_w3_queued_counts_every_waiting_task(tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool("process", max_workers=1) as pool:
            await pool.run(add, 1)
            tasks = [start(pool.run(wait_for_file, str(tmp_path / "go"))) for _ in range(5)]
            await settle()
            assert (pool.stats().running, pool.stats().queued) == (1, 4)
            tasks[2].cancel()
            await settle()
            assert (pool.stats().running, pool.stats().queued) == (1, 3)
            (tmp_path / "go").touch()
            await asyncio.wait(tasks)
            assert pool.stats().queued == 0

    main()


def test_trap_w4_a_death_costs_one_task_and_the_rest_goes_on(tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool("process", max_workers=2) as pool:
            victim = start(pool.run(say_pid_and_wait, str(tmp_path / "pid")))
            others = [start(pool.run(add, number)) for number in range(20)]
            await until((tmp_path / "pid").exists)
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            with pytest.raises(hoop.WorkerDied, match="SIGKILL") as caught:
                await victim
            assert (caught.value.signal, caught.value.status) == (signal.SIGKILL, None)
            assert await asyncio.gather(*others) == list(range(20))
            with pytest.raises(hoop.WorkerDied) as caught:
                await pool.run(os._exit, 7)
            assert caught.value.status == 7
            assert await pool.run(add, 1) == 1
            assert pool.stats().deaths == 2

    main()


@on_hoop
async def test_trap_w5_what_does_not_pickle_is_the_error_of_its_task() -> None:
    async with hoop.WorkerPool("process", max_workers=1) as pool:
        pid = await pool.run(os.getpid)
        with pytest.raises((AttributeError, pickle.PicklingError)):
            await pool.run(lambda: 1)
        with pytest.raises(TypeError, match="pickle"):
            await pool.run(echo, threading.Lock())
        with pytest.raises(TypeError, match="pickle"):
            await pool.run(return_what_does_not_pickle)
        with pytest.raises(RuntimeError, match="Awkward"):
            await pool.run(raise_what_does_not_unpickle)
        with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
            await pool.run(raise_interrupt)
        assert await pool.run(os.getpid) == pid, "the worker bears it"


@pytest.mark.parametrize("kind", KINDS)
def test_trap_w6_max_tasks_per_worker_with_a_backlog(kind: Any) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool(kind, max_workers=2, max_tasks_per_worker=2) as pool:
            assert await asyncio.gather(*(pool.run(add, number) for number in range(11))) == list(range(11))
            assert pool.stats().started >= 6

    main()


@on_hoop
async def test_trap_w7_what_is_queued_when_the_pool_closes_ends() -> None:
    pool = hoop.WorkerPool("process", max_workers=1)
    tasks = [start(pool.run(add, number)) for number in range(5)]
    await settle()
    await pool.close()
    assert [task.result() for task in tasks] == list(range(5))
    pool = hoop.WorkerPool("process", max_workers=1)
    tasks = [start(pool.run(time.sleep, 1000)) for _ in range(3)]
    await settle()
    pool.terminate()
    await pool.close()
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), hoop.WorkerDied) for task in tasks)


def test_trap_w8_the_timeout_counts_from_the_start_of_running(tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool("process", max_workers=1) as pool:
            await pool.run(add, 1)
            first = start(pool.run(wait_for_file, str(tmp_path / "go")))
            await settle()
            second = start(pool.run(add, 2, timeout=30))
            await settle()
            (waiting,) = pool._queue
            assert waiting.timer is None, "it waits for a worker, and no clock runs"
            (tmp_path / "go").touch()
            assert await second == 2
            await first
            with pytest.raises(TimeoutError, match="ran for more than"):
                await pool.run(wait_for_file, str(tmp_path / "never"), timeout=0.01)
            assert await pool.run(add, 3) == 3

    main()


@on_hoop
async def test_trap_w9_a_worker_that_is_leaving_gets_no_task() -> None:
    async with hoop.WorkerPool("process", max_workers=1, idle_timeout=1000) as pool:
        await pool.run(add, 1)
        (worker,) = pool._idle
        pool._idle_for_too_long(worker)  # in the turn in which a task comes
        assert await pool.run(add, 2) == 2
        assert pool.stats().deaths == 0
        (successor,) = pool._idle
        assert successor is not worker
        pool._idle_for_too_long(worker)  # a timer that was late


def test_trap_w10_a_program_without_a_guard_is_told_so(tmp_path: Path) -> None:
    program = tmp_path / "unguarded.py"
    program.write_text(
        textwrap.dedent("""
            import hoop

            async def main():
                async with hoop.WorkerPool("process", max_workers=1) as pool:
                    print(await pool.run(abs, -1))

            hoop.run(main())
        """)
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert '__name__ == "__main__"' in done.stderr
    program.write_text(program.read_text().replace("hoop.run(main())", 'if __name__ == "__main__": hoop.run(main())'))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"


def test_trap_w12_ctrl_c_reaches_workers_and_they_ignore_it(tmp_path: Path) -> None:
    @on_hoop
    async def main() -> None:
        async with hoop.WorkerPool("process", max_workers=1) as pool:
            pid = await pool.run(os.getpid)
            running = start(pool.run(say_and_wait, str(tmp_path / "begun"), str(tmp_path / "go")))
            await until((tmp_path / "begun").exists)
            os.kill(pid, signal.SIGINT)
            (tmp_path / "go").touch()
            await running
            assert await pool.run(os.getpid) == pid

    main()


def test_trap_w13_workers_end_with_the_process_that_has_the_pool(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import sys, os, signal, asyncio
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import hoop
        from unit.test_worker_pool import say_pid_and_wait

        async def main():
            pool = hoop.WorkerPool("process", max_workers=1)
            task = asyncio.ensure_future(pool.run(say_pid_and_wait, {str(tmp_path / "pid")!r}))
            while not os.path.exists({str(tmp_path / "pid")!r}):
                await asyncio.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            hoop.run(main())
    """)
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # adopted by this process, if it is a subreaper
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
        time.sleep(0.01)
    else:
        assert not is_alive(pid), "the worker lives on"
    assert not [name for name in os.listdir("/dev/shm") if "hoop" in name]


@on_hoop
async def test_a_worker_that_has_grown_is_replaced_after_its_task() -> None:
    async with hoop.WorkerPool("process", max_workers=1) as pool:
        usual = await pool.run(memory_in_use)  # several times as much under a sanitizer
    async with hoop.WorkerPool("process", max_workers=1, max_memory=usual + (150 << 20)) as pool:
        small = await pool.run(keep_memory, 1 << 20)
        assert await pool.run(keep_memory, 1 << 20) == small
        assert await pool.run(keep_memory, 200 << 20) == small
        assert await pool.run(keep_memory, 1) != small


@on_hoop
async def test_every_future_ends_under_random_aborts_deaths_and_timeouts() -> None:
    """No process and no descriptor is left."""
    rng = random.Random(1)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    ends = {"done": 0, "died": 0, "timeout": 0, "cancelled": 0}

    async def use(pool: hoop.WorkerPool) -> None:
        kind = rng.choice(["done"] * 12 + ["died", "timeout", "cancelled"])
        try:
            if kind == "died":
                await pool.run(os._exit, 1)
            elif kind == "timeout":
                await pool.run(time.sleep, 1000, timeout=0.02)
            elif kind == "cancelled":
                task = start(pool.run(time.sleep, 1000))
                await asyncio.sleep(rng.random() * 0.02)
                task.cancel()
                await task
            else:
                assert await pool.run(add, 1, 2) == 3
                ends["done"] += 1
        except hoop.WorkerDied:
            assert kind == "died"
            ends["died"] += 1
        except TimeoutError:
            assert kind == "timeout"
            ends["timeout"] += 1
        except asyncio.CancelledError:
            assert kind == "cancelled"
            ends["cancelled"] += 1

    async with hoop.WorkerPool("process", max_workers=2) as pool:
        await asyncio.gather(*(use(pool) for _ in range(120)))
        stats = pool.stats()
        assert stats.queued == 0
    assert sum(ends.values()) == 120
    assert pool.stats() == WorkerPoolStats(
        **{**vars(pool.stats()), "starting": 0, "idle": 0, "running": 0, "queued": 0}
    )
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 1
