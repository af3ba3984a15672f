"""Datagrams that a phase of the turn sends to one receiver are given to the kernel as one, and arrive apart.

docs/writes.md says what is held, and until when. What a receiver gets is the same on every loop; where asyncio sends
inside sendto(), hoop sends the first datagram of a phase there, and others when the phase has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import textwrap
from typing import Any

import hoop
import pytest
from conformance.datagrams import DatagramRecorder, endpoint, raw_udp
from conformance.peers import DEADLINE_S, LOCALHOST, off_loop, turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
SO_NO_CHECK = 11
MOST = 64  # datagrams in one call

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux joins datagrams")

# Few lengths and receivers, so that many are joined; whole runs, so that a call is full.
RUNS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, 300, 1200, 9000]), st.integers(1, 20)), max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=RUNS, is_connected=st.booleans(), kind=st.sampled_from([bytes, bytearray, memoryview]))
def test_each_arrives_whole_once_and_in_order(
    run: Any, loop_name: str, runs: Any, is_connected: bool, kind: Any
) -> None:
    drops_empty = loop_name == "asyncio" and sys.version_info < (3, 13)  # docs/differences.md

    async def main() -> None:
        peers = [roomy_udp() for _ in range(3)]
        options: Any = {"remote_addr": peers[0].getsockname()} if is_connected else {"local_addr": (LOCALHOST, 0)}
        transport, protocol = await endpoint(**options)
        sent: list[list[bytes]] = [[], [], []]
        number = 0
        for receiver, length, count in runs:
            which = 0 if is_connected else receiver
            for _ in range(count):
                number += 1
                data = bytes([number % 251]) * length
                given = kind(bytearray(data)) if kind is not bytes else data
                transport.sendto(given, None if is_connected else peers[which].getsockname())
                if kind is bytearray:
                    given[:] = bytes(length)  # the caller's again
                if data or not drops_empty:
                    sent[which].append(data)
        transport.close()
        await protocol.until_lost()
        for peer, expected in zip(peers, sent, strict=True):
            assert [peer.recv(70_000) for _ in expected] == expected
            peer.close()

    run(main())


def roomy_udp() -> socket.socket:
    peer = raw_udp()
    peer.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 1 << 24)  # else what is dropped is lost
    return peer


def test_the_first_of_a_callback_is_there_while_it_runs(run):
    """A callback may send a question and block for the answer, as on asyncio's loop."""

    async def main() -> None:
        with raw_udp() as peer:
            transport, _ = await endpoint(remote_addr=peer.getsockname())
            for _ in range(2):
                transport.sendto(b"question")
                assert peer.recv(100) == b"question"
                await turns(1)
            transport.close()

    run(main())


class GroPeer:
    """Shows how many datagrams came as one."""

    def __init__(self) -> None:
        self.sock = raw_udp()
        self.sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    def receive(self) -> tuple[int, int]:
        """The bytes that came as one, and the length of a datagram."""
        data, messages, _, _ = self.sock.recvmsg(70_000, 100)
        lengths = [int.from_bytes(value[:2], sys.byteorder) for _, kind, value in messages if kind == UDP_GRO]
        return len(data), lengths[0] if lengths else len(data)


@contextlib.asynccontextmanager
async def to_gro_peer(protocol: DatagramRecorder | None = None) -> Any:
    peer = GroPeer()
    transport, _ = await endpoint(protocol, remote_addr=peer.sock.getsockname())
    try:
        yield transport, peer
    finally:
        transport.close()
        peer.sock.close()


def once_on_hoop(main: Any) -> None:
    """What is held is sent earlier where a callback was slow, or the processor was taken away for 0.25 ms."""
    for attempt in range(50):
        try:
            hoop.run(main())
        except AssertionError:
            if attempt == 49:
                raise
        else:
            break


@linux_only
class TestAsOne:
    def test_the_first_is_sent_at_once_and_the_others_as_one(self):
        async def main() -> None:
            async with to_gro_peer() as (transport, peer):
                for _ in range(5):
                    transport.sendto(bytes(500))
                await turns(1)
                assert await off_loop(peer.receive) == (500, 500)
                assert await off_loop(peer.receive) == (4 * 500, 500)

        once_on_hoop(main)

    def test_a_shorter_one_ends_a_run_and_a_longer_one_begins_another(self):
        async def main() -> None:
            async with to_gro_peer() as (transport, peer):
                for length in (9, 500, 500, 20, 20, 500, 500):
                    transport.sendto(bytes(length))
                await turns(1)
                found = [await off_loop(peer.receive) for _ in range(4)]
                assert found == [(9, 9), (1020, 500), (20, 20), (1000, 500)]

        once_on_hoop(main)

    def test_a_call_is_bounded(self):
        """A build that takes longer over so many than they are held sends some earlier: the bounds are sure."""

        async def main() -> None:
            async with to_gro_peer() as (transport, peer):
                for _ in range(MOST + 3):
                    transport.sendto(bytes(10))
                for _ in range(9):
                    transport.sendto(bytes(9000))
                await turns(1)
                left = {10: (MOST + 3) * 10, 9000: 9 * 9000}
                most_at_once = dict.fromkeys(left, 0)
                while any(left.values()):
                    size, length = await off_loop(peer.receive)
                    left[length] -= size
                    most_at_once[length] = max(most_at_once[length], size)
                assert left == {10: 0, 9000: 0}
                assert 10 < most_at_once[10] <= MOST * 10
                assert 9000 < most_at_once[9000] <= 7 * 9000

        once_on_hoop(main)

    def test_answers_to_a_batch_go_as_one(self):
        """At least two of them, where callbacks are so slow that a batch of them takes longer than is held."""

        class Answering(asyncio.DatagramProtocol):
            transport: Any

            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                self.transport.sendto(data, addr)

        async def main() -> None:
            peer = GroPeer()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(Answering, local_addr=(LOCALHOST, 0))
            try:
                for _ in range(6):
                    peer.sock.sendto(bytes(100), transport.get_extra_info("sockname"))
                sizes: list[int] = []
                while sum(sizes) < 600:
                    size, length = await off_loop(peer.receive)
                    assert length == 100
                    sizes.append(size)
                assert sizes[0] == 100
                assert max(sizes) > 100
            finally:
                transport.close()
                peer.sock.close()

        once_on_hoop(main)

    def test_deferral_can_be_switched_off(self):
        async def main() -> None:
            async with to_gro_peer() as (transport, peer):
                transport.sendto(bytes(10))
                transport.sendto(bytes(10))
                transport.set_write_deferral(False)  # sends what is held
                transport.sendto(bytes(10))
                transport.sendto(bytes(10))
                assert [peer.receive() for _ in range(4)] == [(10, 10)] * 4  # while the callback runs

        hoop.run(main())

    def test_a_loop_that_defers_nothing(self):
        async def main() -> None:
            async with to_gro_peer() as (transport, peer):
                for _ in range(3):
                    transport.sendto(bytes(10))
                assert [peer.receive() for _ in range(3)] == [(10, 10)] * 3

        with asyncio.Runner(loop_factory=lambda: hoop.Loop(defer_writes=False)) as runner:
            runner.run(main())

    def test_outside_of_callbacks_nothing_is_held(self):
        loop = hoop.new_event_loop()
        peer = raw_udp()
        transport, _ = loop.run_until_complete(
            loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=peer.getsockname())
        )
        for _ in range(3):
            transport.sendto(b"x")
            assert peer.recv(10) == b"x"
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        peer.close()

    def test_who_joins_himself_is_let_alone(self):
        """Each sendto() of this program is three datagrams, as it wants."""

        async def main() -> None:
            peer = raw_udp()
            transport, _ = await endpoint(remote_addr=peer.getsockname())
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
            for _ in range(3):
                transport.sendto(bytes(300))
            await turns(1)
            assert [len(await off_loop(peer.recv, 1000)) for _ in range(9)] == [100] * 9
            transport.close()
            peer.close()

        hoop.run(main())

    def test_where_the_way_joins_nothing_they_go_one_by_one(self):
        async def main() -> None:
            peer = raw_udp()
            transport, protocol = await endpoint(remote_addr=peer.getsockname())
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
            for _ in range(2):
                for number in range(4):
                    transport.sendto(bytes([number] * 10))
                await turns(1)
            received = [await off_loop(peer.recv, 100) for _ in range(8)]
            assert received == [bytes([number] * 10) for number in range(4)] * 2
            assert protocol.calls == [("connection_made", transport)]
            transport.close()
            peer.close()

        hoop.run(main())


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_what_is_held_is_sent_before_the_end(run, ending):
    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(remote_addr=peer.getsockname())
            for number in range(4):
                transport.sendto(bytes([number]))
            getattr(transport, ending)()
            assert await protocol.until_lost() is None
            assert [peer.recv(10) for _ in range(4)] == [bytes([number]) for number in range(4)]

    run(main())


def test_what_is_sent_through_another_endpoint_comes_after(run):
    async def main() -> None:
        with raw_udp() as peer:
            first, _ = await endpoint(local_addr=(LOCALHOST, 0))
            second, _ = await endpoint(local_addr=(LOCALHOST, 0))
            for data in (b"1", b"2", b"3"):
                first.sendto(data, peer.getsockname())
            second.sendto(b"4", peer.getsockname())
            assert [peer.recv(10) for _ in range(4)] == [b"1", b"2", b"3", b"4"]  # while the callback runs
            first.close()
            second.close()

    run(main())


def test_a_refused_receiver_is_told_and_the_endpoint_goes_on(run):
    """The first datagram brings the refusal, which the next call meets; what comes behind it is sent."""

    async def main() -> None:
        gone = raw_udp()
        address = gone.getsockname()
        gone.close()
        transport, protocol = await endpoint(remote_addr=address)
        for _ in range(4):
            transport.sendto(b"x")
        await protocol.until_called("error_received", 2)
        assert all(
            isinstance(call[1], ConnectionRefusedError) for call in protocol.calls if call[0] == "error_received"
        )
        assert not transport.is_closing()
        transport.close()
        await protocol.until_lost()

    run(main())


def test_os_fork_and_exit_find_nothing_held():
    program = """
        import asyncio, os, socket, sys, hoop

        async def main():
            peer = socket.socket(type=socket.SOCK_DGRAM)
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(10)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=peer.getsockname())
            for number in range(3):
                transport.sendto(b"parent %d" % number)
            child = os.fork()
            if child == 0:
                transport.sendto(b"child 0")
                transport.sendto(b"child 1")
                os._exit(0)
            os.waitpid(child, 0)
            print([peer.recv(100).decode() for _ in range(5)])
            transport.close()

        hoop.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=2 * DEADLINE_S)
    assert found.stdout == "['parent 0', 'parent 1', 'parent 2', 'child 0', 'child 1']\n"
