"""Types of the compiled module, for the Python modules of hoop."""

import asyncio
from typing import Any, final

from hoop.jobs.pool import Pool

LOCAL_NAMES: int
ANSWERED_NAMES: int
OTHER_NAMES: int
ELSEWHERE: None

@final
class AddressQuestion:
    key: tuple[Any, ...]
    def __init__(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int,
        type: int,
        proto: int,
        flags: int,
    ) -> None: ...
    def ask(
        self, pool: Pool, loop: asyncio.AbstractEventLoop, lane: int
    ) -> asyncio.Future[list[tuple[Any, Any, int, str, Any]] | None]: ...

@final
class NameQuestion:
    key: tuple[Any, ...]
    def __init__(self, sockaddr: tuple[Any, ...], flags: int) -> None: ...
    def ask(self, pool: Pool, loop: asyncio.AbstractEventLoop, lane: int) -> asyncio.Future[tuple[str, str] | None]: ...
