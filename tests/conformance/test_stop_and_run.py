"""Running, stopping and closing a loop: stop() finishes the batch, wrong uses are RuntimeErrors (traps 29, 30, 35)."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import weakref
from asyncio.base_events import _run_until_complete_cb
from collections.abc import Callable
from typing import Any

import pytest
from hoop.core.processors import has_gil
from stepping import one_turn

DEADLINE_S = 60.0
HAS_GIL = has_gil()


class Payload:
    """Something a weak reference can point at."""


# stop().


def test_trap_29_stop_finishes_the_batch(loop):
    seen: list[str] = []

    def stops() -> None:
        seen.append("stops")
        loop.stop()
        loop.call_soon(seen.append, "queued while stopping")

    loop.call_soon(stops)
    loop.call_soon(seen.append, "same batch")
    loop.run_forever()
    assert seen == ["stops", "same batch"]
    one_turn(loop)
    assert seen == ["stops", "same batch", "queued while stopping"]


def test_trap_29_what_the_rest_of_the_batch_queues_waits_for_the_next_run(loop):
    seen: list[str] = []

    def queues() -> None:
        seen.append("second")
        loop.call_soon(seen.append, "next run")
        loop.call_soon_threadsafe(seen.append, "next run, threadsafe")
        loop.call_later(0, seen.append, "next run, timer")

    loop.call_soon(loop.stop)
    loop.call_soon(queues)
    loop.run_forever()
    assert seen == ["second"]
    one_turn(loop)
    assert seen == ["second", "next run", "next run, threadsafe", "next run, timer"]


def test_trap_29_due_timers_belong_to_the_batch(loop):
    seen: list[str] = []
    loop.call_at(loop.time() - 1, seen.append, "timer")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["timer"]


def test_trap_29_readable_descriptors_belong_to_the_batch(loop):
    left, right = socket.socketpair()
    with left, right:
        seen: list[str] = []
        right.send(b"x")
        loop.add_reader(left, seen.append, "readable")
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen == ["readable"]
        loop.remove_reader(left)


def test_trap_29_stop_before_run_forever_gives_one_poll_and_one_batch(loop):
    left, right = socket.socketpair()
    with left, right:
        seen: list[str] = []
        right.send(b"x")

        def chain() -> None:
            seen.append("ready")
            loop.call_soon(chain)

        loop.add_reader(left, seen.append, "readable")
        loop.call_at(loop.time() - 1, seen.append, "timer")
        loop.call_soon(chain)
        loop.stop()
        loop.run_forever()
        assert seen == ["ready", "readable", "timer"]
        loop.remove_reader(left)


def test_stop_before_run_forever_does_not_wait(loop):
    loop.call_later(3600, print)
    loop.stop()
    loop.run_forever()
    loop.stop()
    loop.stop()
    loop.run_forever()


def test_stop_is_forgotten_when_the_run_ends(loop):
    seen: list[int] = []
    loop.call_soon(loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()

    def third_turn() -> None:
        seen.append(3)
        loop.stop()

    loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(third_turn)))
    loop.run_forever()
    assert seen == [3]


@pytest.mark.parametrize("kind", ["timer", "reader", "threadsafe", "task", "done callback"])
def test_stop_from_every_kind_of_callback(loop, kind):
    left, right = socket.socketpair()
    with left, right:
        if kind == "timer":
            loop.call_later(0.001, loop.stop)
        elif kind == "reader":
            loop.add_reader(left, loop.stop)
            right.send(b"x")
        elif kind == "threadsafe":
            loop.call_soon_threadsafe(loop.stop)
        elif kind == "task":

            async def stops() -> None:
                loop.stop()

            keep = loop.create_task(stops())
        else:
            future = loop.create_future()
            future.add_done_callback(lambda done: loop.stop())
            future.set_result(None)
        assert loop.run_forever() is None
        assert not loop.is_running()
        loop.remove_reader(left)
        if kind == "task":
            assert keep.done()


def test_stop_on_an_idle_or_closed_loop_is_harmless(loop):
    loop.stop()
    loop.close()
    loop.stop()


# run_until_complete().


def test_run_until_complete_returns_the_result(loop):
    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 8

    assert loop.run_until_complete(main()) == 7
    assert loop.run_until_complete(loop.create_task(main())) == 7
    assert loop.run_until_complete(Awaitable()) == 8
    future = loop.create_future()
    loop.call_soon(future.set_result, 9)
    assert loop.run_until_complete(future) == 9
    assert loop.run_until_complete(future) == 9


def test_run_until_complete_raises_the_exception(loop):
    async def main() -> None:
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        loop.run_until_complete(main())
    future = loop.create_future()
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(future)
    assert not loop.is_running()


def test_run_until_complete_gives_a_done_future_one_turn(loop):
    seen: list[int] = []
    future = loop.create_future()
    future.set_result(None)
    loop.call_soon(seen.append, 1)
    loop.run_until_complete(future)
    assert seen == [1]


def test_run_until_complete_on_a_loop_stopped_early(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match=r"^Event loop stopped before Future completed\.$"):
        loop.run_until_complete(future)
    # The watcher of the interrupted run is gone: completing the future later must not stop another run.
    turns: list[int] = []

    def turn(number: int) -> None:
        turns.append(number)
        if number == 5:
            loop.stop()
        else:
            loop.call_soon(turn, number + 1)

    future.set_result(None)
    loop.call_soon(turn, 0)
    loop.run_forever()
    assert turns == [0, 1, 2, 3, 4, 5]


def test_run_until_complete_interrupted_by_an_exit_removes_its_watcher(loop):
    def interrupt() -> None:
        raise KeyboardInterrupt

    future = loop.create_future()
    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(future)
    assert not future.done()
    assert not future._callbacks
    future.cancel()


@pytest.mark.parametrize("wrong", [None, 1, "text", print])
def test_run_until_complete_refuses_what_cannot_be_awaited(loop, wrong):
    with pytest.raises(TypeError):
        loop.run_until_complete(wrong)
    assert not loop.is_running()


def test_run_until_complete_refuses_a_future_of_another_loop(loop, loop_factory):
    other = loop_factory()
    try:
        future = other.create_future()
        with pytest.raises(ValueError, match="different loop"):
            loop.run_until_complete(future)
    finally:
        other.close()


def test_anyio_finds_the_root_task_by_its_done_callback(loop):
    async def main() -> list[Any]:
        task = asyncio.current_task()
        assert task is not None
        return [callback for callback, _ in task._callbacks]

    assert _run_until_complete_cb in loop.run_until_complete(main())


def test_a_task_finishing_in_an_outer_run_does_not_stop_others(loop):
    """Only the future given to run_until_complete ends the run."""

    async def quick() -> str:
        return "quick"

    async def main() -> str:
        results = await asyncio.gather(*(quick() for _ in range(10)))
        await asyncio.sleep(0.001)
        return "".join(results)

    assert loop.run_until_complete(main()) == "quick" * 10


# State.


def test_is_running_and_the_running_loop(loop):
    states: list[tuple[bool, bool, bool]] = []

    def look() -> None:
        states.append((loop.is_running(), loop.is_closed(), asyncio.get_running_loop() is loop))
        loop.stop()

    assert not loop.is_running() and not loop.is_closed()
    loop.call_soon(look)
    loop.run_forever()
    assert states == [(True, False, True)]
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_many_runs_of_one_loop(loop):
    async def step(number: int) -> int:
        await asyncio.sleep(0)
        return number

    assert [loop.run_until_complete(step(number)) for number in range(200)] == list(range(200))


def test_callbacks_left_over_from_one_run_are_run_by_the_next(loop):
    seen: list[int] = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: loop.call_soon(seen.append, 1))
    loop.run_forever()
    assert seen == []
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == [1]


# Re-entrance and threads.


def attempts_to_run(loop: asyncio.AbstractEventLoop, loop_name: str) -> list[Callable[[], object]]:
    """Ways to run a loop that must be refused now."""
    attempts: list[Callable[[], object]] = [lambda: loop.run_until_complete(loop.create_future())]
    if loop_name != "asyncio" or sys.version_info < (3, 13):
        # From 3.13 asyncio's run_forever() does its clean-up also for the refused call: the loop that really runs
        # is then no longer known as the running one, and the next attempt is not refused.
        attempts.append(loop.run_forever)
    return attempts


def test_trap_35_a_running_loop_cannot_be_run_again(loop, loop_name):
    attempts = attempts_to_run(loop, loop_name)
    errors: list[BaseException] = []
    running: list[bool] = []

    def reenter() -> None:
        for attempt in attempts:
            try:
                attempt()
            except RuntimeError as error:
                errors.append(error)
        running.append(loop.is_running() and asyncio.get_running_loop() is loop)
        loop.stop()

    loop.call_soon(reenter)
    loop.run_forever()
    assert [str(error) for error in errors] == ["This event loop is already running"] * len(attempts)
    assert running == [True] and not loop.is_running()


def test_trap_35_another_loop_cannot_run_inside_a_running_one(loop, loop_factory, loop_name):
    other = loop_factory()
    attempts = attempts_to_run(other, loop_name)
    errors: list[BaseException] = []

    def nest() -> None:
        for attempt in attempts:
            try:
                attempt()
            except RuntimeError as error:
                errors.append(error)
        loop.stop()

    loop.call_soon(nest)
    try:
        loop.run_forever()
        message = "Cannot run the event loop while another loop is running"
        assert [str(error) for error in errors] == [message] * len(attempts)
        assert not other.is_running()
        one_turn(other)
    finally:
        other.close()


def test_trap_35_a_running_loop_cannot_be_run_by_another_thread(loop):
    errors: list[BaseException] = []

    def in_thread() -> None:
        try:
            loop.run_forever()
        except RuntimeError as error:
            errors.append(error)
        finally:
            loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=in_thread)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join(DEADLINE_S)
    assert [str(error) for error in errors] == ["This event loop is already running"]


def test_a_loop_made_here_can_run_in_another_thread(loop):
    results: list[Any] = []

    async def main() -> int:
        await asyncio.sleep(0.001)
        return threading.get_ident()

    def in_thread() -> None:
        results.append(loop.run_until_complete(main()))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(DEADLINE_S)
    assert results == [thread.ident]
    assert loop.run_until_complete(main()) == threading.get_ident()


def test_two_loops_in_two_threads_do_not_disturb_each_other(loop_factory):
    results: dict[int, int] = {}

    def in_thread(number: int) -> None:
        async def main() -> int:
            total = 0
            for _ in range(200):
                await asyncio.sleep(0)
                total += number
            return total

        own = loop_factory()
        try:
            results[number] = own.run_until_complete(main())
        finally:
            own.close()

    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert results == {number: 200 * number for number in range(4)}


# close().


def test_trap_35_a_running_loop_cannot_be_closed(loop):
    errors: list[BaseException] = []

    def close() -> None:
        try:
            loop.close()
        except RuntimeError as error:
            errors.append(error)
        loop.call_soon(loop.stop)

    loop.call_soon(close)
    loop.run_forever()
    assert [str(error) for error in errors] == ["Cannot close a running event loop"]
    assert not loop.is_closed()


def test_close_twice(loop):
    loop.close()
    assert loop.is_closed()
    loop.close()
    assert loop.is_closed() and not loop.is_running()


def test_a_loop_that_never_ran_can_be_closed(loop_factory):
    for _ in range(20):
        loop = loop_factory()
        loop.call_soon(print)
        loop.call_later(5, print)
        loop.close()


def test_a_closed_loop_refuses_work(loop):
    loop.close()
    future = loop.create_future()
    for refused in (
        loop.run_forever,
        lambda: loop.run_until_complete(future),
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.run_in_executor(None, print),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            refused()
    with pytest.raises(RuntimeError):
        loop.run_until_complete(future)
    assert isinstance(loop.time(), float)
    assert not loop.is_running()


def test_a_closed_loop_refuses_tasks_and_descriptors(loop):
    loop.close()

    async def main() -> None:
        """Never runs."""

    coroutine = main()
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(coroutine)
    coroutine.close()
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(RuntimeError, match="closed"):
            loop.add_reader(left, print)
        with pytest.raises(RuntimeError, match="closed"):
            loop.add_writer(left, print)
        assert loop.remove_reader(left) is False
        assert loop.remove_writer(left) is False


def test_close_drops_what_was_queued(loop):
    seen: list[object] = []
    payloads = [Payload() for _ in range(3)]
    refs = [weakref.ref(payload) for payload in payloads]
    loop.call_soon(seen.append, payloads[0])
    loop.call_soon_threadsafe(seen.append, payloads[1])
    loop.call_later(1, seen.append, payloads[2])
    payloads.clear()
    loop.close()
    gc.collect()
    assert seen == []
    assert [ref() for ref in refs] == [None, None, None]


@pytest.mark.skipif(not HAS_GIL, reason="without a GIL it belongs to its thread: unit/test_ownership.py")
def test_a_loop_can_be_closed_by_another_thread_when_it_does_not_run(loop):
    loop.run_until_complete(asyncio.sleep(0))
    thread = threading.Thread(target=loop.close)
    thread.start()
    thread.join(DEADLINE_S)
    assert loop.is_closed()


def test_close_may_free_objects_that_call_the_loop(loop):
    """Finalizers that run inside close() see a closed loop, not a crash."""
    errors: list[BaseException] = []

    class CallsLoop:
        def __del__(self) -> None:
            for method in (loop.call_soon, loop.call_soon_threadsafe):
                try:
                    method(print)
                except RuntimeError as error:
                    errors.append(error)

    loop.call_soon(print, CallsLoop())
    loop.call_later(5, print, CallsLoop())
    loop.close()
    gc.collect()
    assert len(errors) == 4
    assert {str(error) for error in errors} == {"Event loop is closed"}


# asyncio's own runners on top.


def test_runner_runs_and_closes_the_loop(loop_factory):
    async def main() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.run(main())
        assert runner.run(main()) is loop
        assert runner.get_loop() is loop
    assert loop.is_closed()


def test_runner_cancels_what_is_left(loop_factory):
    seen: list[str] = []

    async def background() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("cancelled")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        return task

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        task = runner.run(main())
    assert task.cancelled() and seen == ["cancelled"]


def test_run_inside_a_running_loop_is_refused(run):
    async def inner() -> None:
        """Never runs."""

    async def main() -> None:
        coroutine = inner()
        with pytest.raises(RuntimeError, match="cannot be called"):
            asyncio.run(coroutine)
        coroutine.close()

    run(main())
