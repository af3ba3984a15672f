"""Types of the compiled TLS transport, for the Python modules of hoop."""

import asyncio
from typing import Any

from hoop.base_loop import BaseLoop
from hoop.tls_options import TlsOptions
from hoop.tls_session import TlsSession

def new_session(
    loop: BaseLoop,
    protocol: asyncio.BaseProtocol,
    options: TlsOptions,
    waiter: asyncio.Future[Any] | None = None,
    is_upgrade: bool = False,
) -> TlsSession: ...
