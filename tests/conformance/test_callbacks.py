"""Callbacks given to call_soon: their order, arguments and handles, and what happens when one of them raises."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import socket
import sys
import weakref
from typing import Any

import pytest
from stepping import one_turn


def collect_contexts(loop: asyncio.AbstractEventLoop) -> list[dict[str, Any]]:
    """Install an exception handler that only remembers what it was given."""
    contexts: list[dict[str, Any]] = []

    def remember(handler_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        assert handler_loop is loop
        contexts.append(context)

    loop.set_exception_handler(remember)
    return contexts


class Payload:
    """Something a weak reference can point at."""


# Order and arguments.


def test_callbacks_run_in_the_order_of_the_calls(loop):
    seen: list[int] = []
    for number in range(1000):
        loop.call_soon(seen.append, number)
    one_turn(loop)
    assert seen == list(range(1000))


def test_a_callback_queued_by_a_callback_runs_in_the_next_turn(loop):
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_soon(seen.append, "queued by first")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    one_turn(loop)
    assert seen == ["first", "second"]
    one_turn(loop)
    assert seen == ["first", "second", "queued by first"]


def test_nothing_runs_before_the_loop_does(loop):
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    loop.call_later(0, seen.append, 2)
    assert seen == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 17, 300])
def test_every_argument_arrives_as_the_same_object(loop, count):
    given = [object() for _ in range(count)]
    got: list[tuple[object, ...]] = []
    loop.call_soon(lambda *args: got.append(args), *given)
    one_turn(loop)
    assert len(got) == 1 and len(got[0]) == count
    assert all(a is b for a, b in zip(given, got[0], strict=True))


class CallableObject:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, *args: Any) -> None:
        self.seen.append(args)

    def method(self, *args: Any) -> None:
        self.seen.append(args)


def test_every_kind_of_callable_is_accepted(loop):
    box = CallableObject()
    plain: list[Any] = []

    class Constructed:
        def __init__(self, value: Any) -> None:
            plain.append(value)

    contexts = collect_contexts(loop)
    loop.call_soon(box, 1)
    loop.call_soon(box.method, 2)
    loop.call_soon(functools.partial(box.method, 3), 4)
    loop.call_soon(plain.append, 5)
    loop.call_soon(list.append, plain, 6)
    loop.call_soon(Constructed, 7)
    loop.call_soon(functools.partial(functools.partial(box.method), 8))
    one_turn(loop)
    assert box.seen == [(1,), (2,), (3, 4), (8,)]
    assert plain == [5, 6, 7]
    assert contexts == []


def test_unknown_keyword_arguments_are_refused(loop):
    with pytest.raises(TypeError):
        loop.call_soon(print, nonsense=1)
    with pytest.raises(TypeError):
        loop.call_later(1, print, nonsense=1)
    with pytest.raises(TypeError):
        loop.call_at(1, print, nonsense=1)
    with pytest.raises(TypeError):
        loop.call_soon_threadsafe(print, nonsense=1)


def test_missing_arguments_are_refused(loop):
    for method in (loop.call_soon, loop.call_soon_threadsafe, loop.call_later, loop.call_at):
        with pytest.raises(TypeError):
            method()
    with pytest.raises(TypeError):
        loop.call_later(1)
    with pytest.raises(TypeError):
        loop.call_at(1)


@pytest.mark.parametrize(
    ("method", "leading"),
    [("call_soon", None), ("call_soon_threadsafe", None), ("call_later", "delay"), ("call_at", "when")],
)
def test_the_callback_may_be_a_keyword(loop, method, leading):
    seen: list[str] = []
    keywords = {} if leading is None else {leading: 0}
    getattr(loop, method)(callback=lambda: seen.append(method), **keywords)
    one_turn(loop)
    assert seen == [method]


# Wrong callbacks.


async def a_coroutine_function() -> None:
    """Never awaited here."""


SCHEDULERS = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback: loop.call_later(0, callback),
    "call_at": lambda loop, callback: loop.call_at(0, callback),
}


@pytest.mark.parametrize("method", SCHEDULERS)
@pytest.mark.parametrize("wrong", [None, 1, "text", object(), [], a_coroutine_function], ids=repr)
def test_debug_mode_refuses_what_is_not_a_plain_callable(loop, method, wrong):
    loop.set_debug(True)
    with pytest.raises(TypeError) as caught:
        SCHEDULERS[method](loop, wrong)
    # asyncio says "call_at" for call_later too, because the one calls the other.
    assert f"{method}()" in str(caught.value) or "call_at()" in str(caught.value)


@pytest.mark.parametrize("method", SCHEDULERS)
def test_debug_mode_refuses_a_coroutine_object(loop, method):
    loop.set_debug(True)
    coroutine = a_coroutine_function()
    try:
        with pytest.raises(TypeError, match="coroutines cannot be used with"):
            SCHEDULERS[method](loop, coroutine)
    finally:
        coroutine.close()


@pytest.mark.parametrize("method", SCHEDULERS)
@pytest.mark.parametrize("wrong", [None, 1, "text"], ids=repr)
def test_outside_debug_mode_a_wrong_callback_is_refused_or_reported(loop, method, wrong):
    """asyncio accepts it and reports the TypeError from the turn; refusing at once is as good. Silence is not."""
    contexts = collect_contexts(loop)
    loop.set_debug(False)
    try:
        SCHEDULERS[method](loop, wrong)
    except TypeError:
        return
    one_turn(loop)
    assert [type(context["exception"]) for context in contexts] == [TypeError]


# Handles.


def test_call_soon_returns_a_handle_of_the_standard_type(loop):
    for handle in (loop.call_soon(print), loop.call_soon_threadsafe(print)):
        assert isinstance(handle, asyncio.Handle)
        assert not isinstance(handle, asyncio.TimerHandle)
        assert handle.cancelled() is False
        handle.cancel()
        assert handle.cancelled() is True


def test_a_cancelled_callback_does_not_run(loop):
    seen: list[int] = []
    handles = [loop.call_soon(seen.append, number) for number in range(6)]
    for handle in handles[::2]:
        handle.cancel()
        handle.cancel()
    one_turn(loop)
    assert seen == [1, 3, 5]
    assert [handle.cancelled() for handle in handles] == [True, False] * 3


def test_a_callback_can_cancel_a_later_one_of_the_same_batch(loop):
    seen: list[str] = []
    handles: list[asyncio.Handle] = []

    def first() -> None:
        seen.append("first")
        handles[1].cancel()

    handles.append(loop.call_soon(first))
    handles.append(loop.call_soon(seen.append, "second"))
    handles.append(loop.call_soon(seen.append, "third"))
    one_turn(loop)
    assert seen == ["first", "third"]


def test_a_callback_can_cancel_itself_and_an_earlier_one(loop):
    seen: list[Payload] = []
    handles: list[asyncio.Handle] = []
    payload = Payload()

    def cancel_all(argument: Payload) -> None:
        for handle in handles:
            handle.cancel()
        gc.collect()
        seen.append(argument)

    handles.append(loop.call_soon(lambda: None))
    handles.append(loop.call_soon(cancel_all, payload))
    one_turn(loop)
    assert seen == [payload]
    assert all(handle.cancelled() for handle in handles)


def test_cancel_drops_the_callback_and_its_arguments_at_once(loop):
    class Target(Payload):
        def method(self, argument: object) -> None:
            raise AssertionError("cancelled")

    target, argument = Target(), Payload()
    handle = loop.call_soon(target.method, argument)
    refs = [weakref.ref(target), weakref.ref(argument)]
    del target, argument
    assert all(ref() is not None for ref in refs)
    handle.cancel()
    assert [ref() for ref in refs] == [None, None]
    one_turn(loop)


def test_the_loop_forgets_a_callback_that_has_run(loop):
    payload = Payload()
    ref = weakref.ref(payload)
    loop.call_soon(lambda argument: None, payload)
    del payload
    one_turn(loop)
    one_turn(loop)
    assert ref() is None


def test_cancel_after_the_callback_ran_and_after_close_is_harmless(loop):
    seen: list[int] = []
    ran = loop.call_soon(seen.append, 1)
    one_turn(loop)
    pending = loop.call_soon(seen.append, 2)
    threadsafe = loop.call_soon_threadsafe(seen.append, 3)
    ran.cancel()
    loop.close()
    pending.cancel()
    threadsafe.cancel()
    assert seen == [1]
    assert ran.cancelled() and pending.cancelled() and threadsafe.cancelled()


def test_handles_take_weak_references_and_compare_by_identity(loop):
    one, two = loop.call_soon(print, 1), loop.call_soon(print, 1)
    assert weakref.ref(one)() is one
    assert one == one and one != two and len({one, two}) == 2
    one.cancel(), two.cancel()


def some_named_callback(*args: object) -> None:
    """Its name is looked for in representations."""


def test_repr_names_the_callback_its_arguments_and_the_state(loop):
    handle = loop.call_soon(some_named_callback, 12345)
    text = repr(handle)
    assert text.startswith("<") and text.endswith(">")
    assert "Handle" in text and "some_named_callback(" in text and "cancelled" not in text
    assert "test_callbacks.py:" in text
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_repr_in_debug_mode_keeps_the_callback_of_a_cancelled_handle(loop):
    loop.set_debug(True)
    handle = loop.call_soon(some_named_callback, 12345)
    assert "12345" in repr(handle)
    assert "created at" in repr(handle) and "test_callbacks.py" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle) and "some_named_callback" in repr(handle)


def test_repr_survives_a_callback_without_a_name_and_a_bad_repr(loop):
    class Nameless:
        def __call__(self) -> None:
            """Nothing to do."""

    for callback in (Nameless(), functools.partial(some_named_callback, 1), [].append, print, Payload):
        handle = loop.call_soon(callback)
        assert "Handle" in repr(handle)
        handle.cancel()
        assert "Handle" in repr(handle)


# Exceptions.


def test_an_exception_goes_to_the_exception_handler_and_the_batch_goes_on(loop):
    contexts = collect_contexts(loop)
    seen: list[str] = []
    error = ZeroDivisionError("on purpose")

    def fails() -> None:
        raise error

    loop.call_soon(seen.append, "before")
    handle = loop.call_soon(fails)
    loop.call_soon(seen.append, "after")
    one_turn(loop)
    assert seen == ["before", "after"]
    [context] = contexts
    assert set(context) == {"message", "exception", "handle"}
    assert context["exception"] is error
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback ")
    assert "fails()" in context["message"] and "test_callbacks.py:" in context["message"]


def test_debug_mode_adds_the_source_traceback(loop):
    loop.set_debug(True)
    contexts = collect_contexts(loop)
    loop.call_soon(lambda: 1 / 0)
    one_turn(loop)
    [context] = contexts
    assert set(context) == {"message", "exception", "handle", "source_traceback"}
    assert context["source_traceback"][-1].filename == __file__


class OwnBaseException(BaseException):
    """Neither an Exception nor one of the two that leave the loop."""


@pytest.mark.parametrize("error", [OwnBaseException, asyncio.CancelledError, GeneratorExit, StopIteration])
def test_other_base_exceptions_are_reported_too(loop, error):
    contexts = collect_contexts(loop)
    seen: list[int] = []

    def fails() -> None:
        raise error

    loop.call_soon(fails)
    loop.call_soon(seen.append, 1)
    one_turn(loop)
    assert [type(context["exception"]) for context in contexts] == [error]
    assert seen == [1]


def test_the_traceback_of_a_reported_exception_shows_the_callback(loop):
    contexts = collect_contexts(loop)

    def fails_deep_inside() -> None:
        raise ValueError

    loop.call_soon(fails_deep_inside)
    one_turn(loop)
    names = []
    traceback = contexts[0]["exception"].__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "fails_deep_inside" in names


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
class TestTrap30ExitsLeaveRunForever:
    """KeyboardInterrupt and SystemExit leave run_forever at once, and nothing that was queued is lost."""

    def raiser(self, error):
        def fails(*args: object) -> None:
            raise error

        return fails

    def check_stopped_state(self, loop):
        assert not loop.is_running() and not loop.is_closed()
        assert asyncio._get_running_loop() is None

    def test_from_a_ready_callback(self, loop, error):
        contexts = collect_contexts(loop)
        seen: list[str] = []
        loop.call_soon(seen.append, "before")
        loop.call_soon(self.raiser(error))
        loop.call_soon(seen.append, "after")
        with pytest.raises(error):
            loop.run_forever()
        self.check_stopped_state(loop)
        assert seen == ["before"]
        one_turn(loop)
        assert seen == ["before", "after"]
        assert contexts == []

    def test_from_a_timer(self, loop, error):
        seen: list[str] = []
        loop.call_at(loop.time() - 3, seen.append, "before")
        loop.call_at(loop.time() - 2, self.raiser(error))
        loop.call_at(loop.time() - 1, seen.append, "after")
        with pytest.raises(error):
            loop.run_forever()
        self.check_stopped_state(loop)
        assert seen == ["before"]
        one_turn(loop)
        assert seen == ["before", "after"]

    def test_from_a_reader(self, loop, error):
        left, right = socket.socketpair()
        with left, right:
            right.send(b"x")
            loop.add_reader(left, self.raiser(error))
            with pytest.raises(error):
                loop.run_forever()
            self.check_stopped_state(loop)
            seen: list[int] = []
            loop.add_reader(left, seen.append, 1)
            one_turn(loop)
            assert seen == [1]
            loop.remove_reader(left)

    def test_events_of_other_descriptors_are_not_lost(self, loop, error):
        pairs = [socket.socketpair() for _ in range(5)]
        seen: set[int] = set()
        raised: list[bool] = []

        def readable(index: int) -> None:
            seen.add(index)
            loop.remove_reader(pairs[index][0])
            if not raised:
                raised.append(True)
                raise error

        for index, (left, right) in enumerate(pairs):
            right.send(b"x")
            loop.add_reader(left, readable, index)
        with pytest.raises(error):
            loop.run_forever()
        for _ in range(10):
            one_turn(loop)
        assert seen == {0, 1, 2, 3, 4}
        for left, right in pairs:
            left.close(), right.close()

    def test_from_a_task(self, loop, error):
        async def main() -> None:
            raise error

        contexts = collect_contexts(loop)
        with pytest.raises(error):
            loop.run_until_complete(main())
        self.check_stopped_state(loop)
        one_turn(loop)
        gc.collect()
        assert contexts == []

    def test_from_a_threadsafe_callback(self, loop, error):
        loop.call_soon_threadsafe(self.raiser(error))
        with pytest.raises(error):
            loop.run_forever()
        self.check_stopped_state(loop)

    def test_from_the_exception_handler(self, loop, error):
        loop.set_exception_handler(self.raiser(error))
        loop.call_soon(lambda: 1 / 0)
        with pytest.raises(error):
            loop.run_forever()
        self.check_stopped_state(loop)


# Exception handlers.


def test_set_and_get_exception_handler(loop):
    def handler(handler_loop: object, context: object) -> None:
        """Not called."""

    assert loop.get_exception_handler() is None
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    for wrong in (1, "text", object()):
        with pytest.raises(TypeError, match="callable object or None"):
            loop.set_exception_handler(wrong)


def test_call_exception_handler_passes_the_context_through(loop):
    contexts = collect_contexts(loop)
    given = {"message": "hello", "extra": object()}
    loop.call_exception_handler(given)
    assert len(contexts) == 1 and contexts[0] is given


def test_the_default_handler_logs_message_keys_and_traceback(loop, caplog):
    error = ZeroDivisionError("on purpose")
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        loop.call_exception_handler({"message": "it broke", "exception": error, "zebra": 1, "apple": "x"})
    [record] = caplog.records
    assert record.name == "asyncio" and record.levelno == logging.ERROR
    assert record.getMessage() == "it broke\napple: 'x'\nzebra: 1"
    assert record.exc_info[1] is error


def test_the_default_handler_has_a_default_message(loop, caplog):
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        loop.default_exception_handler({})
    assert [record.getMessage() for record in caplog.records] == ["Unhandled exception in event loop"]


def test_the_default_handler_reports_a_failing_callback(loop, caplog):
    def fails() -> None:
        raise ZeroDivisionError

    loop.call_soon(fails)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        one_turn(loop)
    [record] = caplog.records
    assert record.getMessage().startswith("Exception in callback ")
    assert "\nhandle: <Handle" in record.getMessage()
    assert record.exc_info[0] is ZeroDivisionError


def test_a_custom_handler_that_raises_is_reported_by_the_default_one(loop, caplog):
    def handler(handler_loop: object, context: object) -> None:
        raise AttributeError("spam")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        one_turn(loop)
    [record] = caplog.records
    assert record.getMessage().startswith("Unhandled error in exception handler")
    assert record.exc_info[0] is AttributeError
    assert seen == [1]


def test_a_default_handler_that_raises_is_logged(loop_factory, caplog):
    loop = loop_factory()
    own_class = type("OwnLoop", (type(loop),), {"default_exception_handler": lambda self, context: 1 / 0})
    loop.close()
    loop = own_class()
    try:
        loop.call_soon(divmod, 1, 0)
        with caplog.at_level(logging.ERROR, logger="asyncio"):
            one_turn(loop)
            assert [record.getMessage() for record in caplog.records] == ["Exception in default exception handler"]
            caplog.clear()
            loop.set_exception_handler(lambda handler_loop, context: 1 / 0)
            loop.call_soon(divmod, 1, 0)
            one_turn(loop)
        [record] = caplog.records
        assert record.getMessage().startswith("Exception in default exception handler")
    finally:
        loop.close()


def test_a_handler_can_schedule_and_stop(loop):
    seen: list[str] = []

    def handler(handler_loop: asyncio.AbstractEventLoop, context: object) -> None:
        handler_loop.call_soon(seen.append, "scheduled by the handler")
        handler_loop.call_soon(handler_loop.stop)

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.run_forever()
    assert seen == ["scheduled by the handler"]


def test_a_failing_callback_leaves_no_reference_behind(loop):
    payload = Payload()
    ref = weakref.ref(payload)

    def fails(argument: Payload) -> None:
        raise ValueError

    loop.set_exception_handler(lambda handler_loop, context: None)
    loop.call_soon(fails, payload)
    del payload
    one_turn(loop)
    gc.collect()
    assert ref() is None


def test_a_callback_may_raise_an_exception_that_cannot_be_shown(loop, caplog):
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    def fails() -> None:
        raise Unprintable

    contexts = collect_contexts(loop)
    loop.call_soon(fails)
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    one_turn(loop)
    assert type(contexts[0]["exception"]) is Unprintable
    assert seen == [1]


def test_deep_recursion_in_a_callback_is_only_an_exception(loop):
    contexts = collect_contexts(loop)

    def recurse() -> None:
        recurse()

    loop.call_soon(recurse)
    one_turn(loop)
    assert type(contexts[0]["exception"]) is RecursionError
    assert sys.getrecursionlimit() > 0
