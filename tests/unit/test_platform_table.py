"""The README's table of platforms, the wheels that cibuildwheel builds, and the package's classifiers say the same."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETTINGS = PROJECT["tool"]["cibuildwheel"]
SYSTEMS = {"linux": ("manylinux", "musllinux"), "macos": ("macosx",)}

ROW = re.compile(r"^\| [^|]+ \| `(\w+)` \| ([\w, ]+) \| ([\dt., ]+) \|$", re.MULTILINE)


def promised() -> set[str]:
    """The README's table as build identifiers, cp311-manylinux_x86_64 and so on."""
    identifiers = set()
    for wheel, machines, versions in ROW.findall((ROOT / "README.md").read_text()):
        for version, machine in itertools.product(versions.split(", "), machines.split(", ")):
            identifiers.add(f"cp{version.replace('.', '')}-{wheel}_{machine}")
    return identifiers


def configured() -> set[str]:
    """What the settings in pyproject.toml select. Only the few settings that hoop uses are understood."""
    assert "skip" not in SETTINGS and "enable" not in SETTINGS
    identifiers = set()
    for platform, wheels in SYSTEMS.items():
        machines = SETTINGS[platform]["archs"]
        for pattern, wheel, machine in itertools.product(SETTINGS["build"].split(), wheels, machines):
            python, _, rest = pattern.partition("-")
            assert rest == "*" and python.isalnum(), f"a pattern that this test does not understand: {pattern}"
            identifiers.add(f"{python}-{wheel}_{machine}")
    return identifiers


def test_the_table_is_what_is_configured() -> None:
    assert promised() == configured()


@pytest.mark.skipif(importlib.util.find_spec("cibuildwheel") is None, reason="cibuildwheel is not installed")
@pytest.mark.parametrize("platform", SYSTEMS)
def test_the_table_is_what_cibuildwheel_builds(platform: str) -> None:
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    assert set(printed.split()) == {one for one in promised() if one.split("-")[1].startswith(SYSTEMS[platform])}


def test_the_classifiers_name_the_same_pythons() -> None:
    classified = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), re.MULTILINE)
    with_gil = {one.split("-")[0] for one in promised() if not one.split("-")[0].endswith("t")}
    assert {f"cp{version.replace('.', '')}" for version in classified} == with_gil
    is_free_threaded = any("Free Threading" in one for one in PROJECT["project"]["classifiers"])
    assert is_free_threaded == any(one.split("-")[0].endswith("t") for one in promised())
    oldest = min(classified, key=lambda version: int(version.partition(".")[2]))
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
