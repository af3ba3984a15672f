"""Limits.max_connection_age: old connections are drained, one by one. On the test's own clock."""

from __future__ import annotations

import asyncio
from typing import Any

import hoop
import pytest
from conformance.peers import off_loop, read_exactly, read_until_gone, turns
from limited import KINDS, Clock, pass_looks, peers, run_with_clock, serving

every_kind = pytest.mark.parametrize("kind", list(KINDS))
AGE = hoop.Limits(max_connection_age=100.0)


def timers_of(served: Any) -> int:
    server = getattr(served.server, "_server", served.server)
    return len(server._ageing._timers)


@every_kind
def test_trap_c24_silent_connection_is_closed_when_it_is_old_and_the_server_goes_on(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, AGE) as served:
            old, its_connection = await served.peer()
            with peers(old):
                await clock.forward(89.0)
                assert its_connection.lost == []
                young, other_connection = await served.peer()
                with peers(young):
                    await clock.forward(12.0)
                    await pass_looks(clock, 1.5)
                    assert await off_loop(read_until_gone, old) == b""
                    old.close()
                    await served.until(lambda: its_connection.lost == [None])
                    assert other_connection.lost == []
                    assert served.stats().active == 1
                    young.sendall(b"there?")
                    assert await off_loop(read_exactly, young, 7) == b"answer\n"

    run_with_clock(main)


@every_kind
def test_old_connection_that_owes_an_answer_gives_it_first(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, AGE) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.sendall(b"slow")
                await served.until(lambda: connection.data == b"slow")
                await clock.forward(101.0)
                await pass_looks(clock, 30.0)
                assert connection.lost == []
                connection.write(b"done\n")
                assert await off_loop(read_exactly, peer, 5) == b"done\n"
                await pass_looks(clock, 1.5)
                assert await off_loop(read_until_gone, peer) == b""

    run_with_clock(main)


def test_old_connection_that_is_never_silent_is_not_cut() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", AGE) as served:
            peer, connection = await served.peer()
            with peers(peer):
                await clock.forward(101.0)
                for _ in range(20):
                    peer.sendall(b"more?")
                    assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                    await pass_looks(clock, 0.75)
                assert connection.lost == []

    run_with_clock(main)


def test_protocol_is_asked_to_drain_once() -> None:
    told = []

    class Told(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def drain_requested(self) -> None:
            told.append(self)
            self.transport.write(b"bye\n")
            self.transport.close()

    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        server: Any = await loop.create_server(Told, "127.0.0.1", 0, limits=AGE)  # type: ignore[call-arg]
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await turns()
        await clock.forward(101.0)
        await pass_looks(clock, 5.0)
        assert await reader.read() == b"bye\n"
        assert len(told) == 1
        writer.close()
        server.close()

    run_with_clock(main)


@every_kind
def test_ended_connection_leaves_no_timer(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, AGE) as served:
            peer, connection = await served.peer()
            assert timers_of(served) == 1
            peer.close()
            await served.until(lambda: bool(connection.lost))
            await turns()
            assert timers_of(served) == 0

    run_with_clock(main)


def test_ages_differ_so_that_clients_do_not_come_back_together() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", AGE) as served:
            found = [await served.peer() for _ in range(30)]
            with peers(*(peer for peer, _ in found)):
                await clock.forward(90.0)
                await pass_looks(clock, 5.0)
                left = served.stats().active
                assert 0 < left < len(found)
                await pass_looks(clock, 10.0)
                assert served.stats().active == 0

    run_with_clock(main)


def test_drain_takes_over_from_age() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", AGE) as served:
            peer, _ = await served.peer()
            with peers(peer):
                peer.sendall(b"slow")
                await clock.forward(101.0)
                draining = asyncio.ensure_future(served.server.drain(hoop.Drain(timeout=10.0)))
                await pass_looks(clock, 12.0)
                report = await draining
                assert (report.connections, len(report.cut)) == (1, 1)

    run_with_clock(main)


def test_loop_does_not_wait_for_an_age() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, limits=AGE)
        server.unref()
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await turns()
        writer.close()
        await writer.wait_closed()

    loop = hoop.Loop()
    loop.create_task(main(Clock()))
    loop.run()  # returns: neither server nor timer counts
    loop.close()


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), "long", True])
def test_what_is_no_age_is_refused(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_connection_age"):
        hoop.Limits(max_connection_age=wrong)
