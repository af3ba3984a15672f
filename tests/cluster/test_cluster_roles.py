"""Roles: a process beside the workers, that is never there twice."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import hoop.cluster
import pytest
from clusters import LINES_APP, Cluster, is_alive, started, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the clients' helpers are of Linux")

# Each life of the role is in a file: who was there when it began, itself, and how it ended.
APP = (
    LINES_APP
    + """
VERSION = "1"

def living():
    return [name for name in os.listdir(".") if name.startswith("alive-")]

async def once(worker):
    say("role begins:", worker.role, worker.id, worker.generation, VERSION, "beside", len(living()), "pid", os.getpid())
    open(f"alive-{os.getpid()}", "w").close()
    try:
        await asyncio.Event().wait()
    finally:
        os.unlink(f"alive-{os.getpid()}")
        say("role ends:", os.getpid())

async def ends_soon():
    say("role ends by itself")

def no_coroutine():
    pass
"""
)
RUN = "import hoop.cluster\nhoop.cluster.run('app:main', workers=2, bind='127.0.0.1:0', control=False, roles={roles})"
LONE = "{'once': hoop.cluster.Role('app:once')}"


def serve(folder: Path, roles: str) -> AbstractContextManager[Cluster]:
    (folder / "app.py").write_text(APP)
    return started(RUN.replace("{roles}", roles), folder)


def hear(running: Cluster, text: str) -> None:
    """Wait for a line that may have come already."""
    if not any(text in line for line in running.lines):
        running.expect(re.escape(text))


def begun(running: Cluster) -> re.Match[str]:
    """The first life of the role, when the workers serve, too."""
    found = running.expect(BEGINS)
    hear(running, "serving on")
    return found


BEGINS = r"role begins: once (\d+) (\d+) (\w+) beside (\d+) pid (\d+)"


def test_a_role_runs_once_beside_the_workers(tmp_path: Path) -> None:
    with serve(tmp_path, LONE) as running:
        found = begun(running)
        assert found.groups()[:4] == ("0", "0", "1", "0")
        assert running.stop() == 0
        assert f"role ends: {found[5]}" in running.rest()
        assert f"once: process {found[5]} has started" in running.rest()
        assert running.rest().count("role begins") == 1


def test_at_a_reload_the_old_one_ends_before_the_new_one_begins(tmp_path: Path) -> None:
    with serve(tmp_path, LONE) as running:
        first = begun(running)
        (tmp_path / "app.py").write_text(APP.replace('VERSION = "1"', 'VERSION = "22"'))
        running.send(signal.SIGHUP)
        second = running.expect(BEGINS)
        assert second.groups()[1:4] == ("1", "22", "0")
        assert not is_alive(int(first[5]))
        hear(running, "reloaded: all workers are of generation 1")
        assert running.stop() == 0


def test_with_overlap_the_new_one_begins_first(tmp_path: Path) -> None:
    with serve(tmp_path, "{'once': hoop.cluster.Role('app:once', overlap=True)}") as running:
        begun(running)
        running.send(signal.SIGHUP)
        assert running.expect(BEGINS)[4] == "1"
        hear(running, "reloaded: all workers are of generation 1")
        assert running.stop() == 0


def test_a_reload_that_fails_in_the_workers_leaves_the_role_alone(tmp_path: Path) -> None:
    with serve(tmp_path, LONE) as running:
        first = begun(running)
        (tmp_path / "app.py").write_text(APP + "\nraise RuntimeError('broken')\n")
        running.send(signal.SIGHUP)
        running.expect("reload failed, the old workers serve on")
        assert is_alive(int(first[5]))
        assert running.stop() == 0


def test_one_that_dies_or_ends_is_started_again(tmp_path: Path) -> None:
    roles = "{'once': hoop.cluster.Role('app:once'), 'short': hoop.cluster.Role('app:ends_soon')}"
    with serve(tmp_path, roles) as running:
        first = begun(running)
        os.kill(int(first[5]), signal.SIGKILL)
        until(lambda: not is_alive(int(first[5])))
        (tmp_path / f"alive-{first[5]}").unlink(missing_ok=True)  # it could not
        assert running.expect(BEGINS)[2] == "0"
        while sum("role ends by itself" in line for line in running.lines) < 2:
            running.expect("role ends by itself")
        assert running.stop() == 0


def test_several_processes_of_a_role(tmp_path: Path) -> None:
    with serve(tmp_path, "{'once': hoop.cluster.Role('app:once', count=3)}") as running:
        assert {running.expect(BEGINS)[1] for _ in range(3)} == {"0", "1", "2"}
        hear(running, "serving on")
        assert running.stop() == 0


@pytest.mark.parametrize("target", ["app:no_coroutine", "app:missing"])
def test_a_role_that_cannot_start_is_a_failed_start(tmp_path: Path, target: str) -> None:
    with serve(tmp_path, f"{{'once': hoop.cluster.Role({target!r})}}") as running:
        assert running.wait() == 1
        assert (
            "error: once failed: target" in running.rest()
            or "error: once failed: the target of a role" in running.rest()
        )


@pytest.mark.parametrize(
    ("roles", "error"),
    [
        ({"once": 1}, TypeError),
        ({"worker": hoop.cluster.Role("app:once")}, ValueError),
        ({"two words": hoop.cluster.Role("app:once")}, ValueError),
        ({3: hoop.cluster.Role("app:once")}, ValueError),
    ],
)
def test_roles_that_make_no_sense_are_refused(roles: dict[Any, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="role"):
        hoop.cluster.Options(target="app:main", roles=roles)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"target": "no colon"}, ValueError),
        ({"target": 3}, TypeError),
        ({"target": "app:once", "count": 0}, ValueError),
        ({"target": "app:once", "count": "1"}, TypeError),
        ({"target": "app:once", "count": None}, TypeError),
    ],
)
def test_a_role_that_makes_no_sense_is_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        hoop.cluster.Role(**settings)
