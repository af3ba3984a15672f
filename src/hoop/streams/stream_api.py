"""open_connection and start_server with hoop's compiled StreamReader and StreamWriter. They work on any loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from hoop.streams.reader import StreamReader
from hoop.streams.writer import StreamReaderProtocol, StreamWriter

DEFAULT_LIMIT = 64 * 1024  # bytes

ClientConnected = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]


async def open_connection(
    host: str | None = None, port: int | str | None = None, *, limit: int = DEFAULT_LIMIT, **keywords: Any
) -> tuple[StreamReader, StreamWriter]:
    """Connect, as asyncio.open_connection: (reader, writer). Keywords go to loop.create_connection().

    limit: the most bytes of a line, for readline() and readuntil(); reading pauses at twice as many unread ones.
    OSError if no address accepts (ssl.SSLError if TLS fails, socket.gaierror for an unknown host), ValueError for a
    limit of 0 or less.
    """
    loop: Any = asyncio.get_running_loop()  # typeshed's overloads do not fit what the loops accept
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **keywords)
    return reader, writer_of(transport, protocol, reader, loop)


async def start_server(
    client_connected_cb: ClientConnected,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **keywords: Any,
) -> asyncio.AbstractServer:
    """Listen, as asyncio.start_server, and call client_connected_cb(reader, writer) for each connection.

    A coroutine that it returns becomes a task. Keywords go to loop.create_server(). limit: as for open_connection().
    OSError if an address cannot be bound, socket.gaierror for an unknown host.
    """
    loop: Any = asyncio.get_running_loop()
    server: asyncio.AbstractServer = await loop.create_server(
        lambda: accepting(client_connected_cb, limit, loop), host, port, **keywords
    )
    return server


async def open_unix_connection(
    path: str | bytes | os.PathLike[str] | None = None, *, limit: int = DEFAULT_LIMIT, **keywords: Any
) -> tuple[StreamReader, StreamWriter]:
    """Connect to a UNIX socket, as asyncio.open_unix_connection: (reader, writer).

    Keywords go to loop.create_unix_connection(). limit: as for open_connection(). OSError if the path has no listener.
    """
    loop: Any = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_unix_connection(lambda: protocol, path, **keywords)
    return reader, writer_of(transport, protocol, reader, loop)


async def start_unix_server(
    client_connected_cb: ClientConnected,
    path: str | bytes | os.PathLike[str] | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    **keywords: Any,
) -> asyncio.AbstractServer:
    """Listen on a UNIX socket, as asyncio.start_unix_server; the callback as for start_server().

    Keywords go to loop.create_unix_server(). limit: as for open_connection(). OSError if the path cannot be bound.
    """
    loop: Any = asyncio.get_running_loop()
    server: asyncio.AbstractServer = await loop.create_unix_server(
        lambda: accepting(client_connected_cb, limit, loop), path, **keywords
    )
    return server


def writer_of(transport: Any, protocol: StreamReaderProtocol, reader: StreamReader, loop: Any) -> StreamWriter:
    """Make the writer of a new connection. On failure, abort the connection: no caller has it yet."""
    try:
        return StreamWriter(transport, protocol, reader, loop)
    except BaseException:
        transport.abort()
        raise


def accepting(
    client_connected_cb: ClientConnected, limit: int, loop: asyncio.AbstractEventLoop
) -> StreamReaderProtocol:
    """The protocol of one accepted connection."""
    return StreamReaderProtocol(StreamReader(limit=limit, loop=loop), client_connected_cb, loop=loop)
