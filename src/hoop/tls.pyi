"""Types of the compiled TLS transport, for the Python modules of hoop."""

import asyncio
import ssl
from typing import Any

from hoop.base_loop import BaseLoop

class TlsSession(asyncio.Protocol):
    @property
    def app_transport(self) -> asyncio.Transport: ...
    def begin_upgrade(self, transport: asyncio.Transport, early: bytes) -> None: ...

def new_session(
    loop: BaseLoop,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext | bool | None,
    waiter: asyncio.Future[Any] | None = None,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    handshake_timeout: float | None = None,
    shutdown_timeout: float | None = None,
    is_upgrade: bool = False,
) -> TlsSession: ...
