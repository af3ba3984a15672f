"""Programs under a shim: a small C library that stands in front of libc's functions (LD_PRELOAD)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def built_shim(source: Path, folder: Path) -> Path:
    """The library made of source, in folder; skips the test where that cannot be."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs LD_PRELOAD and a C compiler")
    library = folder / source.with_suffix(".so").name
    command = [compiler, "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


def preloading(shim: Path) -> str:
    """LD_PRELOAD with shim behind what is there already: a sanitizer's library must come first."""
    return os.pathsep.join(filter(None, (os.environ.get("LD_PRELOAD"), str(shim))))


def run_under(shim: Path, program: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run program, written to a file in folder; its exit status and what it wrote."""
    path = folder / "program.py"
    path.write_text(program)
    finished = subprocess.run(
        [sys.executable, str(path), *arguments],
        env={**os.environ, "LD_PRELOAD": preloading(shim), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return finished.returncode, finished.stdout


def run_module_under(
    shim: Path, module: str, *arguments: str, deadline_s: float, **environment: str
) -> tuple[int, str]:
    """Run a module, as python -m does, for at most deadline_s seconds; as run_under, with more in the environment."""
    finished = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", module, *arguments],
        env={**os.environ, "LD_PRELOAD": preloading(shim), "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    return finished.returncode, finished.stdout
