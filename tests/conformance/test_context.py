"""Context variables: every callback runs in the context it was scheduled with, and changes stay there (trap 31)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from stepping import one_turn

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="unset")

Schedule = Callable[..., Any]
SCHEDULERS: dict[str, Callable[[asyncio.AbstractEventLoop], Schedule]] = {
    "call_soon": lambda loop: loop.call_soon,
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe,
    "call_later": lambda loop: lambda *args, **keywords: loop.call_later(0, *args, **keywords),
    "call_at": lambda loop: lambda *args, **keywords: loop.call_at(loop.time() - 1, *args, **keywords),
    "add_done_callback": lambda loop: lambda *args, **keywords: done_callback(loop, *args, **keywords),
}


def done_callback(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    future = loop.create_future()
    future.add_done_callback(lambda _: callback(*args), **keywords)
    future.set_result(None)


def context_with(value: Any) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(variable.set, value)
    return context


@pytest.fixture(params=SCHEDULERS)
def schedule(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Schedule:
    return SCHEDULERS[request.param](loop)


def test_trap_31_the_current_context_is_copied(loop, schedule):
    seen: list[Any] = []

    def body() -> None:
        variable.set("at the call")
        schedule(lambda: seen.append(variable.get()))
        variable.set("after the call")

    contextvars.copy_context().run(body)
    one_turn(loop)
    assert seen == ["at the call"]


def test_trap_31_a_change_in_a_callback_is_not_seen_outside(loop, schedule):
    seen: list[Any] = []

    def change(value: str) -> None:
        seen.append(variable.get())
        variable.set(value)

    schedule(change, "one")
    schedule(change, "two")
    one_turn(loop)
    assert seen == ["unset", "unset"]
    assert variable.get() == "unset"


def test_trap_31_a_given_context_is_used_itself(loop, schedule):
    context = context_with("given")
    seen: list[Any] = []

    def change() -> None:
        seen.append(variable.get())
        variable.set("changed in the callback")

    schedule(change, context=context)
    one_turn(loop)
    assert seen == ["given"]
    assert context[variable] == "changed in the callback"
    assert variable.get() == "unset"


def test_trap_31_consecutive_callbacks_in_one_context_see_each_other(loop, schedule):
    """Handles that share a context may run inside one enter and exit: nobody may be able to tell."""
    shared = context_with(0)
    seen: list[Any] = []

    def count() -> None:
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    for _ in range(20):
        schedule(count, context=shared)
    one_turn(loop)
    assert seen == list(range(20)) and shared[variable] == 20


def test_trap_31_interleaved_contexts_are_kept_apart(loop):
    one, two = context_with(0), context_with(1000)
    seen: list[Any] = []

    def count() -> None:
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    for context in (one, one, two, two, one, None, two, two, one, one):
        loop.call_soon(count, context=context) if context else loop.call_soon(lambda: seen.append(variable.get()))
    one_turn(loop)
    assert seen == [0, 1, 1000, 1001, 2, "unset", 1002, 1003, 3, 4]


def test_trap_31_an_exception_leaves_the_context(loop):
    shared = context_with("shared")
    seen: list[Any] = []
    loop.set_exception_handler(lambda handler_loop, context: None)
    loop.call_soon(lambda: seen.append(variable.get()), context=shared)
    loop.call_soon(lambda: 1 / 0, context=shared)
    loop.call_soon(lambda: seen.append(variable.get()), context=shared)
    loop.call_soon(lambda: seen.append(variable.get()))
    one_turn(loop)
    assert seen == ["shared", "shared", "unset"]
    assert variable.get() == "unset"


def test_trap_31_an_exit_leaves_the_context(loop):
    shared = context_with("shared")

    def interrupt() -> None:
        raise KeyboardInterrupt

    loop.call_soon(int, context=shared)
    loop.call_soon(interrupt, context=shared)
    seen: list[Any] = []
    loop.call_soon(lambda: seen.append(variable.get()), context=shared)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert variable.get() == "unset"
    assert shared.run(variable.get) == "shared"  # It can be entered: the loop is out of it.
    one_turn(loop)
    assert seen == ["shared"]


def test_a_callback_may_enter_other_contexts(loop):
    other = context_with("other")
    seen: list[Any] = []

    def nested() -> None:
        seen.append(variable.get())
        seen.append(other.run(variable.get))
        seen.append(variable.get())

    loop.call_soon(nested, context=context_with("outer"))
    loop.call_soon(lambda: seen.append(variable.get()), context=other)
    one_turn(loop)
    assert seen == ["outer", "other", "outer", "other"]


def test_a_context_that_is_already_entered_is_an_error_not_a_crash(loop, caplog):
    """Running the loop inside a context and scheduling a callback in that same context cannot work."""
    context = context_with("entered")
    seen: list[Any] = []

    def body() -> None:
        loop.call_soon(seen.append, "cannot run", context=context)
        loop.call_soon(seen.append, "runs")
        one_turn(loop)

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        context.run(body)
    assert seen == ["runs"]
    assert any("cannot enter context" in (record.getMessage() + str(record.exc_info)) for record in caplog.records)


@pytest.mark.parametrize("wrong", [1, "text", object(), {}], ids=repr)
def test_something_else_as_a_context_is_an_error_not_a_crash(loop, wrong):
    """asyncio notices when it runs the callback; noticing at the call is as good."""
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    seen: list[int] = []
    try:
        loop.call_soon(seen.append, 1, context=wrong)
    except (TypeError, AttributeError):
        return
    one_turn(loop)
    assert len(contexts) == 1 and seen == []


def test_an_explicit_none_means_a_copy(loop, schedule):
    seen: list[Any] = []

    def body() -> None:
        variable.set("current")
        schedule(lambda: seen.append(variable.get()), context=None)

    contextvars.copy_context().run(body)
    one_turn(loop)
    assert seen == ["current"]


@pytest.mark.skipif(not hasattr(asyncio.Handle, "get_context"), reason="Handle.get_context came with Python 3.12")
def test_handles_tell_their_context(loop):
    context = context_with("given")
    for handle in (
        loop.call_soon(print, context=context),
        loop.call_later(1, print, context=context),
        loop.call_at(1, print, context=context),
        loop.call_soon_threadsafe(print, context=context),
    ):
        assert handle.get_context() is context
        handle.cancel()
        assert handle.get_context() is context
    copied = loop.call_soon(print)
    assert isinstance(copied.get_context(), contextvars.Context)
    assert copied.get_context() is copied.get_context()
    copied.cancel()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="exception handlers run in the context since Python 3.12")
def test_the_exception_handler_runs_in_the_context_of_the_callback(loop):
    seen: list[Any] = []
    loop.set_exception_handler(lambda handler_loop, context: seen.append(variable.get()))
    loop.call_soon(lambda: 1 / 0, context=context_with("of the callback"))
    loop.call_later(0, lambda: 1 / 0, context=context_with("of the timer"))
    one_turn(loop)
    assert seen == ["of the callback", "of the timer"]


# Other callbacks.


def test_readers_and_writers_run_in_the_context_of_their_registration(loop):
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        seen: list[Any] = []

        def body() -> None:
            variable.set("registration")
            loop.add_reader(left, lambda: seen.append(("reader", variable.get())))
            loop.add_writer(right, lambda: seen.append(("writer", variable.get())))
            variable.set("later")

        contextvars.copy_context().run(body)
        right.send(b"x")
        one_turn(loop)
        assert sorted(seen) == [("reader", "registration"), ("writer", "registration")]
        loop.remove_reader(left)
        loop.remove_writer(right)


def test_signal_handlers_run_in_the_context_of_their_registration(loop):
    seen: list[Any] = []

    def handler() -> None:
        seen.append(variable.get())
        loop.stop()

    def body() -> None:
        variable.set("registration")
        loop.add_signal_handler(signal.SIGUSR1, handler)

    contextvars.copy_context().run(body)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    guard = loop.call_later(30, loop.stop)
    loop.run_forever()
    guard.cancel()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert seen == ["registration"]


def test_a_task_keeps_one_context_over_its_steps(loop):
    async def worker(number: int) -> list[Any]:
        seen = []
        variable.set(number)
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(variable.get())
            variable.set(variable.get() + 100)
        return seen

    async def main() -> list[list[Any]]:
        return await asyncio.gather(*(worker(number) for number in range(5)))

    assert loop.run_until_complete(main()) == [[n, n + 100, n + 200] for n in range(5)]
    assert variable.get() == "unset"


def test_run_until_complete_copies_the_context(loop):
    async def main() -> Any:
        before = variable.get()
        variable.set("changed")
        return before

    assert context_with("outside").run(loop.run_until_complete, main()) == "outside"
    assert variable.get() == "unset"


def test_runner_with_a_context(loop_factory):
    async def main() -> Any:
        before = variable.get()
        variable.set("changed")
        return before

    context = context_with("given")
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(main(), context=context) == "given"
    assert context[variable] == "changed"


def test_threads_have_contexts_of_their_own(loop):
    seen: list[Any] = []

    def in_thread() -> None:
        variable.set("thread")
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_soon(lambda: seen.append(variable.get()))
        one_turn(loop)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(30)
    assert seen == ["thread"]
    assert variable.get() == "unset"


# Protocols.


class ContextProtocol(asyncio.Protocol):
    """Notes the variable in every callback, and changes it in connection_made."""

    def __init__(self, closed: asyncio.Future[None]) -> None:
        self.seen: dict[str, Any] = {}
        self.closed = closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.seen["connection_made"] = variable.get()
        variable.set("changed in connection_made")

    def data_received(self, data: bytes) -> None:
        self.seen["data_received"] = variable.get()

    def eof_received(self) -> None:
        self.seen["eof_received"] = variable.get()

    def connection_lost(self, error: Exception | None) -> None:
        self.seen["connection_lost"] = variable.get()
        self.closed.set_result(None)


def test_trap_31_protocol_callbacks_run_in_the_context_of_their_transport(run, loop_name):
    async def main() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        with right:
            right.setblocking(False)
            variable.set("of the creator")
            protocol = ContextProtocol(loop.create_future())
            await loop.create_connection(lambda: protocol, sock=left)
            variable.set("changed by the creator later")
            right.send(b"data")
            right.shutdown(socket.SHUT_WR)
            await protocol.closed
        return protocol.seen

    seen = run(main())
    assert seen["connection_made"] == "of the creator"
    later = {key: value for key, value in seen.items() if key != "connection_made"}
    assert set(later) == {"data_received", "eof_received", "connection_lost"}
    if loop_name == "asyncio":
        # It copies a context for each callback, so that what connection_made sets is lost (cpython#140947).
        assert set(later.values()) <= {"of the creator", "changed in connection_made"}
    else:
        assert set(later.values()) == {"changed in connection_made"}
