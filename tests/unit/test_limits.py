"""hoop.Limits against hostile peers: sockets that are silent, slow, deaf or many, and a clock of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import hoop
import pytest
from conformance.peers import keep_little_in_the_kernel, off_loop, read_exactly, read_until_gone, turns
from hoop.loop_methods.servers import longest_backlog
from limited import KINDS, Clock, Served, peers, run_with_clock, serving

every_kind = pytest.mark.parametrize("kind", list(KINDS))
MIB = 1 << 20


def stats(**counts: int) -> hoop.ServerStats:
    """What is not said is 0."""
    names = hoop.ServerStats.__dataclass_fields__
    return hoop.ServerStats(**{name: counts.get(name, 0) for name in names})


async def gone(peer: socket.socket) -> bytes:
    """What the peer received before the server closed."""
    return await off_loop(read_until_gone, peer)


# ---- silence --------------------------------------------------------------------------------------------------------


@every_kind
def test_half_open_silence_is_ended_by_idle_timeout(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(idle_timeout=5)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.sendall(b"hello?")
                await served.until(lambda: connection.data == b"hello?")
                await clock.forward(4.9)
                assert connection.lost == []
                assert served.stats() == stats(accepted=1, active=1)
                await clock.forward(0.2)
                (error,) = connection.lost
                assert isinstance(error, TimeoutError)
                assert str(error) == "the connection was idle for 5 s"
                assert await gone(peer) == b"answer\n"
                assert served.stats() == stats(accepted=1, idle_timeouts=1)

    run_with_clock(main)


@every_kind
def test_bytes_in_either_direction_put_the_idle_timeout_off(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(idle_timeout=5)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                for count in range(1, 4):
                    await clock.forward(4)
                    peer.sendall(b"x")
                    await served.until(lambda count=count: len(connection.data) == count)  # type: ignore[misc]
                    await clock.forward(4)
                    connection.write(b"y")
                    await turns()
                assert connection.lost == []
                await clock.forward(5.1)
                assert isinstance(connection.lost[0], TimeoutError)
                assert served.stats().idle_timeouts == 1

    run_with_clock(main)


@every_kind
def test_bytes_that_the_peer_does_not_take_are_no_activity(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(idle_timeout=5)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                keep_little_in_the_kernel(peer)
                connection.write(b"x" * (32 * MIB))  # more than both kernels' buffers take
                await turns()
                for _ in range(3):
                    await clock.forward(2)
                    connection.write(b"more")
                    await turns()
                (error,) = connection.lost
                assert str(error) == "the connection was idle for 5 s"
                assert served.stats() == stats(accepted=1, idle_timeouts=1)

    run_with_clock(main)


@every_kind
def test_a_peer_that_connects_and_says_nothing_is_ended_by_first_byte_timeout(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(first_byte_timeout=5)) as served:
            peer, connection = await served.peer()
            silent = served.connect()
            with peers(silent, peer):
                peer.sendall(b"x")
                await served.until(lambda: connection.data == b"x")
                await turns()
                assert served.stats().active == 2
                await clock.forward(5.1)
                assert await gone(silent) == b""
                assert connection.lost == []
                assert served.stats() == stats(accepted=2, active=1, first_byte_timeouts=1)

    run_with_clock(main)


@every_kind
def test_a_connection_that_ends_by_itself_is_no_timeout(kind: str) -> None:
    async def main(clock: Clock) -> None:
        limits = hoop.Limits(idle_timeout=5, first_byte_timeout=5, header_timeout=5)
        async with serving(kind, limits) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.close()
                await served.until(lambda: bool(connection.lost))
                await clock.forward(6)
                assert len(connection.lost) == 1
                assert not isinstance(connection.lost[0], TimeoutError)
                assert served.stats() == stats(accepted=1)

    run_with_clock(main)


def test_connections_of_one_timeout_share_one_timer() -> None:
    def timers() -> int:
        return sum(type(thing).__name__ == "TimerHandle" for thing in gc.get_objects())

    async def main(clock: Clock) -> None:
        async with serving("tcp", hoop.Limits(idle_timeout=5)) as served:
            before = timers()
            sockets = [(await served.peer())[0] for _ in range(20)]
            with peers(*sockets):
                assert timers() == before + 1
                for sock in sockets[::2]:
                    sock.sendall(b"x")
                await served.until(lambda: sum(len(one.data) for one in served.connections) == 10)
                await clock.forward(4.9)
                assert timers() == before + 1
                await clock.forward(0.2)
                assert served.stats().idle_timeouts == 20

    run_with_clock(main)


def test_each_connection_expires_in_its_own_time() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", hoop.Limits(idle_timeout=5)) as served:
            sockets = []
            for _ in range(6):
                sockets.append((await served.peer())[0])
                await clock.forward(0.5)
            with peers(*sockets):
                sockets[0].sendall(b"x")  # the oldest becomes the youngest
                await served.until(lambda: bool(served.connections[0].data))
                lost_after = {}
                for step in range(30):
                    await clock.forward(0.25)
                    for index, connection in enumerate(served.connections):
                        if connection.lost:
                            lost_after.setdefault(index, (step + 1) * 0.25)
                # the second has been silent for 2.5 s when the steps begin; an expiry is up to a 64th of 5 s late
                assert list(lost_after) == [1, 2, 3, 4, 5, 0]
                for index, least in ((1, 2.5), (2, 3.0), (3, 3.5), (4, 4.0), (5, 4.5), (0, 5.0)):
                    assert least <= lost_after[index] <= least + 0.25

    run_with_clock(main)


def test_a_file_that_the_peer_takes_slowly_is_activity(tmp_path: Path) -> None:
    size = 24 * MIB
    path = tmp_path / "file"
    path.write_bytes(bytes(size))

    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        async with serving("tcp", hoop.Limits(idle_timeout=5)) as served:
            peer, connection = await served.peer()
            keep_little_in_the_kernel(peer)
            with peers(peer), path.open("rb") as file:
                sending = asyncio.ensure_future(loop.sendfile(connection.transport, file))
                for _ in range(6):
                    await clock.forward(3)
                    assert len(await off_loop(read_exactly, peer, size // 6)) == size // 6
                    await turns()
                assert await sending == size
                assert connection.lost == []
                sending = asyncio.ensure_future(loop.sendfile(connection.transport, file, 0))
                await turns()
                await clock.forward(5.2)  # now it takes nothing
                with pytest.raises(TimeoutError, match="idle for 5 s"):
                    await sending
                assert served.stats() == stats(accepted=1, idle_timeouts=1)

    run_with_clock(main)


# ---- slowloris ------------------------------------------------------------------------------------------------------


@every_kind
def test_slowloris_is_ended_by_header_timeout(kind: str) -> None:
    """A request that comes byte by byte: no silence is long enough to be seen."""

    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(header_timeout=5, idle_timeout=3, first_byte_timeout=3)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                sent = 0
                while not connection.lost:
                    with contextlib.suppress(ConnectionError):
                        peer.sendall(b"x")
                    sent += 1
                    assert sent < 10
                    await served.until(lambda: bool(connection.lost) or len(connection.data) == sent)
                    await clock.forward(1)
                assert str(connection.lost[0]) == "no complete message head was received within 5 s"
                assert served.stats() == stats(accepted=1, header_timeouts=1)

    run_with_clock(main)


@every_kind
@pytest.mark.parametrize("way", ["an answer", "header_received()"])
def test_a_complete_head_ends_the_header_timeout(kind: str, way: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(header_timeout=5)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.sendall(b"hello?" if way == "an answer" else b"hello!")
                await served.until(lambda: len(connection.data) == 6)
                if way == "header_received()":
                    connection.transport.header_received()
                await clock.forward(20)
                assert connection.lost == []
                connection.transport.expect_header()  # the next message
                await clock.forward(4.9)
                assert connection.lost == []
                await clock.forward(0.2)
                assert isinstance(connection.lost[0], TimeoutError)
                assert served.stats() == stats(accepted=1, header_timeouts=1)

    run_with_clock(main)


@pytest.mark.parametrize("kind", ["tls", "tls-handles"])
def test_a_tls_handshake_is_no_answer(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(header_timeout=5)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                await clock.forward(5.1)
                assert isinstance(connection.lost[0], TimeoutError)
                assert served.stats().header_timeouts == 1

    run_with_clock(main)


@pytest.mark.parametrize("start", [asyncio.start_server, hoop.start_server], ids=["asyncio", "hoop"])
def test_an_answer_by_a_stream_writer_ends_the_header_timeout(start: Callable[..., Any]) -> None:
    async def main(clock: Clock) -> None:
        lines: list[bytes] = []

        async def serve(reader: Any, writer: Any) -> None:
            while line := await reader.readline():
                lines.append(line)
                writer.write(line)
            writer.close()

        server = await start(serve, "127.0.0.1", 0, limits=hoop.Limits(header_timeout=5))
        with socket.create_connection(server.sockets[0].getsockname(), 20) as peer:
            peer.sendall(b"hello?\n")
            assert await off_loop(read_exactly, peer, 7) == b"hello?\n"
            await clock.forward(20)
            peer.sendall(b"still there?\n")
            assert await off_loop(read_exactly, peer, 13) == b"still there?\n"
            assert server.stats() == stats(accepted=1, active=1)
        server.close()
        await turns()

    run_with_clock(main)


def test_the_methods_for_heads_do_nothing_without_limits() -> None:
    async def main(clock: Clock) -> None:
        for kind in KINDS:
            async with serving(kind, None) as served:
                peer, connection = await served.peer()
                with peers(peer):
                    connection.transport.header_received()
                    connection.transport.expect_header()
                    await clock.forward(1000)
                    assert connection.lost == []

    run_with_clock(main)


# ---- a peer that never reads ----------------------------------------------------------------------------------------


@every_kind
def test_a_peer_that_never_reads_is_ended_by_max_write_buffer(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(max_write_buffer=MIB)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                written = 0
                while not connection.lost:
                    connection.write(b"x" * 100_000)
                    written += 100_000
                    assert written < 64 * MIB
                    await asyncio.sleep(0)
                (error,) = connection.lost
                assert isinstance(error, ConnectionAbortedError)
                assert "max_write_buffer is 1048576" in str(error)
                unsent = int(str(error).partition("] ")[2].split()[0])
                assert MIB < unsent <= MIB + 200_000
                assert served.stats() == stats(accepted=1, write_buffer_overflows=1)

    run_with_clock(main)


@every_kind
def test_a_peer_that_reads_may_be_sent_any_amount(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(max_write_buffer=MIB)) as served:
            peer, connection = await served.peer()
            # Else a reader without a processor has TCP advertise windows smaller than the loopback's segments of
            # 64 KiB, and each of these waits for a timer.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
            with peers(peer):
                for _ in range(16):
                    reading = asyncio.ensure_future(off_loop(read_exactly, peer, 900_000))
                    connection.write(b"x" * 900_000)
                    assert len(await reading) == 900_000
                assert connection.lost == []
                assert served.stats() == stats(accepted=1, active=1)

    run_with_clock(main)


# ---- floods ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def flood(served: Served, room: int, more: int) -> AsyncIterator[tuple[list[Any], list[socket.socket]]]:
    """The peers that there is room for, with their connections, and those that come on top of them."""
    inside = [await served.peer() for _ in range(room)]
    outside = [served.connect() for _ in range(more)]
    with peers(*(peer for peer, _ in inside), *outside):
        yield inside, outside


async def check_refused(served: Served, inside: list[Any], outside: list[socket.socket], **refused: int) -> None:
    """Who is outside is turned away, the others are left alone; when one of these goes there is room for another."""
    count = len(inside)
    for peer in outside:
        assert await gone(peer) == b""
    assert served.stats() == stats(accepted=count, active=count, **refused)
    assert len(served.connections) == count
    assert all(not connection.lost for _, connection in inside)
    leaving, left = inside[0]
    leaving.close()
    await served.until(lambda: bool(left.lost))
    late, _ = await served.peer()
    with peers(late):
        assert served.stats() == stats(accepted=count + 1, active=count, **refused)


@every_kind
def test_a_flood_beyond_max_connections_is_refused(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(max_connections=3)) as served:
            async with flood(served, 3, 7) as (inside, outside):
                await check_refused(served, inside, outside, refused_full=7)

    run_with_clock(main)


@every_kind
def test_connections_beyond_the_limit_can_wait_for_room(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(max_connections=2, when_full="wait")) as served:
            async with flood(served, 2, 3) as (inside, waiting):
                await turns()
                assert served.stats() == stats(accepted=2, active=2, pauses=1)
                for count, (peer, connection) in enumerate(inside, 3):
                    peer.close()
                    await served.until(lambda connection=connection: bool(connection.lost))  # type: ignore[misc]
                    await turns()
                    assert served.stats() == stats(accepted=count, active=2, pauses=count - 1)
                served.server.close()  # with one still waiting
                assert await gone(waiting[2]) == b""

    run_with_clock(main)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "unix" not in kind])
def test_a_flood_from_one_host_leaves_room_for_others(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(max_connections_per_host=2, max_connections=10)) as served:
            async with flood(served, 2, 5) as (inside, outside):
                other = await served.peer("127.0.0.2")
                with peers(other[0]):
                    await check_refused(served, [*inside, other], outside, refused_per_host=5)

    run_with_clock(main)


def test_one_host_is_the_same_over_both_families() -> None:
    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        try:
            listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        except (OSError, ValueError) as error:
            pytest.skip(f"no dual-stack sockets here: {error}")
        limits = hoop.Limits(max_connections_per_host=1)
        server = await loop.create_server(asyncio.Protocol, sock=listener, limits=limits)
        port = listener.getsockname()[1]
        with peers(*(socket.create_connection((host, port), 20) for host in ("127.0.0.1", "127.0.0.1", "::1"))):
            await turns()
            assert server.stats() == stats(accepted=2, active=2, refused_per_host=1)
            server.abort_clients()
        server.close()

    run_with_clock(main)


def test_a_factory_that_fails_takes_no_place() -> None:
    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        reported: list[Any] = []
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))

        def fail() -> asyncio.Protocol:
            raise RuntimeError("no protocol today")

        server = await loop.create_server(fail, "127.0.0.1", 0, limits=hoop.Limits(max_connections=1))
        for count in range(3):
            with socket.create_connection(server.sockets[0].getsockname(), 20) as peer:
                assert await gone(peer) == b""
            assert len(reported) == count + 1
        assert server.stats() == stats()
        server.close()

    run_with_clock(main)


# ---- what the kernel does -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "unix" not in kind])
def test_accepted_sockets_have_the_tcp_options(kind: str) -> None:
    async def main(clock: Clock) -> None:
        limits = hoop.Limits(keepalive_idle=77, keepalive_interval=13, keepalive_count=4)
        async with serving(kind, limits) as served:
            peer, connection = await served.peer()
            with peers(peer):
                assert connection.option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
                idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE
                assert connection.option(socket.IPPROTO_TCP, idle) == 77
                assert connection.option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 13
                assert connection.option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4

    run_with_clock(main)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has TCP_USER_TIMEOUT")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "unix" not in kind])
def test_accepted_sockets_have_the_user_timeout(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with serving(kind, hoop.Limits(user_timeout=12.3456)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                assert connection.option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12346
                assert connection.option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0

    run_with_clock(main)


@pytest.mark.parametrize("option", ["keepalive_idle", "user_timeout", "max_connections_per_host"])
def test_what_is_for_tcp_is_refused_on_unix_sockets(option: str) -> None:
    if option == "user_timeout" and not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("Linux has TCP_USER_TIMEOUT")

    async def main(clock: Clock) -> None:
        for kind in ("unix", "unix-handles"):
            with pytest.raises(ValueError, match=f"{option} is for TCP"):
                async with serving(kind, hoop.Limits(**{option: 5})):
                    raise AssertionError("the server has begun")

    run_with_clock(main)


def test_a_backlog_that_the_kernel_cuts_is_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoop.loop_methods.servers.longest_backlog", lambda: 200)

    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        for backlog in (200, 201):
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=backlog)
            server.close()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run_with_clock(main)
    assert [record.getMessage() for record in caplog.records] == [
        "a backlog of 201 is cut to 200, the system's net.core.somaxconn"
    ]


def test_the_longest_backlog_is_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    path = tmp_path / "somaxconn"
    monkeypatch.setattr("hoop.loop_methods.servers.SOMAXCONN_FILE", path)
    assert longest_backlog() is None
    path.write_text("4096\n")
    assert longest_backlog() == 4096


# ---- streams, loops, arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [asyncio.start_server, hoop.start_server], ids=["asyncio", "hoop"])
def test_streams_pass_limits_on_and_readers_get_the_reason(start: Callable[..., Any]) -> None:
    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        async def serve(reader: Any, writer: Any) -> None:
            try:
                await reader.readline()
            except TimeoutError as error:
                ended.set_result(str(error))
            finally:
                writer.close()

        server = await start(serve, "127.0.0.1", 0, limits=hoop.Limits(idle_timeout=5))
        with socket.create_connection(server.sockets[0].getsockname(), 20) as peer:
            peer.sendall(b"half a line")
            await turns()
            await clock.forward(5.1)
            assert await ended == "the connection was idle for 5 s"
            assert server.stats() == stats(accepted=1, idle_timeouts=1)
        server.close()

    run_with_clock(main)


def test_a_server_without_limits_counts_too() -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                assert served.stats() == stats(accepted=1, active=1)
                peer.close()
                await served.until(lambda: bool(connection.lost))
                await turns()
                assert served.stats() == stats(accepted=1)

    run_with_clock(main)


def test_a_timeout_does_not_keep_run_from_returning() -> None:
    clock = Clock()
    loop = hoop.Loop(clock=clock)
    try:
        server = loop.run_until_complete(
            loop.create_server(asyncio.Protocol, "127.0.0.1", 0, limits=hoop.Limits(idle_timeout=5))
        )
        with socket.create_connection(server.sockets[0].getsockname(), 20) as peer:
            loop.run_until_complete(turns())
            assert server.stats().active == 1
            server.close()
            peer.close()
            loop.run()
            assert server.stats() == stats(accepted=1)
    finally:
        loop.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_abandoned_loop_with_limited_connections_is_collected() -> None:
    async def main(clock: Clock) -> None:
        limits = hoop.Limits(idle_timeout=5, header_timeout=5, first_byte_timeout=5, max_connections_per_host=9)
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, limits=limits)
        sockets = [socket.create_connection(server.sockets[0].getsockname(), 20) for _ in range(5)]
        await turns()
        assert server.stats().active == 5
        for sock in sockets:
            sock.close()

    def alive() -> int:
        gc.collect()
        return sum(type(thing).__name__ in ("ConnectionGuard", "TimeoutQueue") for thing in gc.get_objects())

    before = alive()
    for _ in range(3):
        loop = hoop.Loop(clock=Clock())
        loop.run_until_complete(main(Clock()))
        del loop
    assert alive() == before


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"idle_timeout": 0}, ValueError, "idle_timeout must be more than 0 seconds, not 0"),
        ({"idle_timeout": -1.5}, ValueError, "not -1.5"),
        ({"header_timeout": float("nan")}, ValueError, "not nan"),
        ({"idle_timeout": 10**400}, ValueError, "idle_timeout must be a number of seconds that fits a float"),
        ({"first_byte_timeout": 10**400}, ValueError, "that fits a float"),
        ({"header_timeout": 10**5000}, ValueError, "that fits a float"),
        ({"user_timeout": 10**400}, ValueError, "that fits a float"),
        ({"first_byte_timeout": "5"}, TypeError, "first_byte_timeout must be a number of seconds or None, not '5'"),
        ({"idle_timeout": True}, TypeError, "not True"),
        ({"max_connections": 0}, ValueError, "max_connections must be between 1 and 2147483647, not 0"),
        ({"max_connections_per_host": 2.0}, TypeError, "not 2.0"),
        ({"max_write_buffer": 1 << 40}, ValueError, "not 1099511627776"),
        ({"keepalive_count": -1}, ValueError, "keepalive_count"),
        ({"user_timeout": float("inf")}, ValueError, "user_timeout must be at most 2147483 seconds, not inf"),
        ({"when_full": "drop"}, ValueError, "when_full must be 'refuse' or 'wait', not 'drop'"),
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        hoop.Limits(**arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 10**300], ids=["infinite", "float", "int"])
def test_an_infinite_timeout_never_ends_anything(seconds: float) -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", hoop.Limits(idle_timeout=seconds)) as served:
            peer, connection = await served.peer()
            with peers(peer):
                await clock.forward(1e6)
                assert connection.lost == []

    run_with_clock(main)


def test_other_limits_are_refused() -> None:
    async def main(clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError, match=r"limits must be a hoop\.Limits, not \{'idle_timeout': 5\}"):
            await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, limits={"idle_timeout": 5})

    run_with_clock(main)
