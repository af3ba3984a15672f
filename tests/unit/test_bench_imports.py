"""bench.imports measures an import in fresh processes, prints its cost, and compares it with the limits. The tests
assert no figure."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import imports

pytestmark = pytest.mark.once  # the benchmark, which is not run on every Python

if sys.platform != "linux":
    pytest.skip("the benchmark needs Linux", allow_module_level=True)


def test_a_round_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "imports.json"
    names = ("asyncio", "hoop", "hoop:new_event_loop")
    only = [word for name in names for word in ("--only", name)]
    assert imports.main(["--rounds", "2", *only, "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "asyncio itself" in said and "hoop on disk" in said
    figures = json.loads(file.read_text())
    assert figures.keys() == set(names)
    for rounds in figures.values():
        assert len(rounds) == 2
        assert all(one["ms"] > 0 and one["CPU ms"] > 0 for one in rounds)
    loaded = {name: rounds[0]["modules"] for name, rounds in figures.items()}
    assert loaded["hoop"] < 10 < loaded["hoop:new_event_loop"]  # what a loop needs comes with the first one


def test_what_is_above_a_limit_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def figures(cpu_ms: float) -> dict[str, object]:
        return {"ms": 10.0, "CPU ms": cpu_ms, "MB": 1.5, "modules": 3, "file": "hoop/__init__.py"}

    monkeypatch.setattr(imports, "measure", lambda names, rounds: {"hoop": [figures(11.0), figures(13.0), figures(90)]})
    monkeypatch.setattr(imports, "found_in_place", lambda package: imports.Installed(4.9, "made up"))
    assert imports.main(["--only", "hoop"]) == 0
    assert imports.main(["--only", "hoop", "--check"]) == 1
    assert "hoop: 13.0 CPU ms, limit 12\n" in capsys.readouterr().out
    assert imports.above_limits({"hoop": [figures(11.0)]}, imports.Installed(5.1, "")) == [
        "hoop: 5.1 installed MB, limit 5"
    ]


def test_the_size_in_place_is_of_what_an_installation_has(tmp_path: Path) -> None:
    suffix = imports.importlib.machinery.EXTENSION_SUFFIXES[0]
    for name in ("one.py", "one.pyi", "one.c", "py.typed", f"one{suffix}", "one.cpython-31-other.so"):
        (tmp_path / name).write_bytes(bytes(1000))
    assert imports.found_in_place(tmp_path).megabytes == 0.004


def test_a_module_that_does_not_import_is_told() -> None:
    with pytest.raises(imports.ChildFailed, match="No module named 'no_such_module'"):
        imports.import_once("no_such_module")


def test_children_write_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with imports.with_bytecode():
        assert "PYTHONDONTWRITEBYTECODE" not in os.environ
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"
