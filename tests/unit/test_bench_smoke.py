"""The benchmark end to end, very small: it measures, it reports, and it survives servers that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if sys.platform != "linux" or not (shutil.which("cc") and shutil.which("make")):
    pytest.skip("the load generators need Linux, a C compiler and make", allow_module_level=True)

from bench import c10k, idle_memory, run
from bench.build import TLS_FILE, build_programs
from bench.measure import Cores, choose_cores
from bench.processes import ChildFailed, run_client, running
from bench.progress import Display

pytestmark = pytest.mark.once  # the benchmark, which is not run on every Python

TINY = ["--patience", "0", "--rounds", "1", "--seconds", "0.2"]


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    build_programs()


def results_of(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    path = tmp_path / "results.json"
    status = run.main([*TINY, "--json", str(path), "--plot", str(tmp_path / "plot.png"), *arguments])
    assert status == 0
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_an_echo_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = results_of(tmp_path, "--only", "protocol-1k-10", "--loops", "asyncio")
    assert "protocol echo, 1 KiB, 10 connections" in capsys.readouterr().out
    (workload,) = results["workloads"]
    by_name = {entry["contender"]: entry for entry in workload["results"]}
    others = {"c", "node"} if shutil.which("node") else {"c"}
    assert by_name.keys() == {"asyncio"} | others
    for entry in by_name.values():
        assert entry["failure"] is None
        assert entry["rate"]["median"] > 100
        assert entry["cpu_us"]["median"] > 0.1
    assert by_name["asyncio"]["rate"]["ratio_to"].keys() == others


@pytest.mark.parametrize(
    "name",
    ["tls-1k-100", "tls-handshake", "udp-512-window32", "lines-10", "aiohttp", "fastapi-10k"],
)
def test_rounds_of_other_protocols(tmp_path: Path, name: str) -> None:
    results = results_of(tmp_path, "--only", name, "--loops", "asyncio")
    (workload,) = results["workloads"]
    if workload["skipped"]:
        pytest.skip(workload["skipped"])
    by_name = {entry["contender"]: entry for entry in workload["results"]}
    assert "asyncio" in by_name
    for entry in by_name.values():
        assert entry["failure"] is None and entry["rate"]["median"] > 10


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = results_of(tmp_path, "--only", "files", "--loops", "asyncio,hoop")
    assert "run_in_executor, asyncio" in capsys.readouterr().out
    by_name = {entry["contender"]: entry for entry in results["files"]}
    for name in ("fs on hoop", "fs-pool on hoop", "executor on asyncio", "blocking on asyncio"):
        assert by_name[name]["failure"] is None
        for metric in ("us", "cpu_us"):
            assert all(us > 0 for rounds in by_name[name][metric].values() for us in rounds.values())
            assert len(by_name[name][metric]) == 4


def test_a_server_that_ends_is_a_failure_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def command(*_: object) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no such loop here')"]

    monkeypatch.setattr("bench.by_turns.server_command", command)
    results = results_of(tmp_path, "--only", "protocol-1k-10", "--loops", "asyncio")
    (workload,) = results["workloads"]
    assert {entry["failure"] for entry in workload["results"]} == {
        "round 1: server: ended with status 1 no such loop here"
    }


def test_a_client_notices_bytes_that_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    liar = (
        "import json, socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "print(json.dumps({'port': listener.getsockname()[1]}), flush=True)\n"
        "connection = listener.accept()[0]\n"
        "connection.sendall(connection.recv(1 << 16)[::-1])\n"
        "input()\n"
    )
    monkeypatch.setattr("bench.by_turns.server_command", lambda *_: [sys.executable, "-c", liar])
    monkeypatch.setattr("bench.rounds.CLIENT_EXTRA_LIMIT_S", 10.0)
    results = results_of(tmp_path, "--only", "protocol-1k-10", "--loops", "asyncio")
    (workload,) = results["workloads"]
    assert all("other bytes came back" in entry["failure"] for entry in workload["results"])


def test_a_silent_child_is_ended_and_reaped() -> None:
    begin = time.monotonic()
    with pytest.raises(ChildFailed, match=r"no answer within 0\.2 s"):
        run_client([sys.executable, "-c", "import time; time.sleep(60)"], None, 0.2)
    assert time.monotonic() - begin < 20
    with running([sys.executable, "-c", "input()"]) as child:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_cores_are_two_or_none() -> None:
    cores = choose_cores()
    assert (cores.server is None) == (cores.client is None)
    assert cores.server is None or cores.server != cores.client


def test_a_small_c10k() -> None:
    options = c10k.Options(connections=50, echo_s=0.2, idle_s=0.3, again_s=0.1)
    outcome = c10k.demonstrate("asyncio", options, Cores(None, None), Display())
    assert outcome["failure"] is None
    assert outcome["opened"]["held"] == outcome["end"]["held"] == outcome["idle"]["held"] == 50
    assert outcome["end"]["errors"] == 0
    assert outcome["echoed"]["fewest_per_connection"] >= 1
    text = "\n".join(c10k.table(outcome))
    assert "50 of 50" in text
    assert "CUT SHORT" not in text


def test_a_small_c10k_with_limits() -> None:
    options = c10k.Options(connections=20, echo_s=0.1, idle_s=0.1, again_s=0.1, server="limited_echo")
    outcome = c10k.demonstrate("hoop", options, Cores(None, None), Display())
    assert outcome["failure"] is None
    assert outcome["end"]["held"] == 20 and outcome["end"]["errors"] == 0
    assert "each with an idle timeout" in c10k.table(outcome)[0]


@pytest.mark.parametrize("server", idle_memory.SERVERS)
def test_memory_of_a_few_connections(server: str) -> None:
    if server == "tls_echo" and not TLS_FILE.exists():
        pytest.skip("built without OpenSSL")
    outcome = idle_memory.measure(server, "asyncio", idle_memory.Options(connections=20), Cores(None, None))
    assert outcome["failure"] is None
    text = "\n".join(idle_memory.table([outcome]))
    assert all(title in text for title in ("after 1 KiB", "after 256 KiB", idle_memory.SERVERS[server]))


def test_a_low_limit_of_descriptors_is_said() -> None:
    outcome = {
        "loop": "hoop",
        "version": "0",
        "wanted": 10_000,
        "failure": None,
        "server_descriptor_limit": 4096,
        "client_descriptor_limit": 4096,
    }
    assert "CUT SHORT" in "\n".join(c10k.table(outcome))


@pytest.mark.parametrize(
    "arguments", [["--loops", "nonsense"], ["--rounds", "0"], ["--only", "x"], ["--seconds", "nan"]]
)
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run.main(arguments)
    assert caught.value.code == 2
