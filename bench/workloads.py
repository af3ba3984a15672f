"""The workloads under load from outside: which server, which client, and with what arguments."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

from bench.build import is_built
from bench.loops import LOOPS

KIB = 1024
LINE = 32  # bytes, with its end
PAGE = "Hello, world!"


def size_name(size: int) -> str:
    """As names have it: 64b, 1k, 1m."""
    if size < KIB:
        return f"{size}b"
    return f"{size // KIB}k" if size < KIB * KIB else f"{size // KIB // KIB}m"


def size_title(size: int) -> str:
    """As titles have it: 64 B, 1 KiB, 1 MiB."""
    number, unit = size_name(size)[:-1], {"b": "B", "k": "KiB", "m": "MiB"}[size_name(size)[-1]]
    return f"{number} {unit}"


def connections_title(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


@dataclass(frozen=True)
class Workload:
    """One line of work. `server` names a module of bench.servers, `client` a program of bench/c."""

    name: str
    title: str
    server: str
    client: str
    client_arguments: tuple[str, ...]
    has_c_server: bool = True  # the C echo server does the same work: the limit
    node_server: str | None = None  # a program in JavaScript of bench/servers does the same work
    packages: tuple[str, ...] = ()  # of the server, beside the loop
    loops: tuple[str, ...] = ()  # that can run the server; none stands for all
    computes_always: bool = False  # also while nobody asks: no other server may be alive beside it
    longer: int = 1  # so many times as long are its windows: what a window must hold many of takes long

    def missing_packages(self) -> list[str]:
        """What this workload needs and that is not installed."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if not is_built(self.client):
            missing.append("what the load generator is built with (libssl-dev and openssl)")
        return missing

    def takes(self, loop: str) -> bool:
        """Whether that loop has something of its own to show here."""
        if self.loops and loop not in self.loops:
            return False
        return LOOPS[loop].servers is None or self.server in LOOPS[loop].servers


def http(name: str, title: str, server: str, packages: tuple[str, ...], body: str | None = PAGE) -> Workload:
    """GETs on 64 kept connections; each answer's body must be `body`, if that is given."""
    arguments = ("--connections", "64", "--path", "/", *(("--body", body) if body else ()))
    title = f"{title}, keep-alive, 64 connections"
    return Workload(name, title, server, "http_client", arguments, has_c_server=False, packages=packages, longer=5)


def lines(server: str, title: str) -> Workload:
    """Messages of ten short lines, echoed; 50 connections."""
    arguments = ("--size", str(10 * LINE), "--line", str(LINE), "--connections", "50", "--depth", "1")
    title = f"10 lines of {LINE} B a message, {title}, 50 connections"
    return Workload(
        f"{server.replace('_', '-')}-10", title, f"{server}_echo", "echo_client", arguments, has_c_server=False
    )


def tls_echo(*, size: int, connections: int) -> Workload:
    """As `echo` with protocols, over TLS 1.3."""
    arguments = ("--size", str(size), "--connections", str(connections), "--depth", "1")
    title = f"protocol echo over TLS 1.3, {size_title(size)}, {connections_title(connections)}"
    name = f"tls-{size_name(size)}-{connections}"
    return Workload(name, title, "tls_echo", "tls_echo_client", arguments, has_c_server=False)


def echo(server: str, *, size: int, connections: int, depth: int = 1) -> Workload:
    """An echo workload; `size` in bytes, `depth` the messages in flight on each connection."""
    name = f"{server}-{size_name(size)}-{connections}"
    title = f"{server} echo, {size_title(size)}, {connections_title(connections)}"
    if depth > 1:
        name += f"-depth{depth}"
        title += f", {depth} in flight on each"
    arguments = ("--size", str(size), "--connections", str(connections), "--depth", str(depth))
    return Workload(name, title, f"{server}_echo", "echo_client", arguments)


USUAL: tuple[Workload, ...] = (
    replace(echo("protocol", size=KIB, connections=10), node_server="net_echo"),
    echo("protocol", size=KIB, connections=200),
    echo("protocol", size=64 * KIB, connections=50),
    echo("protocol", size=KIB, connections=10, depth=16),
    Workload(
        "limited-1k-10",
        "protocol echo, 1 KiB, 10 connections, each with an idle timeout",
        "limited_echo",
        "echo_client",
        ("--size", str(KIB), "--connections", "10", "--depth", "1"),
        loops=("hoop",),
    ),
    echo("buffered", size=KIB, connections=10),
    echo("streams", size=KIB, connections=100),
    Workload(
        "own-streams-1k-100",
        "streams echo, 1 KiB, 100 connections; hoop with its own compiled streams, the others with asyncio's",
        "own_streams_echo",
        "echo_client",
        ("--size", str(KIB), "--connections", "100", "--depth", "1"),
    ),
    echo("sock", size=KIB, connections=10),
    tls_echo(size=KIB, connections=100),
    tls_echo(size=64 * KIB, connections=50),
    Workload(
        "udp-512-window32",
        "UDP echo, 512 B, one client with 32 datagrams in flight (sendmmsg, recvmmsg)",
        "udp_echo",
        "udp_client",
        ("--size", "512", "--in-flight", "32"),
        has_c_server=False,
    ),
    Workload(
        "connect",
        "connect, 64 B echo, close; 16 at a time",
        "protocol_echo",
        "connect_client",
        ("--size", "64", "--connections", "16"),
    ),
    replace(
        http("uvicorn", "uvicorn + httptools, plain text", "uvicorn_plain", ("uvicorn", "httptools")),
        node_server="http",
    ),
)

# Rows of `--targets`; elsewhere they are measured where `--only` names them.
FURTHER: tuple[Workload, ...] = (
    lines("lines", "asyncio's streams, readline"),
    lines("pieces", "asyncio's streams, readexactly"),
    lines("own_lines", "readline; hoop with its own compiled streams, the others with asyncio's"),
    lines("own_pieces", "readexactly; hoop with its own compiled streams, the others with asyncio's"),
    echo("sock", size=KIB, connections=100),
    replace(
        echo("busy", size=KIB, connections=10),
        title="protocol echo, 1 KiB, 10 connections, beside a thread that computes",
        has_c_server=False,
        computes_always=True,
        longer=20,  # the threads take the GIL from one another after 5 ms: four times in a usual window
    ),
    Workload(
        "sendfile-1m-10",
        "loop.sendfile() of 1 MiB, 10 connections",
        "sendfile_http",
        "http_client",
        ("--connections", "10", "--path", "/"),
        has_c_server=False,
        longer=6,
    ),
    Workload(
        "tls-handshake",
        "connect, TLS 1.3 handshake, close; 16 at a time",
        "tls_echo",
        "tls_connect_client",
        ("--connections", "16"),
        has_c_server=False,
        longer=5,
    ),
    http("aiohttp", "aiohttp's server with its parser in C, plain text", "aiohttp_plain", ("aiohttp",)),
    replace(
        http(
            "fastapi-10k",
            "FastAPI by uvicorn + httptools, 10 KiB of JSON",
            "fastapi_json",
            ("fastapi", "uvicorn", "httptools"),
            body=None,
        ),
        longer=10,
    ),
)

WORKLOADS = (*USUAL, *FURTHER)
