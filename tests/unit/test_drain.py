"""Draining a server and a loop: what was begun is finished, what is silent goes, what hangs is cut. On the test's own
clock; the names D1, D2, ... are those of docs/draining.md."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import weakref
from typing import Any

import hoop
import pytest
from conformance.peers import DEADLINE_S, off_loop, read_exactly, read_until_gone, turns
from hoop.drain import Drain
from limited import KINDS, Clock, Connection, Served, pass_looks, peers, run_with_clock, serving

every_kind = pytest.mark.parametrize("kind", list(KINDS))


def drain(served: Served, **course: Any) -> asyncio.Task[hoop.DrainReport]:
    return asyncio.ensure_future(served.server.drain(Drain(**course)))


async def refuses(served: Served, address: Any) -> bool:
    try:
        family = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(DEADLINE_S)
            await off_loop(sock.connect, address)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


async def gone(peer: socket.socket) -> None:
    """The server has closed; over TLS it waits for the peer, which does the same."""
    assert await off_loop(read_until_gone, peer) == b""
    peer.close()


def counted(report: hoop.DrainReport) -> tuple[int, int, int, int]:
    return report.connections, report.ended, report.silent, len(report.cut)


# ---- the phases -----------------------------------------------------------------------------------------------------


@every_kind
def test_server_without_connections_is_gone_at_once(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, None) as served:
            address = served.address()
            report = await served.server.drain()
            assert counted(report) == (0, 0, 0, 0)
            assert report.seconds == 0
            assert await refuses(served, address)
            assert not served.server.is_serving()

    run_with_clock(main)


@every_kind
def test_whoever_waits_for_a_drained_server_goes_on(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, None) as served:
            await served.server.drain()
            await asyncio.wait_for(served.server.wait_closed(), DEADLINE_S)

    run_with_clock(main)


@every_kind
def test_d1_request_on_a_fresh_connection_is_answered(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                draining = drain(served)
                await pass_looks(clock, 0.75)
                assert connection.lost == []
                peer.sendall(b"late?")
                assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                await pass_looks(clock, 0.75)
                assert connection.lost == []  # its grace began anew with the answer
                await pass_looks(clock, 1.0)
                await gone(peer)
                assert counted(await draining) == (1, 0, 1, 0)

    run_with_clock(main)


@every_kind
def test_d2_request_under_way_is_waited_for_while_silent_ones_go(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, None) as served:
            busy, its_connection = await served.peer()
            silent, silent_connection = await served.peer()
            with peers(busy, silent):
                busy.sendall(b"slow")
                await served.until(lambda: its_connection.data == b"slow")
                draining = drain(served)
                await pass_looks(clock, 2.0)
                await gone(silent)
                await served.until(lambda: silent_connection.lost == [None])
                await pass_looks(clock, 20.0)
                assert its_connection.lost == []
                its_connection.write(b"done\n")
                assert await off_loop(read_exactly, busy, 5) == b"done\n"
                await pass_looks(clock, 1.5)
                await gone(busy)
                assert counted(await draining) == (2, 0, 2, 0)

    run_with_clock(main)


@every_kind
def test_connection_that_the_peer_ends_needs_no_grace(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, None) as served:
            peer, connection = await served.peer()
            draining = drain(served)
            await turns()
            peer.close()
            await served.until(lambda: bool(connection.lost))
            report = await draining
            assert counted(report) == (1, 1, 0, 0)
            assert report.seconds == 0

    run_with_clock(main)


@every_kind
def test_d8_d9_what_hangs_is_cut_exactly_at_the_timeout(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.sendall(b"hang")
                await served.until(lambda: connection.data == b"hang")
                draining = drain(served, timeout=5)
                await turns()
                await pass_looks(clock, 4.75)
                assert connection.lost == []
                await pass_looks(clock, 0.25)
                await gone(peer)
                report = await draining
                assert counted(report) == (1, 0, 0, 1)
                assert report.seconds == 5

    with caplog.at_level(logging.WARNING, "asyncio"):
        run_with_clock(main)
    assert [record.message.partition(": ")[2].partition(":")[0] for record in caplog.records] == [
        "1 connections were cut at the drain's timeout"
    ]


def test_peer_that_does_not_read_is_aborted_a_second_after_the_timeout() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.sendall(b"?")
                await served.until(lambda: bool(connection.data))
                while connection.transport.get_write_buffer_size() == 0:
                    connection.write(bytes(1 << 20))
                draining = drain(served, timeout=2)
                await turns()
                await pass_looks(clock, 2.75)
                assert connection.lost == []
                await pass_looks(clock, 0.25)
                assert connection.lost == [None]
                assert counted(await draining) == (1, 0, 0, 1)

    run_with_clock(main)


@every_kind
def test_d7_delay_serves_on_and_only_then_refuses(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, None) as served:
            address = served.address()
            draining = drain(served, delay=3)
            await turns()
            await clock.forward(2.9)
            peer, _ = await served.peer()
            with peers(peer):
                peer.sendall(b"?")
                assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                await clock.forward(0.2)
                assert await refuses(served, address)
                await pass_looks(clock, 1.5)
                await gone(peer)
                assert counted(await draining) == (1, 0, 1, 0)

    run_with_clock(main)


def test_d4_d5_connections_in_the_queue_are_accepted_before_the_socket_is_closed() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            waiting = [served.connect() for _ in range(20)]  # this loop has had no turn since
            with peers(*waiting):
                draining = drain(served)
                await turns()
                for peer in waiting:
                    peer.sendall(b"?")
                    assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                await pass_looks(clock, 1.5)
                assert counted(await draining) == (20, 0, 20, 0)

    run_with_clock(main)


def test_stop_accepting_leaves_the_socket_open_and_start_serving_goes_on() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            await served.server.stop_accepting()
            assert not served.server.is_serving()
            peer = served.connect()  # the kernel keeps it
            with peers(peer):
                await turns()
                assert served.connections == []
                await served.server.start_serving()
                await served.until(lambda: len(served.connections) == 1)

    run_with_clock(main)


def test_d6_nothing_is_accepted_once_it_drains_although_the_socket_stays_open() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            report = await served.server.drain(keep_listening=True)
            assert counted(report) == (0, 0, 0, 0)
            with peers(served.connect()):  # for the process that takes over
                await turns()
                assert served.connections == []
            assert len(served.server.sockets) == 1

    run_with_clock(main)


# ---- telling --------------------------------------------------------------------------------------------------------


class Told(Connection):
    def drain_requested(self) -> None:
        self.transport.write(b"bye\n")
        self.transport.close()


def test_protocol_is_told_and_says_goodbye_itself() -> None:
    async def main(clock: Clock) -> None:
        served = Served()
        loop = asyncio.get_running_loop()
        served.server = await loop.create_server(lambda: Told(served), "127.0.0.1", 0)
        peer, _ = await served.peer()
        with peers(peer):
            report = await served.server.drain()
            assert counted(report) == (1, 1, 0, 0)
            assert await off_loop(read_until_gone, peer) == b"bye\n"

    run_with_clock(main)


def test_protocol_that_fails_when_told_hurts_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Connection):
        def drain_requested(self) -> None:
            raise ValueError("not now")

    async def main(clock: Clock) -> None:
        problems: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        served = Served()
        served.server = await loop.create_server(lambda: Failing(served), "127.0.0.1", 0)
        peer, _ = await served.peer()
        with peers(peer):
            draining = drain(served)
            await pass_looks(clock, 1.5)
            assert counted(await draining) == (1, 0, 1, 0)
        assert [str(context["exception"]) for context in problems] == ["not now"]

    run_with_clock(main)


def test_socket_handle_is_told() -> None:
    async def main(clock: Clock) -> None:
        async with serving("handles", None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                connection.transport.on_drain_requested = lambda handle: handle.end(b"bye\n")
                draining = drain(served)
                assert await off_loop(read_until_gone, peer) == b"bye\n"
                peer.close()
                assert counted(await draining) == (1, 1, 0, 0)

    run_with_clock(main)


@pytest.mark.parametrize("start_server", [asyncio.start_server, hoop.start_server], ids=["asyncio", "hoop"])
def test_stream_handler_waits_for_draining(start_server: Any) -> None:
    async def handle(reader: Any, writer: Any) -> None:
        await hoop.draining()
        assert hoop.is_draining()
        writer.write(b"bye\n")
        writer.close()

    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        server = await start_server(handle, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname(), DEADLINE_S)
        with peers(peer):
            await turns()
            assert not hoop.is_draining()
            (report,) = await loop.drain()
            assert counted(report) == (1, 1, 0, 0)
            assert await off_loop(read_until_gone, peer) == b"bye\n"

    run_with_clock(main)


# ---- a loop ---------------------------------------------------------------------------------------------------------


def test_d13_servers_of_a_loop_drain_side_by_side() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving("tcp", None) as one, serving("handles", None) as other:
            first, its_connection = await one.peer()
            second, _ = await other.peer()
            with peers(first, second):
                first.sendall(b"slow")
                await one.until(lambda: its_connection.data == b"slow")
                draining = asyncio.ensure_future(loop.drain(Drain(timeout=3)))
                await turns()
                await pass_looks(clock, 1.5)
                assert await off_loop(read_until_gone, second) == b""
                await pass_looks(clock, 2.0)
                reports = sorted(counted(report) for report in await draining)
                assert reports == [(1, 0, 0, 1), (1, 0, 1, 0)]

    run_with_clock(main)


def test_draining_twice_is_refused() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving("tcp", None) as served:
            await loop.drain()
            with pytest.raises(RuntimeError, match="is draining already"):
                await served.server.drain()
            with pytest.raises(RuntimeError, match="this loop is draining already"):
                await loop.drain()
            await hoop.draining()  # at once

    run_with_clock(main)


def test_cancelled_waiter_for_draining_is_forgotten() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(hoop.draining())
        await turns()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert await loop.drain() == []

    run_with_clock(main)


def test_loop_keeps_no_server_alive() -> None:
    async def main(clock: Clock) -> None:
        served = Served()
        await served.start(None)
        held = weakref.ref(served.server)
        served.server.close()
        served.server = None
        await turns()
        gc.collect()
        assert held() is None

    run_with_clock(main)


def test_serve_forever_ends_after_the_last_connection() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            peer, connection = await served.peer()
            forever = asyncio.ensure_future(served.server.serve_forever())
            with peers(peer):
                peer.sendall(b"slow")
                await served.until(lambda: connection.data == b"slow")
                draining = drain(served)
                await pass_looks(clock, 3)
                assert not forever.done()
                connection.write(b"x")
                connection.transport.close()
                await draining
                with pytest.raises(asyncio.CancelledError):
                    await forever

    run_with_clock(main)


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("course", "error", "text"),
    [
        ({"delay": -1}, ValueError, "delay must be more than 0 seconds, not -1"),
        ({"delay": None}, TypeError, "delay must be a number of seconds, not None"),
        ({"idle_grace": "1"}, TypeError, "idle_grace must be a number of seconds or None, not '1'"),
        ({"idle_grace": False}, TypeError, "idle_grace must be a number of seconds or None, not False"),
        ({"timeout": 0}, ValueError, "timeout must be more than 0 seconds, not 0"),
        ({"timeout": float("nan")}, ValueError, "timeout must be more than 0 seconds, not nan"),
    ],
)
def test_what_is_no_time_is_refused(course: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        Drain(**course)
    assert str(caught.value) == text


def test_course_that_is_none_changes_nothing() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving("tcp", None) as served:
            for drain in (served.server.drain, loop.drain):
                with pytest.raises(TypeError, match=r"drain must be a hoop\.Drain or None, not '5'"):
                    await drain("5")
            assert not loop.is_draining()
            assert served.server.is_serving()
            await loop.drain()

    run_with_clock(main)


@pytest.mark.parametrize("whole_loop", [True, False])
def test_course_that_nobody_gives_is_the_loop_s(whole_loop: bool) -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.server_defaults.drain = Drain(timeout=3)
        async with serving("tcp", None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.sendall(b"hang")
                await served.until(lambda: connection.data == b"hang")
                draining = asyncio.ensure_future((loop if whole_loop else served.server).drain())
                await turns()
                await pass_looks(clock, 3.0)
                report = await draining
                assert counted(report[0] if whole_loop else report) == (1, 0, 0, 1)
        assert loop.server_defaults.drain_for(None).timeout == 3
        assert "timeout=3" in repr(loop.server_defaults)
        loop.server_defaults.drain = None
        assert loop.server_defaults.drain_for(None) == Drain()

    run_with_clock(main)


def test_no_grace_closes_silent_connections_at_the_next_looks() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            peer, _ = await served.peer()
            with peers(peer):
                draining = drain(served, idle_grace=0)
                for _ in range(6):
                    await clock.forward(0.005)
                assert counted(await draining) == (1, 0, 1, 0)

    run_with_clock(main)
