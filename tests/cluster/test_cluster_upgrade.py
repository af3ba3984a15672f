"""SIGUSR2: the master replaces its program; its process, its children and its sockets stay."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import (
    LINES_APP,
    Client,
    Cluster,
    ask,
    clients_that_lose_nothing,
    is_alive,
    refuses,
    started,
    until,
    workers_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SECOND = LINES_APP.replace('VERSION = "1"', 'VERSION = "2"')


def write_program(folder: Path, before: str = "", **settings: object) -> None:
    """What the command of the cluster runs."""
    settings = {"workers": 2, "bind": "127.0.0.1:0", "control": False, **settings}
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    (folder / "serve.py").write_text(f"{before}\nimport hoop.cluster\nhoop.cluster.run('app:main', {arguments})\n")


@contextlib.contextmanager
def upgradable(folder: Path, source: str = LINES_APP, **settings: object) -> Iterator[Cluster]:
    (folder / "app.py").write_text(source)
    write_program(folder, **settings)
    with started("exec(open('serve.py').read())", folder) as running:
        yield running


def upgrade(running: Cluster) -> None:
    running.send(signal.SIGUSR2)
    running.expect(f"upgraded: process {running.pid} goes on with hoop .* on Python ")
    running.expect("reloaded: all workers are of generation")


@pytest.mark.parametrize("preload", [False, True])
def test_upgrade_keeps_process_and_socket_and_brings_new_code_and_options(tmp_path: Path, preload: bool) -> None:
    with upgradable(tmp_path, preload=preload) as running:
        address = running.serving()
        before = workers_of(address, 2)
        (tmp_path / "app.py").write_text(SECOND)
        write_program(tmp_path, workers=3, preload=preload)
        upgrade(running)
        until(lambda: not any(map(is_alive, before.values())))  # until then they may serve one more client
        after = workers_of(address, 3)
        assert not set(after.values()) & set(before.values())
        assert ask(address).split()[2:] == ["1", "2"]
        upgrade(running)  # what it has become can do it, too
        until(lambda: ask(address).split()[2:] == ["2", "2"])
        until(lambda: not any(map(is_alive, after.values())))
        os.kill(workers_of(address, 3)[2], signal.SIGKILL)
        running.expect("was killed by SIGKILL")
        running.expect("worker 2: ready")
        assert running.stop() == 0
        assert refuses(address)
        log = running.rest()
        assert all(f"process {pid} exited with status 0" in log for pid in before.values())


@pytest.mark.parametrize("balance", ["shared", "reuseport"])
def test_upgrade_loses_no_request(tmp_path: Path, balance: str) -> None:
    with upgradable(tmp_path, balance=balance) as running:
        address = running.serving()
        with clients_that_lose_nothing(address):
            for _ in range(3):
                upgrade(running)
        assert running.stop() == 0


def test_a_request_under_way_outlives_the_program_of_the_master(tmp_path: Path) -> None:
    with upgradable(tmp_path, workers=1) as running:
        address = running.serving()
        with Client(address) as client:
            pid = client.ask("who").split()[0]
            client.send("wait 1")
            upgrade(running)
            until(lambda: ask(address).split()[0] != pid)
            assert client.answer() == "waited"
        running.expect(f"process {pid} exited with status 0")
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("before", "settings", "reason"),
    [
        ("import nothing_of_that_name", {}, "No module named 'nothing_of_that_name'"),
        ("", {"workers": 0}, "workers must be"),
        ("", {"no_such_setting": 1}, "no_such_setting"),
        ("import sys; sys.exit()", {}, "it ends without a word"),
        ("import time; time.sleep(600)", {}, "has not come to its cluster within 2 s"),
        ("", {"certfile": "/nowhere/cert.pem"}, "/nowhere/cert.pem"),
    ],
    ids=["import", "value", "setting", "exit", "hang", "certificate"],
)
def test_upgrade_to_a_program_that_does_not_start_changes_nothing(
    tmp_path: Path, before: str, settings: dict[str, object], reason: str
) -> None:
    with upgradable(tmp_path, start_timeout=2.0 if "within 2 s" in reason else 30.0) as running:
        address = running.serving()
        workers = workers_of(address, 2)
        write_program(tmp_path, before, **settings)
        running.send(signal.SIGUSR2)
        assert reason in running.expect("upgrade failed, the old program goes on: (.*)")[1]
        assert workers_of(address, 2) == workers
        write_program(tmp_path, start_timeout=30.0)
        upgrade(running)
        assert running.stop() == 0


def test_upgrade_and_then_code_that_does_not_load(tmp_path: Path) -> None:
    with upgradable(tmp_path) as running:
        address = running.serving()
        before = workers_of(address, 2)
        (tmp_path / "app.py").write_text("import nothing_of_that_name")
        running.send(signal.SIGUSR2)
        running.expect(f"upgraded: process {running.pid}")
        running.expect("reload failed, the old workers serve on")
        assert workers_of(address, 2) == before
        (tmp_path / "app.py").write_text(SECOND)
        running.send(signal.SIGHUP)
        running.expect("reloaded")
        until(lambda: ask(address).split()[3] == "2")
        assert running.stop() == 0


def test_trap_c20_the_file_of_a_unix_socket_stays_over_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with upgradable(tmp_path, bind=f"unix:{path}?mode=0660") as running:
        address = running.serving()
        inode = path.stat().st_ino
        upgrade(running)
        assert path.stat().st_ino == inode
        until(lambda: ask(address).split()[2] == "1")
        assert running.stop() == 0
        assert not path.exists()


def test_a_signal_that_comes_with_the_exchange_is_not_lost(tmp_path: Path) -> None:
    with upgradable(tmp_path) as running:
        running.serving()
        running.send(signal.SIGUSR2)
        running.expect("replaces its program")
        assert running.stop() == 0


def test_nothing_of_the_exchange_reaches_the_workers(tmp_path: Path) -> None:
    with upgradable(tmp_path) as running:
        address = running.serving()
        first = workers_of(address, 2)
        count = {slot: len(os.listdir(f"/proc/{pid}/fd")) for slot, pid in first.items()}
        masters = len(os.listdir(f"/proc/{running.pid}/fd"))
        for _ in range(3):
            before = workers_of(address, 2)
            upgrade(running)
            until_gone(before)
        for slot, pid in workers_of(address, 2).items():
            assert not re.search(rb"HOOP_CLUSTER_\w+", ask_environment(address, pid))
            assert len(os.listdir(f"/proc/{pid}/fd")) <= count[slot] + 1  # the connection that asks
        until(lambda: len(os.listdir(f"/proc/{running.pid}/fd")) <= masters)
        assert running.stop() == 0


def until_gone(workers: dict[int, int]) -> None:
    """Until then they may serve one more client."""
    until(lambda: not any(map(is_alive, workers.values())))


def ask_environment(address: object, pid: int) -> bytes:
    """As the worker's programs would get it."""
    while True:
        with Client(address) as client:  # type: ignore[arg-type]
            if int(client.ask("who").split()[0]) == pid:
                return client.ask("run answer = dict(os.environ)").encode()
