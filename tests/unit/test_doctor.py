"""hoop doctor: each check with a machine that passes it and one that fails; what is read of this one; the report."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hoop.command import machine as machine_module
from hoop.command.checks import CHECKS, ERROR, OK, WARNING, Finding, examine
from hoop.command.doctor import report_lines
from hoop.command.machine import Application, Machine, Plan, read_machine
from hoop.command.main import main

GOOD: dict[str, Any] = {
    "kernel": (6, 1), "poller": "epoll", "has_exclusive": True, "has_pidfd": True, "io_uring": "", "openat2": "",
    "somaxconn": 4096, "nofile_soft": 65536, "nofile_hard": 65536, "ports": (32768, 60999), "migrates_requests": False,
    "cpus": 4, "memory": 1 << 30, "localhost": ("127.0.0.1",), "nameservers": 1,
}  # fmt: skip
APP = {"target": "app:app", "server": "main", "rss": 50 << 20}
MANAGED = {"INVOCATION_ID": "1", "NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000"}

# The check; a machine and a plan that fail it; how badly; what is to be found in the finding; and one that passes.
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, str, dict[str, Any], dict[str, Any]]] = [
    ("python", {"python": (3, 10, 2)}, {}, ERROR, "3.10.2 is too old", {}, {}),
    ("python", {"implementation": "PyPy"}, {}, ERROR, "this is PyPy", {"is_free_threaded": True}, {}),
    (
        "gil", {"is_free_threaded": True, "gil_modules": ("lxml.etree",)}, {}, WARNING, "switched on by lxml.etree",
        {"is_free_threaded": True, "has_gil": False}, {},
    ),
    ("loop", {"poller": None, "loop_error": "no poller x"}, {}, ERROR, "no loop can be made: no poller x", {}, {}),
    ("loop", {"poller": "poll"}, {}, WARNING, "unset HOOP_POLLER", {"system": "Darwin", "poller": "kqueue"}, {}),
    ("tls", {"tls_engine": "safe", "tls_reason": "static"}, {}, WARNING, "ssl.MemoryBIO: static", {}, {}),
    (
        "application", {"application": Application(target="app:app", error="importing 'app' failed", detail="Trace")},
        {}, ERROR, "importing 'app' failed", {"application": Application(**APP)}, {},
    ),
    (
        "application", {"application": Application(**APP | {"server": "uvicorn"}, has_server=False)},
        {}, ERROR, "python -m pip install uvicorn", {"application": Application(**APP | {"server": "uvicorn"})}, {},
    ),
    ("kernel", {"kernel": (4, 4)}, {}, WARNING, "older than 4.5", {"kernel": (4, 5)}, {}),
    ("accept", {"has_exclusive": False}, {}, WARNING, "wakes every idle worker", {}, {}),
    ("pidfd", {"has_pidfd": False}, {}, WARNING, "SIGCHLD", {}, {}),
    ("openat2", {"openat2": "Function not implemented"}, {}, WARNING, "Function not implemented", {}, {}),
    (
        "migration", {}, {"balance": "reuseport"}, WARNING, "sysctl -w net.ipv4.tcp_migrate_req=1",
        {"migrates_requests": True}, {"balance": "reuseport"},
    ),
    ("backlog", {"somaxconn": 128}, {}, WARNING, "sysctl -w net.core.somaxconn=2048", {"somaxconn": 2048}, {}),
    ("descriptors", {"nofile_soft": 1024}, {}, WARNING, "ulimit -n 65536", {"nofile_soft": None}, {}),
    (
        "descriptors", {"nofile_soft": 1024}, {"max_connections": 1000}, ERROR, "--limit-max-connections 960",
        {"nofile_soft": 1064}, {"max_connections": 1000},
    ),
    (
        "descriptors", {"nofile_hard": 65536}, {"max_connections": 10**6}, ERROR, "as root: ulimit -Hn 1000064", {}, {},
    ),
    ("ports", {"ports": (60000, 60999)}, {}, WARNING, "1000 ports (60000 to 60999)", {}, {}),
    ("workers", {"quota": 1.5}, {"workers": 5}, WARNING, "hoop serve --workers 2", {"quota": 1.5}, {"workers": 4}),
    ("workers", {"environment": {"WEB_CONCURRENCY": "9"}}, {}, WARNING, "9 workers for 4 CPUs", {}, {}),
    (
        "memory", {"application": Application(**APP), "is_memory_limited": True}, {"workers": 30}, WARNING,
        "hoop serve --workers 18, or --preload", {"application": Application(**APP)}, {"workers": 18},
    ),
    (
        "memory", {"application": Application(**APP)}, {"workers": 30}, WARNING, "30 times 50 MiB",
        {"application": Application(**APP)}, {},
    ),
    (
        "process 1", {"is_container": True, "first_process": "sh"}, {}, WARNING, "a shell (sh)",
        {"is_container": True, "first_process": "tini"}, {},
    ),
    (
        "systemd", {"environment": {"INVOCATION_ID": "1"}}, {}, WARNING, "Type=notify",
        {"environment": MANAGED}, {},
    ),
    (
        "systemd", {"environment": MANAGED, "notify_error": "No such file"}, {}, ERROR, "No such file",
        {"environment": MANAGED}, {},
    ),
    ("resolver", {"localhost": None}, {}, WARNING, "/etc/hosts", {}, {}),
    ("resolver", {"nameservers": 0}, {}, WARNING, "names no name server", {"nameservers": None}, {}),
    ("resolver", {"nameservers": 4}, {}, WARNING, "asks the first three", {"nameservers": 3}, {}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES)])
def test_each_check_has_a_machine_that_fails_it_and_one_that_passes(case: tuple[Any, ...]) -> None:
    check, bad, bad_plan, level, text, good, good_plan = case
    found = CHECKS[check](Machine(**GOOD | bad), Plan(**bad_plan))
    assert isinstance(found, Finding)
    assert found.level == level
    assert found.so and found.mend
    assert text in f"{found.says} {found.so} {found.mend}"
    assert isinstance(CHECKS[check](Machine(**GOOD | good), Plan(**good_plan)), str)


def test_no_check_is_without_a_case() -> None:
    assert {case[0] for case in CASES} == CHECKS.keys() - {"io_uring"}  # which finds no fault: see below


def test_what_does_not_concern_a_machine_is_not_told() -> None:
    """macOS has no /proc."""
    elsewhere = Machine(system="Darwin", poller="kqueue", localhost=("::1",))
    assert {result.check for result in examine(elsewhere, Plan())} == {
        "python", "loop", "tls", "descriptors", "workers", "resolver",
    }  # fmt: skip
    assert all(result.level == OK for result in examine(elsewhere, Plan()))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "by one system call (io_uring)"),
        ({"io_uring": "Operation not permitted"}, "one by one (io_uring: Operation not permitted)"),
        ({"environment": {"HOOP_IO_URING": "0"}}, "one by one (HOOP_IO_URING=0)"),
    ],
)
def test_how_answers_leave_is_told_and_never_a_fault(values: dict[str, Any], said: str) -> None:
    found = CHECKS["io_uring"](Machine(**GOOD | values), Plan())
    assert isinstance(found, str) and said in found


def test_this_machine_can_be_read() -> None:
    machine = read_machine(Plan())
    assert machine.python == sys.version_info[:3]
    assert machine.poller is not None and machine.cpus >= 1
    if sys.platform == "linux":
        assert machine.kernel is not None and machine.kernel >= (3, 0)
        assert machine.somaxconn is None or machine.somaxconn > 0
        assert machine.has_exclusive is not None and machine.has_pidfd is not None
        assert machine.openat2 is not None and machine.io_uring is not None
    assert {result.check for result in examine(machine, Plan())} <= CHECKS.keys()
    json.dumps(machine.as_json())


def test_an_application_that_fails_is_told_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "doctored_app.py").write_text("print('hello')\nraise RuntimeError('no database')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert main(["doctor", "doctored_app:app", "--json"]) == 1
    output = capsys.readouterr()
    report = json.loads(output.out)  # what it prints is not in between
    (found,) = [result for result in report["results"] if result["check"] == "application"]
    assert "no database" in found["says"] and 'doctored_app.py", line 2' in found["detail"]
    assert report["ok"] is False and output.err == "hello\n"
    assert main(["doctor", "doctored_app:app"]) == 1
    assert re.search(r"^error    application: .*no database", capsys.readouterr().out, re.MULTILINE)


def test_an_application_that_loads_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sound_app.py").write_text("async def main(worker):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    found = machine_module.read_application("sound_app:main", factory=False)
    assert (found.error, found.server, found.has_server) == (None, "main", True)
    assert found.rss is None or found.rss > 1 << 20


def test_only_errors_fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoop.command.doctor.read_machine", lambda plan: Machine(**GOOD | {"somaxconn": 128}))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("0 errors, 1 warning\n")
    assert main(["doctor", "--limit-max-connections", "70000"]) == 1
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--backlog", "0"])
    assert ended.value.code == 2 and "--backlog must be at least 1" in capsys.readouterr().err


def test_the_worst_comes_last_and_no_line_is_endless() -> None:
    machine, plan = Machine(**GOOD | {"somaxconn": 1, "poller": None, "loop_error": "x"}), Plan()
    lines = report_lines(machine, examine(machine, plan), coloured=False)
    order = [match[0] for line in lines if (match := re.match("ok|warning|error", line))]
    assert order == sorted(order, key=[OK, WARNING, ERROR].index)
    assert max(map(len, lines)) <= 120
    assert any(
        line.startswith("\x1b[31merror") for line in report_lines(machine, examine(machine, plan), coloured=True)
    )
