"""Clients in a closed loop: each asks, waits for the whole answer, and asks again. They tell how requests fail.

    python -m bench.serving.clients --port 8000 --connections 16 --seconds 12 [--fresh] [--think 0.3]

Prints one line of JSON. A failure on the first request of a connection (*fresh*) is the server's alone. One on a
connection that has been answered before (*reused*) is that of a server which closes a connection that it had left open:
the client has sent its request already. A connection that the server closes with an answer, by `connection: close`, is
no failure. A client that thinks does not look whether the server has closed the connection in the meantime: it stands
for one far away, whose request crosses the end of the connection.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import resource
import time
from dataclasses import dataclass, field

REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"
LAST_REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
ANSWER_S = 10.0  # an answer that takes longer is a failure
AFTER_REFUSAL_S = 0.01


@dataclass
class Outcome:
    """What came of all clients."""

    answered: int = 0
    connections: int = 0
    refused: int = 0
    not_200: int = 0
    failed: collections.Counter[str] = field(default_factory=collections.Counter)  # by "fresh" and "reused"
    failed_at: collections.Counter[int] = field(default_factory=collections.Counter)  # by the process that had it
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    longest_s: float = 0.0

    def fail(self, kind: str, error: BaseException, pid: int) -> None:
        self.failed[kind] += 1
        self.failed_at[pid] += 1
        self.errors[f"{type(error).__name__} ({kind})"] += 1

    def as_json(self) -> dict[str, object]:
        return {
            "answered": self.answered,
            "connections": self.connections,
            "failed": sum(self.failed.values()) + self.refused + self.not_200,
            "fresh": self.failed["fresh"],
            "reused": self.failed["reused"],
            "refused": self.refused,
            "not_200": self.not_200,
            "failed_at": dict(self.failed_at),
            "errors": dict(self.errors),
            "longest_ms": round(self.longest_s * 1000, 1),
        }


@dataclass(frozen=True)
class Manner:
    """How a client behaves."""

    port: int
    until: float
    fresh: bool  # a connection for each request
    think_s: float  # between an answer and the next request


async def client(manner: Manner, outcome: Outcome) -> None:
    """One client, until the time is over."""
    while time.monotonic() < manner.until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", manner.port)
        except ConnectionRefusedError:
            outcome.refused += 1
            await asyncio.sleep(AFTER_REFUSAL_S)
            continue
        except OSError as error:
            outcome.fail("fresh", error, 0)
            continue
        outcome.connections += 1
        try:
            await _connection(manner, outcome, reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if manner.fresh:
            await asyncio.sleep(manner.think_s)


async def _connection(
    manner: Manner, outcome: Outcome, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Ask on one connection until it, or the time, ends."""
    kind, pid = "fresh", 0
    while time.monotonic() < manner.until and (manner.think_s or not reader.at_eof()):
        begun = time.monotonic()
        writer.write(LAST_REQUEST if manner.fresh else REQUEST)
        try:
            async with asyncio.timeout(ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                fields = _fields(head)
                body = await reader.readexactly(int(fields[b"content-length"]))
        except (OSError, EOFError, TimeoutError, KeyError) as error:
            outcome.fail(kind, error, pid)
            return
        outcome.longest_s = max(outcome.longest_s, time.monotonic() - begun)
        if not head.startswith(b"HTTP/1.1 200"):
            outcome.not_200 += 1
            return
        outcome.answered += 1
        kind, pid = "reused", int(body.split()[0])
        if manner.fresh or fields.get(b"connection", b"").lower() == b"close":
            return
        if manner.think_s:
            await asyncio.sleep(manner.think_s)


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in lines}


async def all_clients(manner: Manner, connections: int) -> Outcome:
    """That many clients side by side."""
    outcome = Outcome()
    await asyncio.gather(*(client(manner, outcome) for _ in range(connections)))
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving.clients")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--fresh", action="store_true", help="a new connection for each request")
    parser.add_argument("--think", type=float, default=0.0, metavar="S", help="pause between answer and request")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    manner = Manner(options.port, time.monotonic() + options.seconds, options.fresh, options.think)
    print(json.dumps(asyncio.run(all_clients(manner, options.connections)).as_json()))


if __name__ == "__main__":
    main()
