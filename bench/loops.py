"""The event loops that the benchmark compares, and how to make each of them."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

C_SERVER = "c"  # stands beside the loops in results: the echo server written in C


@dataclass(frozen=True)
class LoopKind:
    """A loop that can be measured. `module` has a `new_event_loop` function; None stands for the standard library.

    `transports` names a package whose loop_factory() puts transports of its own on such a loop, and `servers` the
    modules of bench.servers where they are compared; None stands for all.
    """

    name: str
    module: str | None
    description: str
    transports: str | None = None
    servers: tuple[str, ...] | None = None

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
