"""Echo with asyncio.Protocol beside background work: passwords hashed and files read at given rates.

On hoop the work goes through hoop.crypto and hoop.fs, on other loops through run_in_executor, as an application's
would. From time to time a line of JSON says how much of it has been done.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.loops import find_loop
from bench.servers.protocol_echo import Echo
from bench.servers.serving import run_server, serve_protocol

FILES = 64
FILE_SIZE = 65_536
REPORT_INTERVAL_S = 0.25

Work = Callable[[], Awaitable[object]]


class Pace:
    """Starts a piece of work so many times a second, however long each takes, and counts those done."""

    def __init__(self, work: Work, rate: float) -> None:
        self._work = work
        self._interval_s = 1 / rate
        self._tasks: set[asyncio.Task[None]] = set()
        self.done = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self._interval_s
            await asyncio.sleep(due - loop.time())
            task = loop.create_task(self._one())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self) -> None:
        await self._work()
        self.done += 1


def password_work(iterations: int) -> Work:
    loop = asyncio.get_running_loop()
    if find_loop("hoop").made(loop):
        import hoop

        return lambda: hoop.crypto.pbkdf2_hmac("sha256", b"password", b"salt", iterations)
    return lambda: loop.run_in_executor(None, hashlib.pbkdf2_hmac, "sha256", b"password", b"salt", iterations)


def file_work(folder: Path) -> Work:
    loop = asyncio.get_running_loop()
    paths = [folder / str(number) for number in range(FILES)]
    for path in paths:
        path.write_bytes(os.urandom(FILE_SIZE))
    count = 0

    def next_path() -> Path:
        nonlocal count
        count += 1
        return paths[count % FILES]

    if find_loop("hoop").made(loop):
        import hoop

        return lambda: hoop.fs.read_file(next_path())
    return lambda: loop.run_in_executor(None, next_path().read_bytes)


async def serve(listener: socket.socket, options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    paces = {}
    if options.passwords:
        paces["passwords"] = Pace(password_work(options.iterations), options.passwords)
    if options.files:
        paces["files"] = Pace(file_work(options.folder), options.files)
    working = [loop.create_task(each) for each in (*(pace.run() for pace in paces.values()), report(paces))]
    await serve_protocol(listener, Echo)
    for task in working:
        task.cancel()


async def report(paces: dict[str, Pace]) -> None:
    while True:
        done = {name: pace.done for name, pace in paces.items()}
        print(json.dumps({"at_s": time.monotonic(), "done": done}), flush=True)
        await asyncio.sleep(REPORT_INTERVAL_S)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passwords", type=float, default=0, help="hashed a second")
    parser.add_argument("--iterations", type=int, default=10_000, help="of PBKDF2-HMAC-SHA256 for each password")
    parser.add_argument("--files", type=float, default=0, help="read a second, 64 KiB each")
    parser.add_argument("--folder", type=Path, help="where to put these files; emptied by whoever started this")
    return parser.parse_known_args()[0]


if __name__ == "__main__":
    options = parse_options()
    run_server(lambda listener: serve(listener, options))
