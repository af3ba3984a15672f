"""What of asyncio may cross threads, and which may not: docs/threads.md says it, statement by statement.

The loop runs in debug mode in a thread of its own, so that all of it holds with a GIL, too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from conformance.tls_peers import NAME, client_context, server_context
from test_ownership import DEADLINE_S, HAS_GIL, Runner

REFUSED = "Non-thread-safe operation"


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.stop()
    runner.loop.close()


def begin(runner: Runner, wait: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """A task of the runner's loop that waits for wait(), and waits already."""
    waits = threading.Event()

    async def body() -> Any:
        asyncio.get_running_loop().call_soon(waits.set)
        return await wait()

    result = asyncio.run_coroutine_threadsafe(body(), runner.loop)
    assert waits.wait(DEADLINE_S)
    return result


def test_a_future_that_another_thread_sets_is_done_and_wakes_nobody(runner: Runner) -> None:
    future = runner.do(runner.loop.create_future)
    waiting = begin(runner, lambda: future)
    with pytest.raises(RuntimeError, match=REFUSED):
        future.set_result(1)
    assert future.done()
    assert not waiting.done()
    waiting.cancel()


def test_a_task_is_cancelled_through_its_loop(runner: Runner) -> None:
    task = runner.do(lambda: runner.loop.create_task(asyncio.sleep(3600)))
    runner.do(lambda: None)
    ended = begin(runner, lambda: asyncio.wait([task]))
    runner.loop.call_soon_threadsafe(task.cancel)
    ended.result(DEADLINE_S)
    assert task.cancelled()


@pytest.mark.parametrize("kind", ["future", "task"])
def test_another_loop_does_not_wait_for_a_future_or_a_task(runner: Runner, kind: str) -> None:
    make: dict[str, Callable[[], Any]] = {
        "future": runner.loop.create_future,
        "task": lambda: runner.loop.create_task(asyncio.sleep(3600)),
    }
    foreign = runner.do(make[kind])

    async def main() -> None:
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await foreign

    hoop.run(main())
    runner.do(foreign.cancel)


def test_a_coroutine_runs_where_it_is_handed_to(runner: Runner) -> None:
    async def where() -> int:
        return threading.get_ident()

    coroutine = where()
    assert asyncio.run_coroutine_threadsafe(coroutine, runner.loop).result(DEADLINE_S) == runner.thread.ident


def test_one_loop_waits_for_another_by_a_concurrent_future(runner: Runner) -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def main() -> int:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer(), runner.loop))

    assert hoop.run(main()) == 42


WAITS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "Queue": (asyncio.Queue, lambda queue: queue.get(), lambda queue: queue.put_nowait(None)),
    "Event": (asyncio.Event, lambda event: event.wait(), lambda event: event.set()),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_queue_or_an_event_is_for_one_loop_and_is_told_through_it(runner: Runner, name: str) -> None:
    make, wait, tell = WAITS[name]
    one = make()
    waiting = begin(runner, lambda: wait(one))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="is bound to a different event loop"):
            await wait(one)

    hoop.run(main())
    runner.loop.call_soon_threadsafe(tell, one)
    waiting.result(DEADLINE_S)


@pytest.mark.parametrize("name", WAITS)
def test_a_queue_or_an_event_that_another_thread_tells_raises_where_a_task_waits(runner: Runner, name: str) -> None:
    make, wait, tell = WAITS[name]
    one = make()
    waiting = begin(runner, lambda: wait(one))
    with pytest.raises(RuntimeError, match=REFUSED):
        tell(one)
    waiting.cancel()


def test_a_lock_is_for_one_loop(runner: Runner) -> None:
    lock = asyncio.Lock()
    runner_has_it = asyncio.run_coroutine_threadsafe(lock.acquire(), runner.loop)
    assert runner_has_it.result(DEADLINE_S)
    waiting = begin(runner, lock.acquire)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="is bound to a different event loop"):
            await lock.acquire()

    hoop.run(main())
    runner.do(lock.release)
    assert waiting.result(DEADLINE_S)


def test_streams_are_for_the_thread_of_their_loop(runner: Runner) -> None:
    left, right = socket.socketpair()
    reader, writer = asyncio.run_coroutine_threadsafe(hoop.open_connection(sock=left), runner.loop).result(DEADLINE_S)
    calls: list[Callable[[], Any]] = [
        lambda: writer.write(b"no"),
        lambda: writer.writelines([b"no"]),
        lambda: writer.write_eof(),
        lambda: writer.close(),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=REFUSED):
            call()

    async def main() -> None:
        with pytest.raises(RuntimeError):
            await reader.read(1)

    hoop.run(main())
    runner.do(lambda: writer.write(b"yes"))
    assert right.recv(10) == b"yes"
    runner.do(writer.close)
    right.close()


def test_a_connection_goes_to_another_loop_as_a_socket(runner: Runner) -> None:
    left, right = socket.socketpair()
    _, writer = asyncio.run_coroutine_threadsafe(hoop.open_connection(sock=left), runner.loop).result(DEADLINE_S)
    handed: list[socket.socket] = []

    def hand_over() -> None:
        handed.append(writer.get_extra_info("socket").dup())
        writer.close()

    runner.do(hand_over)

    async def main() -> bytes:
        reader, writer = await hoop.open_connection(sock=handed[0])
        writer.write(b"from here")
        right.sendall(b"to here")
        received = await reader.readexactly(7)
        writer.close()
        await writer.wait_closed()
        return received

    assert hoop.run(main()) == b"to here"
    assert right.recv(20) == b"from here"
    right.close()


def test_an_ssl_object_may_be_asked_while_its_loop_uses_it(runner: Runner) -> None:
    async def echo(reader: hoop.StreamReader, writer: hoop.StreamWriter) -> None:
        while received := await reader.read(1 << 16):
            writer.write(received)
        writer.close()

    async def connect() -> tuple[hoop.StreamReader, hoop.StreamWriter]:
        server = await hoop.start_server(echo, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        found = await hoop.open_connection(*address, ssl=client_context(), server_hostname=NAME)
        server.close()
        found[1].write(b"x")
        # With that, session tickets have come, too: OpenSSL is busy with a handshake no more.
        assert await found[0].readexactly(1) == b"x"
        return found

    async def exchange() -> int:
        for number in range(100):
            writer.write(bytes([number]) * 3000)
            assert await reader.readexactly(3000) == bytes([number]) * 3000
        writer.close()
        return 100

    reader, writer = asyncio.run_coroutine_threadsafe(connect(), runner.loop).result(DEADLINE_S)
    asked = writer.get_extra_info("ssl_object")
    expected = asked.cipher(), asked.version(), asked.getpeercert(binary_form=True)
    exchanged = asyncio.run_coroutine_threadsafe(exchange(), runner.loop)
    while not exchanged.done():
        assert (asked.cipher(), asked.version(), asked.getpeercert(binary_form=True)) == expected
    assert exchanged.result() == 100


def test_a_pool_is_closed_by_any_thread(runner: Runner) -> None:
    with hoop.Pool(1) as pool:

        async def use() -> int:
            return await pool.run(int, "7")

        assert asyncio.run_coroutine_threadsafe(use(), runner.loop).result(DEADLINE_S) == 7
        assert hoop.run(use()) == 7
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run_coroutine_threadsafe(use(), runner.loop).result(DEADLINE_S)


def test_a_pool_wants_the_loop_that_waits(runner: Runner) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        runner.loop.pool.run(int)


@pytest.mark.skipif(HAS_GIL, reason="with a GIL a loop that does not run lets any thread in")
def test_a_loop_of_a_thread_that_has_ended_is_run_or_closed(runner: Runner) -> None:
    made: list[hoop.Loop] = []
    thread = threading.Thread(target=lambda: made.append(hoop.Loop()))
    thread.start()
    thread.join(DEADLINE_S)
    with pytest.raises(RuntimeError, match=REFUSED):
        made[0].call_soon(print)
    made[0].close()
