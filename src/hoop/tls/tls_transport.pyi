"""Types of the compiled TLS transport, for the Python modules of hoop."""

import asyncio
from typing import Any

from hoop.loop_methods.base_loop import BaseLoop
from hoop.tls.session import TlsSession
from hoop.tls.tls_options import TlsOptions

def new_session(
    loop: BaseLoop,
    protocol: asyncio.BaseProtocol,
    options: TlsOptions,
    waiter: asyncio.Future[Any] | None = None,
    is_upgrade: bool = False,
) -> TlsSession: ...
