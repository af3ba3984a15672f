"""A client that answers, and one that goes on sending: sock_recv() gives what came, in its order, on every loop.

hoop does not look for the next request of a peer whose last ones were not there yet: it waits for the event. Nobody may
notice, whatever the peer does next.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest
from conformance.peers import MOST_IDLE_TURNS, idle_turns, soon, tcp_pair, turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ANSWERS = 3  # after so many rounds of question and answer, each loop knows what kind of peer this is


async def converse(ours: socket.socket, peer: socket.socket, rounds: int = ANSWERS) -> None:
    """Answer a peer whose questions come only when sock_recv() waits for them."""
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
        await turns(2)
        assert not receiving.done()
        peer.send(b"question")
        assert await soon(receiving) == b"question"
        await loop.sock_sendall(ours, b"answer")
        assert peer.recv(100) == b"answer"


# What the peer sends, and when: while we wait, or before we ask.
PIECES = st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.integers(1, 200)), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES, kind=st.sampled_from([socket.SOCK_STREAM, socket.SOCK_DGRAM]))
def test_all_that_was_sent_is_received_in_its_order(run: Any, pieces: Any, kind: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair(socket.AF_UNIX, kind)
        ours.setblocking(False)
        sent: list[bytes] = []
        received: list[bytes] = []
        with ours, peer:
            for number, (waits, size, asked) in enumerate(pieces):
                data = bytes([number % 251]) * size
                if waits and b"".join(sent) == b"".join(received):
                    receiving = asyncio.ensure_future(loop.sock_recv(ours, asked))
                    await turns(2)
                    assert not receiving.done()
                    peer.send(data)
                else:
                    peer.send(data)
                    receiving = asyncio.ensure_future(loop.sock_recv(ours, asked))
                sent.append(data if kind == socket.SOCK_STREAM else data[:asked])
                received.append(await soon(receiving))
            while b"".join(sent) != b"".join(received):
                received.append(await soon(loop.sock_recv(ours, 1000)))
        if kind == socket.SOCK_DGRAM:
            assert received == sent

    run(main())


@pytest.mark.parametrize("then", ["more", "end"])
def test_what_came_before_the_call_after_a_conversation(run: Any, then: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        with ours, peer:
            await converse(ours, peer)
            if then == "more":
                peer.send(b"at once")
            else:
                peer.close()
            assert await soon(loop.sock_recv(ours, 100)) == (b"at once" if then == "more" else b"")

    run(main())


def test_another_socket_under_the_number_after_a_conversation(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        await converse(ours, peer)
        number = ours.detach()
        peer.close()
        left, right = socket.socketpair()
        with left, right:
            os.dup2(left.fileno(), number)
            with socket.socket(fileno=number) as again:
                again.setblocking(False)
                right.send(b"for the other one")
                assert await soon(loop.sock_recv(again, 100)) == b"for the other one"

    run(main())


def test_nobody_receives_after_a_conversation(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        with ours, peer:
            await converse(ours, peer)
            peer.send(b"unread")
            await turns()
            assert await idle_turns() <= MOST_IDLE_TURNS
            assert await soon(loop.sock_recv(ours, 100)) == b"unread"

    run(main())
