"""File operations of one contender, in this process: what a small read, a large read and a write cost. file_rounds.py
runs it for each contender.

Prints a line of JSON when a workload begins and one when it ends, so that a crash can be attributed.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.loops import LoopFactory, find_loop
from bench.micro import Batch, Loop, Micro, run_benchmark
from bench.pace import add_pace_of_child, pace_of_child
from bench.servers.serving import settle_allocator

SMALL, LARGE = 4096, 1 << 20  # bytes
SMALL_BATCH, LARGE_BATCH = 100, 20  # operations
MEMORY = Path("/dev/shm")  # a disk would be what limits the writes
AT_ONCE = 50

Read = Callable[[Path], Awaitable[bytes]]
Write = Callable[[Path, bytes], Awaitable[Any]]


def read_blocking(path: Path) -> bytes:
    """What a thread of an executor does."""
    with open(path, "rb") as file:
        return file.read()


def write_blocking(path: Path, data: bytes) -> None:
    """The same for a write."""
    with open(path, "wb") as file:
        file.write(data)


@dataclass(frozen=True)
class Way:
    """A way to read and write a file without blocking a loop; `package` must be installed for it."""

    make: Callable[[], tuple[Read, Write]]
    title: str
    package: str | None = None


def hoop_fs() -> tuple[Read, Write]:
    """This project's own functions."""
    from hoop import fs

    return fs.read_file, fs.write_file


def hoop_open() -> tuple[Read, Write]:
    """This project's file objects, used as aiofiles'."""
    from hoop import fs

    return by_opening(fs.open)


def executor() -> tuple[Read, Write]:
    """The loop's default executor: three system calls or more, one hop."""

    async def read(path: Path) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(None, read_blocking, path)

    async def write(path: Path, data: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(None, write_blocking, path, data)

    return read, write


def aiofiles_open() -> tuple[Read, Write]:
    """The package that most programs use."""
    import aiofiles  # type: ignore[import-untyped]

    return by_opening(aiofiles.open)


def blazio_open() -> tuple[Read, Write]:
    """blazio's own files, over io_uring."""
    import blazio  # type: ignore[import-not-found]

    return by_opening(blazio.open)


def by_opening(open_file: Any) -> tuple[Read, Write]:
    """With what has the interface of aiofiles.open()."""

    async def read(path: Path) -> bytes:
        async with open_file(path, "rb") as file:
            data: bytes = await file.read()
            return data

    async def write(path: Path, data: bytes) -> None:
        async with open_file(path, "wb") as file:
            await file.write(data)

    return read, write


def anyio_path() -> tuple[Read, Write]:
    """anyio.Path, which runs pathlib's methods in threads."""
    import anyio

    async def read(path: Path) -> bytes:
        return await anyio.Path(path).read_bytes()

    async def write(path: Path, data: bytes) -> None:
        await anyio.Path(path).write_bytes(data)

    return read, write


def blocking() -> tuple[Read, Write]:
    """On the loop's own thread: what the operation costs where the loop may stand still."""

    async def read(path: Path) -> bytes:
        return read_blocking(path)

    async def write(path: Path, data: bytes) -> None:
        write_blocking(path, data)

    return read, write


WAYS: dict[str, Way] = {
    "fs": Way(hoop_fs, "hoop.fs"),
    "fs-pool": Way(hoop_fs, "hoop.fs, pool only"),
    "fs-open": Way(hoop_open, "hoop.fs.open"),
    "executor": Way(executor, "run_in_executor"),
    "aiofiles": Way(aiofiles_open, "aiofiles", "aiofiles"),
    "anyio": Way(anyio_path, "anyio.Path", "anyio"),
    "blazio-open": Way(blazio_open, "blazio.open", "blazio"),
    "blocking": Way(blocking, "open() on the loop"),
}
# Who is measured, and on which loops.
CONTENDERS: tuple[tuple[str, str], ...] = (
    *(("fs", "hoop"), ("fs-pool", "hoop"), ("fs-open", "hoop")),
    *(("executor", "hoop"), ("executor", "asyncio"), ("executor", "uvloop")),
    *(("aiofiles", "asyncio"), ("aiofiles", "uvloop")),
    *(("anyio", "asyncio"), ("anyio", "uvloop")),
    *(("blazio-open", "blazio"), ("blocking", "asyncio")),
)


def factory_of(way: str, loop: str) -> LoopFactory:
    """The loop; hoop's without the fast path where only the pool is to be measured."""
    if way != "fs-pool":
        return find_loop(loop).factory()
    import hoop

    return functools.partial(hoop.Loop, cached_reads=False)


# ---- workloads -------------------------------------------------------------------------------------------------------


def read_small(ways: tuple[Read, Write], folder: Path) -> Batch:
    path = folder / "small"

    async def batch() -> int:
        for _ in range(SMALL_BATCH):
            assert len(await ways[0](path)) == SMALL
        return SMALL_BATCH

    return batch


def read_small_at_once(ways: tuple[Read, Write], folder: Path) -> Batch:
    path = folder / "small"

    async def batch() -> int:
        await asyncio.gather(*[ways[0](path) for _ in range(AT_ONCE)])
        return AT_ONCE

    return batch


def read_large(ways: tuple[Read, Write], folder: Path) -> Batch:
    path = folder / "large"

    async def batch() -> int:
        for _ in range(LARGE_BATCH):
            assert len(await ways[0](path)) == LARGE
        return LARGE_BATCH

    return batch


def write_small(ways: tuple[Read, Write], folder: Path) -> Batch:
    path, data = folder / "memory" / "written", b"x" * SMALL

    async def batch() -> int:
        for _ in range(SMALL_BATCH):
            await ways[1](path, data)
        return SMALL_BATCH

    return batch


WORKLOADS: dict[str, tuple[Callable[[tuple[Read, Write], Path], Batch], str]] = {
    "read-4k": (read_small, "read 4 KiB"),
    "read-4k-at-once": (read_small_at_once, f"{AT_ONCE} at once"),
    "read-1m": (read_large, "read 1 MiB"),
    "write-4k": (write_small, "write 4 KiB"),
}


def main() -> None:
    """Run the workloads on the contender named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", required=True, choices=list(WAYS))
    parser.add_argument("--loop", required=True)
    parser.add_argument("--seconds", type=float, default=0.1)
    add_pace_of_child(parser)
    arguments = parser.parse_args()
    factory = factory_of(arguments.way, arguments.loop)
    pace = pace_of_child(arguments.pace)
    ways = WAYS[arguments.way].make()
    settle_allocator()
    memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(dir=memory) as in_memory:
        folder = Path(name)
        (folder / "memory").symlink_to(in_memory)
        write_blocking(folder / "small", b"x" * SMALL)
        write_blocking(folder / "large", b"x" * LARGE)
        for workload, (prepare, title) in WORKLOADS.items():
            print(json.dumps({"begin": workload}), flush=True)

            def prepared(_: Loop, prepare: Any = prepare) -> Batch:
                batch: Batch = prepare(ways, folder)
                return batch

            micro = Micro(prepared, title, threads=True)
            try:
                for _ in pace.attempts():
                    results = run_benchmark(micro, factory, arguments.seconds)
            except Exception as error:  # whatever a contender raises is its result
                answer: dict[str, Any] = {"failure": f"{type(error).__name__} {error}".strip()[:160]}
            else:
                answer = {
                    "us": statistics.median(spent.clock_ns for spent in results) / 1000,
                    "cpu_us": statistics.median(spent.cpu_ns for spent in results) / 1000,
                }
            print(json.dumps({"end": workload, "pace": pace.spent()} | answer), flush=True)


if __name__ == "__main__":
    main()
