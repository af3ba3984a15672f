"""What `import hoop` costs a program that has asyncio already, and how much is installed: python -m bench.imports

Each module is imported by fresh processes, in interleaved rounds after one that does not count: it writes bytecode
where there was none, and brings the files into memory. The difference around the import statement is taken within a
process, of the clock, of CPU time, of resident memory and of the modules loaded. `import hoop` alone loads next to
nothing: what a loop needs comes with the first loop, so that is a row of its own (hoop:new_event_loop).

With --install, what is measured is a plain `pip install` of this tree, made in a temporary folder; else the hoop that
this Python finds. With --check the exit status is 1 if hoop is above one of LIMITS.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.build import ROOT
from bench.processes import ChildFailed, running
from bench.report import NOT_MEASURED, render_table
from bench.results import median, spread

BASE = "asyncio"
MODULES = ("asyncio", "hoop", "hoop:new_event_loop", "uvloop", "uvloop:new_event_loop")
ROUNDS = 20
LIMIT_S = 60.0  # of one child
INSTALL_LIMIT_S = 900.0
LIMITS = {"CPU ms": 12.0, "MB": 2.0, "installed MB": 5.0}  # of hoop, on CPython 3.13
SOURCES = ("csrc", "src", "setup.py", "pyproject.toml", "README.md", "LICENSE")  # what an installation is made from

# Only modules that the interpreter has loaded anyway: the measured one must find loaded what it finds elsewhere.
CHILD = """
import sys, time, os
name, base = sys.argv[1:]
name, _, function = name.partition(":")
if name != base:
    __import__(base)
def resident():
    try:
        file = os.open("/proc/self/smaps_rollup", os.O_RDONLY)
    except OSError:
        return 0
    text = os.read(file, 4096)
    os.close(file)
    return int(text.partition(b"Rss:")[2].split(None, 1)[0])
resident()
loaded = len(sys.modules)
kilobytes = resident()
cpu = time.process_time_ns()
began = time.perf_counter_ns()
module = __import__(name)
if function:
    loop = getattr(module, function)()
ended = time.perf_counter_ns()
cpu = time.process_time_ns() - cpu
kilobytes = resident() - kilobytes
loaded = len(sys.modules) - loaded
print('{"ms": %f, "CPU ms": %f, "MB": %f, "modules": %d, "file": "%s"}' % (
    (ended - began) / 1e6, cpu / 1e6, kilobytes / 1024, loaded, sys.modules[name].__file__))
"""

Figures = Mapping[str, Any]  # "ms", "CPU ms", "MB", "modules", "file"


@dataclass(frozen=True)
class Installed:
    """A copy of hoop: its size, and what the reader must know about it."""

    megabytes: float
    remark: str


@contextlib.contextmanager
def with_bytecode() -> Iterator[None]:
    """Children write bytecode, as an installation has it: without, each would compile all sources anew."""
    before = os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["PYTHONDONTWRITEBYTECODE"] = before


def import_once(name: str) -> Figures:
    """In a fresh process. ChildFailed, with the reason, if the import fails."""
    with with_bytecode(), running([sys.executable, "-P", "-c", CHILD, name, BASE]) as child:
        return child.read_json(LIMIT_S)


def measure(names: Sequence[str], rounds: int) -> dict[str, list[Figures]]:
    """The figures of all rounds, by module."""
    for name in names:
        import_once(name)
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            figures[name].append(import_once(name))
    return figures


def medians(figures: Sequence[Figures]) -> dict[str, float]:
    return {key: median({number: one[key] for number, one in enumerate(figures)}) for key in ("ms", "CPU ms", "MB")}


def size_of(folder: Path, is_counted: Any = None) -> float:
    """The files below a folder, in millions of bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if is_counted is None or is_counted(path)) / 1e6


def found_in_place(package: Path) -> Installed:
    """Of the package in a clone, what an installation would have: modules, stubs, this Python's extensions."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]

    def is_installed(path: Path) -> bool:
        return path.suffix in (".py", ".pyi") or path.name == "py.typed" or path.name.endswith(suffix)

    return Installed(size_of(package, is_installed), "built in place; --install measures an installation")


@contextlib.contextmanager
def installation() -> Iterator[Path]:
    """The folder of a plain installation of this tree, made from a copy of its sources. ChildFailed if that fails."""
    with tempfile.TemporaryDirectory() as name:
        tree, target = Path(name) / "tree", Path(name) / "installed"
        tree.mkdir()
        for source in SOURCES:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tree / source, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(ROOT / source, tree / source)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-build-isolation", "--target", str(target), str(tree)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
        if ended.returncode != 0:
            raise ChildFailed(f"pip install: {ended.stderr.strip()[-2000:]}")
        yield target


@contextlib.contextmanager
def first_on_path(folder: Path) -> Iterator[None]:
    """What children import comes from that folder, if it is there."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def table(figures: Mapping[str, Sequence[Figures]], installed: Installed | None) -> list[str]:
    header = [f"import, after {BASE}", "ms", "±", "CPU ms", "±", "MB", "modules"]
    rows = []
    for name, rounds in figures.items():
        row = [f"{name} itself" if name == BASE else name]
        for key in ("ms", "CPU ms"):
            values = {number: one[key] for number, one in enumerate(rounds)}
            row += [f"{median(values):.1f}", f"{spread(values):.0%}"]
        megabytes = medians(rounds)["MB"]
        rows.append([*row, f"{megabytes:.2f}" if megabytes else NOT_MEASURED, str(rounds[0]["modules"])])
    lines = render_table(header, rows)
    if installed is not None:
        lines.append(f"hoop on disk: {installed.megabytes:.1f} MB ({installed.remark})")
    return lines


def above_limits(figures: Mapping[str, Sequence[Figures]], installed: Installed | None) -> list[str]:
    """What to say of each figure of hoop that is above its limit."""
    found = medians(figures["hoop"]) if figures.get("hoop") else {}
    if installed is not None:
        found["installed MB"] = installed.megabytes
    return [
        f"hoop: {found[key]:.1f} {key}, limit {limit:g}" for key, limit in LIMITS.items() if found.get(key, 0) > limit
    ]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.imports", description="What importing hoop costs.")
    parser.add_argument("--only", action="append", choices=MODULES, help="only this module; may be repeated")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"fresh processes of each; default: {ROUNDS}")
    parser.add_argument("--install", action="store_true", help="measure a plain `pip install` of this tree")
    parser.add_argument("--check", action="store_true", help="exit status 1 above the limits")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; the exit status."""
    options = parse_arguments(arguments)
    names = [name for name in options.only or MODULES if importlib.util.find_spec(name.partition(":")[0]) is not None]
    installed = None
    with contextlib.ExitStack() as stack:
        if options.install:
            target = stack.enter_context(installation())
            stack.enter_context(first_on_path(target))
            installed = Installed(size_of(target), "a plain pip install, with its bytecode")
        figures = measure(names, options.rounds)
    if installed is None and "hoop" in figures:
        installed = found_in_place(Path(figures["hoop"][0]["file"]).parent)
    print(*table(figures, installed), sep="\n")
    missing = set(options.only or MODULES) - set(names)
    print(*(f"{name}: not installed" for name in sorted(missing)), sep="\n", end="\n" if missing else "")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    problems = above_limits(figures, installed)
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
