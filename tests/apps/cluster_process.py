"""hoop's cluster as a process of its own, and clients that count what they are not answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import hoop
from server_process import ServerProcess

LIMIT_S = 60.0

APPLICATION = """\
import os

import hoop.cluster

GENERATION = 1


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    client, _ = scope["client"] or ("gone", 0)
    body = f"{GENERATION} {hoop.cluster.worker.id} {os.getpid()} {client} {'NOTIFY_SOCKET' in os.environ}"
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
"""
MASTER = """\
import hoop
import hoop.cluster

if __name__ == "__main__":
    hoop.cluster.run("served:{target}", {options})
"""


@dataclass(frozen=True)
class Answer:
    """What the application says of who answered, and to whom."""

    generation: int
    worker: int
    pid: int
    client: str
    knows_manager: bool
    fields: dict[str, str]

    @property
    def closes(self) -> bool:
        return self.fields.get("connection", "").lower() == "close"


class Cluster(ServerProcess):
    """A master with its workers; `options` are arguments of hoop.cluster.run() as source code."""

    def __init__(
        self,
        folder: Path,
        options: str,
        *,
        application: str = APPLICATION,
        target: str = "application",
        environment: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        **popen: Any,
    ) -> None:
        self.folder = folder
        self.application = application
        self.generation = 0
        self.deploy()
        (folder / "master.py").write_text(MASTER.format(target=target, options=options))
        search = os.pathsep.join([str(folder), str(Path(hoop.__file__).resolve().parents[1])])
        variables = {**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        super().__init__([*prefix, sys.executable, folder / "master.py"], cwd=folder, env=variables, **popen)

    def deploy(self) -> None:
        """Put the next version of the application in its place."""
        self.generation += 1
        new = self.folder / "new"
        new.write_text(self.application.replace("GENERATION = 1\n", f"GENERATION = {self.generation}\n"))
        new.rename(self.folder / "served.py")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def reload(self, workers: set[int]) -> None:
        """Deploy the next version, and return when the workers, which are of the old one, have ended."""
        self.deploy()
        self.send(signal.SIGHUP)
        await ended(workers)


async def ended(pids: set[int]) -> None:
    """Return once none of these processes is running."""
    async with asyncio.timeout(LIMIT_S):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    await readable(fd)
                finally:
                    os.close(fd)


async def readable(fd: int) -> None:
    """Return once fd has something to read."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)


# ---- clients ---------------------------------------------------------------------------------------------------------


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/", **fields: str) -> Answer:
    """One request and its answer. OSError or EOFError if there is none, AssertionError if its status is not 200."""
    told = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", "host: here", *told, "", ""]).encode())
    status, found, body = await answer_of(reader)
    assert status == 200, (status, body)
    generation, worker, pid, client, knows = body.split()
    return Answer(int(generation), int(worker), int(pid), client, knows == "True", found)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], str]:
    """Status, fields and body of the next answer."""
    async with asyncio.timeout(LIMIT_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(found["content-length"]))
    return int(first.split()[1]), found, body.decode()


@contextlib.asynccontextmanager
async def connection(
    port: int, source: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection for the length of the block."""
    local = None if source is None else (source, 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=local)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask_once(port: int, path: str = "/", *, source: str | None = None, **fields: str) -> Answer:
    """One request on a connection of its own."""
    async with connection(port, source) as (reader, writer):
        return await ask(reader, writer, path, connection="close", **fields)


async def workers_at(port: int, count: int) -> set[int]:
    """The workers that new connections come to, once there were so many."""
    found: set[int] = set()
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            found.add((await ask_once(port)).pid)
    return found


class Load:
    """Clients that ask without a pause, each on one connection as long as that lasts, or on a new one each time.

    What is not answered by 200 and as a whole is in `errors`. `port` may be a function, where it changes with time.
    """

    def __init__(self, port: Callable[[], int] | int, connections: int, *, fresh: bool = False) -> None:
        self.answered = 0
        self.generations: dict[int, int] = {}  # by pid of the workers that have answered
        self.errors: list[str] = []
        self._port = port if callable(port) else lambda: port
        self._connections = connections
        self._fresh = fresh
        self._is_over = False
        self._news = asyncio.Condition()
        self._clients: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._clients = [asyncio.ensure_future(self._client()) for _ in range(self._connections)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._is_over = True
        if kind is not None:
            for client in self._clients:
                client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=kind is not None)

    async def workers(self, count: int, generation: int = 1) -> set[int]:
        """The workers of that generation, once so many of them have answered."""

        def found() -> set[int]:
            return {pid for pid, of in self.generations.items() if of == generation}

        async with asyncio.timeout(LIMIT_S), self._news:
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()

    async def more(self, count: int) -> None:
        """Return after so many further answers."""
        wanted = self.answered + count
        async with asyncio.timeout(LIMIT_S), self._news:
            await self._news.wait_for(lambda: self.answered >= wanted)

    async def _client(self) -> None:
        while not self._is_over:
            try:
                async with connection(self._port()) as (reader, writer):
                    await self._requests(reader, writer)
            except (OSError, EOFError, AssertionError) as error:
                self.errors.append(repr(error))

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fields = {"connection": "close"} if self._fresh else {}
        while not self._is_over and not reader.at_eof():
            answer = await ask(reader, writer, **fields)
            self.answered += 1
            self.generations[answer.pid] = answer.generation
            async with self._news:
                self._news.notify_all()
            if self._fresh or answer.closes:
                return
