"""The event loops that the benchmark compares, and how to make each of them.

`python -m bench.loops` prints what pip must install for all of them, a requirement on a line; with --missing only what
this Python lacks.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
C_SERVER = "c"  # stands beside the loops in results: the echo server written in C
NODE = "node"  # the same: a server written in JavaScript, where Node is installed
ALONE = "python"  # and no server at all: a row's Python code with no loop under it (alone.py)


@dataclass(frozen=True)
class LoopKind:
    """A loop that can be measured. `module` has a `new_event_loop` function; None stands for the standard library.

    `transports` names a package whose loop_factory() puts transports of its own on such a loop, and `servers` the
    modules of bench.servers where they are compared; None stands for all. `since`: the oldest Python that it is for.
    """

    name: str
    module: str | None
    description: str
    transports: str | None = None
    servers: tuple[str, ...] | None = None
    since: tuple[int, int] = (3, 11)

    def is_for_this_python(self) -> bool:
        return sys.version_info[:2] >= self.since

    def is_installed(self) -> bool:
        """Whether its packages are present. They are not imported: that is left to the process which is measured."""
        packages = filter(None, (self.module, self.transports))
        return all(importlib.util.find_spec(package) is not None for package in packages)

    def factory(self) -> LoopFactory:
        """The function that makes a loop. ImportError if the package is missing or does not work here."""
        if self.module is None:
            return asyncio.SelectorEventLoop
        factory: LoopFactory = importlib.import_module(self.module).new_event_loop
        if self.transports is not None:
            factory = importlib.import_module(self.transports).loop_factory(factory)
        return factory

    def made(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the loop is one of this kind."""
        return type(loop).__module__.partition(".")[0] == (self.module or "asyncio")

    def version(self) -> str:
        """The package's version, or Python's own for the standard library."""
        if self.module is None:
            return platform.python_version()
        try:
            return importlib.metadata.version(self.transports or self.module)
        except importlib.metadata.PackageNotFoundError:
            return "(source tree)"  # importable, but not an installed package


LOOPS: dict[str, LoopKind] = {
    kind.name: kind
    for kind in (
        LoopKind("hoop", "hoop", "this project"),
        LoopKind("asyncio", None, "the standard library's selector loop"),
        LoopKind("uvloop", "uvloop", "Cython over libuv"),
        LoopKind("blazio", "blazio", "Zig over io_uring"),
        LoopKind("zloop", "zloop", "Zig"),
        LoopKind("zuvloop", "zuvloop", "Zig over libuv", since=(3, 14)),
        LoopKind("rloop", "rloop", "Rust"),
        LoopKind("aiofastnet", "uvloop", "transports in Cython, on uvloop", "aiofastnet", ("tls_echo",)),
    )
}


def find_loop(name: str) -> LoopKind:
    """The loop of that name. ValueError, naming the possible ones, if there is none."""
    try:
        return LOOPS[name]
    except KeyError:
        raise ValueError(f"unknown loop {name!r}; known are {', '.join(LOOPS)}") from None


def requirement_of(package: str) -> tuple[str, str]:
    """What the extra `bench` says of a package, and where: "uvloop>=0.21", "python_version < '3.15'"."""
    extra: list[str] = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["bench"]
    for requirement in extra:
        what, _, marker = (part.strip() for part in requirement.partition(";"))
        if what.partition(">=")[0] == package:
            return what, marker
    return package, ""


def loops_here() -> list[str]:
    """The loops that this Python is new enough for, installed or not."""
    return [kind.name for kind in LOOPS.values() if kind.is_for_this_python()]


def peers() -> list[LoopKind]:
    """Those of them that come in packages of their own."""
    return [LOOPS[name] for name in loops_here() if LOOPS[name].module not in (None, "hoop")]


def how_to_get(kind: LoopKind) -> str:
    """What to say of a loop that is not installed."""
    what, marker = requirement_of(kind.transports or kind.module or "")
    return f"not installed; it comes with `pip install '{what}'`" + (f" where {marker}" if marker else "")


def main() -> None:
    kinds = [kind for kind in peers() if "--missing" not in sys.argv or not kind.is_installed()]
    for kind in kinds:
        print(requirement_of(kind.transports or kind.module or "")[0])


if __name__ == "__main__":
    main()
