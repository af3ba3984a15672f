"""docs/coming_from_uvloop.md: each row of what differs is tried, on hoop, and on uvloop where it is installed; its
figures are those that were measured.
"""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import hoop
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "coming_from_uvloop.md").read_text()
ROW = re.compile(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", re.MULTILINE)


async def server_and_client(loop: Any, **keywords: Any) -> tuple[Any, Any]:
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port, **keywords)
    except BaseException:
        server.close()
        raise
    return server, transport


async def order_of_timers(loop: Any) -> bool:
    now, ran, last = loop.time(), [], loop.create_future()
    given = range(950, 0, -50)
    for microseconds in given:
        loop.call_at(now + microseconds / 1e6, ran.append, microseconds)
    loop.call_at(now + 0.01, last.set_result, None)
    await last
    return ran == sorted(given)


async def handles(loop: Any) -> bool:
    later = loop.call_later(60, int)
    later.cancel()
    return isinstance(later, asyncio.TimerHandle) and isinstance(loop.call_soon(int), asyncio.Handle)


async def transports(loop: Any) -> bool:
    server, transport = await server_and_client(loop)
    transport.abort()
    server.close()
    return isinstance(transport, asyncio.Transport)


async def servers(loop: Any) -> bool:
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    return isinstance(server, asyncio.AbstractServer)


async def ends_of_clients(loop: Any) -> bool:
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    return hasattr(server, "close_clients") and hasattr(server, "abort_clients")


async def files_sent(loop: Any) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as file:
        ours.setblocking(False)
        file.write(b"0123456789")
        file.flush()
        return await loop.sock_sendfile(ours, file, 2) == 8 and theirs.recv(100) == b"23456789"


async def datagrams(loop: Any) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        await loop.sock_sendto(sock, b"ping", sock.getsockname())
        return (await loop.sock_recvfrom(sock, 100))[0] == b"ping"


async def connecting(loop: Any) -> bool:
    server, transport = await server_and_client(loop, happy_eyeballs_delay=0.25, all_errors=True)
    transport.abort()
    server.close()
    return True


async def keepalive(loop: Any) -> bool:
    (await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, keep_alive=True)).close()
    return True


async def late_writes(loop: Any) -> bool:
    ours, theirs = socket.socketpair()
    lost = loop.create_future()

    class Told(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    with theirs:
        transport, _ = await loop.create_connection(Told, sock=ours)
        transport.abort()
        await lost
        transport.write(b"too late")
    return True


PROBES: dict[str, Callable[[Any], Awaitable[bool]]] = {
    "timers that are due in the same millisecond": order_of_timers,
    "what `call_soon` and `call_later` return": handles,
    "transports": transports,
    "servers": servers,
    "`Server.close_clients()`, `abort_clients()` of Python 3.13": ends_of_clients,
    "`loop.sendfile()`, `loop.sock_sendfile()`": files_sent,
    "`loop.sock_recvfrom()`, `loop.sock_sendto()`": datagrams,
    "`create_connection(happy_eyeballs_delay=, all_errors=)`": connecting,
    "`create_server(keep_alive=)`": keepalive,
    "`write()` to a transport that was aborted": late_writes,
}


def test_each_row_has_a_probe() -> None:
    assert ROW.findall(PAGE.partition("## What differs")[2]) == list(PROBES)


def test_rows_on_hoop() -> None:
    async def main() -> dict[str, bool]:
        loop = asyncio.get_running_loop()
        return {row: await probe(loop) for row, probe in PROBES.items()}

    assert hoop.run(main()) == dict.fromkeys(PROBES, True)


def test_rows_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for row, probe in PROBES.items():
            try:
                agrees = runner.run(probe(runner.get_loop()))
            except (NotImplementedError, TypeError, RuntimeError):
                agrees = False
            assert not agrees, f"{row}: uvloop does it as hoop, the page says that it does not"


# Figures on the page are those of the pages that are made by measuring.


def test_counts_of_tests_are_those_of_the_compatibility_page() -> None:
    rows = (DOCS / "compatibility.md").read_text()
    ran, failed = re.search(r"^\| 3\.13\.\d+ \| hoop \| (\d+) \| \d+ \| (\d+) \|", rows, re.MULTILINE).groups()
    uvloop_failed = re.search(r"^\| 3\.13\.\d+ \| uvloop [\d.]+ \| \d+ \| \d+ \| (\d+) \|", rows, re.MULTILINE)[1]
    assert failed == "0"
    assert f"of {ran} of them that run on a loop of Python 3.13, hoop fails none" in " ".join(PAGE.split())
    assert f"fails {uvloop_failed}." in " ".join(PAGE.split())


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ("protocol echo, 1 KiB, 10 connections", "less than uvloop for an echo of 1 KiB"),
        ("protocol echo over TLS 1.3, 1 KiB, 100 connections", "over TLS"),
        ("uvicorn + httptools, plain text, keep-alive, 64 connections", "by uvicorn"),
        ("sock echo, 1 KiB, 10 connections", "for `sock_recv` and `sock_sendall`"),
    ],
)
def test_percentages_are_those_of_the_benchmarks(workload: str, words: str) -> None:
    table = (DOCS / "benchmarks.md").read_text()
    to_uvloop = re.search(rf"^\| {re.escape(workload)} \| [^|]+ \| [^|]+ \| ([\d.]+) \|", table, re.MULTILINE)
    assert f"{100 - round(float(to_uvloop[1]) * 100)} % {words}" in " ".join(PAGE.split())
