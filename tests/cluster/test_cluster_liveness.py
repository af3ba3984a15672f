"""Workers whose loop is blocked are replaced, with their stack in the log; worn ones are replaced, one at a time."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from clusters import LINES_APP, Client, Cluster, ask, cluster, is_alive, workers_of

QUICK: dict[str, Any] = {"blocked_timeout": 0.5, "abort_after": 0.2, "kill_after": 0.2}

HOLDING_THE_GIL = "run import ctypes; ctypes.PyDLL(None).sleep(300)"


def pid_of(answer: str) -> int:
    return int(answer.split(maxsplit=1)[0])


def expect_replacement(running: Cluster, slot: int, old: int) -> None:
    """A worker is killed, and one that answers has its place."""
    running.expect(rf"worker {slot}: process {old} was killed|worker {slot}: process {old} was blocked")
    running.expect(rf"worker {slot}: ready")
    assert not is_alive(old)


@pytest.mark.parametrize(
    ("line", "place"), [("block 300", "handle"), (HOLDING_THE_GIL, "<module>")], ids=["sleeps", "holds the GIL"]
)
def test_trap_c07_c08_a_blocked_loop_is_noticed_and_its_stack_logged(tmp_path: Path, line: str, place: str) -> None:
    with cluster(tmp_path, **QUICK) as running:
        address = running.serving()
        with Client(address) as client:
            pid, slot = map(int, client.ask("who").split()[:2])
            client.send(line)
            running.expect(rf"worker {slot}: process {pid} has held its loop for 0\.\d s")
            running.expect("its stack:")
            running.expect(r"most recent call first")
            running.expect(rf"File .* in {re.escape(place)}")
            running.expect(r"app\.py.* in handle") if place != "handle" else None
            expect_replacement(running, slot, pid)
        assert pid not in workers_of(address, 2).values()
        assert running.stop() == 0


def test_trap_c07_a_stopped_process_is_noticed(tmp_path: Path) -> None:
    with cluster(tmp_path, **QUICK) as running:
        address = running.serving()
        slot, pid = workers_of(address, 2).popitem()
        os.kill(pid, signal.SIGSTOP)
        running.expect(rf"worker {slot}: process {pid} .*: stopped by a signal")
        running.expect("could not write its stack")
        expect_replacement(running, slot, pid)
        assert running.stop() == 0


def test_trap_c07_nobody_looks_where_that_is_not_wanted(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1, blocked_timeout=None) as running:
        address = running.serving()
        assert ask(address, "block 1.5") == "unblocked"
        assert running.stop() == 0
        assert "has held its loop" not in running.rest()


def test_trap_c06_a_start_that_holds_the_gil_is_no_blocked_loop(tmp_path: Path) -> None:
    slow = "import ctypes\nctypes.PyDLL(None).usleep(1_500_000)\n" + LINES_APP
    with cluster(tmp_path, slow, workers=1, **QUICK) as running:
        address = running.serving()
        assert ask(address).split()[1] == "0"
        assert running.stop() == 0
        assert "blocked" not in running.rest()


def test_trap_c09_a_draining_worker_has_its_drains_deadline(tmp_path: Path) -> None:
    source = LINES_APP.replace(
        "    worker.ready()",
        """
    async def end():
        await hoop.draining()
        time.sleep(1.5)
        print("done", flush=True)

    ending = asyncio.ensure_future(end())
    worker.ready()""",
    )
    with cluster(tmp_path, source, workers=1, **QUICK) as running:
        running.serving()
        assert running.stop() == 0
        log = running.rest()
        assert "done" in log
        assert "held its loop" not in log


# ---- recycling ------------------------------------------------------------------------------------------------------


def test_trap_c15_worn_workers_are_replaced_one_at_a_time_by_one_that_is_ready(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=3, max_accepts=3, jitter=0.5) as running:
        address = running.serving()
        first = workers_of(address, 3)
        while any(map(is_alive, first.values())):
            workers_of(address, 3)
        assert running.stop() == 0
        log = running.rest()
    assert "it has accepted" in log
    starting: list[str] = []
    left = set(map(str, first.values()))
    for line in log.partition("serving on")[2].splitlines():
        if "stopping" in line:
            break
        if found := re.search(r"worker (\d): process \d+ has started", line):
            starting.append(found[1])
            assert len(starting) == 1, "two at a time"
        elif found := re.search(r"worker (\d): ready", line):
            starting.remove(found[1])
        elif found := re.search(r"worker \d: process (\d+) exited with status 0", line):
            left.discard(found[1])
        assert "killed" not in line
    assert not left


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell how large a process is")
def test_a_large_worker_is_replaced(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1, max_rss=200 << 20) as running:
        address = running.serving()
        old = pid_of(ask(address))
        ask(address, "run import sys; sys.hog = b'x' * (300 << 20)")
        running.expect(r"to be replaced, it takes [3-9]\d\d MiB")
        running.expect(f"process {old} exited with status 0")
        assert pid_of(ask(address)) != old
        assert running.stop() == 0


def test_an_old_worker_is_replaced(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1, max_lifetime=0.5) as running:
        address = running.serving()
        old = pid_of(ask(address))
        running.expect("to be replaced, it has served for")
        running.expect(f"process {old} exited with status 0")
        assert pid_of(ask(address)) != old
        assert running.stop() == 0


def test_requests_that_a_server_counts(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1, max_requests=10) as running:
        address = running.serving()
        old = pid_of(ask(address))
        with Client(address) as client:
            for _ in range(10):
                assert client.ask("run worker.count_request()") == "None"
        running.expect("to be replaced, it has answered 10 requests|to be replaced, it has answered 9 requests")
        running.expect(f"process {old} exited with status 0")
        assert running.stop() == 0
