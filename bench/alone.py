"""What the Python code of a row takes with no loop under it: python -m bench.alone [uvicorn | streams-1k-100 | ...]

The same protocol objects, handlers and applications are driven by hand: what has arrived is given to data_received(), a
coroutine is resumed by send(), and write() forgets. There is no socket, no task, no call_soon(), no other connection
that takes the caches. No loop can be cheaper than this and the system calls, which the C server of such rows shows.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bench.servers import lines_echo, pieces_echo, streams_echo
from bench.servers.streams_echo import Handler
from bench.workloads import LINE

REQUEST = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"  # as c/http_client.c has it
KIB_MESSAGE = bytes(1024)
LINES_MESSAGE = (b"x" * (LINE - 1) + b"\n") * lines_echo.LINES
BATCH = 500  # messages between two looks at the clock
US = 1e6

Feed = Callable[[], None]  # one message


class Done:
    """A task that ended at once, or a timer that nobody waits for."""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        callback(self)

    def result(self) -> None: ...

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None: ...

    def cancel(self) -> None: ...


class NoLoop:
    """What protocols ask of their loop. A coroutine runs until it waits, and `waiting` is the last one that does."""

    def __init__(self) -> None:
        self.waiting: Coroutine[Any, Any, Any] | None = None
        self._done = Done()

    def create_task(self, coroutine: Coroutine[Any, Any, Any], **_options: object) -> Any:
        try:
            coroutine.send(None)
        except StopIteration:
            pass
        else:
            self.waiting = coroutine
        return self._done

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def call_later(self, *_arguments: object) -> Done:
        return self._done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise RuntimeError(f"{context}")

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return True


class NoTransport(asyncio.Transport):
    """Forgets what is written."""

    written = 0

    def write(self, data: Any) -> None:
        self.written += len(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written += sum(map(len, list_of_data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...


def uvicorn() -> tuple[Feed, NoTransport]:
    """A request to the plain text application."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    from bench.servers.uvicorn_plain import make_server

    config = make_server().config
    config.load()
    protocol: Any = HttpToolsProtocol(config, ServerState(), {}, NoLoop())  # type: ignore[arg-type]
    transport = NoTransport()
    protocol.connection_made(transport)
    return lambda: protocol.data_received(REQUEST), transport


def streams(handler: Handler, message: bytes) -> Callable[[], tuple[Feed, NoTransport]]:
    """A message to a handler with asyncio's streams."""

    def prepare() -> tuple[Feed, NoTransport]:
        loop: Any = NoLoop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, handler, loop=loop)
        transport = NoTransport()
        protocol.connection_made(transport)
        handling = loop.waiting
        assert handling is not None

        def feed() -> None:
            protocol.data_received(message)
            handling.send(None)

        return feed, transport

    return prepare


ALONE: dict[str, Callable[[], tuple[Feed, NoTransport]]] = {
    "streams-1k-100": streams(streams_echo.echo, KIB_MESSAGE),
    "lines-10": streams(lines_echo.echo, LINES_MESSAGE),
    "pieces-10": streams(pieces_echo.echo, LINES_MESSAGE),
    **({"uvicorn": uvicorn} if importlib.util.find_spec("uvicorn") and importlib.util.find_spec("httptools") else {}),
}


def measure(name: str, seconds: float) -> float:
    """Microseconds of CPU time for a message: the median over batches. RuntimeError if a message is not answered."""
    feed, transport = ALONE[name]()
    feed()
    if transport.written == 0:
        raise RuntimeError(f"{name}: nothing was answered")
    found = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        began = time.process_time()
        for _ in range(BATCH):
            feed()
        found.append((time.process_time() - began) / BATCH)
    return statistics.median(found) * US


def main() -> None:
    """Print a line of JSON for each."""
    parser = argparse.ArgumentParser(prog="python -m bench.alone", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALONE)}; default: all")
    parser.add_argument("--seconds", type=float, default=0.3)
    arguments = parser.parse_args()
    for name in arguments.names or ALONE:
        print(json.dumps({"name": name, "cpu_us": measure(name, arguments.seconds)}), flush=True)


if __name__ == "__main__":
    main()
