"""A server that could not start entirely does not listen at all."""

from __future__ import annotations

import socket
from typing import Any

import hoop
import pytest
from hoop.loop_methods.servers import Server


def test_the_last_step_of_a_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(server: Server, is_referenced: bool) -> None:
        raise MemoryError

    monkeypatch.setattr(Server, "_set_referenced", refuse)

    async def main(listening: socket.socket) -> None:
        loop: Any = hoop.Loop()
        server = Server(loop, [listening], lambda: None, 10)  # type: ignore[arg-type, return-value]
        try:
            with pytest.raises(MemoryError):
                server._start_serving()
            assert not server.is_serving() and server._listeners == []
        finally:
            server.close()
            loop.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        hoop.run(main(listening))
