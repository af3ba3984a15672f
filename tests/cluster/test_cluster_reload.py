"""Reload and scale: new workers are ready first, and what fails changes nothing."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from clusters import (
    IS_SANITIZED,
    LINES_APP,
    Client,
    Cluster,
    ask,
    clients_that_lose_nothing,
    cluster,
    is_alive,
    until,
    workers_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SECOND = LINES_APP.replace('VERSION = "1"', 'VERSION = "2"')


def reload(running: Cluster, folder: Path, source: str) -> None:
    (folder / "app.py").write_text(source)
    running.send(signal.SIGHUP)


def test_reload_brings_new_code_to_every_slot(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=3) as running:
        address = running.serving()
        before = workers_of(address, 3)
        reload(running, tmp_path, SECOND)
        running.expect("reloaded: all workers are of generation 1")
        until(lambda: not any(map(is_alive, before.values())))
        after = workers_of(address, 3)
        assert not set(after.values()) & set(before.values())
        assert ask(address).split()[2:] == ["1", "2"]
        assert running.stop() == 0
        log = running.rest()
        assert all(f"process {pid} exited with status 0" in log for pid in before.values())


def test_reload_loses_no_request(tmp_path: Path) -> None:
    """Clients with a connection for each request, and one that keeps its own, over ten reloads."""
    with cluster(tmp_path) as running:
        address = running.serving()
        with clients_that_lose_nothing(address):
            for generation in range(1, 11):
                running.send(signal.SIGHUP)
                running.expect(f"all workers are of generation {generation}")
        assert running.stop() == 0


def test_a_request_under_way_is_answered_by_the_old_worker(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1) as running:
        address = running.serving()
        with Client(address) as client:
            pid = client.ask("who").split()[0]
            client.send("wait 1")
            running.send(signal.SIGHUP)
            running.expect("reloaded")
            until(lambda: ask(address).split()[0] != pid)
            assert client.answer() == "waited"
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("async def main():\n    raise ValueError('not today')", "ValueError: not today"),
        ("import asyncio\nasync def main():\n    await asyncio.Event().wait()", "was not ready within 1 s"),
    ],
    ids=["import", "raises", "hangs"],
)
def test_trap_c05_reload_of_broken_code_keeps_the_old(tmp_path: Path, source: str, reason: str) -> None:
    with cluster(tmp_path, start_timeout=1.0) as running:
        address = running.serving()
        before = workers_of(address, 2)
        reload(running, tmp_path, source)
        running.expect(f"reload failed, the old workers serve on: worker 0 .*{reason}")
        assert workers_of(address, 2) == before
        reload(running, tmp_path, SECOND)
        running.expect("reloaded")
        until(lambda: not any(map(is_alive, before.values())))  # they serve those who had called already
        assert ask(address).split()[3] == "2"
        assert running.stop() == 0


def test_trap_c14_a_second_reload_waits_for_the_first(tmp_path: Path) -> None:
    """And those asked for meanwhile are one."""
    slow = LINES_APP.replace("    worker.ready()", "    await asyncio.sleep(0.2)\n    worker.ready()")
    with cluster(tmp_path, slow) as running:
        running.serving()
        running.send(signal.SIGHUP)
        running.expect("worker 0: process .* has started")
        for _ in range(3):
            running.send(signal.SIGHUP)
            running.expect("another reload follows")
        running.expect("all workers are of generation 1")
        running.expect("all workers are of generation 2")
        assert running.stop() == 0
        assert "generation 3" not in running.rest()


def test_trap_c14_term_aborts_a_reload(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        running.serving()
        reload(running, tmp_path, "import asyncio\nasync def main():\n    await asyncio.Event().wait()")
        running.expect("worker 0: process .* has started")
        assert running.stop() == 0
        assert "reload failed, the old workers serve on: the cluster stops" in running.rest()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTTIN])
def test_trap_c14_signals_for_the_master_leave_a_worker_alone(tmp_path: Path, number: signal.Signals) -> None:
    with cluster(tmp_path, workers=1) as running:
        address = running.serving()
        with Client(address) as client:
            pid = int(client.ask("who").split()[0])
            os.kill(pid, number)
            assert client.ask("who").split()[0] == str(pid)
        assert ask(address).split()[0] == str(pid)
        assert running.stop() == 0


def test_trap_c14_usr1_does_not_kill_the_master(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        address = running.serving()
        running.send(signal.SIGUSR1)
        running.send(signal.SIGHUP)
        running.expect("reloaded")
        assert ask(address)
        assert running.stop() == 0


def test_ttin_and_ttou_change_the_number_of_workers(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1) as running:
        address = running.serving()
        running.send(signal.SIGTTIN)
        running.expect("worker 1: ready")
        pids = workers_of(address, 2)
        running.send(signal.SIGTTOU)
        running.expect(f"worker 1: process {pids[1]} exited with status 0")
        assert workers_of(address, 1) == {0: pids[0]}
        running.send(signal.SIGTTOU)  # one is the least
        running.send(signal.SIGHUP)
        running.expect("reloaded")
        assert running.stop() == 0


def test_trap_c13_many_reloads_leave_nothing_in_the_master(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1) as running:
        running.serving()

        def reload_times(first: int, last: int) -> None:
            for generation in range(first, last):
                running.send(signal.SIGHUP)
                running.expect(f"all workers are of generation {generation}$")
                running.expect("exited with status 0")

        reload_times(1, 21)
        before = holdings(running.pid)
        reload_times(21, 101)
        after = holdings(running.pid)
        assert after[:2] == before[:2]
        if not IS_SANITIZED:  # it keeps what is freed for a while
            assert after[2] - before[2] <= 512, "KiB"
        assert running.stop() == 0


def holdings(pid: int) -> tuple[int, int, int]:
    """Descriptors, threads, and KiB of anonymous memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"]), int(fields["RssAnon"].split()[0])
