"""What acquire() returns: a connection for as long as its user needs it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hoop.agent.pooled import Pooled, is_stream_pair

if TYPE_CHECKING:
    from hoop.handles.socket import Socket


class Lease:
    """A connection that one user has. `async with` closes it at the end, unless release() was called: only who knows
    that the exchange is complete may let a stranger have the connection. (Node: a socket that an Agent assigns)
    """

    __slots__ = ("_pooled", "connection", "reused")

    def __init__(self, pooled: Pooled, reused: bool) -> None:
        self._pooled: Pooled | None = pooled
        self.connection: Any = pooled.made
        """What the agent's connect returned."""
        self.reused: bool = reused
        """Whether it was used before: a request that fails on it at once may be sent again. (Node: reusedSocket)"""

    def __repr__(self) -> str:
        state = "ended" if self._pooled is None else "reused" if self.reused else "new"
        return f"<hoop.Lease {state} {self.connection!r}>"

    @property
    def reader(self) -> asyncio.StreamReader:
        """Of a (reader, writer) pair. TypeError for another kind of connection."""
        return self._pair()[0]

    @property
    def writer(self) -> asyncio.StreamWriter:
        """Of a (reader, writer) pair. TypeError for another kind of connection."""
        return self._pair()[1]

    @property
    def transport(self) -> Any:
        """The connection's transport, of whatever kind the connection is."""
        made = self.connection
        return made[1].transport if is_stream_pair(made) else made[0] if isinstance(made, tuple) else made.transport

    @property
    def protocol(self) -> Any:
        """Of a (transport, protocol) pair. TypeError for another kind of connection."""
        made = self.connection
        if not isinstance(made, tuple) or is_stream_pair(made):
            raise TypeError(f"no (transport, protocol) pair: {made!r}")
        return made[1]

    @property
    def socket(self) -> Socket:
        """The hoop.Socket. TypeError for another kind of connection."""
        if isinstance(self.connection, tuple):
            raise TypeError(f"no hoop.Socket: {self.connection!r}")
        socket: Socket = self.connection
        return socket

    def _pair(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not is_stream_pair(self.connection):
            raise TypeError(f"no (reader, writer) pair: {self.connection!r}")
        return self.connection

    def release(self, *, keep_alive: float | None = None) -> None:
        """Let the next user have the connection: the exchange is complete. Without effect on a lease that has ended.

        keep_alive: seconds that the peer has promised to keep it, if fewer than the agent's.
        """
        pooled = self._pooled
        if pooled is not None:
            self._pooled = None
            pooled.keeper._released(pooled, keep_alive)

    def close(self) -> None:
        """Close the connection. Without effect on a lease that has ended."""
        pooled = self._pooled
        if pooled is not None:
            self._pooled = None
            pooled.keeper._discarded(pooled)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        """A lease that its user dropped frees its place; a loop that is closed has closed the connection."""
        pooled = self._pooled
        if pooled is not None and not pooled.keeper._is_loop_closed():
            self.close()
