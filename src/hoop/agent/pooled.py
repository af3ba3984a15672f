"""One connection of an agent: what its maker returned, whatever kind that is, and what becomes of it while it is free.

    LENT --released--> FREE --acquired--> LENT
    LENT, FREE --closed, lost, worn, expired--> ENDED

While a connection is free, it is the protocol of its own transport: every byte, the peer's end and an error come here,
and each makes it unusable. While it is lent, its owner is the protocol, and nothing passes through this file.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any, Protocol, TypeGuard

from hoop.handles.socket import Socket
from hoop.net.sockops import peek
from hoop.streams.reader import StreamReader


class Stage(enum.Enum):
    LENT = 1
    FREE = 2
    ENDED = 3


class Sight(enum.Enum):
    """What a look at a free connection shows."""

    GOOD = 1
    DEAD = 2
    EXPIRED = 3
    UNCLEAR = 4  # TLS has records waiting: tickets, which are fine, or an end


FREE, LENT = Stage.FREE, Stage.LENT
GOOD, DEAD = Sight.GOOD, Sight.DEAD


class Keeper(Protocol):
    """Whose connections they are: the agent."""

    def _released(self, pooled: Pooled, keep_alive: float | None) -> None: ...
    def _discarded(self, pooled: Pooled) -> None: ...
    def _spoiled(self, pooled: Pooled) -> None: ...
    def _lost(self, pooled: Pooled) -> None: ...
    def _is_loop_closed(self) -> bool: ...


def is_stream_pair(made: object) -> TypeGuard[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    return isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], asyncio.StreamWriter)


def is_untouched(reader: Any) -> bool:
    """Whether nothing is unread, and nothing but reading can come next: no end, no error."""
    return not (reader._buffer or reader._eof or reader.exception() is not None)


class Pooled(asyncio.Protocol):
    """made: a (transport, protocol) pair, a (reader, writer) pair or a hoop.Socket. TypeError for anything else."""

    __slots__ = (
        "deadline",
        "fd",
        "host",
        "is_own_reader",
        "is_tls",
        "keeper",
        "made",
        "owner",
        "reader",
        "ref",
        "stage",
        "transport",
        "unref",
        "uses",
        "worn_at",
    )

    def __init__(self, keeper: Keeper, host: Any, made: Any, worn_at: float | None) -> None:
        self.reader: Any = None
        if is_stream_pair(made):
            self.reader = made[0]
            self.transport: Any = made[1].transport
        elif isinstance(made, Socket):
            self.transport = made.transport
        elif isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], asyncio.BaseTransport):
            self.transport = made[0]
        else:
            raise TypeError(
                "connect must return (transport, protocol), (reader, writer) or a hoop.Socket, not " + repr(made)
            )
        self.is_own_reader: bool = type(self.reader) is StreamReader
        self.keeper: Keeper = keeper
        self.host: Any = host  # the keeper's note of whom it leads to
        self.made: Any = made
        self.owner: Any = self.transport.get_protocol()
        self.stage: Stage = Stage.LENT
        self.uses: int = 0
        self.deadline: float = 0.0  # while it is free: when to give it up
        self.worn_at: float | None = worn_at  # when it has reached max_age; None: never
        sock = self.transport.get_extra_info("socket")
        self.fd = -1 if sock is None else sock.fileno()
        self.is_tls: bool = self.transport.get_extra_info("sslcontext") is not None
        # A loop other than hoop's does not wait for connections.
        self.ref: Any = getattr(self.transport, "ref", None)
        self.unref: Any = getattr(self.transport, "unref", None)

    def is_clean(self) -> bool:
        """Whether its owner has left it as the next one expects it: open, reading, nothing unread."""
        transport = self.transport
        if transport.is_closing() or not transport.is_reading():
            return False
        reader = self.reader
        if self.is_own_reader:
            untouched: bool = reader._is_untouched
            return untouched
        return reader is None or is_untouched(reader)

    def go_free(self) -> None:
        self.stage = FREE
        self.transport.set_protocol(self)
        if self.unref is not None:
            self.unref()

    def go_lent(self) -> None:
        self.stage = LENT
        self.transport.set_protocol(self.owner)
        if self.ref is not None:
            self.ref()

    def look(self) -> Sight:
        """What has happened to it that the loop has not seen yet."""
        if self.transport.is_closing():
            return DEAD
        waiting = peek(self.fd) if self.fd >= 0 else 0
        if waiting == 0:
            return GOOD
        return Sight.UNCLEAR if waiting > 0 and self.is_tls else DEAD

    def end(self) -> None:
        """Close it. Its owner hears connection_lost()."""
        if self.stage is Stage.FREE:
            self.transport.set_protocol(self.owner)
        self.stage = Stage.ENDED
        self.transport.close()

    # ---- called by the transport, while the connection is free ----------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """A server that speaks unasked has an answer to somebody else's question, or a complaint."""
        self.keeper._spoiled(self)

    def eof_received(self) -> bool:
        self.keeper._spoiled(self)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """An error of a free connection troubles no user: it only goes."""
        self.stage = Stage.ENDED
        self.keeper._lost(self)
        self.owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.owner.pause_writing()

    def resume_writing(self) -> None:
        self.owner.resume_writing()
