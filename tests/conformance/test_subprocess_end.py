"""How a child ends for the tasks that wait: what asyncio has mended since Python 3.11, and hoop has on every version.

Where the running asyncio has it not yet, its half is skipped, by the version.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from typing import Any

import pytest
from interpreter import run_script
from peers import open_descriptors, soon, turns

PIPE = subprocess.PIPE

# Starts a child of its own that inherits its streams and lives until the pipe given as an argument is closed, and ends.
LEAVES_A_GRANDCHILD = """
import os, subprocess, sys
gate = int(sys.argv[1])
subprocess.Popen([sys.executable, "-S", "-c", f"import os; os.read({gate}, 1)"], pass_fds=[gate])
print("ended", flush=True)
"""


def skip_before(loop_name: str, *version: int) -> None:
    if loop_name == "asyncio" and sys.version_info < version:
        pytest.skip(f"asyncio: mended in Python {'.'.join(map(str, version))}")


async def python(source: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", source, *arguments, **options)


def test_wait_does_not_wait_for_a_grandchilds_pipes(run: Any, loop_name: str) -> None:
    """cpython#119710"""
    skip_before(loop_name, 3, 15)

    async def main() -> None:
        gate, opener = os.pipe()
        try:
            child = await python(LEAVES_A_GRANDCHILD, str(gate), stdout=PIPE, pass_fds=[gate])
            waiting = [asyncio.ensure_future(child.wait()) for _ in range(3)]
            await turns(2)
            waiting[0].cancel()
            assert await soon(asyncio.gather(*waiting[1:])) == [0, 0]
            assert await soon(child.wait()) == 0
            assert child.stdout is not None and await soon(child.stdout.readline()) == b"ended\n"
            assert not child.stdout.at_eof(), "the grandchild holds it open"
        finally:
            os.close(opener)  # which ends it
        assert await soon(child.stdout.read()) == b""
        os.close(gate)

    run(main())


def test_a_waiter_that_is_cancelled_is_forgotten(run: Any, loop_name: str) -> None:
    """cpython#119710, #145551: and the end of the child disturbs nobody."""
    skip_before(loop_name, 3, 15)

    async def main() -> None:
        child = await python("input()", stdin=PIPE)
        waiting = asyncio.ensure_future(child.wait())
        await turns(2)
        gone = asyncio.ensure_future(child.wait())
        await turns(2)
        gone.cancel()
        await asyncio.wait([gone])
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        child.kill()
        assert await soon(waiting) == -9
        await turns(5)
        assert problems == []

    run(main())


@pytest.mark.parametrize("failing", [1, 2])
def test_pipes_that_could_not_be_connected_are_closed(run: Any, loop_name: str, failing: int) -> None:
    """cpython#103847: a start that is cancelled or fails half way leaves no descriptor open."""
    skip_before(loop_name, 3, 15)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        await (await python("pass")).wait()
        gc.collect()
        before = open_descriptors()
        connected = loop.connect_read_pipe
        calls = []

        async def connect_read_pipe(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == failing:
                raise OSError("no more")
            return await connected(*arguments)

        loop.connect_read_pipe = connect_read_pipe
        with pytest.raises(OSError, match="no more"):
            await soon(python("input()", stdin=PIPE, stdout=PIPE, stderr=PIPE))
        del loop.connect_read_pipe
        await turns(5)
        calls.clear()
        gc.collect()
        assert open_descriptors() == before

    run(main())


def test_closing_a_child_that_may_not_be_killed(run: Any, loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """cpython#112800: a setuid program."""
    skip_before(loop_name, 3, 13)

    async def main() -> None:
        child = await python("input()", stdin=PIPE)
        transport: Any = child._transport  # type: ignore[attr-defined]
        popen = transport.get_extra_info("subprocess")

        def refuse() -> None:
            raise PermissionError

        monkeypatch.setattr(popen, "kill", refuse)
        transport.close()  # its standard input, too, so it ends
        assert await soon(child.wait()) == 1

    run(main())


def test_a_child_that_outlives_its_loop_disturbs_nobody(loop_name: str) -> None:
    """cpython#114177, #88050: what is left of it finds a closed loop."""
    skip_before(loop_name, 3, 14)
    code, output, errors = run_script(
        f"""
import asyncio, gc, sys
loop = asyncio.SelectorEventLoop() if {loop_name!r} == "asyncio" else __import__("hoop").Loop()
problems = []
sys.unraisablehook = lambda told: problems.append(told.exc_value)

async def main():
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "input()", stdin=-1, stdout=-1)

child = loop.run_until_complete(main())
loop.close()
child._transport.close()
print(child._transport.get_extra_info("subprocess").wait())
del child
gc.collect()
print(problems)
""",
        "-W",
        "ignore::ResourceWarning",
    )
    assert (code, output.split("\n")) == (0, ["-9", "[]"]), errors
