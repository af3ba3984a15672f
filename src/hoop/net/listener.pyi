"""Types of what the Python modules of hoop use of the compiled Listener."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Self

from typing_extensions import disjoint_base

from hoop.loop_methods.base_loop import BaseLoop
from hoop.net.admission import Admission

@disjoint_base
class Listener:
    def __new__(
        cls,
        reactor: BaseLoop,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        server: Any,
        backlog: int,
        admission: Admission,
    ) -> Self: ...
    def start(self) -> None: ...
    def finish(self, most: int) -> None: ...
    def stop(self) -> None: ...
    def ref(self) -> Self: ...
    def unref(self) -> Self: ...
