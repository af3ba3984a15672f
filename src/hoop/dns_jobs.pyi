"""Types of the compiled module, for the Python modules of hoop."""

import asyncio
from typing import Any

from hoop.pool import Pool

def getaddrinfo(
    pool: Pool,
    loop: asyncio.AbstractEventLoop,
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int,
    type: int,
    proto: int,
    flags: int,
) -> asyncio.Future[list[tuple[Any, Any, int, str, Any]]]: ...
def getnameinfo(
    pool: Pool, loop: asyncio.AbstractEventLoop, sockaddr: tuple[Any, ...], flags: int
) -> asyncio.Future[tuple[str, str]]: ...
