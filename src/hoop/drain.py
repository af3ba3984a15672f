"""hoop.Drain: how a server, or a whole program, ends without losing what it has begun."""

from __future__ import annotations

import dataclasses
from typing import Any

from hoop.core.checks import check_seconds
from hoop.stats import Value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drain:
    """The course of a graceful end, for Server.drain(), Loop.drain() and hoop.run(drain=...). Times are in seconds.

    1. For `delay` all goes on as before, only draining() has returned and is_draining() is true: an answer to health
       checks turns bad, and load balancers go away. 0 unless something watches that (Kubernetes: 5 to 15).
    2. What waits in the queues of the listening sockets is accepted, and these are closed: a client is refused.
    3. Each protocol that has a method drain_requested() is told. A connection on which nothing is under way, because
       all that was received is answered or nothing has come yet, is closed after `idle_grace` of silence. One that owes
       an answer is left alone until it has given it.
    4. `timeout` after the delay, what is still open is closed, and aborted a second later. None: never.

    TypeError or ValueError, which name the value, for what is no time.
    """

    delay: float = 0.0
    idle_grace: float = 1.0
    timeout: float | None = 30.0

    def __post_init__(self) -> None:
        for name in ("delay", "idle_grace"):
            value = getattr(self, name)
            if value is None:
                raise TypeError(f"{name} must be a number of seconds, not None")
            if isinstance(value, bool) or value != 0:
                check_seconds(name, value)
        check_seconds("timeout", self.timeout)


class DrainReport(Value):
    """What became of the connections that were open, or in the queue, when a drain closed the listening sockets."""

    connections: int
    ended: int
    """By themselves, or by the peer."""
    silent: int
    """Closed after idle_grace, with nothing under way."""
    cut: tuple[Any, ...]
    """The addresses of those that were closed at the timeout, as get_extra_info("peername") has them."""
    seconds: float
    """From the call to the end of the last connection."""
