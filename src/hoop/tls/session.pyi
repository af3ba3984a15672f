"""Types of what the Python modules of hoop use of the compiled TlsSession."""

import asyncio

from typing_extensions import disjoint_base

@disjoint_base
class TlsSession(asyncio.Protocol):
    @property
    def app_transport(self) -> asyncio.Transport: ...
    def begin_upgrade(self, transport: asyncio.Transport, early: bytes) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...
