"""Socket handles: the events of a connection and their order, writing, timeouts; asyncio's transports do the work."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoop
import pytest
from conformance.peers import DEADLINE_S, pattern, refused_port, reset
from handle_events import Log, dial, until
from limited import Clock

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "hoop"

pytestmark = pytest.mark.usefixtures("problems")


# ---- the same core as asyncio's -------------------------------------------------------------------------------------


@pytest.fixture
def loop_name() -> str:
    return "hoop"


def test_a_handle_is_over_the_transport_that_asyncio_connections_have(loop: Any) -> None:
    made: list[Any] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(transport)

    handles = loop.listen_tcp(lambda handle: made.append(handle.transport))
    streams = loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0))
    with dial(handles), socket.create_connection(streams.sockets[0].getsockname(), DEADLINE_S):
        loop.run_until_complete(until(lambda: len(made) == 2))
        assert type(made[0]) is type(made[1])
        assert type(made[0]).__name__ == "StreamTransport"
        assert type(made[0]).write is type(made[1]).write
        for transport in made:
            transport.abort()
    handles.close()
    streams.close()
    loop.run()


def test_only_the_transports_move_bytes() -> None:
    """Of all modules only the transports' own may call the functions of csrc that receive and send on a stream."""
    callers = {
        path.stem
        for path in PACKAGE.rglob("*.pyx")
        if re.search(r"\bhoop_net_(recv|send|sendv|read|write|writev)\(", path.read_text())
    }
    # sockops: sock_recv and sock_sendall; proxy_listener: a header, taken before there is a transport
    assert callers - {"sockops", "proxy_listener"} == {"stream", "pipe"}
    for path in (PACKAGE / "handles").glob("*.pyx"):
        assert "csrc cimport *" not in path.read_text()


# ---- events ---------------------------------------------------------------------------------------------------------


def test_the_events_of_a_conversation(loop: Any, log: Log) -> None:
    def accept(handle: hoop.Socket) -> None:
        log.append(("server", "connection"))
        log.watch(handle, "server")
        handle.on_data = lambda _, data: (log.append(("server", "data", data)), handle.end(b"pong"))

    server = loop.listen_tcp(accept)
    client = log.watch(loop.connect_tcp(*server.address), "client")
    client.on_connect = lambda _: (log.append(("client", "connect")), client.write(b"ping"))
    client.on_close = lambda _: (log.append(("client", "close")), server.close())
    assert client.is_connecting
    loop.run()
    assert log.of("server") == ["connection", ("data", b"ping"), "end", "close"]
    assert log.of("client") == ["connect", ("data", b"pong"), "end", "close"]
    assert client.is_closed and not client.is_connecting
    assert (client.bytes_read, client.bytes_written, client.error) == (4, 4, None)


def test_what_is_written_while_connecting_comes_first(loop: Any, log: Log) -> None:
    got: list[bytes] = []

    def accept(handle: hoop.Socket) -> None:
        handle.on_data = lambda _, data: got.append(data)

    server = loop.listen_tcp(accept)
    client = loop.connect_tcp(*server.address, lambda handle: handle.end(b"three"))
    assert client.write(b"one ")
    assert client.write(bytearray(b"two "))
    assert client.write_buffer_size == 8
    client.resume()  # to see the other end's
    client.on_close = lambda _: server.close()
    loop.run()
    assert b"".join(got) == b"one two three"
    assert client.bytes_written == 13


def test_much_written_while_connecting_asks_to_wait_for_drain(loop: Any, log: Log) -> None:
    size = 0

    def accept(handle: hoop.Socket) -> None:
        def count(_: hoop.Socket, data: bytes) -> None:
            nonlocal size
            size += len(data)

        handle.on_data = count

    server = loop.listen_tcp(accept)
    client = log.watch(loop.connect_tcp(*server.address), "client")
    assert client.write(b"x" * 60_000)
    assert not client.write(b"x" * 2_000_000)
    client.on_drain = lambda _: (log.append(("client", "drain")), client.end())
    client.on_close = lambda _: (log.append(("client", "close")), server.close())
    loop.run()
    assert size == 2_060_000
    assert log.of("client") == ["connect", "drain", "end", "close"]


def test_end_before_the_connection_stands(loop: Any, log: Log) -> None:
    got: list[bytes] = []

    def accept(handle: hoop.Socket) -> None:
        handle.on_data = lambda _, data: got.append(data)

    server = loop.listen_tcp(accept)
    client = log.watch(loop.connect_tcp(*server.address), "client")
    client.end(b"all there is")
    client.on_close = lambda _: (log.append(("client", "close")), server.close())
    with pytest.raises(RuntimeError, match="after end"):
        client.write(b"more")
    loop.run()
    assert got == [b"all there is"]
    assert log.of("client") == ["connect", "end", "close"]


def test_a_refused_connection_is_an_error_then_close(loop: Any, log: Log) -> None:
    client = log.watch(loop.connect_tcp("127.0.0.1", refused_port()), "client")
    client.write(b"lost")
    loop.run()
    (kind, error), last = log.of("client")
    assert (kind, last) == ("error", "close")
    assert isinstance(error, ConnectionRefusedError) and client.error is error
    assert not client.write(b"dropped")
    assert repr(client) == "<Socket closed>"


def test_a_reset_is_an_error_then_close(loop: Any, log: Log) -> None:
    server = loop.listen_tcp(lambda handle: log.watch(handle, "server"))
    peer = dial(server)
    loop.run_until_complete(until(lambda: server.stats().active == 1))
    reset(peer)
    server.close()
    loop.run()
    (kind, error), last = log.of("server")
    assert (kind, last) == ("error", "close")
    assert isinstance(error, ConnectionResetError)


def test_an_error_that_nobody_asked_for_is_reported(loop: Any, problems: list[dict[str, Any]]) -> None:
    closed: list[Any] = []
    client = loop.connect_tcp("127.0.0.1", refused_port())
    client.on_close = lambda handle: closed.append(handle.error)
    loop.run()
    (told,) = problems
    assert told["message"].startswith("a socket without on_error has failed: <Socket")
    assert closed == [told["exception"]] and isinstance(closed[0], ConnectionRefusedError)
    problems.clear()


def test_whatever_keeps_a_socket_from_connecting_is_its_error(
    loop: Any, problems: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("on the way")

    monkeypatch.setattr(loop, "_connect_any", fail)
    client = loop.connect_tcp("127.0.0.1", refused_port())
    loop.run()
    assert isinstance(client.error, ZeroDivisionError)
    (told,) = problems
    assert told["exception"] is client.error
    problems.clear()


@pytest.mark.parametrize("error", ["broken", 5, ValueError])
def test_destroy_takes_exceptions_only(loop: Any, log: Log, error: Any) -> None:
    server = loop.listen_tcp(lambda handle: handle.resume())
    client = log.watch(loop.connect_tcp(*server.address), "client")
    with pytest.raises(TypeError, match="must be an exception or None"):
        client.destroy(error)
    assert not client.is_closed
    client.destroy()
    server.close()
    loop.run()
    assert log.of("client") == ["close"]


@pytest.mark.parametrize("when", ["at once", "connected"])
@pytest.mark.parametrize("error", [None, ValueError("enough")])
def test_destroy_is_followed_by_error_and_close_once(loop: Any, log: Log, when: str, error: Any) -> None:
    server = loop.listen_tcp(lambda handle: handle.resume())
    client = log.watch(loop.connect_tcp(*server.address), "client")

    def destroy(handle: hoop.Socket) -> None:
        handle.destroy(error)
        handle.destroy(RuntimeError("a later cause does not count"))
        assert handle.is_closed
        assert log == []  # neither comes from inside destroy()

    if when == "at once":
        destroy(client)
    else:
        client.on_connect = destroy
    client.on_close = lambda _: (log.append(("client", "close")), server.close())
    loop.run()
    assert log.of("client") == ([("error", error)] if error else []) + ["close"]
    assert client.error is error


def test_destroy_while_the_connection_is_being_made_known(loop: Any, log: Log) -> None:
    """Between connect(2) and on_connect: then on_connect does not come."""
    server = loop.listen_tcp(lambda handle: handle.resume())
    for turns in range(12):
        client = log.watch(loop.connect_tcp(*server.address), f"client {turns}")

        async def wait(turns: int = turns) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        loop.run_until_complete(wait())
        had_connected = log.of(f"client {turns}") == ["connect"]
        client.destroy()
        loop.run_until_complete(until(lambda turns=turns: "close" in log.of(f"client {turns}")))  # type: ignore[misc]
        assert log.of(f"client {turns}") == (["connect", "close"] if had_connected else ["close"])
    server.close()
    loop.run()


def test_microtasks_run_after_each_event(loop: Any, log: Log) -> None:
    def noting(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            log.append(name)
            loop.queue_microtask(log.append, f"after {name}")
            loop.next_tick(log.append, f"next after {name}")

        return note

    def accept(handle: hoop.Socket) -> None:
        noting("connection")()
        handle.on_data, handle.on_end = noting("data"), noting("end")
        handle.on_error, handle.on_close = noting("error"), noting("close")

    server = loop.listen_tcp(accept)
    with dial(server) as peer:
        peer.sendall(b"x")
        loop.run_until_complete(until(lambda: "after data" in log))
        peer.shutdown(socket.SHUT_WR)
        server.close()
        loop.run()
    names = ["connection", "data", "end", "close"]
    assert log == [text for name in names for text in (name, f"next after {name}", f"after {name}")]
    log.clear()
    client = loop.connect_tcp("127.0.0.1", refused_port())
    client.on_error, client.on_close = noting("error"), noting("close")
    loop.run()
    assert log == [text for name in ("error", "close") for text in (name, f"next after {name}", f"after {name}")]


def test_callbacks_that_raise_end_the_connection_and_are_reported(
    loop: Any, log: Log, problems: list[dict[str, Any]]
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("in a callback")

    for event in ("on_connection", "on_data", "on_end"):

        def accept(handle: hoop.Socket, event: str = event) -> None:
            log.watch(handle, event)
            if event == "on_connection":
                fail()
            setattr(handle, event, fail)

        server = loop.listen_tcp(accept)
        with dial(server) as peer:
            peer.sendall(b"x")
            peer.shutdown(socket.SHUT_WR)
            loop.run_until_complete(until(lambda event=event: "close" in log.of(event)))  # type: ignore[misc]
        server.close()
        loop.run()
        error = next(one for one in log.of(event) if one[0] == "error")
        assert isinstance(error[1], ZeroDivisionError)
        (told,) = problems
        assert told["exception"] is error[1]
        problems.clear()


def test_last_callbacks_that_raise_are_reported_and_change_nothing(loop: Any, problems: list[dict[str, Any]]) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("in a last callback")

    client = loop.connect_tcp("127.0.0.1", refused_port())
    client.on_error = client.on_close = fail
    loop.run()
    assert [told["message"] for told in problems] == [
        "Exception in on_error of a socket",
        "Exception in on_close of a socket",
    ]
    problems.clear()


# ---- reading --------------------------------------------------------------------------------------------------------


def test_nothing_is_shown_before_somebody_wants_it(loop: Any, log: Log) -> None:
    handles: list[hoop.Socket] = []
    server = loop.listen_tcp(handles.append)
    with dial(server) as peer:
        peer.sendall(b"early")
        loop.run_until_complete(until(lambda: bool(handles)))
        (handle,) = handles
        log.watch(handle, "server", data=False)
        loop.run_until_complete(until(lambda: handle.bytes_read == 5))  # taken, to see what may be behind it
        assert log.of("server") == []
        log.watch(handle, "server")
        loop.run_until_complete(until(lambda: log.of("server") == [("data", b"early")]))
        handle.pause()
        peer.sendall(b"late")
        loop.run_until_complete(until(lambda: handle.bytes_read == 9))
        assert log.of("server") == [("data", b"early")]
        handle.resume()
        handle.on_data = None  # resumed without on_data: what comes is dropped, and counted
        peer.shutdown(socket.SHUT_WR)
        server.close()
        loop.run()
    assert log.of("server") == [("data", b"early"), "end", "close"]
    assert handle.bytes_read == 9


def test_pause_before_on_data_is_set_lasts(loop: Any, log: Log) -> None:
    def accept(handle: hoop.Socket) -> None:
        handle.pause()
        log.watch(handle, "server")
        loop.call_soon(lambda: (log.append(("server", "resume")), handle.resume()))

    server = loop.listen_tcp(accept)
    with dial(server) as peer:
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        loop.run_until_complete(until(lambda: "close" in log.of("server")))
    server.close()
    loop.run()
    assert log.of("server") == ["resume", ("data", b"x"), "end", "close"]


# ---- ending ---------------------------------------------------------------------------------------------------------


def test_half_open_if_allowed(loop: Any, log: Log) -> None:
    def accept(handle: hoop.Socket) -> None:
        log.watch(handle, "server")
        handle.on_end = lambda _: (log.append(("server", "end")), loop.call_soon(finish, handle))

    def finish(handle: hoop.Socket) -> None:
        assert not handle.is_closed
        handle.write(b"still ")
        handle.end(b"here")

    server = loop.listen_tcp(accept, allow_half_open=True)
    with dial(server) as peer:
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        loop.run_until_complete(until(lambda: "close" in log.of("server")))
        server.close()
        loop.run()
        assert peer.recv(100) == b"still here"
        assert peer.recv(100) == b""
    assert log.of("server") == [("data", b"x"), "end", "close"]


def test_without_it_the_peers_end_closes_after_what_was_written(loop: Any, log: Log) -> None:
    body = pattern(3_000_000)

    def accept(handle: hoop.Socket) -> None:
        log.watch(handle, "server")
        handle.on_end = lambda _: handle.write(body)

    server = loop.listen_tcp(accept)
    got = bytearray()
    client = loop.connect_tcp(*server.address, lambda handle: handle.end())
    client.on_data = lambda _, data: got.extend(data)
    client.on_close = lambda _: server.close()
    loop.run()
    assert bytes(got) == body
    assert log.of("server")[-1] == "close"


def test_drain_comes_after_write_has_returned_false(loop: Any, log: Log) -> None:
    handles: list[hoop.Socket] = []
    server = loop.listen_tcp(lambda handle: handles.append(log.watch(handle, "server")))
    with dial(server) as peer:
        loop.run_until_complete(until(lambda: bool(handles)))
        (handle,) = handles
        written = 0
        assert handle.write(b"x")  # it fits
        written += 1
        while handle.write(b"x" * 100_000):  # the loop is not running: the kernel is asked at once
            written += 100_000
        written += 100_000
        assert handle.write_buffer_size > 0
        assert log.of("server") == []
        received = 0
        peer.setblocking(False)

        def read() -> None:
            nonlocal received
            with contextlib.suppress(BlockingIOError):
                received += len(peer.recv(1 << 20))

        loop.add_reader(peer, read)
        loop.run_until_complete(until(lambda: received == written))
        loop.remove_reader(peer)
        assert log.of("server") == ["drain"]
        assert handle.bytes_written == written and handle.write_buffer_size == 0
        handle.destroy()
        server.close()
        loop.run()


def test_after_end_nobody_waits_for_drain(loop: Any, log: Log) -> None:
    def accept(handle: hoop.Socket) -> None:
        log.watch(handle, "server")
        assert not handle.write(b"x" * 4_000_000) or not handle.write(b"x" * 4_000_000)
        handle.end()

    server = loop.listen_tcp(accept)
    client = loop.connect_tcp(*server.address)
    client.resume()
    client.on_close = lambda _: server.close()
    loop.run()
    assert client.bytes_read >= 4_000_000
    assert log.of("server") == ["end", "close"]


# ---- time -----------------------------------------------------------------------------------------------------------


def test_a_timeout_is_told_once_per_silence_and_closes_nothing(log: Log) -> None:
    clock = Clock()
    loop = hoop.Loop(clock=clock)
    with contextlib.closing(loop):
        handles: list[hoop.Socket] = []
        server = loop.listen_tcp(lambda handle: handles.append(log.watch(handle, "server")))
        with dial(server) as peer:
            loop.run_until_complete(until(lambda: bool(handles)))
            (handle,) = handles
            handle.set_timeout(5)
            assert handle.timeout == 5
            loop.run_until_complete(clock.forward(4.9))
            assert log.of("server") == []
            loop.run_until_complete(clock.forward(0.2))
            loop.run_until_complete(clock.forward(20))
            assert log.of("server") == ["timeout"]
            handle.write(b"activity")
            loop.run_until_complete(clock.forward(5.1))
            peer.sendall(b"x")
            loop.run_until_complete(until(lambda: handle.bytes_read == 1))
            loop.run_until_complete(clock.forward(5.1))
            assert log.of("server") == ["timeout", "timeout", ("data", b"x"), "timeout"]
            handle.set_timeout(2, lambda _: log.append(("server", "another")))
            loop.run_until_complete(clock.forward(2.1))
            handle.set_timeout(None)
            handle.write(b"activity")
            loop.run_until_complete(clock.forward(100))
            assert log.of("server")[4:] == ["another"]
            assert not handle.is_closed
            handle.set_timeout(5, lambda handle: handle.destroy(TimeoutError("silent for too long")))
            loop.run_until_complete(clock.forward(5.1))
            server.close()
            loop.run()
            assert [event[0] if type(event) is tuple else event for event in log.of("server")[5:]] == ["error", "close"]


def test_a_timeout_set_while_connecting_holds(log: Log) -> None:
    clock = Clock()
    loop = hoop.Loop(clock=clock)
    with contextlib.closing(loop):
        server = loop.listen_tcp(lambda handle: handle.resume())
        client = log.watch(loop.connect_tcp(*server.address), "client")
        client.set_timeout(5)
        loop.run_until_complete(until(lambda: log.of("client") == ["connect"]))
        loop.run_until_complete(clock.forward(5.1))
        assert log.of("client") == ["connect", "timeout"]
        client.destroy()
        server.close()
        loop.run()


@pytest.mark.parametrize(("value", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("5", TypeError)])
def test_a_timeout_that_is_no_time_is_refused(loop: Any, value: Any, kind: type[Exception]) -> None:
    client = loop.connect_tcp("127.0.0.1", refused_port())
    client.on_error = lambda *_: None
    with pytest.raises(kind, match=re.escape(repr(value))):
        client.set_timeout(value)
    loop.run()


# ---- options, addresses, references ---------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [False, True])
def test_tcp_options(loop: Any, early: bool) -> None:
    server = loop.listen_tcp(lambda handle: handle.resume())
    client = loop.connect_tcp(*server.address)

    def set_options(_: hoop.Socket) -> None:
        client.set_keepalive(idle=70, interval=7, count=3)
        client.set_nodelay(False)

    def option(level: int, name: int) -> int:
        transport: Any = client.transport
        return transport.get_extra_info("socket").getsockopt(level, name)

    def look(_: hoop.Socket) -> None:
        if not early:
            set_options(client)
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 7
        assert option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        client.set_nodelay()
        client.set_keepalive(False)
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        client.set_keepalive()
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert client.remote_address == server.address
        assert client.local_address[0] == "127.0.0.1"
        client.end()

    if early:
        set_options(client)
    client.on_connect = look
    client.on_close = lambda _: server.close()
    client.resume()
    loop.run()
    assert client.error is None


def test_references(loop: Any, log: Log) -> None:
    handles: list[hoop.Socket] = []

    def accept(handle: hoop.Socket) -> None:
        handles.append(log.watch(handle, "server"))
        if len(handles) == 2:
            handle.unref()

    server = loop.listen_tcp(accept)
    assert server.has_ref()
    server.unref()
    loop.run()  # nothing else
    with dial(server):
        loop.run_until_complete(until(lambda: bool(handles)))
        (handle,) = handles
        assert handle.has_ref() and handle.unref() is handle and not handle.has_ref()
        loop.run()
        handle.ref()
        loop.call_soon(handle.destroy)
        loop.run()
        assert log.of("server") == ["close"]
    client = loop.connect_tcp(*server.address).unref()
    client.on_connect = lambda _: log.append("connected")
    client.resume()
    loop.run()
    assert log[-1] == "connected"  # connecting is work, an idle connection is not
    client.destroy()
    server.ref().close()
    loop.run()


def test_a_server_tells_when_its_last_connection_has_ended(loop: Any, log: Log) -> None:
    handles: list[hoop.Socket] = []
    server = loop.listen_tcp(lambda handle: handles.append(log.watch(handle, "server")))
    server.on_close = lambda one: log.append(("listener", "close", one is server))
    with dial(server) as peer:
        loop.run_until_complete(until(lambda: bool(handles)))
        server.close()
        assert server.address is None
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        assert log == []
        peer.close()
        loop.run()
    assert log == [("server", "end"), ("server", "close"), ("listener", "close", True)]
