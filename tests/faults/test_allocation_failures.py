"""The k-th allocation fails: nothing crashes, hangs, is lost or happens twice, no descriptor, thread or hook stays, and
the loop works afterwards. failing_allocations.py says what is tried and what is wrong, small_programs.py what runs.

Here a few k of each program, and only allocations that hoop's compiled code asks for; and those of Python code where a
connection is made. By hand:

    HOOP_ALLOCATION_RUNS=all HOOP_ALLOCATION_SEED=7 python -m pytest tests/faults/test_allocation_failures.py

tries all of them (RUNS: how many of each program; a minute or two). HOOP_ALLOCATION_OWNERS=hoop+python+other takes
those of Python code and of other compiled modules, too. There CPython itself crashes now and then (a function or an
iterator that could not be made), and _asyncio loses steps of tasks, on every loop: compare with
HOOP_ALLOCATION_LOOP=asyncio.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from preloaded import built_shim
from small_programs import NATIVE, PROGRAMS

HERE = Path(__file__).parent
RUNS = os.environ.get("HOOP_ALLOCATION_RUNS", "16")
SEED = os.environ.get("HOOP_ALLOCATION_SEED", "20261129")
OWNERS = os.environ.get("HOOP_ALLOCATION_OWNERS", "hoop")
LOOP = os.environ.get("HOOP_ALLOCATION_LOOP", "hoop")
DEADLINE_S = 55 if RUNS != "all" else 3600


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the shim stands in front of glibc's malloc")
    if os.environ.get("LD_PRELOAD"):
        pytest.skip("something else is preloaded")
    return built_shim(HERE / "failing_allocator.c", tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return folder


def tried(program: str, owners: str, runs: str, shim: Path, certificates: Path) -> tuple[list[Any], dict[str, Any]]:
    """What was wrong, and the sums."""
    finished = subprocess.run(
        [sys.executable, str(HERE / "failing_allocations.py"), str(shim), program, LOOP, owners, runs, SEED],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            "CERTIFICATES": str(certificates),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    *wrong, summary = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    assert summary["runs"] >= min(summary["allocations"], 10)
    assert summary["told"] > 0  # the failures were met
    return wrong, summary


def described(wrong: list[Any]) -> str:
    return "\n\n".join(f"k={each['k']}: {each['faults']}\ntold: {each['told']}\n{each['errors']}" for each in wrong)


@pytest.mark.once
@pytest.mark.parametrize("program", [name for name in PROGRAMS if LOOP == "hoop" or name not in NATIVE])
@pytest.mark.timeout(DEADLINE_S + 5)
def test_the_kth_allocation_fails(program: str, shim: Path, certificates: Path) -> None:
    wrong, _ = tried(program, OWNERS, RUNS, shim, certificates)
    assert not wrong, described(wrong)


@pytest.mark.once
@pytest.mark.skipif(LOOP != "hoop", reason="on asyncio a connection that was made and then lost stays open")
@pytest.mark.parametrize("program", ["tcp", "streams"])
@pytest.mark.timeout(DEADLINE_S + 5)
def test_nobody_waits_for_a_connection_that_was_lost_without_a_word(
    program: str, shim: Path, certificates: Path
) -> None:
    """Every allocation of Python code fails once, those of hoop's coroutines among them: whoever has connected closes
    the connection even then, so that its server ends. CPython's own crashes, and hangs that were told, do not count
    here."""
    wrong, summary = tried(program, "python", "all", shim, certificates)
    assert summary["runs"] == summary["allocations"]
    silent = [each for each in wrong if each["faults"] == ["it does not end"] and "told: []" in each["errors"]]
    assert not silent, described(silent)
