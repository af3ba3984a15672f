"""File systems that are mounted while a test runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_S = 60.0


def mounted(arguments: list[str], target: Path) -> Iterator[Path]:
    """What `mount ARGUMENTS TARGET` gives, for a fixture to yield from. Skips where the machine forbids it."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root and Linux")
    target.mkdir(exist_ok=True)
    command = ["mount", *arguments, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True, timeout=LIMIT_S)
