"""How many instructions an operation takes: python -m bench.instructions

A clock on a shared machine says little about a change of one per cent; the count of instructions repeats to a
fraction of that. Each operation of bench.operations runs under valgrind, N and then 2N times, and the difference is
divided by N: what begins and ends a run is not in it.

The figures belong to one set of CPython build, compiler, valgrind and libraries; bench/instructions.json keeps them
by set, with the commit that they were counted of. An operation that has grown by more than --limit per cent makes the
exit status 1. Where a set has no figures, the commit of the newest ones is built here, counted, and recorded as the
figures of this set, so that a new release of a library does not leave the operations without a guard. The run says
so, in lines that begin with "warning:". --record takes what is counted now as the figures of this set.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.build import BENCH, ROOT, BuildError, build_programs, is_built
from bench.measure import pinned_to
from bench.processes import ChildFailed, python_environment

RECORDED = BENCH / "instructions.json"
LIMIT_PERCENT = 3.0
TIME_LIMIT_S = 600.0  # of one program under valgrind
BUILD_LIMIT_S = 1200.0
SOURCES = ("csrc", "src", "setup.py", "pyproject.toml", "README.md", "LICENSE")  # what hoop is built from

# What every figure depends on, and what only some do; "vector" is what the C library and OpenSSL choose their code by.
COMMON = ("machine", "vector", "libc", "python", "compiler", "valgrind", "Cython")
EXTRA = {"TLS echo": ("openssl",), "uvicorn request": ("uvicorn", "httptools", "h11")}
VECTOR = {"avx", "avx2", "bmi1", "f16c", "rdrand", "rdseed", "abm", "asimd", "sve"}
PACKAGES = {"uvicorn request": ("uvicorn", "httptools")}  # without which an operation is not measured

Entry = dict[str, Any]  # "set", "commit", "instructions"

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
    "pool job": 3000,  # which thread takes it, and whether that has gone to sleep, differs from one to the next
    "uvicorn request": 500,
}


def command_output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measured_set() -> dict[str, str]:
    """What the figures depend on, apart from hoop."""
    return {
        "machine": platform.machine(),
        "vector": vector_features(),
        "libc": " ".join(platform.libc_ver()),
        "python": sys.version.replace("\n", " "),
        "compiler": command_output(os.environ.get("CC", "cc"), "--version").splitlines()[0],
        "valgrind": command_output("valgrind", "--version").strip(),
        "openssl": ssl.OPENSSL_VERSION,
        **{name: installed_version(name) for name in ("Cython", "uvicorn", "httptools", "h11")},
    }


def installed_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def vector_features() -> str:
    """Of what the processor has, that which valgrind shows to a program."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join(sorted(VECTOR & set(flags.split())))


def dependencies(name: str) -> tuple[str, ...]:
    """The parts of a set that the figure of this operation depends on."""
    return COMMON + EXTRA.get(name, ())


def executed(name: str, *counts: int, environment: Mapping[str, str]) -> list[int]:
    """Instructions of performing the operation counts[0] times, counts[1] times and so on. ChildFailed on failure."""
    environment = {**environment, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        command = ["valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no", f"--callgrind-out-file={figures}"]
        command += [sys.executable, "-m", "bench.operations", name, "1", *map(str, counts)]
        try:
            with pinned_to(min(os.sched_getaffinity(0))):  # on one core no thread spins
                ended = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
                )
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{name}: still running after {TIME_LIMIT_S:g} s") from None
        if ended.returncode != 0:
            last = ended.stderr.strip().splitlines()[-1:] or [f"status {ended.returncode}"]
            raise ChildFailed(f"{name}: {last[0]}")
        # The first file is what was counted before counting began: nothing.
        return [total_of(Path(f"{figures}.{number}")) for number in range(2, len(counts) + 2)]


def total_of(figures: Path) -> int:
    for line in figures.read_text().splitlines():
        if line.startswith("summary:"):
            return int(line.split()[1])
    raise ChildFailed(f"valgrind gave no total in {figures.name}")


def instructions_of(name: str, source: Path | None = None) -> int:
    """Of one operation, with the hoop in this folder; None: with the hoop of this Python."""
    environment = python_environment()
    if source is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(source), environment["PYTHONPATH"]])
    count = COUNTS[name]
    once, twice = executed(name, count, 2 * count, environment=environment)
    return round((twice - once) / count)


# ---- recorded figures ------------------------------------------------------------------------------------------------


def find_figure(sets: Sequence[Entry], measured: Mapping[str, str], name: str) -> int | None:
    """The newest figure of the operation that was counted with everything it depends on as it is here."""
    for entry in reversed(sets):
        figure: int | None = entry["instructions"].get(name)
        if figure is not None and all(entry["set"].get(key) == measured.get(key) for key in dependencies(name)):
            return figure
    return None


def differences(sets: Sequence[Entry], measured: Mapping[str, str], name: str) -> str:
    """In what this set differs from the most similar one that has figures of the operation."""
    with_figure = [entry["set"] for entry in sets if name in entry["instructions"]]
    unlike = [[key for key in dependencies(name) if one.get(key) != measured.get(key)] for one in with_figure]
    if not unlike:
        return "there are none at all"
    least = min(range(len(unlike)), key=lambda place: len(unlike[place]))
    known = with_figure[least]
    return "; ".join(f"{key} is {measured.get(key)}, not {known.get(key)}" for key in unlike[least])


def record(sets: list[Entry], measured: dict[str, str], figures: Mapping[str, int], commit: str) -> Entry:
    """Keep figures of this set, which are of that commit. One commit has one entry of a set."""
    entry = next((one for one in sets if one["set"] == measured and one["commit"] == commit), None)
    if entry is None:
        entry = {"set": measured, "commit": commit, "instructions": {}}
        sets.append(entry)
    entry["instructions"] |= figures
    for other in sets:  # what is replaced is not kept
        if other is not entry and other["set"] == measured:
            for name in figures:
                other["instructions"].pop(name, None)
    sets[:] = [one for one in sets if one["instructions"]]
    return entry


def grown(name: str, now: int, before: int, limit_percent: float) -> str | None:
    """What to say of an operation that needs more than it may."""
    if now > before * (1 + limit_percent / 100):
        return f"{name}: {before} -> {now}, {100 * (now / before - 1):+.1f} %, limit {limit_percent:g} %"
    return None


# ---- a commit to compare with ----------------------------------------------------------------------------------------


def git(*arguments: str) -> bytes:
    """What git prints. BuildError if it fails, or is not there."""
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True).stdout
    except FileNotFoundError:
        raise BuildError("git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(error.stderr.decode(errors="replace").strip()) from None


def current_commit() -> str:
    """The commit of this tree, marked where hoop's sources differ from it."""
    try:
        commit = git("rev-parse", "HEAD").decode().strip()
        return commit + ("-changed" if git("status", "--porcelain", "--", *SOURCES) else "")
    except BuildError:
        return "unknown"


@contextlib.contextmanager
def built(commit: str) -> Iterator[Path]:
    """A folder with the hoop of that commit, built by this Python. BuildError if it is not to be had."""
    git("cat-file", "-e", f"{commit}^{{commit}}")
    there = [name for name in SOURCES if git("ls-tree", commit, "--", name)]
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(git("archive", "--format=tar", commit, *there))) as archive:
            archive.extractall(folder, filter="data")
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)
        if ended.returncode != 0:
            raise BuildError(f"building {commit[:12]} failed: {ended.stderr.strip()[-2000:]}")
        yield Path(folder) / "src"


def count_reference(names: Sequence[str], commit: str) -> dict[str, int]:
    """The figures of these operations at that commit. BuildError if it cannot be built."""
    print(f"building {commit[:12]}, to count it with what is here", flush=True)
    figures = {}
    with built(commit) as source:
        for name in names:
            figures[name] = instructions_of(name, source)
            print(f"{name:20} {figures[name]:>9}  at {commit[:12]}", flush=True)
    return figures


# ---- the command -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description="Count instructions.")
    parser.add_argument("--only", action="append", choices=list(COUNTS), help="only this operation; may be repeated")
    parser.add_argument("--limit", type=float, default=LIMIT_PERCENT, help="growth that is allowed, in per cent")
    parser.add_argument("--record", action="store_true", help="keep what is counted as the figures of this set")
    parser.add_argument("--against", metavar="COMMIT", help="compare with this commit, built here, not with the file")
    parser.add_argument("--file", type=Path, default=RECORDED, help="where figures are kept")
    return parser.parse_args(arguments)


def count_all(names: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    figures = {}
    for name in names:
        now = figures[name] = instructions_of(name)
        before = known.get(name)
        print(f"{name:20} {now:>9}" + ("" if before is None else f"  {100 * (now / before - 1):+6.2f} %"), flush=True)
    return figures


def measurable(names: Sequence[str]) -> list[str]:
    """Those whose packages are installed; a warning for each of the others."""
    found = []
    for name in names:
        missing = [package for package in PACKAGES.get(name, ()) if installed_version(package) == "none"]
        if missing:
            print(f"warning: {name} is not measured: {' and '.join(missing)} not installed")
        else:
            found.append(name)
    return found


def reference_figures(names: Sequence[str], sets: list[Entry], measured: dict[str, str]) -> dict[str, int]:
    """Figures of the newest recorded commit for operations that have none of this set, recorded; none if that fails."""
    for reason in dict.fromkeys(differences(sets, measured, name) for name in names):
        concerned = [name for name in names if differences(sets, measured, name) == reason]
        print(f"warning: no figures of this set for {', '.join(concerned)}: {reason}")
    commits = [entry["commit"].removesuffix("-changed") for entry in sets]
    if not commits:
        return {}
    try:
        figures = count_reference(names, commits[-1])
    except BuildError as error:
        print(f"warning: WITHOUT A GUARD, since {commits[-1][:12]} is not to be had: {error}")
        return {}
    entry = record(sets, measured, figures, commits[-1])
    print(f"warning: compared with {commits[-1][:12]}, counted here; to keep its figures: {json.dumps(entry)}")
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, compare, tell; the exit status: 1 if an operation has grown, 2 if there was no measuring it."""
    options = parse_arguments(arguments)
    try:
        complaints = compare(options)
    except (BuildError, ChildFailed) as error:
        print(error, file=sys.stderr)
        return 2
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return 1 if complaints and not options.record else 0


def prepare() -> None:
    """What counting needs. BuildError if that is not there."""
    if shutil.which("valgrind") is None:
        raise BuildError("valgrind is needed (Debian: apt install valgrind)")
    build_programs()  # makes the certificate, too
    if not is_built("marks.so"):
        raise BuildError("valgrind's header valgrind/callgrind.h is needed")


def compare(options: argparse.Namespace) -> list[str]:
    """Count, compare and record; the complaints about what has grown."""
    prepare()
    names = measurable(options.only or list(COUNTS))
    sets: list[Entry] = json.loads(options.file.read_text()) if options.file.exists() else []
    measured = measured_set()
    recorded = {name: find_figure(sets, measured, name) for name in names}
    known = {name: figure for name, figure in recorded.items() if figure is not None}
    if options.against:
        known = count_reference(names, options.against)
    figures = count_all(names, known)
    missing = [name for name in names if name not in known]
    if options.record:
        record(sets, measured, figures, current_commit())
    elif missing:
        reference = reference_figures(missing, sets, measured)
        known |= reference
        if not reference:
            record(sets, measured, {name: figures[name] for name in missing}, current_commit())
            print(f"warning: recorded in {options.file.name} what was counted now: {', '.join(missing)}")
    if options.record or missing:
        options.file.write_text(json.dumps(sets, indent=1) + "\n")
    complaints = (grown(name, figures[name], before, options.limit) for name, before in known.items())
    return [complaint for complaint in complaints if complaint is not None]


if __name__ == "__main__":
    sys.exit(main())
