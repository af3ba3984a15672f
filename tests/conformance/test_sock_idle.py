"""A socket between two sock_* calls: no caller waits for it, and nothing that happens to it may keep the loop busy."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest
from conformance.peers import MOST_IDLE_TURNS, idle_turns, tcp_pair, turns


@pytest.mark.parametrize("peer_does", ["send", "close"])
def test_trap_2_closed_after_sock_recv_while_a_duplicate_lives_does_not_spin(run: Any, peer_does: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        left.setblocking(False)
        duplicate = os.dup(left.fileno())
        receiving = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns()
        right.send(b"x")
        assert await receiving == b"x"
        left.close()
        if peer_does == "send":
            right.send(b"y")  # readable through the duplicate
        else:
            right.close()
        await turns()
        assert await idle_turns() <= MOST_IDLE_TURNS
        os.close(duplicate)
        right.close()

    run(main())


@pytest.mark.parametrize("peer_does", ["send", "close"])
def test_what_nobody_receives_does_not_spin(run: Any, peer_does: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
        await turns()
        peer.send(b"x")
        assert await receiving == b"x"
        if peer_does == "send":
            peer.send(b"unread")
        else:
            peer.close()
        await turns()
        assert await idle_turns() <= MOST_IDLE_TURNS
        assert await loop.sock_recv(ours, 10) == (b"unread" if peer_does == "send" else b"")
        ours.close()
        peer.close()

    run(main())
