"""A set-up that fails half-way is undone: nothing stays half made."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import hoop
import pytest

DEADLINE_S = 60.0


@pytest.mark.parametrize("lane", ["pool", "executor"])
def test_a_thread_that_dies_before_it_serves_is_not_waited_for(lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: threading.Thread) -> None:
        raise MemoryError

    def submit(loop: Any) -> Any:
        return loop.pool.run(int) if lane == "pool" else loop.run_in_executor(None, int)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "run", run)
            patch.setattr(threading, "excepthook", lambda told: None)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await submit(loop)
        assert loop.metrics().jobs_in_flight == 0
        assert await submit(loop) == 0

    hoop.run(asyncio.wait_for(main(), DEADLINE_S))


def test_a_server_that_could_not_begin_does_not_say_that_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(backlog: int) -> None:
        raise MemoryError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        with monkeypatch.context() as patch:
            patch.setattr("hoop.loop_methods.servers.warn_of_backlog", fail)
            with pytest.raises(MemoryError):
                await server.start_serving()
        assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        transport.close()
        server.close()

    hoop.run(asyncio.wait_for(main(), DEADLINE_S))
