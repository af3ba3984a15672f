"""What a person sees of a running program: its tasks, from inside and outside, and the repr() of its objects."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from conformance.peers import DEADLINE_S, LOCALHOST, Recorder, connected, soon, turns

# A process with two named tasks, one waiting for the other, on the loop under test. It ends with its standard input.
PROGRAM = """
import asyncio
import sys

async def leaf(started):
    started.set()
    await asyncio.Event().wait()

async def root(started):
    await asyncio.create_task(leaf(started), name="the leaf")

async def main():
    started = asyncio.Event()
    task = asyncio.create_task(root(started), name="the root")
    await started.wait()
    await asyncio.sleep(0)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    task.cancel()

factory = asyncio.SelectorEventLoop
if sys.argv[1] == "hoop":
    import hoop
    factory = hoop.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


def test_tasks_from_inside(run: Any) -> None:
    async def sleeper(seen: list[Any]) -> None:
        seen.append(asyncio.current_task())
        await asyncio.Event().wait()

    async def main() -> None:
        mine = asyncio.current_task()
        seen: list[Any] = []
        others = {asyncio.create_task(sleeper(seen), name=f"sleeper {number}") for number in range(3)}
        await turns()
        assert set(seen) == others and mine not in others
        assert others < asyncio.all_tasks() and mine in asyncio.all_tasks()
        assert asyncio.all_tasks(asyncio.get_running_loop()) == asyncio.all_tasks()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert not others & asyncio.all_tasks()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_tasks_from_outside(loop_name: str, command: str) -> None:
    """python -m asyncio reads another process's tasks out of its memory; skipped where the system forbids that."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, loop_name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        seen = subprocess.run(
            [sys.executable, "-m", "asyncio", command, str(child.pid)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            env=os.environ | {"NO_COLOR": "1"},
            check=False,
        )
        child.stdin.close()
        child.wait(DEADLINE_S)
    if "ermission" in seen.stdout or "not permitted" in seen.stdout:
        pytest.skip(f"this system lets nobody look: {seen.stdout.strip()[-100:]}")
    assert seen.returncode == 0, seen.stdout
    assert "the root" in seen.stdout and "the leaf" in seen.stdout
    assert child.returncode == 0


def test_what_objects_say_of_themselves() -> None:
    """hoop's words: the kind, the state, and what one needs to find the thing with other tools."""
    import hoop

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(3600, turns)
        assert "TimerHandle" in repr(timer) and "turns" in repr(timer)
        timer.cancel()
        assert "cancelled" in repr(timer)
        protocol = Recorder()
        transport, peer = await connected(protocol)
        number = transport.get_extra_info("socket").fileno()
        text = repr(transport)
        assert "open" in text and f"fd={number}" in text and str(peer.getsockname()[1]) in text
        transport.close()
        assert "clos" in repr(transport)
        await protocol.until_lost()
        assert "closed" in repr(transport)
        peer.close()
        server = await loop.create_server(Recorder, LOCALHOST, 0)
        assert str(server.sockets[0].getsockname()[1]) in repr(server)
        server.close()
        await soon(server.wait_closed())
        endpoint, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(LOCALHOST, 0))
        assert "Datagram" in repr(endpoint) and "fd=" in repr(endpoint)
        endpoint.close()
        assert "running=True" in repr(loop)

    hoop.run(main())
