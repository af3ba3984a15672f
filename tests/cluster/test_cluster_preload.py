"""preload=True: a template process for each generation imports the application, and workers are forked from it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from clusters import IS_SANITIZED, LINES_APP, Client, Cluster, ask, cluster, is_alive, refuses, until, workers_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

COUNTED = 'import os\nwith open("imports", "a") as file:\n    file.write(f"{os.getpid()}\\n")\n' + LINES_APP
SECOND = COUNTED.replace('VERSION = "1"', 'VERSION = "2"')


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def importers(folder: Path) -> list[int]:
    """The processes that have imported the application, in that order."""
    return [int(line) for line in (folder / "imports").read_text().split()]


def reload(running: Cluster, folder: Path, source: str) -> None:
    (folder / "app.py").write_text(source)
    running.send(signal.SIGHUP)


def test_workers_are_forked_from_a_process_that_has_imported_the_application_once(tmp_path: Path) -> None:
    with cluster(tmp_path, COUNTED, workers=3, preload=True) as running:
        address = running.serving()
        pids = workers_of(address, 3)
        (template,) = importers(tmp_path)
        assert template != running.pid
        assert parent_of(template) == running.pid
        assert {parent_of(pid) for pid in pids.values()} == {template}
        assert int(ask(address, "run import gc; answer = gc.get_freeze_count()")) > 10_000
        assert running.stop() == 0
        assert not is_alive(template)


def test_trap_c19_a_reload_imports_the_new_code(tmp_path: Path) -> None:
    with cluster(tmp_path, COUNTED, preload=True) as running:
        address = running.serving()
        before = workers_of(address, 2)
        reload(running, tmp_path, SECOND)
        running.expect("reloaded: all workers are of generation 1")
        until(lambda: not any(map(is_alive, before.values())))
        assert ask(address).split()[2:] == ["1", "2"]
        old, new = importers(tmp_path)
        until(lambda: not is_alive(old))
        assert {parent_of(pid) for pid in workers_of(address, 2).values()} == {new}
        assert running.stop() == 0
        log = running.rest()
        assert all(f"process {pid} exited with status 0" in log for pid in before.values())


@pytest.mark.skipif(IS_SANITIZED, reason="the sanitizer's own memory of each allocation is not shared")
def test_trap_c19_workers_share_what_was_imported(tmp_path: Path) -> None:
    """Though each has collected its garbage: the collector writes to what it looks at."""
    size = 400_000
    source = COUNTED.replace("VERSION", f"DATA = [[number] for number in range({size})]\nVERSION", 1)
    with cluster(tmp_path, source, preload=True) as running:
        address = running.serving()
        with Client(address) as client:
            pid = client.ask("who").split()[0]
            client.ask("run import gc; answer = gc.collect()")
            figures = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
            private = sum(int(figures[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
            assert private * 1024 < size * 64 / 4  # a list and its memory take more than 64 bytes
        assert running.stop() == 0


def test_a_worker_that_dies_is_forked_anew_without_another_import(tmp_path: Path) -> None:
    with cluster(tmp_path, COUNTED, preload=True) as running:
        address = running.serving()
        before = workers_of(address, 2)
        os.kill(before[0], signal.SIGKILL)
        running.expect(f"worker 0: process {before[0]} was killed by SIGKILL")
        running.expect("worker 0: ready")
        with Client(address) as client:
            client.send("exit 7")
            running.expect("exited with status 7")
        running.expect(r"worker \d: ready")
        assert len(importers(tmp_path)) == 1
        assert running.stop() == 0


def test_a_template_that_dies_leaves_its_workers_alone_and_is_followed(tmp_path: Path) -> None:
    with cluster(tmp_path, COUNTED, preload=True) as running:
        address = running.serving()
        before = workers_of(address, 2)
        (template,) = importers(tmp_path)
        os.kill(template, signal.SIGKILL)
        until(lambda: not is_alive(template))
        assert workers_of(address, 2) == before
        os.kill(before[1], signal.SIGKILL)
        running.expect(f"process {before[1]} ended, and its template before it")
        running.expect("worker 1: ready")
        assert len(importers(tmp_path)) == 2
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("import os; os.abort()", "the process that loads the application has ended"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "starts threads"),
    ],
    ids=["import", "abort", "thread"],
)
def test_trap_c05_an_application_that_does_not_load(tmp_path: Path, line: str, reason: str) -> None:
    """As the first one it ends the cluster; in a reload the old one serves on, and the master lives."""
    with cluster(tmp_path, COUNTED, preload=True) as running:
        address = running.serving()
        before = workers_of(address, 2)
        reload(running, tmp_path, f"{line}\n{COUNTED}")
        running.expect(f"reload failed, the old workers serve on: .*{reason}")
        assert workers_of(address, 2) == before
        reload(running, tmp_path, SECOND)
        running.expect("reloaded: all workers are of generation 2")
        assert running.stop() == 0
    with cluster(tmp_path, f"{line}\n{COUNTED}", preload=True) as running:
        assert running.wait() == 1
        assert reason in running.rest()


def test_trap_c06_an_application_that_hangs_as_it_loads(tmp_path: Path) -> None:
    with cluster(tmp_path, f"import time; time.sleep(600)\n{COUNTED}", preload=True, start_timeout=0.5) as running:
        assert running.wait() == 1
        assert "the application was not loaded within 0.5 s" in running.rest()


def test_stopped_while_it_loads(tmp_path: Path) -> None:
    with cluster(
        tmp_path, f"import time; print('loading', flush=True); time.sleep(600)\n{COUNTED}", preload=True
    ) as running:
        running.expect("loading")
        running.stop()
        assert running.process.returncode is not None


def test_trap_c10_nothing_is_left_when_the_master_is_killed(tmp_path: Path) -> None:
    with cluster(tmp_path, COUNTED, preload=True) as running:
        address = running.serving()
        pids = [*workers_of(address, 2).values(), *importers(tmp_path)]
        running.send(signal.SIGKILL)
        running.wait()
        until(lambda: not any(map(is_alive, pids)))
        assert refuses(address)


def test_a_signal_to_all_processes_of_the_service_ends_it_in_order(tmp_path: Path) -> None:
    with cluster(tmp_path, COUNTED, preload=True) as running:
        address = running.serving()
        pids = workers_of(address, 2)
        os.killpg(running.pid, signal.SIGTERM)
        assert running.wait() == 0
        assert all(f"process {pid} exited with status 0" in running.rest() for pid in pids.values())
