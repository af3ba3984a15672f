"""A datagram endpoint against a model: random datagrams both ways, pauses, and an end at a random place.

The model: between two sockets of the loopback, what fits into the receiver's buffer arrives whole, once and in order,
and an endpoint behaves so whichever way its datagrams come and go. The protocol sees connection_made, then datagrams,
pauses and resumptions of writing in turns, then connection_lost once and nothing after it. It may pause, resume, send
and end from inside its callbacks: while paused it sees nothing, also of what had already been read from the socket.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import pytest
from conformance.datagrams import DatagramRecorder, endpoint, raw_udp
from conformance.peers import LOCALHOST, HandlerLog, off_loop, pattern, turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Together within the smallest default receive buffer: a datagram counts there with its bookkeeping.
SIZES = st.one_of(st.integers(1, 40), st.just(1472), st.integers(0, 3000))
MOST_IN_FLIGHT = 30

OPERATIONS = st.one_of(
    st.tuples(st.just("receive"), st.integers(0, 2), st.lists(SIZES, max_size=8)),
    st.tuples(st.just("send"), st.integers(0, 2), st.lists(SIZES, max_size=8)),
    st.tuples(st.just("pause"), st.just(0), st.just([])),
    st.tuples(st.just("resume"), st.just(0), st.just([])),
    st.tuples(st.just("turns"), st.just(0), st.lists(st.just(1), max_size=3)),
)
GRAMMAR = re.compile(r"md*l")
LETTERS = {
    "connection_made": "m",
    "datagram_received": "d",
    "pause_writing": "p",
    "resume_writing": "r",
    "error_received": "e",
    "connection_lost": "l",
}


def letters(protocol: DatagramRecorder) -> str:
    return "".join(LETTERS[call[0]] for call in protocol.calls)


async def play(script: list[Any], answers: bool, ending: str) -> None:
    log = HandlerLog(asyncio.get_running_loop())

    def answer(protocol: DatagramRecorder, data: bytes, addr: Any) -> None:
        if answers and data:
            protocol.transport.sendto(data[::-1], addr)
            outgoing[addr].append(data[::-1])

    transport, protocol = await endpoint(DatagramRecorder(datagram_received=answer), local_addr=(LOCALHOST, 0))
    address = transport.get_extra_info("sockname")
    peers = [raw_udp() for _ in range(3)]
    incoming: list[tuple[bytes, Any]] = []
    outgoing: dict[Any, list[bytes]] = {peer.getsockname(): [] for peer in peers}
    number = in_flight = 0
    for name, which, sizes in script:
        peer = peers[which]
        if name in ("receive", "send"):
            for size in sizes:
                number += 1
                data = pattern(max(size, 1), seed=number)
                in_flight += 1
                if in_flight > MOST_IN_FLIGHT:
                    transport.resume_reading()
                    await protocol.until_received(len(incoming))
                    await off_loop(drain, peers, outgoing)
                    in_flight = 1
                if name == "receive":
                    peer.sendto(data, address)
                    incoming.append((data, peer.getsockname()))
                else:
                    transport.sendto(data, peer.getsockname())
                    outgoing[peer.getsockname()].append(data)
        elif name == "turns":
            await turns(len(sizes))
        else:
            getattr(transport, f"{name}_reading")()
            assert transport.is_reading() == (name == "resume")
            assert transport.get_write_buffer_size() == 0
    transport.resume_reading()
    await protocol.until_received(len(incoming))
    assert protocol.datagrams == incoming
    getattr(transport, ending)()
    assert transport.is_closing()
    assert await protocol.until_lost() is None
    await off_loop(drain, peers, outgoing)
    await turns(3)
    assert GRAMMAR.fullmatch(letters(protocol)), letters(protocol)
    assert log == []
    for peer in peers:
        peer.close()


def drain(peers: list[socket.socket], outgoing: dict[Any, list[bytes]]) -> None:
    """Blocking: what was sent to each peer, and nothing else, is there."""
    for peer in peers:
        expected = outgoing[peer.getsockname()]
        assert [peer.recv(70_000) for _ in expected] == expected
        expected.clear()


@pytest.mark.usefixtures("can_pause_anywhere")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(OPERATIONS, max_size=15), answers=st.booleans(), ending=st.sampled_from(["close", "abort"]))
def test_endpoint_follows_the_model(run: Any, script: list[Any], answers: bool, ending: str) -> None:
    run(play(script, answers, ending))


INSIDE = st.lists(st.sampled_from(["", "", "pause", "resume", "send", "close", "abort"]), max_size=10)


async def play_inside(inside: list[str], sizes: list[int], later: int) -> None:
    """All datagrams are there before the first callback runs; each callback then does one thing."""
    log = HandlerLog(asyncio.get_running_loop())
    waiting = list(inside)
    is_paused = has_ended = False
    sent: list[bytes] = []

    def act(protocol: DatagramRecorder, data: bytes, addr: Any) -> None:
        nonlocal is_paused, has_ended
        assert not is_paused and not has_ended
        name = waiting.pop(0) if waiting else ""
        if name == "send":
            protocol.transport.sendto(data[::-1], addr)
            sent.append(data[::-1])
        elif name in ("pause", "resume"):
            getattr(protocol.transport, f"{name}_reading")()
            is_paused = name == "pause"
        elif name:
            has_ended = True
            getattr(protocol.transport, name)()

    transport, protocol = await endpoint(DatagramRecorder(datagram_received=act), local_addr=(LOCALHOST, 0))
    peer = raw_udp()
    incoming = [pattern(size + 1, seed=number) for number, size in enumerate(sizes)]
    for data in incoming:
        peer.sendto(data, transport.get_extra_info("sockname"))
    while not has_ended and len(protocol.datagrams) < len(incoming):
        if is_paused:
            count = len(protocol.datagrams)
            await turns(later)
            assert len(protocol.datagrams) == count
            is_paused = False
            transport.resume_reading()
        await turns(1)
    transport.close()
    assert await protocol.until_lost() is None
    assert protocol.payloads == incoming[: len(protocol.datagrams)]
    assert has_ended or len(protocol.datagrams) == len(incoming)
    assert await off_loop(lambda: [peer.recv(70_000) for _ in sent]) == sent
    await turns(3)
    assert GRAMMAR.fullmatch(letters(protocol)), letters(protocol)
    assert log == []
    peer.close()


@pytest.mark.usefixtures("can_pause_anywhere")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inside=INSIDE, sizes=st.lists(SIZES, max_size=MOST_IN_FLIGHT), later=st.integers(0, 3))
def test_endpoint_follows_the_model_from_inside_its_callbacks(
    run: Any, inside: list[str], sizes: list[int], later: int
) -> None:
    run(play_inside(inside, sizes, later))


async def crowd(sizes: list[int], reads: list[int], closes_at: int | None) -> None:
    """UNIX datagrams into a receiver that is often full: held, paused and resumed, delivered in order."""
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.settimeout(20)
    transport, protocol = await endpoint(sock=ours)
    transport.set_write_buffer_limits(high=4000)
    sent: list[bytes] = []
    received: list[bytes] = []
    for number, size in enumerate(sizes):
        if number == closes_at:
            transport.close()
            break
        data = pattern(size, seed=number)
        transport.sendto(data)
        sent.append(data)
        if reads and number % len(reads) == 0:
            count = min(reads[number // len(reads) % len(reads)], len(sent) - len(received))
            received += await off_loop(lambda count=count: [peer.recv(10_000) for _ in range(count)])
    missing = len(sent) - len(received)
    received += await off_loop(lambda: [peer.recv(10_000) for _ in range(missing)])
    assert received == sent
    transport.close()
    assert await protocol.until_lost() is None
    assert re.fullmatch("m(pr)*p?l", letters(protocol)), letters(protocol)
    peer.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 3000), max_size=60),
    reads=st.lists(st.integers(0, 10), max_size=3),
    closes_at=st.one_of(st.none(), st.integers(0, 60)),
)
def test_crowded_endpoint_follows_the_model(
    run: Any, loop_name: str, sizes: list[int], reads: list[int], closes_at: int | None
) -> None:
    if loop_name == "asyncio":
        return  # std cannot send to a nameless peer (see test_unix_peer_without_a_name)
    run(crowd(sizes, reads, closes_at))
