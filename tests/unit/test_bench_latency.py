"""The latency view, very small: an open loop measures what comes back, and checks it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if sys.platform != "linux" or not (shutil.which("cc") and shutil.which("make")):
    pytest.skip("the load generators need Linux, a C compiler and make", allow_module_level=True)

from bench import latency
from bench.build import build_programs
from bench.measure import choose_cores
from bench.progress import Display, Steps
from bench.rounds import Timing

pytestmark = pytest.mark.once  # the benchmark, which is not run on every Python


@pytest.fixture(scope="module")
def view() -> latency.View:
    build_programs()
    return latency.View(["asyncio"], Timing(1, 0.2, 0.05, 0.1), choose_cores(), Display(), Steps(1))


@pytest.mark.parametrize("kind", list(latency.KINDS))
def test_an_open_loop(view: latency.View, kind: str) -> None:
    if missing := latency.KINDS[kind].missing_packages():
        pytest.skip(f"{missing} not installed")
    found = view.measure(kind, 0.5, saturation=1000)
    assert not found.failures
    p50, p99, p999 = (found.median(metric, "asyncio") for metric in ("p50_us", "p99_us", "p999_us"))
    assert 0 < p50 <= p99 <= p999
    assert found.name in latency.all_names()
    assert "500/s: 50% of asyncio's most" in latency.table(found, view.loops)[0]


def test_an_open_loop_notices_bytes_that_differ(view: latency.View, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = (
        "import json, socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "print(json.dumps({'port': listener.getsockname()[1]}), flush=True)\n"
        "connections = [listener.accept()[0] for _ in range(64)]\n"
        "while True:\n"
        "    for connection in connections:\n"
        "        connection.sendall(connection.recv(1 << 16)[::-1])\n"
    )
    monkeypatch.setattr("bench.by_turns.server_command", lambda *_: [sys.executable, "-c", liar])
    found = view.measure("echo", 0.5, saturation=1000)
    assert "the echo differs" in found.failures["asyncio"]
    assert "failed: round 1" in "\n".join(latency.table(found, view.loops))


def test_every_figure_is_counted() -> None:
    names = latency.all_names()
    assert names == ["latency/echo-50", "latency/echo-80", "latency/uvicorn-50", "latency/uvicorn-80"]
    assert latency.count_steps(names, ["hoop", "uvloop"], 3) == 2 * latency.SATURATION_ROUNDS + 4 * 2 * 3


def test_a_round_has_many_short_windows() -> None:
    least_s = latency.LEAST_TURNS * latency.TURN_S
    assert latency.in_short_windows(Timing(3, 0.25, 0.1)) == Timing(3, least_s, 0.1, latency.TURN_S)
    assert latency.in_short_windows(Timing(1, 60.0, 0.3)) == Timing(1, 60.0, 0.3, latency.TURN_S)
