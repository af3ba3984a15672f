"""A loop and all that belongs to it is for one thread; others get a RuntimeError that names the method.

On a free-threaded Python always; elsewhere in debug mode, which these tests switch on, and while the loop runs. See
docs/threads.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from hoop.core.processors import has_gil
from interpreter import run_script

HAS_GIL = has_gil()
DEADLINE_S = 60.0

needs_no_gil = pytest.mark.skipif(HAS_GIL, reason="with a GIL this is safe, or checked by asyncio's rules alone")


def elsewhere(call: Callable[[], Any]) -> Any:
    """call() in a thread of its own: what it returns, or raises."""
    answers: list[Any] = []

    def body() -> None:
        try:
            answers.append((True, call()))
        except BaseException as error:
            answers.append((False, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(DEADLINE_S)
    is_result, value = answers[0]
    if is_result:
        return value
    raise value


class Runner:
    """A loop in debug mode that runs in a thread of its own, until stop()."""

    def __init__(self) -> None:
        self.loop = hoop.Loop()
        self.loop.set_debug(True)
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.do(lambda: None)

    def do(self, call: Callable[[], Any]) -> Any:
        """call() in the loop's thread."""

        async def body() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(body(), self.loop).result(DEADLINE_S)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE_S)


@pytest.fixture
def loop() -> Iterator[hoop.Loop]:
    loop = hoop.Loop()
    loop.set_debug(True)
    yield loop
    loop.close()


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.stop()
    runner.loop.close()


CALLS: dict[str, Callable[[hoop.Loop], Any]] = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(1, print),
    "next_tick": lambda loop: loop.next_tick(print),
    "queue_microtask": lambda loop: loop.queue_microtask(print),
    "set_immediate": lambda loop: loop.set_immediate(print),
    "set_timeout": lambda loop: loop.set_timeout(print, 1),
    "set_interval": lambda loop: loop.set_interval(print, 1),
    "stop": lambda loop: loop.stop(),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "remove_reader": lambda loop: loop.remove_reader(0),
    "add_writer": lambda loop: loop.add_writer(0, print),
    "remove_writer": lambda loop: loop.remove_writer(0),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
}


def refused(name: str) -> Any:
    return pytest.raises(RuntimeError, match=rf"Non-thread-safe operation.*: {name}\(\).*call_soon_threadsafe")


@needs_no_gil
@pytest.mark.parametrize("name", CALLS)
def test_another_thread_is_refused_while_no_thread_runs_the_loop(loop: hoop.Loop, name: str) -> None:
    with refused(name):
        elsewhere(lambda: CALLS[name](loop))


def test_another_thread_is_refused_while_the_loop_runs(runner: Runner) -> None:
    for name, call in CALLS.items():
        with refused(name):
            call(runner.loop)
    assert runner.do(lambda: 42) == 42


@needs_no_gil
def test_a_task_is_refused_before_it_is_made(loop: hoop.Loop) -> None:
    coroutine = asyncio.sleep(0)
    with refused("create_task"):
        elsewhere(lambda: loop.create_task(coroutine))
    loop.run_until_complete(coroutine)


def test_what_is_safe_from_any_thread(runner: Runner) -> None:
    loop = runner.loop
    ran = threading.Event()
    loop.call_soon_threadsafe(ran.set)
    assert ran.wait(DEADLINE_S)
    assert loop.metrics().turns > 0
    assert loop.is_running() and not loop.is_closed() and loop.time() > 0
    assert loop.pool.stats().size > 0
    assert "running=True" in repr(loop)


@needs_no_gil
def test_a_loop_belongs_to_the_thread_that_ran_it_last(loop: hoop.Loop) -> None:
    elsewhere(lambda: loop.run_until_complete(asyncio.sleep(0)))
    with refused("call_soon"):  # its thread has ended
        loop.call_soon(print)
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(lambda: None)


def test_a_loop_whose_thread_has_ended_can_be_closed() -> None:
    loop = elsewhere(hoop.Loop)
    loop.set_debug(True)
    loop.close()
    assert loop.is_closed()


@needs_no_gil
def test_a_thread_cannot_close_the_loop_of_another_one_that_lives(loop: hoop.Loop) -> None:
    with pytest.raises(RuntimeError, match=r"close\(\).*belongs to another thread"):
        elsewhere(loop.close)
    assert not loop.is_closed()
    loop.run_until_complete(asyncio.sleep(0))


def test_a_running_loop_cannot_be_closed_or_run_by_another_thread(runner: Runner) -> None:
    with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
        runner.loop.close()
    with pytest.raises(RuntimeError, match="already running"):
        runner.loop.run_forever()
    assert runner.do(lambda: 1) == 1


def test_of_many_threads_one_runs_the_loop(loop: hoop.Loop) -> None:
    barrier = threading.Barrier(4)
    refusals: list[RuntimeError] = []
    is_last = threading.Semaphore(0)

    def body() -> None:
        barrier.wait(DEADLINE_S)
        try:
            loop.run_forever()
        except RuntimeError as error:
            refusals.append(error)
            is_last.release()

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert is_last.acquire(timeout=DEADLINE_S)
    loop.call_soon_threadsafe(loop.stop)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(refusals) == 3


# ---- what belongs to a loop ----------------------------------------------------------------------------------------


def test_a_transport_is_for_the_thread_of_its_loop(runner: Runner) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    transport, _ = asyncio.run_coroutine_threadsafe(
        runner.loop.create_connection(asyncio.Protocol, sock=left), runner.loop
    ).result(DEADLINE_S)
    calls: dict[str, Callable[[], Any]] = {
        "write": lambda: transport.write(b"no"),
        "writelines": lambda: transport.writelines([b"no"]),
        "write_eof": lambda: transport.write_eof(),
        "close": lambda: transport.close(),
        "abort": lambda: transport.abort(),
        "pause_reading": lambda: transport.pause_reading(),
        "resume_reading": lambda: transport.resume_reading(),
        "set_protocol": lambda: transport.set_protocol(asyncio.Protocol()),
        "set_write_buffer_limits": lambda: transport.set_write_buffer_limits(1),
    }
    for name, call in calls.items():
        with refused(rf"transport\.{name}"):
            call()
    assert transport.get_extra_info("peername") is not None and "open" in repr(transport)
    runner.do(lambda: transport.write(b"yes"))
    assert right.recv(10) == b"yes"
    runner.do(transport.close)
    right.close()


def test_a_transport_of_another_loop_is_refused_inside_a_running_loop(runner: Runner) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    transport, _ = asyncio.run_coroutine_threadsafe(
        runner.loop.create_connection(asyncio.Protocol, sock=left), runner.loop
    ).result(DEADLINE_S)

    async def use_it() -> None:
        with refused(r"transport\.write"):
            transport.write(b"no")

    hoop.run(use_it())
    runner.do(transport.abort)
    right.close()


def test_a_server_is_for_the_thread_of_its_loop(runner: Runner) -> None:
    server = asyncio.run_coroutine_threadsafe(
        runner.loop.create_server(asyncio.Protocol, "127.0.0.1", 0), runner.loop
    ).result(DEADLINE_S)
    with refused(r"Server\.close"):
        server.close()
    runner.do(server.close)


def test_a_timer_is_for_the_thread_of_its_loop(runner: Runner) -> None:
    timer = runner.do(lambda: runner.loop.set_timeout(print, 60))
    with refused(r"Timer\.refresh"):
        timer.refresh()
    runner.do(timer.close)


@needs_no_gil
def test_the_heap_of_timers_is_for_the_thread_of_its_loop(runner: Runner) -> None:
    handle = runner.do(lambda: runner.loop.call_later(60, print))
    with pytest.raises(
        RuntimeError, match=r"Non-thread-safe operation.*: cancel\(\) of a timer is for the thread of its loop"
    ):
        handle.cancel()
    assert not handle.cancelled()
    runner.do(handle.cancel)
    assert handle.cancelled()


def test_a_handle_can_be_cancelled_from_any_thread(loop: hoop.Loop) -> None:
    ran: list[int] = []
    first = loop.call_soon(ran.append, 1)
    second = loop.call_soon_threadsafe(ran.append, 2)
    elsewhere(first.cancel)
    elsewhere(second.cancel)
    assert first.cancelled() and second.cancelled()
    loop.run_until_complete(asyncio.sleep(0))
    assert ran == []


def test_a_future_is_set_through_its_loop(runner: Runner) -> None:
    future = runner.do(runner.loop.create_future)
    waiting = asyncio.run_coroutine_threadsafe(asyncio.wait_for(future, DEADLINE_S), runner.loop)
    runner.loop.call_soon_threadsafe(future.set_result, 7)
    assert waiting.result(DEADLINE_S) == 7


def test_an_abandoned_loop_is_closed_by_the_collector_in_any_thread() -> None:
    closed: list[bool] = []

    class Told(hoop.Loop):
        def close(self) -> None:
            super().close()
            closed.append(self.is_closed())

    loop = Told()
    loop.set_debug(True)
    loop.call_soon(print, loop)
    del loop
    with pytest.warns(ResourceWarning), contextlib.suppress(ImportError):
        elsewhere(gc.collect)
    assert closed == [True]


# ---- the GIL ---------------------------------------------------------------------------------------------------------


@needs_no_gil
def test_importing_leaves_the_gil_off() -> None:
    program = """
import importlib, pkgutil, sys
import hoop
names = [one.name for one in pkgutil.walk_packages(hoop.__path__, "hoop.") if not one.name.startswith(
    ("hoop.adapters", "hoop.__main__"))]
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        if name.split(".")[1] in {"loop", "core", "net", "jobs", "tls", "streams", "handles", "files", "names"}:
            raise
hoop.run(__import__("asyncio").sleep(0))
print(sys._is_gil_enabled(), len(names) > 50)
"""
    status, output, errors = run_script(program, "-W", "error::RuntimeWarning")
    assert (status, output) == (0, "False True"), errors
