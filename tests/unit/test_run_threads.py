"""hoop.run_threads(): loops in threads of one process, on one listener.

Where Python has a GIL it is refused, which has a test; the others then run it all the same, with threads that take
turns: what they hold does not rest on the GIL, nor on its absence.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import queue
import re
import signal
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop.cluster import threads as cluster_threads
from hoop.core.processors import has_gil

HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")
DEADLINE_S = 60.0
ANY_PORT = "127.0.0.1:0"


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    if HAS_GIL:
        monkeypatch.setattr(cluster_threads, "check_build", lambda what: None)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), thread


@contextlib.contextmanager
def beside(body: Callable[[], object]) -> Iterator[None]:
    """body() in a thread, while the main thread runs loops; what it raises is raised at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(DEADLINE_S)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


# What mains get, and what comes back.


@pytest.mark.usefixtures("anywhere")
def test_each_main_has_its_own_loop_and_thread() -> None:
    async def main(worker: Any) -> tuple[int, int, int]:
        await asyncio.sleep(0)
        assert isinstance(asyncio.get_running_loop(), hoop.Loop)
        assert not worker.sockets
        worker.state[worker.id] = asyncio.get_running_loop(), threading.current_thread()
        return worker.id

    state: dict[int, Any] = {}
    assert hoop.run_threads(main, 3, state=state) == [0, 1, 2]
    assert len({id(loop) for loop, _ in state.values()}) == len({thread for _, thread in state.values()}) == 3
    assert all(loop.is_closed() for loop, _ in state.values())


@pytest.mark.usefixtures("anywhere")
def test_main_may_take_nothing_and_find_its_worker() -> None:
    async def main() -> tuple[int, int]:
        there = await asyncio.to_thread(lambda: hoop.cluster.worker.id)
        return hoop.cluster.worker.id, there

    assert hoop.run_threads(main, 2) == [(0, 0), (1, 1)]
    with pytest.raises(hoop.cluster.NoWorker):
        _ = hoop.cluster.worker


@pytest.mark.usefixtures("anywhere")
def test_a_state_is_made_if_none_is_given() -> None:
    async def main(worker: Any) -> object:
        return worker.state

    one, other = hoop.run_threads(main, 2)
    assert one is other
    one.anything = 1


@pytest.mark.usefixtures("anywhere")
def test_debug_is_for_all_loops() -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert hoop.run_threads(main, 2, debug=True) == [True, True]


# Work in Python, beside loops.


@pytest.mark.skipif(
    has_gil(),
    reason="threads take turns where there is a GIL, and this would hang",
)
@pytest.mark.parametrize("kind", ["pool", "to_thread", "workers"])
def test_python_jobs_run_in_parallel(kind: str) -> None:
    """Two jobs that wait for each other's steps without ever waiting for a lock: with a GIL neither would let go."""
    steps = [0, 0]

    def walk(number: int) -> int:
        for step in range(1000):
            steps[number] = step + 1
            while steps[1 - number] < step:
                pass
        return number

    async def both() -> list[int]:
        match kind:
            case "pool":
                with hoop.Pool(2) as pool:
                    return list(await asyncio.gather(pool.run(walk, 0), pool.run(walk, 1)))
            case "workers":
                async with hoop.WorkerPool("thread", max_workers=2) as workers:
                    return list(await asyncio.gather(workers.run(walk, 0), workers.run(walk, 1)))
            case _:
                return list(await asyncio.gather(asyncio.to_thread(walk, 0), asyncio.to_thread(walk, 1)))

    former = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        assert hoop.run(both()) == [0, 1]
    finally:
        sys.setswitchinterval(former)


@pytest.mark.usefixtures("anywhere")
def test_a_pool_is_for_all_loops() -> None:
    async def main(worker: Any) -> int:
        answer: int = await worker.state.run(sum, range(worker.id + 1))
        return answer

    with hoop.Pool(2) as pool:
        assert hoop.run_threads(main, 4, state=pool) == [0, 1, 3, 6]


# The page's example.

PAGE = Path(__file__).resolve().parents[2] / "docs" / "threads.md"


@pytest.mark.usefixtures("anywhere")
def test_the_cache_of_the_page_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a connection has set another one gets, whichever loop it is on."""
    (block,) = re.findall(r"^```python no-run\n(.*?class Cache.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    given: list[Any] = []
    monkeypatch.setattr(hoop, "run_threads", lambda *arguments, **named: given.append((arguments, named)))
    exec(block, {})
    monkeypatch.undo()
    if HAS_GIL:
        monkeypatch.setattr(cluster_threads, "check_build", lambda what: None)
    ((page_main, threads), named) = given[0]
    addresses: queue.Queue[Any] = queue.Queue()

    async def main(worker: Any) -> None:
        addresses.put(worker.sockets[0].getsockname())
        await page_main(worker)

    def ask() -> None:
        address = addresses.get(timeout=DEADLINE_S)
        answers.append(told(address, b"set key value\n"))
        answers.extend(told(address, b"get key\n") for _ in range(8))
        os.kill(os.getpid(), signal.SIGTERM)

    answers: list[bytes] = []
    with beside(ask):
        hoop.run_threads(main, threads, **{**named, "bind": ANY_PORT})
    assert threads == 4
    assert answers == [b"value\n"] * 9


def told(address: Any, line: bytes) -> bytes:
    with socket.create_connection(address, timeout=DEADLINE_S) as client:
        client.sendall(line)
        with client.makefile("rb") as answer:
            return answer.read()


# The end.


@pytest.mark.usefixtures("anywhere")
def test_a_failure_drains_the_others_and_is_raised() -> None:
    drained = []

    async def main(worker: Any) -> None:
        if worker.id == 1:
            raise LookupError("on purpose")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            drained.append((worker.id, hoop.is_draining()))

    with pytest.raises(ExceptionGroup, match="failed: worker 1") as raised:
        hoop.run_threads(main, 3)
    (error,) = raised.value.exceptions
    assert (repr(error), error.__notes__) == ("LookupError('on purpose')", ["in worker 1 of hoop.run_threads()"])
    assert sorted(drained) == [(0, True), (2, True)]


@pytest.mark.usefixtures("anywhere")
def test_all_failures_are_told() -> None:
    async def main(worker: Any) -> None:
        if worker.id == 0:
            raise LookupError("first")
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("later")

    with pytest.raises(ExceptionGroup, match="failed: worker 0, worker 1") as raised:
        hoop.run_threads(main, 2)
    assert list(map(repr, raised.value.exceptions)) == ["LookupError('first')", "ValueError('later')"]


@pytest.mark.usefixtures("anywhere")
def test_an_exit_of_one_is_raised_as_what_it_is() -> None:
    async def main(worker: Any) -> None:
        if worker.id == 0:
            raise SystemExit(7)
        await hoop.draining()

    with pytest.raises(BaseExceptionGroup) as raised:
        hoop.run_threads(main, 2)
    assert not isinstance(raised.value, ExceptionGroup)
    assert repr(raised.value.exceptions[0]) == "SystemExit(7)"


@pytest.mark.usefixtures("anywhere")
def test_sigterm_lets_what_is_under_way_end() -> None:
    """A request that one loop has begun is answered; then nobody listens any more."""
    address: queue.Queue[Any] = queue.Queue()
    answers: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"go\n"
        os.kill(os.getpid(), signal.SIGTERM)
        await hoop.draining()
        writer.write(b"answered\n")
        writer.close()

    async def main(worker: Any) -> None:
        await asyncio.start_server(answer, sock=worker.sockets[0])
        address.put(worker.sockets[0].getsockname())
        await asyncio.get_running_loop().create_future()

    def ask() -> None:
        name = address.get(timeout=DEADLINE_S)
        with socket.create_connection(name, timeout=DEADLINE_S) as client:
            client.sendall(b"go\n")
            answers.append(client.makefile("rb").read())
        while True:
            try:
                socket.create_connection(name, timeout=DEADLINE_S).close()
            except ConnectionError:
                return

    with beside(ask):
        assert hoop.run_threads(main, 2, bind=ANY_PORT) == [None, None]
    assert answers == [b"answered\n"]


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_second_signal_ends_all_at_once(number: signal.Signals, error: type[BaseException]) -> None:
    """Though a client holds its connection, and the drain has no limit."""
    addresses: queue.Queue[Any] = queue.Queue()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        os.kill(os.getpid(), number)
        await hoop.draining()
        os.kill(os.getpid(), number)
        await reader.read()

    async def main(worker: Any) -> None:
        await asyncio.start_server(hold, sock=worker.sockets[0])
        addresses.put(worker.sockets[0].getsockname())
        await asyncio.get_running_loop().create_future()

    def come() -> None:
        with socket.create_connection(addresses.get(timeout=DEADLINE_S), timeout=DEADLINE_S) as client:
            with contextlib.suppress(ConnectionError):
                client.recv(1)

    with beside(come), pytest.raises(error) as raised:
        hoop.run_threads(main, 2, bind=ANY_PORT, drain=hoop.Drain(idle_grace=3600, timeout=None))
    if isinstance(raised.value, SystemExit):
        assert raised.value.code == 128 + signal.SIGTERM


@pytest.mark.usefixtures("anywhere")
def test_a_signal_before_the_loops_run_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    async def begin(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cluster_threads.Threads, "begin", begin)
    assert hoop.run_threads(main, 2) == [None, None]


@pytest.mark.usefixtures("anywhere")
def test_a_thread_that_holds_its_loop_is_told_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_threads, "FORCED_S", 0.05)
    held = threading.Event()

    async def main(worker: Any) -> None:
        if worker.id == 1:
            held.wait(DEADLINE_S)
            return
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(ExceptionGroup, match="failed: worker 1") as raised:
            hoop.run_threads(main, 2)
    finally:
        held.set()
    assert repr(raised.value.exceptions[0]) == "TimeoutError('worker 1 did not end at once')"


# Shares.


class Hearing(asyncio.Protocol):
    """Counts for its worker."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker = hoop.cluster.worker
        worker.state.note_busy(worker.id)
        worker.state.accepted.put(worker.id)


class Loops:
    """What the test sees of the loops."""

    def __init__(self) -> None:
        self.loops: dict[int, Any] = {}
        self.sleeps: dict[int, int] = {}
        self.address: Any = None
        self.listening: queue.Queue[int] = queue.Queue()
        self.accepted: queue.Queue[int] = queue.Queue()

    def note_busy(self, number: int) -> None:
        self.sleeps[number] = self.loops[number].metrics().sleeps

    def wait_until_idle(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not all(loop.metrics().sleeps > self.sleeps[number] for number, loop in list(self.loops.items())):
            assert time.monotonic() < deadline
            os.sched_yield()


@pytest.mark.usefixtures("anywhere")
def test_idle_loops_take_turns_on_one_listener() -> None:
    with contextlib.closing(hoop.new_event_loop()) as loop:
        if loop.poller_name != "epoll":
            pytest.skip("only epoll wakes one waiter; elsewhere all of them run for each connection")
    shares: collections.Counter[int] = collections.Counter()
    seen = Loops()

    async def main(worker: Any) -> None:
        loop = worker.state.loops[worker.id] = asyncio.get_running_loop()
        await loop.create_server(Hearing, sock=worker.sockets[0])
        worker.state.address = worker.sockets[0].getsockname()
        worker.state.note_busy(worker.id)
        worker.state.listening.put(worker.id)
        await loop.create_future()

    def come() -> None:
        with contextlib.ExitStack() as clients:
            for _ in range(4):
                seen.listening.get(timeout=DEADLINE_S)
            for _ in range(64):
                seen.wait_until_idle()
                clients.enter_context(socket.create_connection(seen.address, timeout=DEADLINE_S))
                shares[seen.accepted.get(timeout=DEADLINE_S)] += 1
        os.kill(os.getpid(), signal.SIGTERM)

    with beside(come):
        hoop.run_threads(main, 4, bind=ANY_PORT, state=seen)
    assert sum(shares.values()) == 64
    assert min(shares[number] for number in range(4)) >= 4, shares  # of 16


# Refusals.


async def nothing() -> None:
    pass


@pytest.mark.skipif(not HAS_GIL, reason="this Python has no GIL, so that nothing is refused")
def test_a_build_with_a_gil_is_refused_with_the_way_out() -> None:
    with pytest.raises(RuntimeError, match=r'has it\. Use a free-threaded build .* kind="processes"'):
        hoop.run_threads(nothing, 2)


@pytest.mark.usefixtures("anywhere")
def test_a_running_loop_and_another_thread_are_refused() -> None:
    async def inside() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            hoop.run_threads(nothing, 2)

    def elsewhere() -> None:
        with pytest.raises(ValueError, match="main thread"):
            hoop.run_threads(nothing, 2)

    hoop.run(inside())
    with beside(elsewhere):
        pass


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(
    ("main", "threads", "settings", "error"),
    [
        (nothing, 0, {}, ValueError),
        (nothing, 100_000, {}, ValueError),
        (nothing, None, {}, TypeError),
        (nothing, "2", {}, TypeError),
        ("app:main", 2, {}, TypeError),
        (None, 2, {}, TypeError),
        (nothing, 2, {"bind": "nowhere"}, ValueError),
        (nothing, 2, {"bind": ["127.0.0.1:0", "127.0.0.1:0"]}, ValueError),
        (nothing, 2, {"limits": 3}, TypeError),
        (nothing, 2, {"drain": 3}, TypeError),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(main: Any, threads: Any, settings: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        hoop.run_threads(main, threads, **settings)


@pytest.mark.usefixtures("anywhere")
def test_an_address_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(OSError, match="cannot listen on"):
            hoop.run_threads(nothing, 2, bind=f"127.0.0.1:{other.getsockname()[1]}")
