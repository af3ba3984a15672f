"""The result of a connection's get_extra_info("socket"): asyncio's TransportSocket, but each operation first sends what
write() has accepted and hoop still holds. Without that, shutdown() would overtake the bytes."""

from __future__ import annotations

import socket
from asyncio.trsock import TransportSocket
from typing import Any, Protocol


class Flushing(Protocol):
    """The part of a loop that this module needs."""

    def _flush_deferred(self) -> None: ...


class ConnectionSocket(TransportSocket):
    """asyncio.TransportSocket of one of loop's transports."""

    __slots__ = ("_loop",)
    _sock: socket.socket

    def __init__(self, sock: socket.socket, loop: Flushing) -> None:
        super().__init__(sock)
        self._loop = loop

    def __repr__(self) -> str:
        return repr(TransportSocket(self._sock))  # repr() sends nothing

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed. Sends earlier writes first: they precede the caller's use of it."""
        self._loop._flush_deferred()
        return super().fileno()

    def dup(self) -> socket.socket:
        """A socket object with a descriptor of its own for the same connection. OSError as of dup(2)."""
        self._loop._flush_deferred()
        return super().dup()

    def shutdown(self, how: int) -> None:
        """As socket.shutdown(how), after all earlier writes. OSError as of shutdown(2)."""
        self._loop._flush_deferred()
        super().shutdown(how)

    def getsockopt(self, *args: Any, **kwargs: Any) -> Any:
        """As socket.getsockopt(); the answer takes earlier writes into account."""
        self._loop._flush_deferred()
        return super().getsockopt(*args, **kwargs)

    def setsockopt(self, *args: Any, **kwargs: Any) -> None:
        """As socket.setsockopt(); earlier writes go out under the former setting."""
        self._loop._flush_deferred()
        super().setsockopt(*args, **kwargs)


class ProxiedSocket(ConnectionSocket):
    """The same for a connection that a balancer has passed on: shows the addresses of its PROXY header, since programs
    (uvicorn) ask here for them. A dup() is the bare socket, with the balancer at its other end."""

    __slots__ = ("_peername", "_sockname")

    def __init__(self, sock: socket.socket, loop: Flushing, peername: Any, sockname: Any) -> None:
        super().__init__(sock, loop)
        self._peername = peername
        self._sockname = sockname

    def getpeername(self) -> Any:
        """The client's address; it stays known after the connection's end."""
        return self._peername

    def getsockname(self) -> Any:
        """The address that the client connected to."""
        return self._sockname
