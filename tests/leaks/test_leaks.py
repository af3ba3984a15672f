"""Nothing is lost: what a round of each part leaves behind is counted, or LeakSanitizer is asked."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rounds import ROUNDS

PROGRAM = Path(__file__).with_name("rounds.py")
# How many more of each, after every round, are a leak. CPython's free lists take up a block or two in a round for
# hundreds of rounds, on asyncio's own loop as well; a lost transport, task or callback is a dozen blocks.
UNITS = {"descriptors": 1, "blocks of memory": 5, "references": 1}


def steadily_growing(values: list[int], least: int) -> bool:
    """Whether every round added so much. A cache or a late thread makes one or another grow, a leak all of them."""
    return all(after - before >= least for before, after in itertools.pairwise(values))


def environment() -> dict[str, str]:
    """Under AddressSanitizer (HOOP_SANITIZED) with LeakSanitizer, which scripts/sanitized_tests.sh switches off."""
    options = os.environ.get("ASAN_OPTIONS", "").replace("detect_leaks=0", "detect_leaks=1")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "ASAN_OPTIONS": options}


@pytest.mark.parametrize("name", sorted(ROUNDS))
def test_no_part_loses_anything(name: str) -> None:
    # What is abandoned on purpose is warned of, and the texts of warnings are kept.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), name],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    counted = [[int(field) for field in line.split()] for line in done.stdout.splitlines()]
    assert len(counted) > 4
    for (unit, least), values in zip(UNITS.items(), zip(*counted, strict=True), strict=True):
        assert not steadily_growing(list(values), least), f"{unit} after each round: {values}"


def test_what_growing_means() -> None:
    assert steadily_growing([5, 6, 8], 1)
    assert not steadily_growing([5, 6, 8], 2)
    assert not steadily_growing([5, 5, 8], 1)
    assert not steadily_growing([0, 0, 0], 1)


@pytest.mark.skipif(os.environ.get("HOOP_SANITIZED") != "1", reason="for modules built with sanitizers")
def test_a_lost_block_is_seen(tmp_path: Path) -> None:
    """The other cases would be worth nothing if LeakSanitizer slept."""
    program = tmp_path / "leak.py"
    program.write_text("import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc(10_000)\nlibc.__lsan_do_leak_check()\n")
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**environment(), "ASAN_OPTIONS": "detect_leaks=1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "LeakSanitizer: detected memory leaks" in done.stderr
