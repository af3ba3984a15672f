"""hoop.WorkerPool("interpreter"): what differs from processes and threads."""

from __future__ import annotations

import asyncio
import importlib
import math
import operator
import os
import sys
import threading

import hoop
import pytest
from hoop.workers.pool import WorkerPool

HAS_INTERPRETERS = sys.version_info >= (3, 14)
needs_interpreters = pytest.mark.skipif(not HAS_INTERPRETERS, reason="concurrent.interpreters came with Python 3.14")


def of_this_module() -> None:
    """Put into __main__ by a test."""


@pytest.mark.skipif(HAS_INTERPRETERS, reason="Python 3.14 has them")
def test_an_older_python_says_so() -> None:
    with pytest.raises(ValueError, match=r"needs Python 3\.14"):
        WorkerPool("interpreter")


@needs_interpreters
def test_tasks_run_in_one_interpreter_of_this_process() -> None:
    async def main() -> None:
        async with WorkerPool("interpreter", max_workers=1) as pool:
            assert await pool.run(math.sqrt, 4.0) == 2.0
            assert await pool.run(os.getpid) == os.getpid()
            assert await pool.run(exec, "import sys; sys.mark = 1") is None
            assert await pool.run(eval, "__import__('sys').mark") == 1
            assert not hasattr(sys, "mark")
            assert pool.stats().done == 4

    hoop.run(main())


@needs_interpreters
def test_an_error_is_its_tasks_and_tells_where() -> None:
    async def main() -> None:
        async with WorkerPool("interpreter", max_workers=1) as pool:
            with pytest.raises(ValueError, match="-1") as caught:
                await pool.run(math.sqrt, -1.0)
            assert "Traceback" in str(caught.value.__cause__)
            with pytest.raises(TypeError):  # a result that does not pickle
                await pool.run(threading.Lock)
            with pytest.raises(Exception, match=r"pickle|local"):  # a function that does not
                await pool.run(lambda: None)
            assert await pool.run(operator.add, 1, 2) == 3

    hoop.run(main())


@needs_interpreters
def test_trap_w11_what_refuses_subinterpreters_is_an_error_of_its_task_at_once() -> None:
    async def main() -> None:
        async with WorkerPool("interpreter", max_workers=1) as pool:
            with pytest.raises(ImportError, match="subinterpreters") as caught:
                await pool.run(importlib.import_module, "hoop.core.errors")
            assert any("WorkerPool('process')" in note for note in caught.value.__notes__)
            assert await pool.run(operator.add, 1, 2) == 3

    hoop.run(main())


@needs_interpreters
def test_functions_of_the_main_module_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_this_module, "__module__", "__main__")

    async def main() -> None:
        async with WorkerPool("interpreter") as pool:
            with pytest.raises(ValueError, match="put it into a module of its own"):
                await pool.run(of_this_module)

    hoop.run(main())


@needs_interpreters
def test_an_initializer_runs_first_and_one_that_fails_is_told() -> None:
    async def main() -> None:
        async with WorkerPool("interpreter", initializer=exec, initargs=("import sys; sys.mark = 2",)) as pool:
            assert await pool.run(eval, "__import__('sys').mark") == 2
        async with WorkerPool("interpreter", max_workers=1, initializer=math.sqrt, initargs=(-1.0,)) as pool:
            with pytest.raises(ValueError, match="-1"):
                await pool.run(operator.add, 1, 2)

    hoop.run(main())


@needs_interpreters
def test_a_cancelled_task_leaves_its_worker_to_nobody() -> None:
    """Its interpreter goes on until the task ends; the next task gets another one."""
    read, write = os.pipe()

    async def main() -> None:
        async with WorkerPool("interpreter", max_workers=1) as pool:
            task = asyncio.create_task(pool.run(os.read, read, 1))
            while not pool.stats().running:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await pool.run(operator.add, 1, 2) == 3
            os.write(write, b"x")

    try:
        hoop.run(main())
    finally:
        os.close(read)
        os.close(write)


@needs_interpreters
@pytest.mark.parametrize("option", ["max_memory", "nice"])
def test_options_of_processes_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="for worker processes"):
        WorkerPool("interpreter", **{option: 1})  # type: ignore[arg-type]
