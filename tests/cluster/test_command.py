"""python -m hoop: from the first start to the end of a cluster, as a user types it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import PATIENCE_S, Cluster, address_in, is_alive
from hoop.command import ctl, reaching
from hoop.command.main import main
from hoop.command.parser import seconds, size
from hoop.command.serve import settings_of

APP = """
import hoop.cluster

VERSION = "1"

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/tell":
        hoop.cluster.worker.send({"said": "hello"})
    body = f"{VERSION} {hoop.cluster.worker.id}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With an application, and a runtime directory of its own."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def program(*words: str) -> str:
    return f"import sys\nfrom hoop.command.main import main\nsys.exit(main({['serve', 'app:app', *words]!r}))"


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[Cluster, str]]:
    """`hoop serve app:app` with two workers on a port that is free; and where."""
    pytest.importorskip("uvicorn")
    words = ["--workers", "2", "--bind", "127.0.0.1:0", "--drain-idle-grace", "0.1", *options]
    running = Cluster(program(*words), folder)
    try:
        host, port = address_in(running.expect(r"serving on (\S+?),? ")[1])
        yield running, f"http://{host}:{port}"
    finally:
        running.close()


def hoop_ctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hoop", "ctl", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
        return text


def answered_by(version: str, url: str) -> None:
    """Return once this version answers: one of the former may still do so as it drains."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := get(url)).startswith(version + " "):
        assert time.monotonic() < deadline, answer


def status_of(folder: Path) -> dict[str, Any]:
    done = hoop_ctl(folder, "status", "--json")
    assert done.returncode == 0, done
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result


def test_serve_status_reload_scale_stop(folder: Path) -> None:
    with serving(folder) as (running, url):
        assert get(url).startswith("1 ")
        done = hoop_ctl(folder, "status")
        assert re.match(
            rf"master {running.pid} serving, up \d+s, generation 0, hoop .*, Python .*\non tcp:", done.stdout
        )
        assert re.search(r"^SLOT +PID +GEN +STATE", done.stdout, re.MULTILINE)
        before = status_of(folder)
        assert [(one["slot"], one["state"]) for one in before["workers"]] == [(0, "serving"), (1, "serving")]

        (folder / "app.py").write_text(APP.replace('VERSION = "1"', 'VERSION = "two"'))
        done = hoop_ctl(folder, "reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, "reloaded\n", "")
        answered_by("two", url)
        after = status_of(folder)
        assert after["generation"] == 1 and after["pid"] == before["pid"]

        while "no answer within" in (done := hoop_ctl(folder, "blocked")).stdout:
            pass  # the machine is busy
        assert (
            done.returncode == reaching.EXIT_REFUSED
            and "no worker is monitored: start the cluster with HOOP" in done.stderr
        )

        done = hoop_ctl(folder, "scale", "3")
        assert (done.returncode, done.stdout) == (0, "scaling to 3 workers\n")
        running.expect("worker 2: ready")
        assert len(status_of(folder)["workers"]) >= 3

        done = hoop_ctl(folder, "stop")
        assert (done.returncode, done.stdout) == (0, "ended\n")
        assert running.wait() == 0
        with pytest.raises(urllib.error.URLError):
            get(url)
    assert list((folder / "runtime" / "hoop").iterdir()) == []
    done = hoop_ctl(folder, "status")
    assert (done.returncode, done.stdout) == (reaching.EXIT_NO_CLUSTER, "")
    assert "no cluster of yours is running" in done.stderr


BROKEN = {
    "import": ("raise LookupError('no settings')\n", "LookupError: no settings (app.py, line 1)"),
    "start": (
        "async def app(scope, receive, send):\n    await receive()\n    raise LookupError('no database')\n",
        "LookupError: no database (app.py, line 3)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_trap_c05_reload_that_fails_tells_why_and_the_old_code_serves_on(folder: Path, kind: str) -> None:
    source, reason = BROKEN[kind]
    with serving(folder) as (running, url):
        workers = {one["pid"] for one in status_of(folder)["workers"]}
        (folder / "app.py").write_text(source)
        done = hoop_ctl(folder, "reload")
        assert (done.returncode, done.stdout) == (reaching.EXIT_REFUSED, "")
        assert reason in done.stderr.splitlines()[0] and "Traceback" in done.stderr
        told = json.loads(hoop_ctl(folder, "reload", "--json").stdout)
        assert not told["ok"] and reason in told["error"] and "Traceback" in told["detail"]
        assert {one["pid"] for one in status_of(folder)["workers"] if one["state"] == "serving"} == workers
        assert get(url).startswith("1 ")
        assert running.stop() == 0


def test_reload_on_change_sees_what_is_written_and_what_is_mended(folder: Path) -> None:
    with serving(folder, "--reload-on-change") as (running, url):
        (folder / "app.py").write_text(APP.replace('VERSION = "1"', 'VERSION = "two"'))
        running.expect(r"app\.py has changed")
        running.expect("reloaded")
        answered_by("two", url)
        (folder / "app.py").write_text("raise LookupError('half written')\n")
        running.expect("reload failed.*half written")
        assert get(url).startswith("two ")
        (folder / "app.py").write_text(APP.replace('VERSION = "1"', 'VERSION = "three"'))
        running.expect("reloaded")
        answered_by("three", url)
        assert running.stop() == 0


def test_messages_of_workers_are_shown(folder: Path) -> None:
    with serving(folder, "--workers", "1") as (running, url):
        command = [sys.executable, "-um", "hoop", "ctl", "messages"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            try:
                while True:  # until it has subscribed
                    get(f"{url}/tell")
                    status = status_of(folder)
                    if status["subscribers"]:
                        break
                get(f"{url}/tell")
                told = json.loads(following.stdout.readline())
                assert told == {"slot": 0, "pid": status["workers"][0]["pid"], "message": {"said": "hello"}}
                assert running.stop() == 0
                assert following.wait(PATIENCE_S) == 0  # the cluster's end is its own
            finally:
                following.kill()


def test_d08_exit_status_tells_of_what_was_cut(folder: Path) -> None:
    (folder / "app.py").write_text(
        "import asyncio\nasync def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n    print('begun', flush=True)\n    await asyncio.Event().wait()\n"
    )
    with serving(folder, "--drain-timeout", "0.2", "--shutdown-timeout", "2") as (running, url):
        with subprocess.Popen([sys.executable, "-c", f"import urllib.request\nurllib.request.urlopen({url!r})"],
                              stderr=subprocess.DEVNULL) as client:  # fmt: skip
            try:
                running.expect("begun")
                assert running.stop() == 3
                assert "1 connections were cut at the drain's timeout" in "\n".join(running.lines)
            finally:
                client.kill()


def test_json_log_and_access_log(folder: Path) -> None:
    with serving(folder, "--workers", "1", "--log-format", "json", "--access-log") as (running, url):
        get(f"{url}/x")
        running.expect("GET /x HTTP/1.1")
        assert running.stop() == 0
        told = [json.loads(line) for line in running.lines]
        access = next(line for line in told if "GET /x" in line["text"])
        assert (access["who"], access["slot"], access["logger"]) == ("worker", 0, "uvicorn.access")


# The words of the command line.


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["serve", "--help"], ["ctl", "--help"], ["ctl", "scale", "--help"], ["--version"]]
)
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr()
    assert ended.value.code == (0 if words else 2)
    assert len(told.out + told.err) > 5
    assert max(map(len, told.out.splitlines()), default=0) <= 130


def parsed(*words: str) -> dict[str, Any]:
    from hoop.command.main import make_parser

    return settings_of(make_parser().parse_args(["serve", "app:app", *words]))


def test_words_become_settings() -> None:
    import hoop

    assert parsed() == {"target": "app:app"}
    words = "-w 3 -b :80 -b unix:/x --max-rss 2G --max-lifetime 12h --blocked-timeout none --control none --env A=b=c"
    assert parsed(*words.split()) == {
        "target": "app:app",
        "workers": 3,
        "bind": [":80", "unix:/x"],
        "max_rss": 2 << 30,
        "max_lifetime": 43200.0,
        "blocked_timeout": None,
        "control": False,
        "env": {"A": "b=c"},
    }
    assert parsed("--drain-timeout", "none", "--drain-delay", "5")["drain"] == hoop.Drain(delay=5, timeout=None)
    limits = parsed("--limit-idle-timeout", "1m", "--limit-max-connections", "9", "--limit-when-full", "wait")["limits"]
    assert limits == hoop.Limits(idle_timeout=60, max_connections=9, when_full="wait")
    assert parsed("--proxy-protocol", "10.0.0.0/8, ::1")["proxy_protocol"].trusted
    assert parsed("--ssl-certfile", "c", "--ssl-keyfile", "k")["keyfile"] == "k"


def test_every_setting_of_a_user_has_an_option() -> None:
    import dataclasses

    from hoop.cluster.options import Options

    (source,) = [Path(module) for module in [sys.modules["hoop.command.serve"].__file__] if module]
    text = source.read_text().replace("-", "_")
    not_for_words = {"ssl", "roles", "limits", "drain", "abort_after", "kill_after", "state"}
    missing = [
        one.name for one in dataclasses.fields(Options) if one.name not in not_for_words and one.name not in text
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "expected"), [("5", 5), ("1.5", 1.5), ("2m", 120), ("1h", 3600), ("1D", 86400), (".5s", 0.5)]
)
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ("64k", 65536), ("1M", 1 << 20), ("2GiB", 2 << 30)])
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


def test_durations_have_two_units() -> None:
    assert [ctl.duration(value) for value in (0.9, 61, 3600, 90061)] == ["0s", "1m 1s", "1h 0s", "1d 1h"]


def test_no_process_is_left(folder: Path) -> None:
    with serving(folder) as (running, _):
        workers = [one["pid"] for one in status_of(folder)["workers"]]
        assert running.stop(signal.SIGINT) == 0
        assert not any(is_alive(pid) for pid in workers)
        assert not os.path.exists(f"/proc/{running.pid}")
