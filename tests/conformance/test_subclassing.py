"""Users subclass loops, patch their instances and keep weak references to them, as they do with asyncio's own."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import pytest
from stepping import one_turn


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


@pytest.fixture
def loop_class(loop_name: str) -> type:
    """The class that users name and derive from."""
    if loop_name == "asyncio":
        return asyncio.SelectorEventLoop
    import hoop

    return hoop.Loop


class Opened:
    """Makes loops of a class and closes them after the test."""

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []

    def __call__(self, loop_class: type, *args: Any, **keywords: Any) -> Any:
        self.loops.append(loop_class(*args, **keywords))
        return self.loops[-1]


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    for loop in opened.loops:
        loop.close()


# What a loop is.


def test_a_loop_is_an_abstract_event_loop(loop, loop_class):
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert issubclass(loop_class, asyncio.AbstractEventLoop)
    assert isinstance(loop, loop_class)


METHODS = """
    run_forever run_until_complete stop is_running is_closed close shutdown_asyncgens shutdown_default_executor
    call_soon call_later call_at time create_future create_task call_soon_threadsafe run_in_executor
    set_default_executor
    getaddrinfo getnameinfo add_reader remove_reader add_writer remove_writer add_signal_handler remove_signal_handler
    set_task_factory get_task_factory get_exception_handler set_exception_handler default_exception_handler
    call_exception_handler get_debug set_debug
    sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept
    sock_sendfile create_connection create_server create_unix_connection create_unix_server
    sendfile connect_read_pipe connect_write_pipe subprocess_exec subprocess_shell
""".split()


@pytest.mark.parametrize("name", METHODS)
def test_no_method_is_left_abstract(loop_class, name):
    assert getattr(loop_class, name) is not getattr(asyncio.AbstractEventLoop, name, None)
    assert callable(getattr(loop_class, name))


def test_repr_tells_class_and_state(loop):
    """A loop may tell more after that."""
    name = type(loop).__name__
    loop.set_debug(False)
    seen: list[str] = []
    loop.call_soon(lambda: seen.append(repr(loop)))
    assert repr(loop).startswith(f"<{name} running=False closed=False debug=False") and repr(loop).endswith(">")
    one_turn(loop)
    assert len(seen) == 1 and seen[0].startswith(f"<{name} running=True closed=False debug=False")
    loop.set_debug(True)
    loop.close()
    assert repr(loop).startswith(f"<{name} running=False closed=True debug=True")


def test_loops_are_hashable_and_compare_by_identity(loop, loop_factory, opened):
    other = opened(loop_factory)
    assert loop == loop and loop != other
    assert len({loop, other, loop}) == 2
    assert {loop: 1}[loop] == 1


def test_loops_take_weak_references(loop_factory):
    loop = loop_factory()
    ref = weakref.ref(loop)
    keyed: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary({loop: 1})
    called: list[int] = []
    weakref.finalize(loop, called.append, 1)
    assert ref() is loop and keyed[loop] == 1
    loop.close()
    assert ref() is loop
    del loop
    gc.collect()
    assert ref() is None and len(keyed) == 0 and called == [1]


def test_loops_take_attributes(loop):
    loop.something_of_the_user = 1
    assert loop.something_of_the_user == 1
    assert vars(loop)["something_of_the_user"] == 1
    del loop.something_of_the_user
    assert not hasattr(loop, "something_of_the_user")


# Subclasses.


def test_a_plain_subclass(loop_class, opened):
    class OwnLoop(loop_class):
        """Adds nothing."""

    loop = opened(OwnLoop)
    assert type(loop) is OwnLoop and isinstance(loop, loop_class)
    assert loop.run_until_complete(answer()) == 42
    assert repr(loop).startswith("<OwnLoop ")


def test_a_subclass_with_its_own_constructor_and_slots(loop_class, opened):
    class OwnLoop(loop_class):
        __slots__ = ("slot",)
        class_attribute = "of the class"

        def __init__(self, own: int, *, keyword: str) -> None:
            super().__init__()
            self.own, self.keyword, self.slot = own, keyword, "slot"

        @property
        def computed(self) -> str:
            return f"{self.own} {self.keyword}"

    loop = opened(OwnLoop, 1, keyword="k")
    assert (loop.computed, loop.slot, loop.class_attribute) == ("1 k", "slot", "of the class")
    assert loop.run_until_complete(answer()) == 42


def test_a_subclass_with_a_mixin(loop_class, opened):
    class Mixin:
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            self.mixed: list[str] = []

        def close(self) -> None:
            self.mixed.append("close")
            super().close()

    class OwnLoop(Mixin, loop_class):
        """The mixin comes first."""

    loop = opened(OwnLoop)
    assert loop.run_until_complete(answer()) == 42
    loop.close()
    assert loop.mixed == ["close"] and loop.is_closed()


def test_overriding_call_soon_is_seen_by_tasks_and_futures(loop_class, opened):
    class OwnLoop(loop_class):
        scheduled: ClassVar[list[Any]] = []

        def call_soon(self, callback: Any, *args: Any, **keywords: Any) -> asyncio.Handle:
            self.scheduled.append(callback)
            return super().call_soon(callback, *args, **keywords)

    loop = opened(OwnLoop)
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    assert len(loop.scheduled) == 1
    assert loop.run_until_complete(answer()) == 42
    assert seen == [1] and len(loop.scheduled) >= 4


def test_overriding_call_exception_handler_is_seen_by_callbacks(loop_class, opened):
    class OwnLoop(loop_class):
        def __init__(self) -> None:
            super().__init__()
            self.contexts: list[dict[str, Any]] = []

        def call_exception_handler(self, context: dict[str, Any]) -> None:
            self.contexts.append(context)

    loop = opened(OwnLoop)
    loop.call_soon(divmod, 1, 0)
    loop.call_later(-1, divmod, 2, 0)
    loop.call_soon_threadsafe(divmod, 3, 0)
    one_turn(loop)
    assert [type(context["exception"]) for context in loop.contexts] == [ZeroDivisionError] * 3


def test_overriding_create_task_is_seen_by_groups_and_helpers(loop_class, opened):
    class OwnLoop(loop_class):
        made: ClassVar[list[Any]] = []

        def create_task(self, coroutine: Any, **keywords: Any) -> asyncio.Task[Any]:
            self.made.append(coroutine)
            return super().create_task(coroutine, **keywords)

    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            grouped = group.create_task(answer())
        return [await asyncio.create_task(answer()), await asyncio.ensure_future(answer()), grouped.result()]

    loop = opened(OwnLoop)
    assert loop.run_until_complete(main()) == [42, 42, 42]
    assert len(loop.made) == 4


def test_overriding_the_rest_by_super(loop_class, opened):
    calls: list[str] = []

    class OwnLoop(loop_class):
        def run_forever(self) -> None:
            calls.append("run_forever")
            super().run_forever()

        def stop(self) -> None:
            calls.append("stop")
            super().stop()

        def create_future(self) -> asyncio.Future[Any]:
            calls.append("create_future")
            return super().create_future()

        def call_later(self, delay: float, callback: Any, *args: Any, **keywords: Any) -> asyncio.TimerHandle:
            calls.append("call_later")
            return super().call_later(delay, callback, *args, **keywords)

        def call_soon_threadsafe(self, callback: Any, *args: Any, **keywords: Any) -> asyncio.Handle:
            calls.append("call_soon_threadsafe")
            return super().call_soon_threadsafe(callback, *args, **keywords)

        def is_running(self) -> bool:
            return super().is_running()

    async def main() -> None:
        await asyncio.sleep(0.0001)
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        await loop.run_in_executor(None, loop.call_soon_threadsafe, called.set)
        await called.wait()

    loop = opened(OwnLoop)
    loop.run_until_complete(main())
    assert {"run_forever", "create_future", "call_later", "call_soon_threadsafe"} <= set(calls)
    one_turn(loop)
    assert calls[-2:] == ["stop", "run_forever"]


def test_a_subclass_runs_under_the_runner(loop_class):
    class OwnLoop(loop_class):
        closed = False

        def close(self) -> None:
            type(self).closed = True
            super().close()

    with asyncio.Runner(loop_factory=OwnLoop) as runner:
        assert runner.run(answer()) == 42
    assert OwnLoop.closed


def test_an_overridden_method_that_raises_reaches_the_caller(loop_class, opened):
    class OwnLoop(loop_class):
        broken = False

        def call_soon(self, callback: Any, *args: Any, **keywords: Any) -> asyncio.Handle:
            if self.broken:
                raise LookupError("on purpose")
            return super().call_soon(callback, *args, **keywords)

    loop = opened(OwnLoop)
    future = loop.create_future()
    future.add_done_callback(print)
    loop.broken = True
    with pytest.raises(LookupError):
        future.set_result(None)
    loop.broken = False


# Patched instances.


def test_a_patched_call_exception_handler_is_called(loop):
    with mock.patch.object(loop, "call_exception_handler") as patched:
        loop.call_soon(divmod, 1, 0)
        one_turn(loop)
    [call] = patched.call_args_list
    assert type(call.args[0]["exception"]) is ZeroDivisionError
    contexts: list[Any] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    loop.call_soon(divmod, 1, 0)
    one_turn(loop)
    assert len(contexts) == 1 and patched.call_count == 1


def test_a_patched_call_soon_is_seen_by_futures(loop):
    with mock.patch.object(loop, "call_soon", wraps=loop.call_soon) as patched:
        future = loop.create_future()
        future.add_done_callback(lambda done: None)
        future.set_result(None)
        assert patched.call_count == 1
        one_turn(loop)
    loop.call_soon(int)
    assert patched.call_count == 1


def test_a_method_can_be_assigned_and_deleted(loop):
    original = loop.call_later
    loop.call_later = mock.Mock(return_value="patched")
    assert loop.call_later(1, print) == "patched"
    del loop.call_later
    handle = loop.call_later(1, print)
    assert isinstance(handle, asyncio.TimerHandle)
    handle.cancel()
    assert original == loop.call_later


@pytest.mark.parametrize("name", "time create_task run_in_executor getaddrinfo close stop is_running".split())
def test_every_method_can_be_patched_for_outside_callers(loop, name):
    original = getattr(loop, name)
    with mock.patch.object(loop, name, new=mock.Mock(return_value="patched")):
        assert getattr(loop, name)() == "patched"
    assert getattr(loop, name) == original


@pytest.mark.parametrize("name", "getaddrinfo getnameinfo create_connection create_server shutdown_asyncgens".split())
def test_patching_a_coroutine_method_gives_an_async_mock(loop, name):
    """unittest.mock asks whether the method is a coroutine function, and test suites rely on its answer."""
    with mock.patch.object(loop, name, return_value="patched") as patched:
        assert isinstance(patched, mock.AsyncMock)
        assert loop.run_until_complete(getattr(loop, name)()) == "patched"


def test_create_autospec_of_the_class(loop_class):
    specified = mock.create_autospec(loop_class, instance=True)
    specified.call_soon(print)
    assert specified.call_soon.call_count == 1
    with pytest.raises(AttributeError):
        specified.no_such_method()


def test_methods_can_be_called_through_the_class(loop, loop_class):
    seen: list[int] = []
    loop_class.call_soon(loop, seen.append, 1)
    loop_class.stop(loop)
    loop_class.run_forever(loop)
    assert seen == [1]
    assert isinstance(loop_class.create_future(loop), asyncio.Future)
    with pytest.raises((TypeError, AttributeError)):
        loop_class.call_soon(object(), print)
