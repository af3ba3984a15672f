"""connect_read_pipe and connect_write_pipe."""

from __future__ import annotations

import asyncio
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from hoop.core.checks import require_protocol
from hoop.loop_methods.base_loop import BaseLoop
from hoop.net.pipe import make_read_pipe, make_write_pipe

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)
TransportT = TypeVar("TransportT", asyncio.ReadTransport, asyncio.WriteTransport)


class Pipes(BaseLoop, asyncio.AbstractEventLoop):
    """Pipes, terminals and sockets used in one direction."""

    async def connect_read_pipe(
        self, protocol_factory: Callable[[], ProtocolT], pipe: Any
    ) -> tuple[asyncio.ReadTransport, ProtocolT]:
        """Read from pipe, a file object that the transport closes; (transport, protocol).

        ValueError unless it is a pipe, a socket or a character device; then pipe stays open.
        """
        return await self._connect_pipe(make_read_pipe, "Read", protocol_factory, pipe)

    async def connect_write_pipe(
        self, protocol_factory: Callable[[], ProtocolT], pipe: Any
    ) -> tuple[asyncio.WriteTransport, ProtocolT]:
        """Write to pipe; as connect_read_pipe. The protocol's connection_lost also tells that the reader has left."""
        return await self._connect_pipe(make_write_pipe, "Write", protocol_factory, pipe)

    async def _connect_pipe(
        self,
        make: Callable[[BaseLoop, Any, asyncio.BaseProtocol, asyncio.Future[None]], TransportT],
        word: str,
        protocol_factory: Callable[[], ProtocolT],
        pipe: Any,
    ) -> tuple[TransportT, ProtocolT]:
        protocol = protocol_factory()
        require_protocol(protocol)
        waiter = self.create_future()
        transport = make(self, pipe, protocol, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()  # connection_made has not been called, and the caller gets no transport to close
            raise
        if self.get_debug():
            logger.debug("%s pipe %r connected: (%r, %r)", word, pipe.fileno(), transport, protocol)
        return transport, protocol
