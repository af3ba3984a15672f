"""Native handles live until they are closed, and their loop owns them: what an open one waits for does not matter.

Public reports of connections that the collector had closed or that stayed for ever: nodejs/node#1180 (an unread socket
and its end), bun#33669.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from conformance.peers import DEADLINE_S, SETTLING_TURNS
from conformance.test_lifetime import open_descriptors
from conformance.tls_peers import NAME, client_context, server_context
from handle_events import Log, dial, until

FAR_MORE_THAN_KEPT = 4 << 20
KEPT_BYTES = 64 * 1024
LARGEST_READ = 256 * 1024

pytestmark = pytest.mark.usefixtures("problems")


@pytest.fixture
def loop_name() -> str:
    return "hoop"


def collect_in_turns(loop: Any, turns: int = 5) -> None:
    for _ in range(turns):
        loop.run_until_complete(asyncio.sleep(0))
        gc.collect()


# ---- who owns an open handle -----------------------------------------------------------------------------------------


def test_a_connection_that_waits_only_for_its_timeout_stays_open(log: Log) -> None:
    now_ns = 0
    loop: Any = hoop.Loop(clock=lambda: now_ns)

    def serve(handle: hoop.Socket) -> None:
        log.watch(handle, "server", data=False)
        handle.set_timeout(5, lambda handle: (log.append(("server", "timeout")), handle.destroy()))

    server = loop.listen_tcp(serve)
    with dial(server):
        loop.run_until_complete(until(lambda: server.stats().accepted == 1))
        collect_in_turns(loop)
        assert log.of("server") == []
        now_ns = 6_000_000_000
        loop.run_until_complete(until(lambda: "close" in log.of("server")))
    assert log.of("server") == ["timeout", "close"]
    server.close()
    loop.close()


def paused(handle: hoop.Socket, peer: socket.socket) -> None:
    handle.pause()


def unreferenced(handle: hoop.Socket, peer: socket.socket) -> None:
    handle.pause()
    handle.unref()


def flooded(handle: hoop.Socket, peer: socket.socket) -> None:
    """So much is unread that the transport waits for nothing."""
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            peer.send(bytes(65536))


def half_closed(handle: hoop.Socket, peer: socket.socket) -> None:
    handle.resume()
    peer.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("make_idle", [paused, unreferenced, flooded, half_closed], ids=lambda make: make.__name__)
def test_an_open_connection_is_not_collected(loop: Any, log: Log, make_idle: Callable[..., None]) -> None:
    seen: list[Any] = []

    def serve(handle: hoop.Socket) -> None:
        seen.append(weakref.ref(handle))
        handle.on_close = lambda _: log.append(("server", "close"))

    server = loop.listen_tcp(serve, allow_half_open=True)
    with dial(server) as peer:
        loop.run_until_complete(until(lambda: bool(seen)))
        make_idle(seen[0](), peer)
        collect_in_turns(loop, 20)
        assert log.of("server") == []
        seen[0]().destroy()
        loop.run_until_complete(until(lambda: log.of("server") == ["close"]))
    collect_in_turns(loop)
    assert seen[0]() is None  # closed, it is nobody's
    server.close()


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("end", ["server", "client"])
def test_an_open_tls_connection_is_not_collected(loop: Any, log: Log, end: str) -> None:
    seen: dict[str, Any] = {}

    def note(name: str, handle: hoop.Socket) -> None:
        log.watch(handle, name, data=False)
        seen[name] = weakref.ref(handle)
        handle.write(b"unread" * 1000)
        handle.pause()

    server = loop.listen_tcp(lambda handle: note("server", handle), ssl=server_context())
    loop.connect_tcp(*server.address, lambda handle: note("client", handle), ssl=client_context(), server_hostname=NAME)
    loop.run_until_complete(until(lambda: len(seen) == 2))
    loop.run_until_complete(until(lambda: seen[end]().bytes_read > 0))
    collect_in_turns(loop)
    assert "close" not in log.of("server") + log.of("client")
    seen[end]().destroy()
    loop.run_until_complete(until(lambda: "close" in log.of(end)))
    for handle in filter(None, (made() for made in seen.values())):
        handle.destroy()
    server.close()
    loop.run()


@pytest.mark.parametrize("ssl", [None, "in handshake"])
def test_a_socket_that_connects_is_not_collected(loop: Any, log: Log, ssl: Any) -> None:
    """With TLS its peer never answers the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        options = {} if ssl is None else {"ssl": client_context(), "server_hostname": NAME}
        reference = weakref.ref(log.watch(loop.connect_tcp(host, port, **options), "client"))
        collect_in_turns(loop, 20)
        assert log.of("client") == (["connect"] if ssl is None else [])
        reference().destroy()
        loop.run_until_complete(until(lambda: "close" in log.of("client")))
    collect_in_turns(loop)
    assert reference() is None


def test_a_listening_handle_is_not_collected(loop: Any, log: Log) -> None:
    address = loop.listen_tcp(lambda handle: (log.watch(handle, "server"), handle.destroy())).address
    collect_in_turns(loop)
    with socket.create_connection(address, DEADLINE_S):
        loop.run_until_complete(until(lambda: log.of("server") == ["close"]))


def test_a_full_server_whose_connections_wait_for_nothing_is_not_collected(loop: Any) -> None:
    handles: list[Any] = []
    limits = hoop.Limits(max_connections=1, when_full="wait")
    address = loop.listen_tcp(lambda handle: handles.append(weakref.ref(handle)), limits=limits).address
    with socket.create_connection(address, DEADLINE_S), socket.create_connection(address, DEADLINE_S):
        loop.run_until_complete(until(lambda: len(handles) == 1))
        collect_in_turns(loop)
        assert len(handles) == 1
        handles[0]().destroy()
        loop.run_until_complete(until(lambda: len(handles) == 2))
        handles[1]().destroy()


@pytest.mark.parametrize("when", ["before it has begun", "later"])
def test_a_paused_udp_socket_is_not_collected(loop: Any, when: str) -> None:
    told: list[str] = []
    handle = loop.bind_udp(None)
    handle.on_close = lambda _: told.append("close")
    if when == "later":
        loop.run_until_complete(asyncio.sleep(0))
    handle.pause()
    reference = weakref.ref(handle)
    del handle
    collect_in_turns(loop)
    assert told == []
    reference().unref().close()
    loop.run_until_complete(until(lambda: told == ["close"]))
    collect_in_turns(loop)
    assert reference() is None


def test_timers_are_not_collected(loop: Any) -> None:
    told: list[str] = []
    loop.set_timeout(lambda: told.append("timeout"), 0.001).unref()
    loop.set_interval(lambda: told.append("interval"), 0.001).unref()
    loop.set_immediate(lambda: told.append("immediate"))
    gc.collect()
    loop.run_until_complete(until(lambda: told.count("interval") > 1 and {"timeout", "immediate"} < set(told)))


def test_an_abandoned_loop_is_collected_with_its_open_handles(loop_factory: Callable[[], Any]) -> None:
    """Owned by their loop does not mean owned by the process."""
    gc.collect()
    before = open_descriptors()
    loop = loop_factory()
    accepted: list[hoop.Socket] = []
    server = loop.listen_tcp(accepted.append)
    client = loop.connect_tcp(*server.address)
    tls_server = loop.listen_tcp(accepted.append, ssl=server_context())
    tls = loop.connect_tcp(*tls_server.address, ssl=client_context(), server_hostname=NAME)
    udp = loop.bind_udp(None)
    loop.run_until_complete(until(lambda: len(accepted) == 2 and not tls.is_connecting and not client.is_connecting))
    handles = [*accepted, client, tls, udp]
    for handle in handles:
        handle.pause()
        handle.on_close = lambda _: handles  # a cycle through each
    loop.set_interval(lambda: accepted, 60)
    reference = weakref.ref(loop)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop, server, client, tls_server, tls, udp, handles, handle
        accepted.clear()
        gc.collect()
        gc.collect()
    told = [str(warning.message) for warning in caught]
    caught.clear()  # a warning keeps its source, and from Python 3.15 on a weak reference shows that
    gc.collect()
    assert reference() is None
    assert open_descriptors() == before
    assert sum("unclosed event loop" in message for message in told) == 1


# ---- what a handle that is not read does when its peer goes (the table in docs/handles.md) ---------------------------

END, CLOSE, RESET = "end", "close", ("error", "ConnectionResetError")

# how our side is; what the peer had sent before; what it does; what our side is told. From Node.js 20.
ROWS = [
    ("unread", 0, "ends", [END, CLOSE]),
    ("unread", 0, "resets", [RESET, CLOSE]),
    ("unread", 1, "ends", []),
    ("unread", 1, "resets", [RESET, CLOSE]),
    ("unread", FAR_MORE_THAN_KEPT, "ends", []),
    ("unread", FAR_MORE_THAN_KEPT, "resets", []),
    ("unread, ended", 0, "ends", [END, CLOSE]),
    ("unread, ended", 0, "resets", [RESET, CLOSE]),
    ("unread, ended", 1, "ends", []),
    ("unread, ended", 1, "resets", [RESET, CLOSE]),
    ("paused", 0, "ends", [END, CLOSE]),
    ("paused", 0, "resets", [RESET, CLOSE]),
    ("paused", 1, "ends", []),
    ("paused", 1, "resets", [RESET, CLOSE]),
    ("half-open, unread", 0, "ends", [END]),
    ("half-open, unread", 0, "resets", [RESET, CLOSE]),
    ("half-open, unread", 1, "ends", []),
    ("half-open, unread, ended", 0, "ends", [END, CLOSE]),
    ("half-open, unread, ended", 1, "ends", []),
    ("read", 0, "ends", [END, CLOSE]),
    ("read", FAR_MORE_THAN_KEPT, "ends", [END, CLOSE]),
    ("read", 0, "resets", [RESET, CLOSE]),
    ("read, ended", 1, "ends", [END, CLOSE]),
    ("half-open, read", 1, "ends", [END]),
]


def part(peer: socket.socket, how: str) -> None:
    if how == "ends":
        peer.shutdown(socket.SHUT_WR)
    else:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()


def in_state(state: str, log: Log, handle: hoop.Socket) -> None:
    log.watch(handle, "server", data=False)
    handle.on_error = lambda _, error: log.append(("server", "error", type(error).__name__))
    if "unread" not in state:
        handle.on_data = lambda _, data: None
    if "paused" in state:
        handle.pause()
    if "ended" in state:
        handle.end(b"answer")


async def send(peer: socket.socket, handle: hoop.Socket, size: int) -> None:
    """Send so much, or as much as two kernels and an end that is not read have room for."""
    data = memoryview(bytes(size))
    turns_without_room = 0
    peer.setblocking(False)
    while data and turns_without_room < SETTLING_TURNS:
        try:
            data = data[peer.send(data) :]
            turns_without_room = 0
        except BlockingIOError:
            turns_without_room += 1
            await asyncio.sleep(0)
    if not data and (size <= KEPT_BYTES or handle.on_data is not None):
        await until(lambda: handle.bytes_read == size)


@pytest.mark.parametrize(("state", "sent", "how", "expected"), ROWS)
def test_what_ends_a_handle(loop: Any, log: Log, state: str, sent: int, how: str, expected: list[Any]) -> None:
    handles: list[hoop.Socket] = []
    server = loop.listen_tcp(
        lambda handle: (handles.append(handle), in_state(state, log, handle)), allow_half_open="half-open" in state
    )
    with dial(server) as peer:
        loop.run_until_complete(until(lambda: bool(handles)))
        (handle,) = handles
        loop.run_until_complete(send(peer, handle, sent))
        part(peer, how)
        loop.run_until_complete(until(lambda: len(log.of("server")) >= len(expected)))
        collect_in_turns(loop, 10)
        assert log.of("server") == expected
        if sent > KEPT_BYTES and expected == []:
            assert KEPT_BYTES <= handle.bytes_read < KEPT_BYTES + LARGEST_READ
        if expected == [] and sent <= KEPT_BYTES:
            handle.resume()  # what was unread is dropped: now the end is seen
            ends_all = "half-open" not in state or "ended" in state
            loop.run_until_complete(until(lambda: log.of("server") == ([END, CLOSE] if ends_all else [END])))
        handle.destroy()
        loop.run_until_complete(until(lambda: log.of("server")[-1] == CLOSE))
    server.close()


def receive_unread(loop: Any, log: Log, handles: list[hoop.Socket], peer: socket.socket) -> hoop.Socket:
    """Three pieces and the end, of which nothing is shown yet."""
    received = 0
    for piece in (b"one", b"two", b"three"):
        peer.sendall(piece)
        received += len(piece)
        loop.run_until_complete(until(lambda: bool(handles) and handles[0].bytes_read == received))
    peer.shutdown(socket.SHUT_WR)
    collect_in_turns(loop)
    assert log.of("server") == []
    return handles[0]


@pytest.fixture
def handles() -> list[hoop.Socket]:
    return []


@pytest.fixture
def server(loop: Any, log: Log, handles: list[hoop.Socket]) -> Iterator[hoop.SocketServer]:
    server = loop.listen_tcp(lambda handle: (handles.append(handle), log.watch(handle, "server", data=False)))
    yield server
    server.close()


def shown_to(log: Log, act: Callable[..., Any] = lambda *_: None) -> Callable[..., None]:
    def on_data(handle: hoop.Socket, data: bytes) -> None:
        log.append(("server", "data", data))
        act(handle, data)

    return on_data


def test_what_was_unread_comes_in_order_then_the_end(loop: Any, log: Log, handles: Any, server: Any) -> None:
    with dial(server) as peer:
        handle = receive_unread(loop, log, handles, peer)
        handle.on_data = shown_to(log, lambda *_: loop.queue_microtask(log.append, ("server", "microtask")))
        assert log.of("server") == []  # never from inside the setter
        loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
    assert log.of("server") == [
        *(event for piece in (b"one", b"two", b"three") for event in (("data", piece), "microtask")),
        END,
        CLOSE,
    ]


def test_pause_holds_what_is_still_unread(loop: Any, log: Log, handles: Any, server: Any) -> None:
    with dial(server) as peer:
        handle = receive_unread(loop, log, handles, peer)
        handle.on_data = shown_to(log, lambda handle, _: handle.pause())
        for count in (1, 2):
            loop.run_until_complete(until(lambda: len(log.of("server")) == count))
            collect_in_turns(loop)
            assert len(log.of("server")) == count
            handle.resume()
        # Nothing is behind the third piece but the end.
        loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
    assert log.of("server") == [("data", b"one"), ("data", b"two"), ("data", b"three"), END, CLOSE]


@pytest.mark.parametrize("how", ["destroy", "close by the transport"])
def test_closing_in_on_data_shows_nothing_more(loop: Any, log: Log, handles: Any, server: Any, how: str) -> None:
    with dial(server) as peer:
        handle = receive_unread(loop, log, handles, peer)
        close = handle.destroy if how == "destroy" else handle.transport.close
        handle.on_data = shown_to(log, lambda *_: close())
        loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
        collect_in_turns(loop)
    assert log.of("server") == [("data", b"one"), CLOSE]


def test_on_data_that_raises_for_unread_bytes_ends_the_connection(
    loop: Any, log: Log, handles: Any, server: Any, problems: list[dict[str, Any]]
) -> None:
    def fail(handle: hoop.Socket, data: bytes) -> None:
        raise ZeroDivisionError

    with dial(server) as peer:
        handle = receive_unread(loop, log, handles, peer)
        handle.on_data = shown_to(log, fail)
        loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
    (problem,) = problems
    problems.clear()
    assert isinstance(problem["exception"], ZeroDivisionError)
    assert problem["transport"] is handle.transport
    assert [event[0] if type(event) is tuple else event for event in log.of("server")] == ["data", "error", "close"]


def test_an_interrupt_in_on_data_loses_nothing_that_is_unread(loop: Any, log: Log, handles: Any, server: Any) -> None:
    def interrupt(handle: hoop.Socket, data: bytes) -> None:
        if data == b"one":
            raise KeyboardInterrupt

    with dial(server) as peer:
        handle = receive_unread(loop, log, handles, peer)
        handle.on_data = shown_to(log, interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
        loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
    assert log.of("server") == [("data", b"one"), ("data", b"two"), ("data", b"three"), END, CLOSE]


@pytest.mark.each_tls_engine
def test_an_unread_tls_connection_sees_its_end_but_not_before_its_data(loop: Any, log: Log) -> None:
    """As without TLS. What is said between the ends of TLS (tickets, close_notify) is nothing unread."""
    for sent in (b"", b"data"):
        log.clear()
        seen: list[hoop.Socket] = []
        server = loop.listen_tcp(
            lambda handle: (seen.append(handle), log.watch(handle, "server", data=False)),
            ssl=server_context(),
        )
        client = loop.connect_tcp(*server.address, ssl=client_context(), server_hostname=NAME)
        client.end(sent)
        client.on_error = lambda *_: None
        loop.run_until_complete(until(lambda: bool(seen) and seen[0].bytes_read == len(sent)))
        collect_in_turns(loop, 20)
        if sent:
            assert log.of("server") == []
            seen[0].resume()
        loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
        assert log.of("server") == [END, CLOSE]
        server.close()
        loop.run()


@pytest.mark.each_tls_engine
def test_an_unread_tls_connection_sees_a_reset(loop: Any, log: Log) -> None:
    seen: list[hoop.Socket] = []
    server = loop.listen_tcp(
        lambda handle: (seen.append(handle), in_state("unread", log, handle)), ssl=server_context()
    )
    client = loop.connect_tcp(*server.address, ssl=client_context(), server_hostname=NAME)
    loop.run_until_complete(until(lambda: bool(seen) and not client.is_connecting))
    sock = client.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.destroy()
    loop.run_until_complete(until(lambda: CLOSE in log.of("server")))
    assert log.of("server") == [RESET, CLOSE]
    server.close()


@pytest.mark.each_tls_engine
def test_what_is_unread_goes_to_the_handshake_of_start_tls(loop: Any) -> None:
    """A client that speaks TLS at once: what it said while nobody read is its part of the handshake."""
    seen: list[hoop.Socket] = []
    server = loop.listen_tcp(seen.append)
    done = loop.create_future()

    class Encrypted(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            done.set_result(data)

    async def upgrade() -> Any:
        await until(lambda: bool(seen) and seen[0].bytes_read > 0)
        transport = await loop.start_tls(seen[0].transport, Encrypted(), server_context(), server_side=True)
        assert await asyncio.wait_for(done, DEADLINE_S) == b"secret"
        transport.abort()

    client = loop.connect_tcp(*server.address, ssl=client_context(), server_hostname=NAME)
    client.on_error = lambda *_: None
    client.write(b"secret")
    loop.run_until_complete(upgrade())
    server.close()
    loop.run()
