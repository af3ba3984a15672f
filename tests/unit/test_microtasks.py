"""next_tick, queue_microtask and set_immediate: queues in the spirit of Node.js, exact to the single callback.

After every callback of any kind both microtask queues are drained: all next_ticks, then all microtasks, and again until
both are empty. Immediates run at the end of a turn, after ready callbacks, I/O and timers; one that an immediate sets
runs at the end of the next turn. asyncio uses none of these queues, so its own order is unchanged.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest
from stepping import one_turn, run_guarded

DEADLINE_S = 60.0
QUEUES = ["next_tick", "queue_microtask", "set_immediate"]
MICROTASK_QUEUES = ["next_tick", "queue_microtask"]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def loop() -> Iterator[hoop.Loop]:
    loop = hoop.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(params=[False, True], ids=["", "debug"])
def any_loop(request: pytest.FixtureRequest, loop: hoop.Loop) -> hoop.Loop:
    """The order must be the same in debug mode, which times each callback."""
    loop.set_debug(request.param)
    loop.slow_callback_duration = float("inf")
    return loop


class Payload:
    """Something a weak reference can point at."""


# The order of the two microtask queues.


def test_next_ticks_run_before_microtasks_and_both_before_the_next_callback(any_loop):
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        any_loop.queue_microtask(seen.append, "microtask 1")
        any_loop.next_tick(seen.append, "tick 1")
        any_loop.queue_microtask(seen.append, "microtask 2")
        any_loop.next_tick(seen.append, "tick 2")

    any_loop.call_soon(first)
    any_loop.call_soon(seen.append, "second")
    one_turn(any_loop)
    assert seen == ["first", "tick 1", "tick 2", "microtask 1", "microtask 2", "second"]


def test_a_next_tick_of_a_next_tick_runs_before_the_microtasks(any_loop):
    seen: list[str] = []

    def tick() -> None:
        seen.append("tick 1")
        any_loop.next_tick(seen.append, "tick of tick")
        any_loop.queue_microtask(seen.append, "microtask of tick")

    def first() -> None:
        any_loop.queue_microtask(seen.append, "microtask 1")
        any_loop.next_tick(tick)
        any_loop.next_tick(seen.append, "tick 2")

    any_loop.call_soon(first)
    one_turn(any_loop)
    assert seen == ["tick 1", "tick 2", "tick of tick", "microtask 1", "microtask of tick"]


def test_a_next_tick_of_a_microtask_waits_until_the_microtask_queue_is_empty(any_loop):
    """As in Node: microtasks that microtasks queue belong to the same drain, and only then come next_ticks again."""
    seen: list[str] = []

    def microtask() -> None:
        seen.append("microtask 1")
        any_loop.next_tick(seen.append, "tick of microtask")
        any_loop.queue_microtask(seen.append, "microtask of microtask")

    def first() -> None:
        any_loop.queue_microtask(microtask)
        any_loop.queue_microtask(seen.append, "microtask 2")

    any_loop.call_soon(first)
    any_loop.call_soon(seen.append, "second")
    one_turn(any_loop)
    assert seen == ["microtask 1", "microtask 2", "microtask of microtask", "tick of microtask", "second"]


def test_the_queues_alternate_until_both_are_empty(any_loop):
    seen: list[str] = []

    def tick(left: int) -> None:
        seen.append(f"tick {left}")
        if left:
            any_loop.queue_microtask(microtask, left - 1)

    def microtask(left: int) -> None:
        seen.append(f"microtask {left}")
        if left:
            any_loop.next_tick(tick, left - 1)

    any_loop.call_soon(lambda: any_loop.next_tick(tick, 5))
    any_loop.call_soon(seen.append, "second")
    one_turn(any_loop)
    assert seen == ["tick 5", "microtask 4", "tick 3", "microtask 2", "tick 1", "microtask 0", "second"]


@pytest.mark.parametrize("queue", MICROTASK_QUEUES)
def test_a_hundred_thousand_deep_chain(loop, queue):
    count = [0]

    def again() -> None:
        count[0] += 1
        if count[0] < 100_000:
            getattr(loop, queue)(again)

    loop.call_soon(again)
    one_turn(loop)
    assert count == [100_000]


@pytest.mark.parametrize("queue", QUEUES)
def test_a_hundred_thousand_wide_queue(loop, queue):
    seen: list[int] = []

    def first() -> None:
        for number in range(100_000):
            getattr(loop, queue)(seen.append, number)

    loop.call_soon(first)
    one_turn(loop)
    assert seen == list(range(100_000))


# After every callback of any kind.


def queue_marks(loop: hoop.Loop, seen: list[str], name: str) -> None:
    """A callback that leaves one entry in each queue."""
    seen.append(name)
    loop.queue_microtask(seen.append, f"microtask of {name}")
    loop.next_tick(seen.append, f"tick of {name}")


def marks(*names: str) -> list[str]:
    return [mark for name in names for mark in (name, f"tick of {name}", f"microtask of {name}")]


def test_after_timers(any_loop):
    seen: list[str] = []
    now = any_loop.time()
    any_loop.call_at(now - 2, queue_marks, any_loop, seen, "timer 1")
    any_loop.call_at(now - 1, queue_marks, any_loop, seen, "timer 2")
    one_turn(any_loop)
    assert seen == marks("timer 1", "timer 2")


def test_after_threadsafe_callbacks(any_loop):
    seen: list[str] = []

    def in_thread() -> None:
        for number in (1, 2):
            any_loop.call_soon_threadsafe(queue_marks, any_loop, seen, f"threadsafe {number}")
        any_loop.call_soon_threadsafe(any_loop.stop)

    thread = threading.Thread(target=in_thread)
    any_loop.call_soon(thread.start)
    run_guarded(any_loop)
    thread.join(DEADLINE_S)
    assert seen == marks("threadsafe 1", "threadsafe 2")


def test_after_readers_and_writers(any_loop):
    pairs = [socket.socketpair() for _ in range(2)]
    seen: list[str] = []
    for left, right in pairs:
        left.setblocking(False)
        right.send(b"x")
        any_loop.add_reader(left, queue_marks, any_loop, seen, "reader")
        any_loop.add_writer(left, queue_marks, any_loop, seen, "writer")
    one_turn(any_loop)
    for start in range(0, 12, 3):
        assert seen[start : start + 3] in (marks("reader"), marks("writer"))
    assert seen.count("reader") == seen.count("writer") == 2
    for left, right in pairs:
        any_loop.remove_reader(left), any_loop.remove_writer(left)
        left.close(), right.close()


def test_after_each_step_of_a_task(any_loop):
    seen: list[str] = []

    async def worker(number: int) -> None:
        for step in range(2):
            queue_marks(any_loop, seen, f"{number}.{step}")
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(worker(1), worker(2))

    any_loop.run_until_complete(main())
    assert seen == marks("1.0", "2.0", "1.1", "2.1")


def test_after_signal_handlers(any_loop):
    seen: list[str] = []

    def handler() -> None:
        queue_marks(any_loop, seen, "signal")
        any_loop.call_soon(any_loop.stop)

    any_loop.add_signal_handler(signal.SIGUSR1, handler)
    any_loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    run_guarded(any_loop)
    any_loop.remove_signal_handler(signal.SIGUSR1)
    assert seen == marks("signal")


def test_after_immediates(any_loop):
    seen: list[str] = []
    any_loop.set_immediate(queue_marks, any_loop, seen, "immediate 1")
    any_loop.set_immediate(queue_marks, any_loop, seen, "immediate 2")
    one_turn(any_loop)
    assert seen == marks("immediate 1", "immediate 2")


class MarkingProtocol(asyncio.Protocol):
    def __init__(self, loop: hoop.Loop, seen: list[str]) -> None:
        self.loop, self.seen = loop, seen
        self.closed = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        queue_marks(self.loop, self.seen, "made")

    def data_received(self, data: bytes) -> None:
        queue_marks(self.loop, self.seen, "data")

    def eof_received(self) -> None:
        queue_marks(self.loop, self.seen, "eof")

    def connection_lost(self, error: Exception | None) -> None:
        queue_marks(self.loop, self.seen, "lost")
        self.loop.call_soon(self.closed.set_result, None)


def test_after_protocol_callbacks(loop):
    seen: list[str] = []

    async def main() -> None:
        left, right = socket.socketpair()
        with right:
            protocol = MarkingProtocol(loop, seen)
            await loop.create_connection(lambda: protocol, sock=left)
            right.send(b"data")
            while "data" not in seen:
                await asyncio.sleep(0)
            right.shutdown(socket.SHUT_WR)
            await protocol.closed

    loop.run_until_complete(asyncio.wait_for(main(), DEADLINE_S))
    assert seen == marks("made", "data", "eof", "lost")


def test_after_a_callback_that_fails(any_loop):
    seen: list[str] = []
    any_loop.set_exception_handler(lambda handler_loop, context: queue_marks(any_loop, seen, "handler"))

    def fails() -> None:
        any_loop.next_tick(seen.append, "tick of the failing callback")
        raise ValueError

    any_loop.call_soon(fails)
    any_loop.call_soon(seen.append, "second")
    one_turn(any_loop)
    assert seen == ["handler", "tick of the failing callback", "tick of handler", "microtask of handler", "second"]


# Before the loop runs.


@pytest.mark.parametrize("queue", QUEUES)
def test_queued_before_the_run_it_runs_without_any_other_callback(loop, queue):
    getattr(loop, queue)(loop.stop)
    run_guarded(loop)


def test_microtasks_queued_before_the_run_come_first(any_loop):
    seen: list[str] = []
    any_loop.call_soon(seen.append, "ready")
    any_loop.set_immediate(seen.append, "immediate")
    any_loop.queue_microtask(seen.append, "microtask")
    any_loop.next_tick(seen.append, "tick")
    one_turn(any_loop)
    assert seen == ["tick", "microtask", "ready", "immediate"]


# Immediates.


def test_immediates_come_after_ready_callbacks_and_timers(any_loop):
    seen: list[str] = []

    def first() -> None:
        any_loop.set_immediate(seen.append, "immediate")
        any_loop.call_soon(seen.append, "next turn")
        seen.append("first")

    any_loop.call_at(any_loop.time() - 1, seen.append, "timer")
    any_loop.call_soon(first)
    any_loop.call_soon(seen.append, "second")
    one_turn(any_loop)
    assert seen == ["first", "second", "timer", "immediate"]
    one_turn(any_loop)
    assert seen[4:] == ["next turn"]


def test_an_immediate_of_a_timer_runs_in_the_same_turn(any_loop):
    seen: list[str] = []
    any_loop.call_at(any_loop.time() - 1, any_loop.set_immediate, seen.append, "immediate")
    one_turn(any_loop)
    assert seen == ["immediate"]


def test_an_immediate_of_a_microtask_runs_in_the_same_turn(any_loop):
    seen: list[str] = []
    any_loop.call_soon(any_loop.queue_microtask, any_loop.set_immediate, seen.append, "immediate")
    one_turn(any_loop)
    assert seen == ["immediate"]


def test_an_immediate_of_an_immediate_runs_in_the_next_turn(any_loop):
    seen: list[str] = []

    def immediate() -> None:
        seen.append("immediate 1")
        any_loop.set_immediate(seen.append, "immediate of immediate")
        any_loop.call_soon(seen.append, "ready of immediate")
        any_loop.queue_microtask(any_loop.set_immediate, seen.append, "immediate of its microtask")

    any_loop.set_immediate(immediate)
    any_loop.set_immediate(seen.append, "immediate 2")
    one_turn(any_loop)
    assert seen == ["immediate 1", "immediate 2"]
    one_turn(any_loop)
    assert seen[2:] == ["ready of immediate", "immediate of immediate", "immediate of its microtask"]


def test_a_pending_immediate_keeps_the_loop_from_sleeping(loop):
    count = [0]

    def again() -> None:
        count[0] += 1
        if count[0] == 1000:
            loop.stop()
        else:
            loop.set_immediate(again)

    loop.call_later(3600, print)
    loop.set_immediate(again)
    run_guarded(loop)
    assert count == [1000]


def test_a_chain_of_immediates_starves_nobody(loop):
    seen: list[str] = []
    left, right = socket.socketpair()
    with left, right:

        def again() -> None:
            if len(seen) < 3:
                loop.set_immediate(again)
            else:
                loop.stop()

        def readable() -> None:
            seen.append("reader")
            loop.remove_reader(left)

        loop.add_reader(left, readable)
        loop.call_later(0.001, seen.append, "timer")
        threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, "threadsafe")).start()
        right.send(b"x")
        loop.set_immediate(again)
        run_guarded(loop)
    assert sorted(seen) == ["reader", "threadsafe", "timer"]


# stop().


@pytest.mark.parametrize("queue", QUEUES)
def test_stop_from_a_queue_finishes_the_turn(loop, queue):
    seen: list[str] = []

    def first() -> None:
        getattr(loop, queue)(loop.stop)
        getattr(loop, queue)(seen.append, "same queue")
        loop.set_immediate(seen.append, "immediate")
        loop.call_soon(seen.append, "next run")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    run_guarded(loop)
    assert sorted(seen) == ["immediate", "same queue", "second"]
    one_turn(loop)
    assert seen[3:] == ["next run"]


# Exceptions.


@pytest.mark.parametrize("queue", QUEUES)
def test_an_exception_goes_to_the_exception_handler(loop, queue):
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    seen: list[str] = []

    def first() -> None:
        getattr(loop, queue)(divmod, 1, 0)
        getattr(loop, queue)(seen.append, "goes on")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    one_turn(loop)
    [context] = contexts
    assert type(context["exception"]) is ZeroDivisionError
    assert context["message"].startswith("Exception in callback ")
    assert {"message", "exception", "handle"} <= set(context)
    assert sorted(seen) == ["goes on", "second"]


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_leaves_the_loop_and_loses_nothing(loop, queue, error):
    seen: list[str] = []

    def interrupt() -> None:
        raise error

    def first() -> None:
        getattr(loop, queue)(seen.append, "before")
        getattr(loop, queue)(interrupt)
        getattr(loop, queue)(seen.append, "after")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    with pytest.raises(error):
        loop.run_forever()
    assert not loop.is_running()
    assert seen == (["second", "before"] if queue == "set_immediate" else ["before"])
    one_turn(loop)
    assert sorted(seen) == ["after", "before", "second"]


def test_an_exit_of_a_callback_keeps_its_microtasks(loop):
    seen: list[str] = []

    def interrupt() -> None:
        loop.queue_microtask(seen.append, "microtask")
        loop.next_tick(seen.append, "tick")
        loop.set_immediate(seen.append, "immediate")
        raise KeyboardInterrupt

    loop.call_soon(interrupt)
    loop.call_soon(seen.append, "second")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    one_turn(loop)
    assert seen == ["tick", "microtask", "second", "immediate"]


# Arguments, handles and contexts.


@pytest.mark.parametrize("queue", QUEUES)
class TestCalls:
    @pytest.fixture
    def schedule(self, loop: hoop.Loop, queue: str) -> Callable[..., Any]:
        return getattr(loop, queue)

    def test_arguments(self, loop, schedule):
        got: list[tuple[object, ...]] = []
        given = tuple(object() for _ in range(9))
        schedule(lambda *args: got.append(args), *given)
        schedule(lambda *args: got.append(args))
        one_turn(loop)
        assert got == [given, ()]

    def test_wrong_calls(self, loop, schedule):
        with pytest.raises(TypeError):
            schedule()
        with pytest.raises(TypeError):
            schedule(print, nonsense=1)

    @pytest.mark.parametrize("wrong", [None, 1, "text"], ids=repr)
    def test_a_wrong_callback_is_refused_or_reported(self, loop, schedule, wrong):
        contexts: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
        try:
            schedule(wrong)
        except TypeError:
            return
        one_turn(loop)
        assert [type(context["exception"]) for context in contexts] == [TypeError]

    @pytest.mark.parametrize("wrong", [None, 1, "text"], ids=repr)
    def test_debug_mode_refuses_a_wrong_callback(self, loop, schedule, queue, wrong):
        loop.set_debug(True)
        with pytest.raises(TypeError, match=queue):
            schedule(wrong)

    def test_the_handle_can_be_cancelled(self, loop, schedule):
        seen: list[int] = []
        payload = Payload()
        ref = weakref.ref(payload)
        handle = schedule(seen.append, payload)
        del payload
        assert isinstance(handle, asyncio.Handle) and not handle.cancelled()
        schedule(seen.append, 2)
        handle.cancel()
        assert ref() is None
        one_turn(loop)
        assert seen == [2] and handle.cancelled()

    def test_one_can_cancel_the_next(self, loop, schedule):
        seen: list[int] = []
        handles: list[asyncio.Handle] = []
        schedule(lambda: handles[0].cancel())
        handles.append(schedule(seen.append, 1))
        schedule(seen.append, 2)
        one_turn(loop)
        assert seen == [2]

    def test_the_current_context_is_copied(self, loop, schedule):
        seen: list[str] = []

        def body() -> None:
            variable.set("at the call")
            schedule(lambda: seen.append(variable.get()))
            variable.set("after the call")

        loop.call_soon(body, context=contextvars.copy_context())
        one_turn(loop)
        assert seen == ["at the call"] and variable.get() == "unset"

    def test_a_given_context_is_used_itself(self, loop, schedule):
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        seen: list[str] = []

        def change() -> None:
            seen.append(variable.get())
            variable.set("changed")

        def body() -> None:
            schedule(change, context=context)

        loop.call_soon(body)
        one_turn(loop)
        assert seen == ["given"] and context[variable] == "changed"

    def test_the_context_of_the_running_callback_can_be_given(self, loop, schedule):
        """It has been left by the time the microtask runs, so it can be entered again."""
        context = contextvars.copy_context()
        seen: list[str] = []

        def body() -> None:
            variable.set("of the callback")
            schedule(lambda: seen.append(variable.get()), context=context)

        loop.call_soon(body, context=context)
        loop.call_soon(lambda: seen.append(variable.get()))
        one_turn(loop)
        assert sorted(seen) == ["of the callback", "unset"]

    def test_a_closed_loop_refuses(self, loop, schedule):
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            schedule(print)

    def test_closing_drops_what_is_queued(self, loop, schedule):
        payload = Payload()
        ref = weakref.ref(payload)
        schedule(print, payload)
        del payload
        loop.close()
        gc.collect()
        assert ref() is None

    def test_debug_mode_detects_another_thread(self, loop, schedule):
        loop.set_debug(True)
        errors: list[BaseException] = []

        def in_thread() -> None:
            try:
                schedule(print)
            except BaseException as error:
                errors.append(error)
            finally:
                loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=in_thread)
        loop.call_soon(thread.start)
        run_guarded(loop)
        thread.join(DEADLINE_S)
        assert [type(error) for error in errors] == [RuntimeError]

    def test_debug_mode_logs_slow_ones(self, loop, schedule, caplog):
        def a_slow_one() -> None:
            """Slow because the limit is zero."""

        loop.set_debug(True)
        loop.slow_callback_duration = 0
        schedule(a_slow_one)
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            one_turn(loop)
        assert any("a_slow_one" in record.message for record in caplog.records)

    def test_an_abandoned_loop_in_a_cycle_with_it_is_collected(self, queue):
        loop = hoop.new_event_loop()
        getattr(loop, queue)(print, loop)
        ref = weakref.ref(loop)
        with pytest.warns(ResourceWarning):
            del loop
            gc.collect()
        assert ref() is None


# asyncio's order is unchanged.


def test_futures_and_tasks_do_not_use_the_microtask_queues(loop):
    """A future's callbacks run by call_soon: in the next turn, after what was ready before."""
    seen: list[str] = []

    def first() -> None:
        future = loop.create_future()
        future.add_done_callback(lambda done: seen.append("done callback"))
        future.set_result(None)
        loop.call_soon(seen.append, "queued later")
        loop.queue_microtask(seen.append, "microtask")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    one_turn(loop)
    assert seen == ["microtask", "second"]
    one_turn(loop)
    assert seen == ["microtask", "second", "done callback", "queued later"]


# What they are called with.


@pytest.mark.parametrize("name", [*QUEUES, "set_timeout", "set_interval"])
def test_the_callback_is_positional_only(loop, name):
    method = getattr(loop, name)
    with pytest.raises(TypeError, match="keyword argument 'callback'"):
        method(callback=print)
    with pytest.raises(TypeError, match="keyword argument 'callback'"):
        method(print, 1, callback=print)
    with pytest.raises(TypeError, match="keyword argument 'colour'"):
        method(print, 1, context=contextvars.copy_context(), colour="red")
    with pytest.raises(TypeError, match="missing a required positional argument: 'callback'"):
        method(context=None)
    callback = inspect.signature(method).parameters["callback"]
    assert callback.kind is callback.POSITIONAL_ONLY
