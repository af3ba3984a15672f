"""A worker that is none: what an adapter needs of one, in a thread with a loop of its own; and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import hoop
from hoop.adapters.serving import ServingWorker, serve_by

DEADLINE_S = 60.0


@dataclass
class StandIn:
    """See hoop.adapters.serving.ServingWorker."""

    sockets: list[socket.socket]
    ssl: ssl.SSLContext | None = None
    backlog: int = 100
    drain: hoop.Drain = field(default_factory=lambda: hoop.Drain(idle_grace=1.0, timeout=20.0))
    start_timeout: float | None = 30.0
    access_log: bool = False
    requests: int = 0
    on_ready: threading.Event = field(default_factory=threading.Event)

    def ready(self) -> None:
        self.on_ready.set()

    def count_request(self) -> None:
        self.requests += 1


async def serve_and_drain(server: str, application: Any, worker: ServingWorker, drained: Awaitable[object]) -> None:
    """What a worker does with its adapter: serve, drain, then cancel."""
    loop: Any = asyncio.get_running_loop()
    serving = loop.create_task(serve_by(server, application)(application, worker))
    waiting = asyncio.ensure_future(drained)
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await loop.drain(worker.drain)
        serving.cancel()
        await asyncio.wait((serving,))
    waiting.cancel()
    if not serving.cancelled():
        serving.result()


class Served:
    """An application that an adapter serves, until drain() is called."""

    def __init__(self, server: str, application: Callable[[], Any], worker: StandIn) -> None:
        self.worker = worker
        self.error: BaseException | None = None
        self.loop: Any = None
        self._drained: asyncio.Future[None] | None = None
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(server, application), daemon=True)
        self._thread.start()
        assert self._is_running.wait(DEADLINE_S)

    def _run(self, server: str, application: Callable[[], Any]) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            self._drained = self.loop.create_future()
            self._is_running.set()
            await serve_and_drain(server, application(), self.worker, self._drained)

        try:
            hoop.run(main())
        except BaseException as error:
            self.error = error
        finally:
            self.worker.on_ready.set()

    def wait_until_ready(self) -> None:
        assert self.worker.on_ready.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error

    def begin_to_drain(self) -> None:
        future = self._drained
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self.loop.call_soon_threadsafe(lambda: future.done() or future.set_result(None))

    def wait_until_ended(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def listening(count: int = 1, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> Iterator[Any]:
    """A listening socket, and `count` duplicates of it: a worker each."""
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(100)
        listener.setblocking(False)
        copies = [listener.dup() for _ in range(count)]
        try:
            yield listener.getsockname(), copies
        finally:
            for copy in copies:
                copy.close()


class Client:
    """Keeps its connection as long as the server wants, and asks one thing after the other on it."""

    def __init__(self, address: Any, context: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.context = context
        self.statuses: list[int] = []
        self.closes = 0
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = None if self.context is None else "localhost"
        if isinstance(self.address, str):
            return await hoop.open_unix_connection(self.address)
        return await hoop.open_connection(*self.address, ssl=self.context, server_hostname=name)

    async def get(self, path: str = "/") -> tuple[int, bytes]:
        """EOFError or ConnectionError for what clients call a failed request."""
        if self._stream is None:
            self._stream = await self.connect()
        reader, writer = self._stream
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split()[0])
        body = await reader.readexactly(size)
        self.statuses.append(int(head.split()[1]))
        if b"connection: close" in head:
            self.closes += 1
            self.close()
        return self.statuses[-1], body

    def close(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None
