"""Many loops in one process, without a GIL between them: nothing is lost, nothing comes twice, nothing crashes.

Each test takes a second or so, with all processors busy. With a GIL they would say nothing that others do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from hoop.core.processors import has_gil
from interpreter import IN_CHILD, run_script

pytestmark = pytest.mark.skipif(has_gil(), reason="threads take turns where there is a GIL")

DEADLINE_S = 60.0
THREADS = 4


def in_threads(count: int, body: Callable[[int], Any]) -> list[Any]:
    """body(number) in that many threads at once; what they returned. Raises what the first of them has raised."""
    barrier = threading.Barrier(count)
    answers: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait(DEADLINE_S)
        try:
            answers[number] = body(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return answers


@contextlib.contextmanager
def collecting() -> Iterator[None]:
    """The garbage collector at work in a thread of its own."""
    over = threading.Event()

    def collect() -> None:
        while not over.is_set():
            gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(DEADLINE_S)


async def ping_pong(rounds: int) -> int:
    """Two protocols over a socketpair; how many messages came."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    count = 0

    class Ping(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            nonlocal count
            count += 1
            if count < rounds:
                self.transport.write(data)  # type: ignore[attr-defined]
            elif not over.done():
                over.set_result(None)

    left, right = socket.socketpair()
    one, _ = await loop.create_connection(Ping, sock=left)
    two, _ = await loop.create_connection(Ping, sock=right)
    one.write(b"x")
    await asyncio.wait_for(over, DEADLINE_S)
    one.close()
    two.close()
    return count


def test_loops_are_made_run_closed_and_abandoned_at_once() -> None:
    def body(number: int) -> int:
        messages = 0
        for turn in range(40):
            loop = hoop.Loop()
            messages += loop.run_until_complete(ping_pong(20))
            loop.call_later(60, print, loop)
            loop.call_soon(print, loop)
            if turn % 3:
                loop.close()
        return messages

    with warnings.catch_warnings(), collecting():
        warnings.simplefilter("ignore", ResourceWarning)
        assert in_threads(THREADS, body) == [800] * THREADS
    gc.collect()


def posted_by(producers: int, each: int) -> int:
    """So many threads post so many numbered calls to one loop; how many came. Each must come once, and in its order."""
    came = [0] * producers
    loop = hoop.Loop()
    left = producers

    def note(producer: int, number: int) -> None:
        nonlocal left
        if number != came[producer]:
            raise AssertionError(f"call {number} of thread {producer} came in place of call {came[producer]}")
        came[producer] += 1
        if number == each - 1:
            left -= 1
            if left == 0:
                loop.stop()

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        errors.append(context["exception"])
        loop.stop()

    def body(number: int) -> None:
        if number == producers:
            loop.run_forever()
            return
        for call in range(each):
            loop.call_soon_threadsafe(note, number, call)

    errors: list[BaseException] = []
    loop.set_exception_handler(failed)
    in_threads(producers + 1, body)
    loop.run_until_complete(asyncio.sleep(0))  # what came twice would run now
    loop.close()
    if errors:
        raise errors[0]
    return sum(came)


def test_posted_calls_are_neither_lost_nor_run_twice_and_keep_their_order() -> None:
    """docs/threads.md has the figure for 10**7 calls, and the command."""
    assert posted_by(8, 12_500) == 100_000


def test_a_cancelled_call_does_not_run_once_cancel_has_returned() -> None:
    loop = hoop.Loop()
    count = 4000
    ran = [0] * (THREADS * count)

    def run(number: int) -> None:
        ran[number] += 1

    def body(number: int) -> int:
        if number == THREADS:
            loop.run_forever()
            return 0
        begin = number * count
        wrong = 0
        handles = []
        for call in range(begin, begin + count):
            handles.append((call, loop.call_soon_threadsafe(run, call)))
            if len(handles) == 50:
                for index, handle in handles:
                    handle.cancel()
                    before = ran[index]
                    wrong += not handle.cancelled()
                    wrong += ran[index] != before or before > 1
                handles.clear()
        if number == 0:
            loop.call_soon_threadsafe(loop.call_later, 0.2, loop.stop)
        return wrong

    assert sum(in_threads(THREADS + 1, body)) == 0
    assert max(ran) <= 1
    loop.close()


def test_posting_to_a_loop_that_closes_is_refused_or_dropped() -> None:
    """The other thread's number of a descriptor must not be written to once it is another file's."""
    for _ in range(30):
        loop = hoop.Loop()
        closed = threading.Event()

        def post() -> None:
            while True:
                try:
                    loop.call_soon_threadsafe(int)
                except RuntimeError:
                    return

        def body(number: int) -> None:
            if number == 0:
                loop.run_until_complete(asyncio.sleep(0.001))
                loop.close()
                closed.set()
            else:
                post()

        loop_thread: Callable[[int], None] = body
        in_threads(3, loop_thread)
        assert closed.is_set()


def test_four_loops_share_a_pool() -> None:
    data = b"x" * 4096
    expected = hashlib.sha256(data).digest()

    async def main(pool: hoop.Pool) -> int:
        right = 0
        for _ in range(20):
            digests = await asyncio.gather(
                *(pool.run(lambda: hashlib.sha256(data).digest()) for _ in range(15)),
                *(asyncio.to_thread(lambda: hashlib.sha256(data).digest()) for _ in range(5)),
            )
            right += sum(digest == expected for digest in digests)
        cancelled = [pool.run(int) for _ in range(20)]
        for future in cancelled:
            future.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        return right

    def body(number: int) -> int:
        loop = hoop.Loop(pool=pool)
        try:
            return loop.run_until_complete(main(pool))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    with hoop.Pool(3) as pool, collecting():
        assert in_threads(THREADS, body) == [400] * THREADS
        assert pool.stats().running == 0 and pool.stats().queued == 0


def test_echo_over_streams_in_four_loops() -> None:
    async def echo(reader: Any, writer: Any) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def main() -> int:
        server = await hoop.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        total = 0
        for _ in range(10):
            reader, writer = await hoop.open_connection(*address)
            for number in range(20):
                writer.write(b"%d\n" % number)
                total += int(await reader.readline()) == number
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return total

    with collecting():
        assert in_threads(THREADS, lambda number: hoop.run(main())) == [200] * THREADS


def test_transports_that_another_thread_collects_while_their_loop_runs() -> None:
    """A paused transport is not the table's: the collector, in its own thread, comes to it first."""
    seen = 0

    async def main() -> None:
        nonlocal seen
        loop = asyncio.get_running_loop()
        for _ in range(150):
            left, right = socket.socketpair()
            transport, protocol = await loop.create_connection(asyncio.Protocol, sock=left)
            transport.pause_reading()
            cycle = [transport, protocol]
            cycle.append(cycle)  # type: ignore[arg-type]
            del transport, protocol, cycle
            await asyncio.sleep(0)
            seen += loop.metrics().watchers.get("StreamTransport", 0)  # type: ignore[attr-defined]
            right.close()

    with warnings.catch_warnings(), collecting():
        warnings.simplefilter("ignore", ResourceWarning)
        in_threads(2, lambda number: hoop.run(main()))
    assert seen > 0


def test_figures_of_running_loops_can_be_read_by_all() -> None:
    loops = [hoop.Loop() for _ in range(THREADS)]
    over = threading.Event()

    def body(number: int) -> int:
        if number < THREADS:
            loop = loops[number]
            return sum(loop.run_until_complete(ping_pong(300)) for _ in range(5))
        reads = 0
        while not over.is_set():
            for loop in loops:
                loop.metrics()
                repr(loop)
                loop._pulse(1000)  # type: ignore[attr-defined]
                reads += 1
            if all(loop.metrics().turns > 100 and not loop.is_running() for loop in loops):
                over.set()
        return reads

    assert min(in_threads(THREADS + 2, body)) > 0
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_signals_come_while_other_loops_run() -> None:
    got: list[int] = []
    count = 50

    async def main() -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def handler() -> None:
            got.append(1)
            if len(got) < count:
                os.kill(os.getpid(), signal.SIGUSR1)
            else:
                over.set()

        loop.add_signal_handler(signal.SIGUSR1, handler)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(over.wait(), DEADLINE_S)
        loop.remove_signal_handler(signal.SIGUSR1)

    others = [threading.Thread(target=lambda: hoop.run(ping_pong(2000))) for _ in range(2)]
    for other in others:
        other.start()
    hoop.run(main())
    for other in others:
        other.join(DEADLINE_S)
    assert len(got) == count


BUSY = """
import asyncio, os, socket, sys, threading
import hoop

async def busy(started):
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=left)
    peer_reader, peer = await asyncio.open_connection(sock=right)
    started.release()
    while True:
        writer.write(b"x" * 100)
        await peer_reader.readexactly(100)
        await asyncio.to_thread(int)

started = threading.Semaphore(0)
for _ in range(3):
    threading.Thread(target=lambda: hoop.run(busy(started)), daemon=True).start()
for _ in range(3):
    started.acquire()
"""


def test_the_interpreter_ends_while_loops_run_in_daemon_threads() -> None:
    for _ in range(3):
        status, output, errors = run_script(BUSY + "print('end')")
        assert (status, output) == (0, "end"), errors


def test_fork_while_loops_run_in_other_threads() -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)

def child():
    async def main():
        return await asyncio.to_thread(int, "7")
    return 0 if hoop.run(main()) == 7 else 1

print([in_child(child) for _ in range(20)])
sys.stdout.flush()
os._exit(0)
"""
    status, output, errors = run_script(IN_CHILD + BUSY + program)
    assert (status, output) == (0, str([0] * 20)), errors
