"""The workloads under load from outside: which server, which client, and with what arguments."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from bench.build import is_built
from bench.loops import LOOPS

KIB = 1024


@dataclass(frozen=True)
class Workload:
    """One line of work. `server` names a module of bench.servers, `client` a program of bench/c."""

    name: str
    title: str
    server: str
    client: str
    client_arguments: tuple[str, ...]
    has_c_server: bool = True  # the C echo server does the same work: the limit
    packages: tuple[str, ...] = ()  # of the server, beside the loop
    loops: tuple[str, ...] = ()  # that can run the server; none stands for all

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


def tls_echo(*, size: int, connections: int) -> Workload:
    """As `echo` with protocols, over TLS 1.3."""
    arguments = ("--size", str(size), "--connections", str(connections), "--depth", "1")
    title = f"protocol echo over TLS 1.3, {size // KIB} KiB, {connections} connections"
    name = f"tls-{size // KIB}k-{connections}"
    return Workload(name, title, "tls_echo", "tls_echo_client", arguments, has_c_server=False)


def echo(server: str, *, size: int, connections: int, depth: int = 1) -> Workload:
    """An echo workload; `size` in bytes, `depth` the messages in flight on each connection."""
    name = f"{server}-{size // KIB}k-{connections}"
    title = f"{server} echo, {size // KIB} KiB, {connections} connections"
    if depth > 1:
        name += f"-depth{depth}"
        title += f", {depth} in flight on each"
    arguments = ("--size", str(size), "--connections", str(connections), "--depth", str(depth))
    return Workload(name, title, f"{server}_echo", "echo_client", arguments)


WORKLOADS: tuple[Workload, ...] = (
    echo("protocol", size=KIB, connections=10),
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
    Workload(
        "uvicorn",
        "uvicorn + httptools, plain text, keep-alive, 64 connections",
        "uvicorn_plain",
        "http_client",
        ("--connections", "64", "--path", "/", "--body", "Hello, world!"),
        has_c_server=False,
        packages=("uvicorn", "httptools"),
    ),
)
