"""How many instructions an operation takes: python -m bench.instructions

A clock on a shared machine says little about a change of one per cent; the count of instructions repeats to a fraction of
that. Each operation of bench.operations runs under valgrind twice, N and 2N times, and the difference is divided by N: what
starting and stopping cost is in neither.

The figures belong to one set of CPython build, compiler, valgrind and libraries; bench/instructions.json keeps them by set.
An operation that has grown by more than --limit per cent makes the exit status 1. On a set without figures they are recorded, which
the output says; --record records them anew.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.build import BENCH, build_programs
from bench.processes import ChildFailed, python_environment, run_client

RECORDED = BENCH / "instructions.json"
LIMIT_PERCENT = 3.0
TIME_LIMIT_S = 300.0  # of one program under valgrind

# How often: enough that the interpreter's own housekeeping (collections, growing tables) evens out.
COUNTS = {
    "echo": 1000,
    "split write": 1000,
    "own streams echo": 1000,
    "TLS echo": 500,
    "sock echo": 1000,
    "call_soon": 10_000,
    "call_soon chain": 5000,
    "timer": 5000,
    "timer, cancelled": 5000,
    "sleep(0)": 5000,
    "pool job": 500,
    "uvicorn request": 300,
}


def command_output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measured_set() -> dict[str, str]:
    """What the figures depend on, apart from hoop."""
    libraries = ("Cython", "uvicorn", "httptools", "h11")
    versions = {}
    for name in libraries:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return {
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "python": sys.version.replace("\n", " "),
        "compiler": command_output(os.environ.get("CC", "cc"), "--version").splitlines()[0],
        "valgrind": command_output("valgrind", "--version").strip(),
        "openssl": ssl.OPENSSL_VERSION,
        **versions,
    }


def executed(name: str, count: int) -> int:
    """Instructions of a whole process that performs the operation count times. ChildFailed if it does not end well."""
    environment = python_environment() | {"PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        command = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={figures}"]
        command += program(name, count)
        try:
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{name}: still running after {TIME_LIMIT_S:g} s") from None
        if ended.returncode != 0 or not figures.exists():
            last = ended.stderr.strip().splitlines()[-1:] or [f"status {ended.returncode}"]
            raise ChildFailed(f"{name}: {last[0]}")
        for line in figures.read_text().splitlines():
            if line.startswith(("summary:", "totals:")):
                return int(line.split()[1])
    raise ChildFailed(f"{name}: valgrind gave no total")


def program(name: str, count: int) -> list[str]:
    return [sys.executable, "-m", "bench.operations", name, str(count)]


def instructions_of(name: str) -> int:
    count = COUNTS[name]
    run_client(program(name, 1), None, TIME_LIMIT_S)  # writes bytecode where there was none: both runs find the same
    return round((executed(name, 2 * count) - executed(name, count)) / count)


def find_recorded(sets: list[dict[str, Any]], measured: dict[str, str]) -> dict[str, Any] | None:
    return next((entry for entry in sets if entry["set"] == measured), None)


def grown(name: str, now: int, before: int, limit_percent: float) -> str | None:
    """What to say of an operation that needs more than it may."""
    if now > before * (1 + limit_percent / 100):
        return f"{name}: {before} -> {now}, {100 * (now / before - 1):+.1f} %, limit {limit_percent:g} %"
    return None


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description="Count instructions.")
    parser.add_argument("--only", action="append", choices=list(COUNTS), help="only this operation; may be repeated")
    parser.add_argument("--limit", type=float, default=LIMIT_PERCENT, help="growth that is allowed, in per cent")
    parser.add_argument("--record", action="store_true", help="keep what is measured as the figures of this set")
    parser.add_argument("--file", type=Path, default=RECORDED, help="where figures are kept")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, compare, tell; the exit status."""
    options = parse_arguments(arguments)
    build_programs()  # makes the certificate, too
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # on one core nobody spins
    sets: list[dict[str, Any]] = json.loads(options.file.read_text()) if options.file.exists() else []
    measured = measured_set()
    entry = find_recorded(sets, measured)
    known: dict[str, int] = {} if entry is None else entry["instructions"]
    figures: dict[str, int] = {}
    complaints = []
    for name in options.only or COUNTS:
        now = figures[name] = instructions_of(name)
        before = known.get(name)
        print(f"{name:20} {now:>9}" + ("" if before is None else f"  {100 * (now / before - 1):+6.2f} %"), flush=True)
        if before is not None:
            complaints.append(grown(name, now, before, options.limit))
    if entry is None:
        print(f"no figures of this set were in {options.file.name}: recorded what was measured")
        entry = {"set": measured, "instructions": {}}
        sets.append(entry)
    missing = figures.keys() - known.keys()
    if options.record or missing:
        entry["instructions"] |= figures if options.record else {name: figures[name] for name in missing}
        options.file.write_text(json.dumps(sets, indent=1) + "\n")
    problems = [complaint for complaint in complaints if complaint is not None]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems and not options.record else 0


if __name__ == "__main__":
    sys.exit(main())
