"""Processes: who inherits what, who mourns whom."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import LINES_APP, Client, ask, cluster, is_alive, refuses, started, until, workers_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

RUN = "\nhoop.cluster.run(main, workers=2, bind='127.0.0.1:0', control=False)"


def test_trap_c10_workers_end_when_the_master_is_killed(tmp_path: Path) -> None:
    """And finish what they have begun; then the port is free."""
    with cluster(tmp_path) as running:
        address = running.serving()
        pids = workers_of(address, 2)
        with Client(address) as client:
            client.send("wait 0.5")
            running.send(signal.SIGKILL)
            assert client.answer() == "waited"
        running.rest()
        until(lambda: not any(map(is_alive, pids.values())))
        assert refuses(address)


ORPHANS = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as process 1 of a container
"""


@pytest.mark.parametrize("status", [0, 3, 4])
def test_trap_c11_foreign_orphans_are_reaped_and_stop_nothing(tmp_path: Path, status: int) -> None:
    with started(ORPHANS + LINES_APP + RUN, tmp_path) as running:
        address = running.serving()
        before = workers_of(address, 2)
        orphan = ask(
            address,
            "run pipe = os.pipe(); child = os.fork();"
            f" grandchild = os.fork() if child == 0 else 1; os._exit({status}) if grandchild == 0 else None;"
            " (os.write(pipe[1], str(grandchild).encode()), os._exit(0)) if child == 0 else None;"
            " answer = os.read(pipe[0], 20).decode(); os.waitpid(child, 0)",
        )
        until(lambda: not Path(f"/proc/{orphan}").exists())
        assert workers_of(address, 2) == before
        assert running.stop() == 0


def test_trap_c12_workers_inherit_no_handlers_and_no_masks(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=1) as running:
        address = running.serving()
        pid = int(ask(address).split()[0])
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(fields["SigBlk"], 16) == 0
        assert ask(address, "run answer = signal.getsignal(signal.SIGCHLD)") == "0"
        assert running.stop() == 0


@pytest.mark.parametrize("how", ["os.fork() or time.sleep(60)", "__import__('subprocess').Popen(['sleep', '60']).pid"])
def test_trap_c12_what_a_worker_starts_dies_of_sigterm(tmp_path: Path, how: str) -> None:
    with cluster(tmp_path, workers=1) as running:
        child = int(ask(running.serving(), f"run answer = {how}"))
        os.kill(child, signal.SIGTERM)
        until(lambda: not is_alive(child))
        assert running.stop() == 0


def test_trap_c16_a_fork_that_fails_leaves_the_old_worker(tmp_path: Path) -> None:
    patch = """
import errno, os
fork = os.fork
def fork_if_possible():
    if os.path.exists("full"):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = fork_if_possible
"""
    with started(patch + LINES_APP + RUN, tmp_path) as running:
        address = running.serving()
        before = workers_of(address, 2)
        (tmp_path / "full").touch()
        running.send(signal.SIGHUP)
        running.expect("reload failed, the old workers serve on: worker 0 could not be made: Resource")
        assert workers_of(address, 2) == before
        os.kill(before[1], signal.SIGKILL)
        running.expect("worker 1 cannot be made")
        running.expect("worker 1 cannot be made")
        assert ask(address).split()[0] == str(before[0])
        (tmp_path / "full").unlink()
        running.expect("worker 1: ready")
        assert running.stop() == 0


def open_files(pid: int) -> Iterator[str]:
    """What the descriptors of a process are; one may be closed meanwhile."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def test_trap_c18_a_worker_has_no_descriptor_of_the_master_or_its_siblings(tmp_path: Path) -> None:
    """What was open before the cluster is there, beside the worker's own."""
    program = LINES_APP + "\nkept = open('kept.txt', 'w')" + RUN
    with started(program, tmp_path) as running:
        address = running.serving()
        for pid in workers_of(address, 2).values():
            links = list(open_files(pid))
            assert sum(link.endswith("kept.txt") for link in links) == 1
            assert sum("eventpoll" in link for link in links) <= 1, links  # of its own loop; none on poll(2)
            assert not any("pidfd" in link for link in links)
        assert running.stop() == 0


def test_trap_c18_a_process_with_threads_is_refused(tmp_path: Path) -> None:
    program = (
        "import threading, time\nthreading.Thread(target=threading.Event().wait, name='busy', daemon=True).start()\n"
    )
    with started(program + LINES_APP + RUN, tmp_path) as running:
        assert running.wait() == 1
        assert "a cluster cannot start in a process with threads: busy" in running.rest()


def test_the_master_has_one_thread(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        running.serving()
        assert len(os.listdir(f"/proc/{running.pid}/task")) == 1
        assert running.stop() == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        address = running.serving()
        with Client(address) as client:
            client.send("wait 20")
            running.send(signal.SIGTERM)
            running.expect("stopping")
            while running.process.poll() is None:  # one at the heels of the first is the same wish
                running.send(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(1)  # the program's own end takes its time, and a signal would kill it
            assert running.wait() == 128 + signal.SIGTERM


LATE_SIGNALS = """
import os, signal, sys
import hoop
from hoop.command.main import main

class Loop(hoop.Loop):
    def close(self):
        is_first = not self.is_closed()
        super().close()
        if is_first and os.getpid() == master:
            signal_all()

def signal_all():
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)

master = os.getpid()
hoop.Loop = Loop
"""


def test_signals_that_come_when_all_has_ended_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(LINES_APP)
    words = ["serve", "app:main", "-w", "1", "-b", "127.0.0.1:0", "--control", "none"]
    with started(f"{LATE_SIGNALS}\nstatus = main({words!r})\nsignal_all()\nsys.exit(status)", tmp_path) as running:
        running.serving()
        assert running.stop() == 0


def test_a_program_that_goes_on_hears_signals(tmp_path: Path) -> None:
    """It has them from run(), but not those that came before."""
    program = f"{LATE_SIGNALS}{LINES_APP}{RUN}\nprint('goes on')\nsignal_all()"
    with started(program, tmp_path) as running:
        running.serving()
        assert running.stop() == -signal.SIGTERM
        running.expect("goes on")


def test_two_signals_at_once_are_one_wish(tmp_path: Path) -> None:
    """timeout(1) signals the process, and then its group."""
    with cluster(tmp_path) as running:
        address = running.serving()
        with Client(address) as client:
            client.send("wait 0.3")
            running.send(signal.SIGTERM)
            os.killpg(running.pid, signal.SIGINT)
            assert client.answer() == "waited"
        assert running.wait() == 0


def test_ctrl_c_of_a_terminal_reaches_all_and_drains_once(tmp_path: Path) -> None:
    with cluster(tmp_path) as running:
        address = running.serving()
        with Client(address) as client:
            client.send("wait 0.3")
            os.killpg(running.pid, signal.SIGINT)
            assert client.answer() == "waited"
        assert running.wait() == 0
        assert "Traceback" not in running.rest()
