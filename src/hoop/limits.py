"""hoop.Limits: limits that a server puts on its clients."""

from __future__ import annotations

import dataclasses
import math
import socket
from typing import Literal

from hoop.core.checks import check_count, check_seconds
from hoop.net.keepalive import set_keepalive

LONGEST_USER_TIMEOUT = 0x7FFFFFFF // 1000  # seconds: the kernel has an int of milliseconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server, for create_server(limits=...), start_server, listen_tcp and their UNIX counterparts.

    None (the default) means no limit, or for TCP options the system's own. Times are in seconds. A server closes a
    connection that breaks a limit at once, tells connection_lost() (on_error of a socket handle) the reason, and counts
    it in stats(). ValueError or TypeError, which name the value, for what is no sensible limit.

    idle_timeout: the longest silence, in both directions, as far as the kernel takes and gives bytes.
    first_byte_timeout: how long a new connection may send nothing.
    header_timeout: how long the first message may take, until the application sends an answer or calls
        transport.header_received(). transport.expect_header() starts the time anew for a later message. Against clients
        that send a request byte by byte, which no idle_timeout notices (slowloris).
    max_connections: open at a time. when_full: "refuse" closes further ones as they come; "wait" leaves them in the
        kernel's queue, as long as the backlog, until this process, or another that shares the socket, has room.
    max_connections_per_host: open at a time from one IP address; further ones are closed as they come.
    max_connection_age: from that age on, less up to a tenth at random, a connection is drained while the server goes
        on: drain_requested() of its protocol is called, and it is closed after server_defaults.drain.idle_grace (1 s)
        of silence with nothing under way; as hoop.Drain says, but without a timeout. That breaks no limit:
        connection_lost() gets None. So clients that keep their connections find workers that came later. (gRPC:
        MAX_CONNECTION_AGE)
    max_write_buffer: bytes written that the kernel has not taken because the peer does not read. It bounds single large
        writes too, so it must exceed the largest message.
    keepalive_idle, keepalive_interval: seconds until TCP probes a silent peer, and between probes; keepalive_count:
        probes without an answer until TCP gives the connection up. Any of them switches SO_KEEPALIVE on. (tcp(7))
    user_timeout: seconds that data may stay unacknowledged. (tcp(7): TCP_USER_TIMEOUT; Linux. RFC 5482)
    """

    idle_timeout: float | None = None
    first_byte_timeout: float | None = None
    header_timeout: float | None = None
    max_connections: int | None = None
    when_full: Literal["refuse", "wait"] = "refuse"
    max_connections_per_host: int | None = None
    max_connection_age: float | None = None
    max_write_buffer: int | None = None
    keepalive_idle: int | None = None
    keepalive_interval: int | None = None
    keepalive_count: int | None = None
    user_timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("idle_timeout", "first_byte_timeout", "header_timeout", "max_connection_age", "user_timeout"):
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

    def apply_to(self, sock: socket.socket, *, is_proxied: bool = False) -> None:
        """Set the TCP options on a listening socket: the connections that it accepts inherit them.

        ValueError if one of them is asked for on a UNIX socket, or a limit per host on one whose connections do not
        come with PROXY headers.
        """
        given = [name for name in TCP_ONLY if getattr(self, name) is not None]
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            given = [name for name in given if not (is_proxied and name == "max_connections_per_host")]
            if given:
                raise ValueError(f"{given[0]} is for TCP; this is {sock!r}")
            return
        if not given:
            return
        set_keepalive(sock, self.keepalive_idle, self.keepalive_interval, self.keepalive_count)
        if self.user_timeout is not None:
            milliseconds = max(1, math.ceil(self.user_timeout * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


TCP_ONLY = ("keepalive_idle", "keepalive_interval", "keepalive_count", "user_timeout", "max_connections_per_host")
