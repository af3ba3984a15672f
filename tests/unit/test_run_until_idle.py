"""loop.run() returns when nothing referenced is left to wait for: what keeps it, and what unref() changes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
import trustme
from hoop.tls.session import TlsSession

DEADLINE_S = 60.0


@pytest.fixture
def loop_name() -> str:
    return "hoop"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    left.setblocking(False)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def guard(loop: Any) -> Iterator[list[object]]:
    """Stops a run that does not end by itself, and collects what callbacks raise; unreferenced: keeps nothing alive."""
    wrong: list[object] = []

    def expire() -> None:
        wrong.append("the run has not ended by itself")
        loop.stop()

    loop.set_exception_handler(lambda loop, context: wrong.append(context))
    timer = loop.call_later(DEADLINE_S, expire).unref()
    yield wrong
    timer.cancel()
    assert wrong == []


pytestmark = pytest.mark.usefixtures("guard")


class Recorder(asyncio.Protocol):
    """Keeps its transport and what it was told."""

    transport: Any = None

    def __init__(self) -> None:
        self.told: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


def test_an_empty_loop_returns_at_once(loop):
    loop.run()
    assert loop.metrics().turns == 0
    assert not loop.is_running() and not loop.is_closed()


@pytest.mark.parametrize(
    "method", ["call_soon", "next_tick", "queue_microtask", "set_immediate", "call_soon_threadsafe"]
)
def test_queued_callbacks_and_what_they_queue_are_run(loop, method):
    seen: list[int] = []

    def again(left: int) -> None:
        seen.append(left)
        if left > 0:
            getattr(loop, method)(again, left - 1)

    getattr(loop, method)(again, 3)
    loop.run()
    assert seen == [3, 2, 1, 0]


def test_timers_are_waited_for(loop):
    seen: list[str] = []
    loop.call_later(0.002, seen.append, "second")
    loop.call_later(0.001, seen.append, "first")
    loop.run()
    assert seen == ["first", "second"]


def test_a_cancelled_timer_is_not_waited_for(loop):
    loop.call_later(DEADLINE_S, pytest.fail).cancel()
    loop.run()


def test_an_unreferenced_timer_is_not_waited_for_but_fires_while_the_loop_runs(loop):
    seen: list[str] = []
    late = loop.call_later(DEADLINE_S, pytest.fail)
    assert late.has_ref()
    assert late.unref() is late and not late.has_ref()
    loop.call_later(0, seen.append, "unreferenced").unref()
    loop.call_soon(seen.append, "ready")
    loop.call_later(0.001, seen.append, "referenced")
    loop.run()
    assert seen == ["ready", "unreferenced", "referenced"]
    late.cancel()


def test_a_timer_referenced_again_is_waited_for(loop):
    seen: list[str] = []
    timer = loop.call_later(0.001, seen.append, "fired").unref()
    assert timer.ref() is timer and timer.has_ref()
    loop.run()
    assert seen == ["fired"]


def test_reference_counts_of_timers_survive_any_order_of_calls(loop):
    timer = loop.call_later(DEADLINE_S, pytest.fail)
    timer.unref().unref().ref().ref().unref()
    loop.run()
    timer.cancel()
    timer.ref().unref()
    kept = loop.call_later(0.001, loop.stop)
    kept.unref().ref()
    loop.run()
    assert kept.unref().ref().has_ref()
    loop.run()


def test_a_pending_task_is_waited_for(loop):
    done: list[str] = []
    waiting = loop.create_future()

    async def main() -> None:
        await waiting
        done.append("done")

    def from_outside() -> None:
        loop.call_soon_threadsafe(waiting.set_result, None)

    task = loop.create_task(main())
    loop.call_soon(threading.Thread(target=from_outside).start)
    loop.run()
    assert done == ["done"] and task.done()


def test_stop_ends_it_and_what_was_queued_waits_for_the_next_run(loop):
    seen: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(loop.call_soon, seen.append, "queued")
    loop.run()
    assert seen == []
    loop.run()
    assert seen == ["queued"]


def test_keyboard_interrupt_leaves_it(loop):
    def interrupt() -> None:
        raise KeyboardInterrupt

    seen: list[str] = []
    loop.call_soon(interrupt)
    loop.call_soon(seen.append, "the rest of the batch")
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert seen == []
    loop.run()
    assert seen == ["the rest of the batch"]


def test_it_refuses_what_run_forever_refuses(loop):
    refused: list[str] = []

    def again() -> None:
        with pytest.raises(RuntimeError) as caught:
            loop.run()
        refused.append(str(caught.value))

    loop.call_soon(again)
    loop.run()
    assert refused == ["This event loop is already running"]
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run()


def test_a_reader_is_waited_for_until_it_is_removed(loop, pair):
    left, right = pair
    seen: list[bytes] = []

    def readable() -> None:
        seen.append(left.recv(10))
        loop.remove_reader(left)

    loop.add_reader(left, readable)
    loop.call_soon(right.send, b"x")
    loop.run()
    assert seen == [b"x"]


def test_reader_and_writer_of_one_descriptor_count_as_one(loop, pair):
    left, right = pair
    seen: list[str] = []

    def writable() -> None:
        seen.append("writable")
        loop.remove_writer(left)
        right.send(b"x")

    def readable() -> None:
        seen.append("readable")
        loop.remove_reader(left)

    loop.add_reader(left, readable)
    loop.add_writer(left, writable)
    loop.add_writer(left, writable)  # replaces the first
    loop.run()
    assert seen == ["writable", "readable"]
    loop.run()


def test_a_finished_sock_operation_leaves_nothing_to_wait_for(loop, pair):
    left, right = pair
    task = loop.create_task(loop.sock_recv(left, 10))
    loop.call_soon(right.send, b"x")
    loop.run()
    assert task.result() == b"x"


def test_a_descriptor_that_was_reused_is_not_counted_twice(loop, pair):
    left, right = pair
    loop.add_reader(left, pytest.fail)
    number = left.detach()
    os.dup2(right.fileno(), number)  # the number now is another file
    loop.add_reader(number, pytest.fail)
    loop.remove_reader(number)
    loop.run()
    os.close(number)


def test_a_transport_is_waited_for_until_it_is_closed(loop, pair):
    left, right = pair
    made = loop.create_task(loop.create_connection(Recorder, sock=left))
    loop.run_until_complete(made)
    transport, protocol = made.result()
    loop.call_soon(right.send, b"x")
    loop.call_later(0.001, transport.close)
    loop.run()
    assert protocol.told == [b"x", "lost"]


def test_an_unreferenced_transport_still_works_while_the_loop_runs(loop, pair):
    left, right = pair
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=left))
    assert transport.has_ref()
    assert transport.unref() is transport and not transport.has_ref()
    loop.run()
    right.send(b"x")
    loop.call_later(0.001, int)
    loop.run()
    assert protocol.told == [b"x"]
    assert transport.ref() is transport and transport.has_ref()
    loop.call_soon(right.close)
    loop.run()  # until the peer's end has closed it
    assert protocol.told == [b"x", "lost"]


def test_a_paused_transport_waits_for_nothing(loop, pair):
    left, right = pair
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=left))
    transport.pause_reading()
    loop.run()
    transport.resume_reading()
    loop.call_soon(right.close)
    loop.run()
    assert protocol.told == ["lost"]


def test_unref_while_paused_holds_after_resuming(loop, pair):
    left, _ = pair
    transport, _ = loop.run_until_complete(loop.create_connection(Recorder, sock=left))
    transport.pause_reading()
    transport.unref()
    transport.resume_reading()
    loop.run()
    transport.abort()
    loop.run()


def test_an_unreferenced_tls_connection_still_works_while_the_loop_runs(loop, pair):
    """The transport below is the one that counts."""
    authority = trustme.CA()
    accepting, connecting = (ssl.SSLContext(side) for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("localhost").configure_cert(accepting)
    authority.configure_trust(connecting)

    async def connect() -> Any:
        return await asyncio.gather(
            loop.connect_accepted_socket(Recorder, pair[0], ssl=accepting),
            loop.create_connection(Recorder, sock=pair[1], ssl=connecting, server_hostname="localhost"),
        )

    (server, received), (client, _) = loop.run_until_complete(connect())
    for transport in (server, client):
        assert transport.has_ref()
        assert transport.unref() is transport and not transport.has_ref()
    loop.run()
    assert not server.is_closing() and not client.is_closing()
    assert server.ref() is server and server.has_ref()
    client.write(b"x")
    client.close()
    loop.run()
    assert received.told == [b"x", "lost"]
    client.abort()
    loop.run()


def test_a_server_is_waited_for_until_it_is_closed(loop):
    server = loop.run_until_complete(loop.create_server(Recorder, "127.0.0.1", 0))
    closed: list[str] = []

    def close() -> None:
        closed.append("closed")
        server.close()

    loop.call_later(0.001, close)
    loop.run()
    assert closed == ["closed"]


def test_an_unreferenced_server_serves_while_the_loop_runs(loop):
    server = loop.run_until_complete(loop.create_server(Recorder, "127.0.0.1", 0))
    assert server.has_ref()
    assert server.unref() is server and not server.has_ref()
    loop.run()
    assert server.is_serving()
    address = server.sockets[0].getsockname()
    transport, _ = loop.run_until_complete(loop.create_connection(Recorder, *address))
    closing = loop.create_task(serving_one(server))
    loop.run()
    assert closing.done() and server.is_serving()
    transport.abort()
    assert server.ref() is server and server.has_ref()
    closed: list[str] = []
    loop.call_later(0.001, lambda: (closed.append("closed"), server.close()))
    loop.run()
    assert closed == ["closed"]


async def serving_one(server: Any) -> None:
    while server.stats().accepted == 0:
        await asyncio.sleep(0)
    server.close_clients()


def test_a_server_unreferenced_before_it_serves_is_not_waited_for(loop):
    server = loop.run_until_complete(loop.create_server(Recorder, "127.0.0.1", 0, start_serving=False))
    assert not server.unref().has_ref()
    loop.run_until_complete(server.start_serving())
    loop.run()
    assert server.is_serving()
    server.close()


@pytest.mark.parametrize("is_early", [True, False])
def test_an_unreferenced_server_that_lacks_descriptors_is_not_waited_for(loop, is_early, guard):
    """It would try again after a second."""
    resource = pytest.importorskip("resource")
    wrong: list[object] = []
    loop.set_exception_handler(lambda loop, context: wrong.append(context))
    server = loop.run_until_complete(loop.create_server(Recorder, "127.0.0.1", 0))
    if is_early:
        server.unref()
    client = socket.create_connection(server.sockets[0].getsockname())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        loop.run_until_complete(told_of_something(wrong))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    server.unref()
    turns = loop.metrics().turns
    loop.run()
    assert loop.metrics().turns == turns
    server.close()
    client.close()


async def told_of_something(wrong: list[object]) -> None:
    while not wrong:
        await asyncio.sleep(0)


def test_datagrams_are_waited_for(loop):
    transport, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    )
    transport.unref()
    loop.run()
    transport.ref()
    loop.call_later(0.001, transport.close)
    loop.run()
    assert transport.is_closing()


def test_pipes_are_waited_for(loop):
    reading, writing = os.pipe()
    told: list[object] = []

    async def main() -> None:
        transport, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0))
        protocol.told = told
        assert transport.has_ref()

    loop.create_task(main())
    loop.call_later(0.001, os.close, writing)
    loop.run()
    assert told == ["lost"]


@pytest.mark.parametrize("kind", [hoop.StreamReaderProtocol, TlsSession])
def test_what_watches_no_descriptor_has_no_ref(kind):
    assert not {"ref", "unref", "has_ref"} & set(dir(kind))


def test_unreferenced_pipes_are_not_waited_for(loop):
    reading, writing = os.pipe()
    reader, protocol = loop.run_until_complete(loop.connect_read_pipe(Recorder, os.fdopen(reading, "rb", 0)))
    writer, _ = loop.run_until_complete(loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb", 0)))
    for transport in (reader, writer):
        assert transport.unref() is transport and not transport.has_ref()
    loop.run()
    assert not reader.is_closing() and not writer.is_closing()
    assert writer.ref().has_ref() and reader.ref().has_ref()
    writer.write(b"x")
    writer.close()
    loop.run()
    assert protocol.told == [b"x", "lost"]


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_a_child_is_waited_for(loop, has_pidfd, monkeypatch):
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd_open here")
    exited: list[int] = []

    class Child(asyncio.SubprocessProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def process_exited(self) -> None:  # maybe before subprocess_exec() has returned the transport
            exited.append(self.transport.get_returncode())

    started = loop.subprocess_exec(Child, sys.executable, "-c", "exit(3)", stdin=None, stdout=None, stderr=None)
    transport, _ = loop.run_until_complete(started)
    loop.run()
    assert exited == [3]
    transport.close()
    loop.run()


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_an_unreferenced_child_is_not_waited_for(loop, has_pidfd, monkeypatch):
    """Nor are its pipes; all of them work while the loop runs."""
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd_open here")
    told: list[object] = []

    class Child(asyncio.SubprocessProtocol):
        def pipe_data_received(self, fd: int, data: bytes) -> None:
            told.append(data)

        def process_exited(self) -> None:
            told.append(transport.get_returncode())

    echo = "import sys; sys.stdout.write(sys.stdin.read())"
    transport, _ = loop.run_until_complete(loop.subprocess_exec(Child, sys.executable, "-c", echo))
    assert transport.has_ref()
    assert transport.unref() is transport and not transport.has_ref()
    loop.run()
    assert told == [] and transport.get_returncode() is None
    assert transport.unref().ref() is transport and transport.has_ref()
    stdin = transport.get_pipe_transport(0)
    stdin.write(b"x")
    stdin.close()
    loop.run()
    assert len(told) == 2 and set(told) == {b"x", 0}  # in whichever order they come
    assert not transport.unref().has_ref()  # of a child that has ended: it changes nothing
    transport.ref()
    loop.run()
    transport.close()


def test_signal_handlers_are_not_waited_for(loop):
    loop.add_signal_handler(signal.SIGUSR1, pytest.fail)
    loop.run()
    loop.call_soon(int)
    loop.run()
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_a_signal_that_arrives_while_it_runs_is_handled(loop):
    seen: list[str] = []

    def handle() -> None:
        seen.append("handled")
        waiting.cancel()

    waiting = loop.call_later(DEADLINE_S, pytest.fail)
    loop.add_signal_handler(signal.SIGUSR1, handle)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.run()
    assert seen == ["handled"]


def test_explicit_references_are_waited_for(loop):
    seen: list[str] = []

    def end() -> None:
        seen.append("ended")
        loop._unref()

    loop._ref()
    loop.call_soon(threading.Thread(target=loop.call_soon_threadsafe, args=(end,)).start)
    loop.run()
    assert seen == ["ended"]
    with pytest.raises(RuntimeError, match="without a ref"):
        loop._unref()


def test_an_interest_that_the_kernel_refuses_is_not_waited_for(loop, pair):
    left, _ = pair
    problems: list[dict[str, object]] = []
    loop.set_exception_handler(lambda loop, context: problems.append(context))
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=left))
    transport.pause_reading()
    loop.call_soon(int)
    loop.run()  # the descriptor has left the kernel's set
    os.close(left.fileno())
    transport.resume_reading()
    loop.run()
    assert protocol.told == ["lost"]
    left.detach()


def test_hoops_own_loops_in_threads_each_return_by_themselves():
    ended: list[int] = []

    def work(number: int) -> None:
        loop = hoop.new_event_loop()
        loop.call_later(0.001, int)
        loop.run()
        ended.append(number)
        loop.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == [0, 1, 2, 3]


def callback_counts(loop: Any, run: Callable[[], object]) -> int:
    before = loop.metrics().turns
    run()
    return loop.metrics().turns - before


def test_the_turn_that_runs_the_last_callback_is_the_last_one(loop):
    loop.call_soon(int)
    assert callback_counts(loop, loop.run) == 1
