"""The mixed benchmark end to end, very small: the load is offered, the work is done and counted, a failure is told."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if sys.platform != "linux" or not (shutil.which("cc") and shutil.which("make")):
    pytest.skip("the load generators need Linux, a C compiler and make", allow_module_level=True)

from bench import mixed

pytestmark = pytest.mark.once  # the benchmark, which is not run on every Python

TINY = ["--rounds", "1", "--seconds", "0.3", "--connections", "20", "--rate", "300", "--iterations", "100"]


@pytest.mark.parametrize("loop", ["asyncio", "hoop"])
def test_echo_with_and_without_work(tmp_path: Path, capsys: pytest.CaptureFixture[str], loop: str) -> None:
    path = tmp_path / "samples.json"
    assert mixed.main([*TINY, "--loops", loop, "--json", str(path)]) == 0
    alone, beside = json.loads(path.read_text())
    assert [entry["loop"] for entry in (alone, beside)] == [loop, loop]
    for entry in (alone, beside):
        (sample,) = entry["samples"]
        assert sample["held"] == 20
        assert 0 < sample["rate"] <= 400  # what is due, and no more
        assert 0 < sample["p50_us"] <= sample["p99_us"] <= sample["max_us"] * 1.02  # steps of the histogram
    assert alone["samples"][0]["done_per_s"] == {}
    assert all(rate > 0 for rate in beside["samples"][0]["done_per_s"].values())
    assert beside["samples"][0]["done_per_s"].keys() == {"passwords", "files"}
    assert f"{loop:<10} beside work" in capsys.readouterr().out


def test_a_failure_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such loop here')"]
    monkeypatch.setattr(mixed, "server_command", lambda *_: command)
    assert mixed.main([*TINY, "--loops", "hoop"]) == 1
    assert "failed: ended with status 1 no such loop here" in capsys.readouterr().out


def test_an_unknown_loop_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert mixed.main(["--loops", "nosuchloop"]) == 2
    assert "nosuchloop" in capsys.readouterr().err
