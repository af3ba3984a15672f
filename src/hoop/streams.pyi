"""Types of the compiled streams: asyncio's, so that either fits where the other is expected."""

import asyncio
from collections.abc import Callable
from typing import Any

class StreamReader(asyncio.StreamReader): ...
class StreamWriter(asyncio.StreamWriter): ...

class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    def __init__(
        self,
        stream_reader: StreamReader,
        client_connected_cb: Callable[[StreamReader, StreamWriter], Any] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None: ...
