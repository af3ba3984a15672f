"""What get_extra_info("socket") gives of a connection: asyncio's TransportSocket, before whose operations hoop sends
what write() has accepted and hoop still holds. Without that, shutdown() would overtake it."""

from __future__ import annotations

import socket
from asyncio.trsock import TransportSocket
from typing import Any, Protocol


class Flushing(Protocol):
    """A loop, as far as it matters here."""

    def _flush_deferred(self) -> None: ...


class ConnectionSocket(TransportSocket):
    """asyncio.TransportSocket of one of loop's transports."""

    __slots__ = ("_loop",)
    _sock: socket.socket

    def __init__(self, sock: socket.socket, loop: Flushing) -> None:
        super().__init__(sock)
        self._loop = loop

    def __repr__(self) -> str:
        return repr(TransportSocket(self._sock))  # a look at it sends nothing

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed. What is done with it comes after all that was written before."""
        self._loop._flush_deferred()
        return super().fileno()

    def dup(self) -> socket.socket:
        """A socket object with a descriptor of its own for the same connection. OSError as of dup(2)."""
        self._loop._flush_deferred()
        return super().dup()

    def shutdown(self, how: int) -> None:
        """socket.shutdown(how), after all that was written before. OSError as of shutdown(2)."""
        self._loop._flush_deferred()
        super().shutdown(how)

    def getsockopt(self, *args: Any, **kwargs: Any) -> Any:
        """As socket.getsockopt(): what it tells counts what was written before."""
        self._loop._flush_deferred()
        return super().getsockopt(*args, **kwargs)

    def setsockopt(self, *args: Any, **kwargs: Any) -> None:
        """As socket.setsockopt(): what was written before has left by the former setting."""
        self._loop._flush_deferred()
        super().setsockopt(*args, **kwargs)
