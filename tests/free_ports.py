"""Ports for servers that cannot choose one by themselves, such as nginx, HAProxy and Redis."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

LOWEST = 10240
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")  # Linux; elsewhere IANA's range
chance = random.SystemRandom()  # hypothesis seeds the other one
given: set[int] = set()


def highest() -> int:
    """The port below those that the kernel gives to clients: one of theirs may be taken before the server binds it."""
    with contextlib.suppress(OSError):
        return int(EPHEMERAL.read_text().split()[0])
    return 49152


def free_port() -> int:
    """A port that nothing listens on, and that neither the kernel nor this function gives to another."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of so many such ports in a row."""
    for _ in range(1000):
        first = chance.randrange(LOWEST, highest() - count)
        ports = range(first, first + count)
        if given.isdisjoint(ports) and all(is_free(port) for port in ports):
            given.update(ports)
            return first
    raise OSError(f"no {count} free ports in a row")


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
