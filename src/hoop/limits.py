"""hoop.Limits: what a server bears with from its peers. hoop.ServerStats: how often it had to say so."""

from __future__ import annotations

import dataclasses
import math
import os
import socket
from pathlib import Path
from typing import Literal

LONGEST_USER_TIMEOUT = 0x7FFFFFFF // 1000  # seconds: the kernel has an int of milliseconds
SOMAXCONN_FILE = Path("/proc/sys/net/core/somaxconn")  # Linux: listen(2) silently cuts a longer backlog


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server, for create_server(limits=...), start_server, listen_tcp and their UNIX counterparts.

    None (the default) means no limit, or for TCP options the system's own. Times are in seconds. A connection that breaks
    a limit is closed at once, connection_lost() (on_error of a socket handle) gets the reason, and the server's stats()
    count it. ValueError or TypeError, which name the value, for what is no sensible limit.

    idle_timeout: the longest silence, in both directions, as far as the kernel takes and gives bytes.
    first_byte_timeout: how long a new connection may send nothing.
    header_timeout: how long it may take until its first message is answered: until the application sends something or calls
        transport.header_received(). transport.expect_header() starts the time anew for a later message. Against peers that
        send a request byte by byte, which no silence gives away (slowloris).
    max_connections: open at a time. when_full: "refuse" closes further ones as they come; "wait" leaves them in the kernel's
        queue, as long as the backlog, until there is room, here or in another process that shares the socket.
    max_connections_per_host: open at a time from one IP address; further ones are closed as they come.
    max_write_buffer: bytes written that the kernel has not taken because the peer does not read. It bounds single large
        writes too, so it must exceed the largest message.
    keepalive_idle, keepalive_interval: seconds until TCP probes a silent peer, and between probes; keepalive_count: probes
        without an answer until the connection is given up. Any of them switches SO_KEEPALIVE on. (tcp(7))
    user_timeout: seconds that data may stay unacknowledged. (tcp(7): TCP_USER_TIMEOUT; Linux. RFC 5482)
    """

    idle_timeout: float | None = None
    first_byte_timeout: float | None = None
    header_timeout: float | None = None
    max_connections: int | None = None
    when_full: Literal["refuse", "wait"] = "refuse"
    max_connections_per_host: int | None = None
    max_write_buffer: int | None = None
    keepalive_idle: int | None = None
    keepalive_interval: int | None = None
    keepalive_count: int | None = None
    user_timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("idle_timeout", "first_byte_timeout", "header_timeout", "user_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("max_connections", "max_connections_per_host", "max_write_buffer"):
            check_count(name, getattr(self, name))
        for name in ("keepalive_idle", "keepalive_interval", "keepalive_count"):
            check_count(name, getattr(self, name))
        if self.when_full not in ("refuse", "wait"):
            raise ValueError(f"when_full must be 'refuse' or 'wait', not {self.when_full!r}")
        if self.user_timeout is not None and self.user_timeout > LONGEST_USER_TIMEOUT:
            raise ValueError(f"user_timeout must be at most {LONGEST_USER_TIMEOUT} seconds, not {self.user_timeout!r}")
        if self.user_timeout is not None and not hasattr(socket, "TCP_USER_TIMEOUT"):
            raise ValueError(f"user_timeout={self.user_timeout!r}: this system has no TCP_USER_TIMEOUT")

    def apply_to(self, sock: socket.socket) -> None:
        """Set the TCP options on a listening socket: the connections that it accepts inherit them.

        ValueError if one of them, or a limit per host, is asked for on a UNIX socket.
        """
        given = [name for name in TCP_ONLY if getattr(self, name) is not None]
        if not given:
            return
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise ValueError(f"{given[0]} is for TCP; this is {sock!r}")
        set_keepalive(sock, self.keepalive_idle, self.keepalive_interval, self.keepalive_count)
        if self.user_timeout is not None:
            milliseconds = max(1, math.ceil(self.user_timeout * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


TCP_ONLY = ("keepalive_idle", "keepalive_interval", "keepalive_count", "user_timeout", "max_connections_per_host")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerStats:
    """What a server has seen so far; see Limits for what the limits mean."""

    accepted: int  # connections let in
    active: int  # of these, how many are open
    refused_full: int  # closed as they came, because max_connections were open
    refused_per_host: int  # closed as they came, because max_connections_per_host were open
    pauses: int  # how often accepting stopped until there was room (when_full="wait")
    idle_timeouts: int  # connections ended by a limit: idle_timeout
    first_byte_timeouts: int  # first_byte_timeout
    header_timeouts: int  # header_timeout
    write_buffer_overflows: int  # max_write_buffer


def check_seconds(name: str, value: object) -> None:
    """Whether value is None or a number of seconds above 0, as a float can be. TypeError or ValueError."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    try:
        float(value)
    except OverflowError:  # repr() may refuse such a number, too
        raise ValueError(f"{name} must be a number of seconds that fits a float") from None


def check_count(name: str, value: object) -> None:
    """Whether value is None or a whole number above 0. TypeError or ValueError."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number or None, not {value!r}")
    if not 0 < value <= 0x7FFFFFFF:
        raise ValueError(f"{name} must be between 1 and {0x7FFFFFFF}, not {value!r}")


def set_keepalive(sock: socket.socket, idle: int | None, interval: int | None, count: int | None) -> None:
    """Switch TCP keep-alive on if anything is given. OSError for what the kernel does not take."""
    if idle is None and interval is None and count is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if idle is not None:
        option = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)  # macOS: the latter
        if option is None:
            raise ValueError(f"keepalive_idle={idle!r}: this Python has no name for the option on this system")
        sock.setsockopt(socket.IPPROTO_TCP, option, idle)
    if interval is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    if count is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)


def longest_backlog() -> int | None:
    """The longest queue of connections that the kernel keeps for a listening socket; None where it does not say."""
    try:
        # Said not to block, for those who watch over calls that could (blockbuster, in aiohttp's and anyio's tests).
        fd = os.open(SOMAXCONN_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 32))
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None
