"""Types of the compiled writer and protocol: asyncio's, so that either fits where the other is expected."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from hoop.streams.reader import StreamReader

@disjoint_base
class StreamWriter(asyncio.StreamWriter):
    # asyncio's takes ssl_shutdown_timeout from Python 3.12 on
    async def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None: ...

@disjoint_base
class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    def __init__(
        self,
        stream_reader: StreamReader,
        client_connected_cb: Callable[[StreamReader, StreamWriter], Any] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None: ...
    def __call__(self, task: asyncio.Task[Any]) -> None: ...
