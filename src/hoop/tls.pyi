"""Types of the compiled TLS transport, for the Python modules of hoop."""

import asyncio
from typing import Any

from hoop.base_loop import BaseLoop
from hoop.tls_options import TlsOptions

class TlsSession(asyncio.Protocol):
    @property
    def app_transport(self) -> asyncio.Transport: ...
    def begin_upgrade(self, transport: asyncio.Transport, early: bytes) -> None: ...

def new_session(
    loop: BaseLoop,
    protocol: asyncio.BaseProtocol,
    options: TlsOptions,
    waiter: asyncio.Future[Any] | None = None,
    is_upgrade: bool = False,
) -> TlsSession: ...
