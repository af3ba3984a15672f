"""Workers that die are replaced; one that cannot start ends the cluster at its first start, and only then."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from clusters import LINES_APP, Client, ask, cluster, refuses, started, workers_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# By the kernel, whoever has a handler: a sanitizer's would make an exit status of the signal.
CRASHING = """
import os, signal

async def main():
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_workers_share_an_address(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=3) as running:
        address = running.serving()
        pids = workers_of(address, 3)
        assert len(set(pids.values())) == 3 and running.pid not in pids.values()
        assert running.stop() == 0
        assert refuses(address)


def test_a_function_is_a_target(tmp_path: Path) -> None:
    program = f"{LINES_APP}\nhoop.cluster.run(main, workers=1, bind='127.0.0.1:0', control=False)"
    with started(program, tmp_path) as running:
        assert ask(running.serving()).split()[1:] == ["0", "0", "1"]
        assert running.stop(signal.SIGINT) == 0


def test_a_dead_worker_is_replaced_and_keeps_its_slot(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        address = running.serving()
        before = workers_of(address, 2)
        with Client(address) as bystander:
            slot = int(bystander.ask("who").split()[1])
            os.kill(before[1 - slot], signal.SIGKILL)
            running.expect(rf"worker {1 - slot}: process {before[1 - slot]} was killed by SIGKILL")
            running.expect(rf"worker {1 - slot}: ready")
            assert bystander.ask("who").split()[0] == str(before[slot])
        after = workers_of(address, 2)
        assert after[slot] == before[slot] and after[1 - slot] not in before.values()
        assert running.stop() == 0


def test_a_worker_that_ends_by_itself_is_replaced(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1) as running:
        address = running.serving()
        with Client(address) as client:
            client.send("exit 7")
            assert client.is_ended()
        running.expect("exited with status 7")
        running.expect("ready")
        assert ask(address)
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("async def other(): pass", "main"),
        ("async def main():\n    raise ValueError('not today')", "ValueError: not today"),
        ("async def main():\n    pass", "exited with status 0"),
        ("import os\nasync def main():\n    os._exit(9)", "exited with status 9"),
        (CRASHING, "killed by SIGSEGV"),
    ],
    ids=["import", "attribute", "raises", "returns", "exits", "crashes"],
)
def test_trap_c17_a_first_start_that_fails_ends_the_cluster(tmp_path: Path, source: str, reason: str) -> None:
    with cluster(tmp_path, source, workers=3) as running:
        assert running.wait() == 1
        log = running.rest()
        assert reason in log.splitlines()[-1], log
        assert log.count("has started") == 3


def test_trap_c17_a_slot_that_dies_again_and_again_leaves_the_others_alone(tmp_path: Path) -> None:
    source = LINES_APP + (
        "\nserve = main\nasync def main(worker):\n    if worker.id == 1 and os.path.exists('bad'):\n"
        "        raise ValueError('bad slot')\n    await serve(worker)\n"
    )
    with cluster(tmp_path, source) as running:
        address = running.serving()
        before = workers_of(address, 2)
        (tmp_path / "bad").touch()
        with Client(address) as client:
            while client.ask("who").split()[1] != "0":
                client.close()
                client.__init__(address)  # type: ignore[misc]
            os.kill(before[1], signal.SIGKILL)
            for _ in range(3):
                running.expect("worker 1: process .* failed: ValueError: bad slot")
            assert client.ask("who").split()[0] == str(before[0])
            (tmp_path / "bad").unlink()
            running.expect("worker 1: ready")
            assert client.ask("who").split()[0] == str(before[0])
        assert running.stop() == 0


def test_trap_c06_a_start_that_never_ends_has_a_timeout_of_its_own(tmp_path: Path) -> None:
    source = "import asyncio\nasync def main():\n    await asyncio.Event().wait()"
    with cluster(tmp_path, source, start_timeout=0.3) as running:
        assert running.wait() == 1
        assert "was not ready within 0.3 s" in running.rest().splitlines()[-1]
