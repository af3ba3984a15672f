"""call_soon_threadsafe: no call is lost, none wakes too late, none crashes, also while the loop closes (trap 32).

Threads here wait for events with a deadline, never for time to pass. A lost wake-up shows as a missed deadline.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from stepping import one_turn, run_guarded

DEADLINE_S = 60.0


def start_threads(count: int, target: Callable[[int], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


class Payload:
    """Something a weak reference can point at."""


# Waking.


def test_trap_32_a_sleeping_loop_is_woken(loop):
    """Ping-pong: the thread calls as soon as the loop is about to sleep, hundreds of times, at random phases."""
    rounds = 500
    turn = threading.Event()
    seen: list[int] = []

    def pong(number: int) -> None:
        seen.append(number)
        if number == rounds - 1:
            loop.stop()
        turn.set()

    def in_thread(_: int) -> None:
        for number in range(rounds):
            assert turn.wait(DEADLINE_S)
            turn.clear()
            for _ in range(number % 97):
                pass
            loop.call_soon_threadsafe(pong, number)

    threads = start_threads(1, in_thread)
    loop.call_soon(turn.set)
    run_guarded(loop)
    join_all(threads)
    assert seen == list(range(rounds))


def test_trap_32_stop_from_another_thread(loop):
    for _ in range(50):
        running = threading.Event()

        def in_thread(_: int, running: threading.Event = running) -> None:
            assert running.wait(DEADLINE_S)
            loop.call_soon_threadsafe(loop.stop)

        threads = start_threads(1, in_thread)
        loop.call_soon(running.set)
        run_guarded(loop)
        join_all(threads)


def test_trap_32_many_threads(loop):
    threads_count, calls = 8, 1500
    seen: list[tuple[int, int]] = []

    def arrived(thread: int, number: int) -> None:
        seen.append((thread, number))
        if len(seen) == threads_count * calls:
            loop.stop()

    def in_thread(thread: int) -> None:
        for number in range(calls):
            loop.call_soon_threadsafe(arrived, thread, number)

    threads = start_threads(threads_count, in_thread)
    run_guarded(loop)
    join_all(threads)
    for thread in range(threads_count):
        assert [number for owner, number in seen if owner == thread] == list(range(calls))


def test_trap_32_thousands_of_calls_while_a_callback_blocks(loop):
    """More wake-ups than a pipe or a counter would hold, and every call still arrives, in order."""
    calls = 100_000
    seen: list[int] = []
    done = threading.Event()

    def in_thread(_: int) -> None:
        for number in range(calls):
            loop.call_soon_threadsafe(seen.append, number)
        loop.call_soon_threadsafe(loop.stop)
        done.set()

    loop.call_soon(lambda: done.wait(DEADLINE_S))
    threads = start_threads(1, in_thread)
    run_guarded(loop)
    join_all(threads)
    assert seen == list(range(calls))


def test_trap_32_calls_made_while_the_loop_does_not_run_wait_for_it(loop):
    seen: list[int] = []
    for number in range(20):
        join_all(start_threads(1, lambda _, number=number: loop.call_soon_threadsafe(seen.append, number)))
        if number % 2:
            one_turn(loop)
            assert seen == list(range(number + 1))


def repeat_call(loop: Any) -> None:
    """A compiled callback that schedules itself, for ever."""
    repeat = functools.partial(loop.call_soon)
    repeat.__setstate__((loop.call_soon, (repeat,), {}, {}))
    loop.call_soon(repeat)


def watch_what_is_writable(loop: Any) -> None:
    left, right = socket.socketpair()
    weakref.finalize(loop, left.close)
    weakref.finalize(loop, right.close)
    loop.add_writer(left, int)


def ring_all_the_time(loop: Any) -> None:
    if not hasattr(loop, "set_interval"):
        pytest.skip("hoop's own timers")
    loop.set_interval(int, 1e-9)


@pytest.mark.parametrize(
    "occupy", [repeat_call, watch_what_is_writable, ring_all_the_time], ids=lambda occupy: occupy.__name__
)
def test_a_loop_busy_with_compiled_callbacks_lets_other_threads_run(loop, occupy):
    """They never let go of the GIL."""
    begin = threading.Lock()
    begin.acquire()

    def stop(_: int) -> None:
        assert begin.acquire(timeout=DEADLINE_S)
        loop.call_soon_threadsafe(loop.stop)

    threads = start_threads(1, stop)
    occupy(loop)
    loop.call_soon(begin.release)
    run_guarded(loop)
    join_all(threads)


def test_a_woken_loop_sees_a_timer_that_the_callback_set(loop):
    seen: list[str] = []
    running = threading.Event()

    def from_thread() -> None:
        seen.append("threadsafe")
        loop.call_later(0.001, seen.append, "timer")
        loop.call_later(0.002, loop.stop)

    def in_thread(_: int) -> None:
        assert running.wait(DEADLINE_S)
        loop.call_soon_threadsafe(from_thread)

    loop.call_soon(running.set)
    threads = start_threads(1, in_thread)
    run_guarded(loop)
    join_all(threads)
    assert seen == ["threadsafe", "timer"]


# Order.


def test_order_is_kept_with_call_soon_before_the_loop_runs(loop):
    seen: list[int] = []
    for number in range(100):
        (loop.call_soon_threadsafe if number % 3 else loop.call_soon)(seen.append, number)
    one_turn(loop)
    assert seen == list(range(100))


def test_order_is_kept_with_call_soon_inside_a_callback(loop):
    seen: list[int] = []

    def schedule() -> None:
        for number in range(100):
            (loop.call_soon_threadsafe if number % 3 else loop.call_soon)(seen.append, number)

    loop.call_soon(schedule)
    one_turn(loop)
    assert seen == []
    one_turn(loop)
    assert seen == list(range(100))


def test_a_threadsafe_call_from_a_callback_runs_in_the_next_turn(loop):
    seen: list[str] = []
    loop.call_soon(lambda: loop.call_soon_threadsafe(seen.append, "next turn"))
    loop.call_soon(seen.append, "this turn")
    one_turn(loop)
    assert seen == ["this turn"]
    one_turn(loop)
    assert seen == ["this turn", "next turn"]


def test_what_happened_before_the_call_is_seen_by_the_callback(loop):
    box: list[int] = []
    seen: list[int] = []

    def in_thread(_: int) -> None:
        for number in range(1000):
            box.append(number)
            loop.call_soon_threadsafe(lambda: seen.append(len(box)))
        loop.call_soon_threadsafe(loop.stop)

    threads = start_threads(1, in_thread)
    run_guarded(loop)
    join_all(threads)
    assert all(count >= position for position, count in enumerate(seen, 1)) and len(seen) == 1000


# Cancelling.


def test_a_handle_is_cancelled_by_another_thread(loop):
    seen: list[int] = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    assert isinstance(handle, asyncio.Handle)
    join_all(start_threads(1, lambda _: handle.cancel()))
    one_turn(loop)
    assert seen == [] and handle.cancelled()


def test_cancelling_from_threads_while_the_loop_runs_them(loop):
    """Each handle either ran or was cancelled, and none of it crashes."""
    threads_count, calls = 4, 800
    ran: set[tuple[int, int]] = set()
    handles: dict[tuple[int, int], asyncio.Handle] = {}
    left = [threads_count]

    def thread_is_done() -> None:
        left[0] -= 1
        if not left[0]:
            loop.stop()

    def in_thread(thread: int) -> None:
        for number in range(calls):
            handle = loop.call_soon_threadsafe(ran.add, (thread, number))
            handles[thread, number] = handle
            if number % 2:
                handle.cancel()
        loop.call_soon_threadsafe(thread_is_done)

    threads = start_threads(threads_count, in_thread)
    run_guarded(loop)
    join_all(threads)
    assert len(handles) == threads_count * calls
    for key, handle in handles.items():
        assert key in ran or handle.cancelled()
        assert key[1] % 2 or (key in ran and not handle.cancelled())


# Closing.


def test_trap_32_after_close_it_raises(loop):
    loop.close()
    errors: list[BaseException] = []

    def in_thread(_: int) -> None:
        try:
            loop.call_soon_threadsafe(print)
        except RuntimeError as error:
            errors.append(error)

    join_all(start_threads(2, in_thread))
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_soon_threadsafe(print)
    assert [str(error) for error in errors] == ["Event loop is closed"] * 2


def test_trap_32_during_close_each_call_is_taken_or_refused(loop_factory):
    for _ in range(25):
        loop = loop_factory()
        warm = threading.Barrier(4)
        unexpected: list[BaseException] = []

        def in_thread(_: int, loop=loop, warm=warm, unexpected=unexpected) -> None:
            warm.wait(DEADLINE_S)
            try:
                while True:
                    loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                if "closed" not in str(error):
                    unexpected.append(error)
            except BaseException as error:
                unexpected.append(error)

        threads = start_threads(3, in_thread)
        warm.wait(DEADLINE_S)
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        join_all(threads)
        assert unexpected == []


def test_close_drops_pending_threadsafe_calls_and_their_arguments(loop):
    refs = []

    def in_thread(_: int) -> None:
        for _ in range(100):
            payload = Payload()
            refs.append(weakref.ref(payload))
            loop.call_soon_threadsafe(print, payload)

    join_all(start_threads(2, in_thread))
    assert all(ref() is not None for ref in refs)
    loop.close()
    gc.collect()
    assert all(ref() is None for ref in refs) and len(refs) == 200


# Contexts, errors, and odd callers.


def test_the_context_is_that_of_the_calling_thread(loop):
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    own = contextvars.copy_context()
    own.run(variable.set, "own")
    seen: list[str] = []

    def in_thread(_: int) -> None:
        variable.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(variable.get()))
        loop.call_soon_threadsafe(lambda: seen.append(variable.get()), context=own)
        variable.set("changed later")

    join_all(start_threads(1, in_thread))
    one_turn(loop)
    assert seen == ["thread", "own"]
    assert variable.get() == "unset"


def test_an_exception_is_reported_like_any_other(loop):
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    handles: list[asyncio.Handle] = []
    join_all(start_threads(1, lambda _: handles.append(loop.call_soon_threadsafe(lambda: 1 / 0))))
    one_turn(loop)
    [context] = contexts
    assert set(context) == {"message", "exception", "handle"}
    assert context["handle"] is handles[0]


def test_a_finalizer_may_call_it_while_the_loop_allocates(loop):
    """The garbage collector runs finalizers in the middle of anything, also inside the loop's own queueing."""
    seen: list[int] = []

    class Cycle:
        def __init__(self, number: int) -> None:
            self.number, self.me = number, self

        def __del__(self) -> None:
            loop.call_soon_threadsafe(seen.append, self.number)

    def collect() -> None:
        for number in range(300):
            Cycle(number)
            loop.call_soon(int)
            loop.call_soon_threadsafe(int)
        gc.collect()

    loop.call_soon(collect)
    threshold = gc.get_threshold()
    gc.set_threshold(7, 2, 2)
    try:
        one_turn(loop)
        one_turn(loop)
    finally:
        gc.set_threshold(*threshold)
    one_turn(loop)
    assert sorted(seen) == list(range(300))


def test_two_loops_call_each_other(loop_factory):
    rounds = 300
    loops = [loop_factory(), loop_factory()]
    count = [0]

    def bounce(here: int) -> None:
        count[0] += 1
        if count[0] >= rounds:
            for loop in loops:
                loop.call_soon_threadsafe(loop.stop)
        else:
            loops[1 - here].call_soon_threadsafe(bounce, 1 - here)

    try:
        loops[0].call_soon_threadsafe(bounce, 0)
        threads = start_threads(2, lambda number: run_guarded(loops[number], is_ours=False))
        join_all(threads)
        assert count == [rounds]
    finally:
        for loop in loops:
            loop.close()


def test_run_coroutine_threadsafe_returns_results_errors_and_cancels(loop):
    outcome: dict[str, Any] = {}
    cancelled = threading.Event()

    async def value(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def fails() -> None:
        raise LookupError

    async def hangs(started: threading.Event) -> None:
        started.set()
        try:
            await loop.create_future()
        finally:
            cancelled.set()

    def in_thread(_: int) -> None:
        try:
            futures = [asyncio.run_coroutine_threadsafe(value(number), loop) for number in range(50)]
            outcome["values"] = [future.result(DEADLINE_S) for future in futures]
            outcome["error"] = asyncio.run_coroutine_threadsafe(fails(), loop).exception(DEADLINE_S)
            started = threading.Event()
            hanging = asyncio.run_coroutine_threadsafe(hangs(started), loop)
            assert started.wait(DEADLINE_S)
            hanging.cancel()
            outcome["cancelled"] = cancelled.wait(DEADLINE_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)

    threads = start_threads(1, in_thread)
    run_guarded(loop)
    join_all(threads)
    assert outcome["values"] == list(range(50))
    assert type(outcome["error"]) is LookupError
    assert outcome["cancelled"] is True


def test_a_concurrent_future_wakes_the_loop(run):
    async def main() -> int:
        future: concurrent.futures.Future[int] = concurrent.futures.Future()
        wrapped = asyncio.wrap_future(future)
        threads = start_threads(1, lambda _: future.set_result(5))
        result = await wrapped
        join_all(threads)
        return result

    assert run(main()) == 5


# From Python 3.14 on, cancel() and cancelled() of other threads wait for a callback that is running.


needs_waiting_handles = pytest.mark.skipif(
    not hasattr(asyncio.events, "_ThreadSafeHandle"), reason="such handles came with Python 3.14"
)


@needs_waiting_handles
@pytest.mark.parametrize("callers", [1, 5])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
def test_another_thread_waits_for_a_callback_that_runs(loop: Any, callers: int, fails: bool, method: str) -> None:
    log: list[object] = []
    started, may_end = threading.Event(), threading.Event()
    asking = threading.Semaphore(0)
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context))

    def callback() -> None:
        started.set()
        assert may_end.wait(DEADLINE_S)
        log.append("ended")
        if fails:
            raise ValueError("on purpose")

    handle = loop.call_soon_threadsafe(callback)
    assert isinstance(handle, asyncio.events._ThreadSafeHandle)

    def ask(_: int) -> None:
        assert started.wait(DEADLINE_S)
        asking.release()
        log.append(getattr(handle, method)())

    def let_go(_: int) -> None:
        for _ in range(callers):
            assert asking.acquire(timeout=DEADLINE_S)
        may_end.set()

    threads = start_threads(callers, ask) + start_threads(1, let_go)
    one_turn(loop)
    join_all(threads)
    assert log == ["ended"] + [None if method == "cancel" else False] * callers
    assert handle.cancelled() is (method == "cancel")
    assert [type(context["exception"]) for context in errors] == [ValueError] * fails


@needs_waiting_handles
def test_a_callback_cancels_itself_and_others_without_waiting(loop: Any) -> None:
    seen: list[Any] = []

    def first() -> None:
        handles[0].cancel()
        handles[1].cancel()
        seen.extend(handle.cancelled() for handle in handles)

    handles = [loop.call_soon_threadsafe(callback) for callback in (first, lambda: seen.append("second"))]
    handles.append(loop.call_soon_threadsafe(seen.append, "third"))
    one_turn(loop)
    assert seen == [True, True, False, "third"]


@needs_waiting_handles
def test_a_thread_that_waits_is_let_go_when_the_callback_leaves_the_loop(loop: Any) -> None:
    started, asking = threading.Event(), threading.Event()

    def callback() -> None:
        started.set()
        assert asking.wait(DEADLINE_S)
        raise KeyboardInterrupt

    def ask(_: int) -> None:
        assert started.wait(DEADLINE_S)
        asking.set()
        handle.cancel()

    handle = loop.call_soon_threadsafe(callback)
    threads = start_threads(1, ask)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    join_all(threads)
