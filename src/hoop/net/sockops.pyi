"""Types of what the Python modules of hoop use of the compiled sockops."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

from hoop.loop_methods.base_loop import BaseLoop

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

async def sock_call(
    reactor: BaseLoop,
    sock: socket.socket,
    is_send: bool,
    function: Callable[[*_Ts], _T],
    *arguments: *_Ts,
    kind: str | None = None,
) -> _T: ...
async def sock_connected(reactor: BaseLoop, sock: socket.socket, address: Any) -> None: ...
def peek(fd: int) -> int: ...
