"""Debug mode: slow callbacks, calls from the wrong thread, tracebacks of the source, coroutine origins (trap 34)."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hoop.core.processors import has_gil
from stepping import one_turn

DEADLINE_S = 60.0


@pytest.fixture
def debug_loop(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    loop.set_debug(True)
    return loop


@pytest.fixture
def origin_depth() -> Iterator[None]:
    """Whatever a test does, the interpreter's origin tracking is put back."""
    depth = sys.get_coroutine_origin_tracking_depth()
    try:
        yield
    finally:
        sys.set_coroutine_origin_tracking_depth(depth)


# The switch.


def test_get_and_set_debug(loop):
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_the_environment_switches_debug_on(loop_name):
    source = f"""
import asyncio
if {loop_name!r} == "asyncio":
    loop = asyncio.SelectorEventLoop()
else:
    import hoop
    loop = hoop.new_event_loop()
print(loop.get_debug())
loop.close()
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

    def output(*options: str, **extra: str) -> str:
        command = [sys.executable, *options, "-c", source]
        return subprocess.check_output(command, env=environment | extra, text=True, timeout=60).strip()

    assert output() == "False"
    assert output(PYTHONASYNCIODEBUG="1") == "True"
    assert output("-X", "dev") == "True"


def test_runner_switches_debug_on(loop_factory):
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    for debug in (True, False):
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            assert runner.run(main()) is debug


# Slow callbacks. A limit of zero makes every callback a slow one, so nothing has to take any time.


def slow_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """As they were written, at the moment of the warning."""
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_the_limit_is_a_tenth_of_a_second(loop):
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 1
    assert loop.slow_callback_duration == 1


def test_trap_34_slow_callbacks_are_logged(debug_loop, caplog):
    def a_slow_callback() -> None:
        """Slow only because the limit is zero."""

    debug_loop.slow_callback_duration = 0
    debug_loop.call_soon(a_slow_callback)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        one_turn(debug_loop)
    [message] = slow_messages(caplog)
    assert message.startswith("Executing <Handle ") and " took " in message and message.endswith(" seconds")
    assert "a_slow_callback" in message


def test_trap_34_slow_timers_readers_and_threadsafe_callbacks_are_logged(debug_loop, caplog):
    left, right = socket.socketpair()
    with left, right:
        debug_loop.slow_callback_duration = 0
        right.send(b"x")
        debug_loop.add_reader(left, int)
        debug_loop.call_later(-1, float)
        debug_loop.call_soon_threadsafe(str)
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            one_turn(debug_loop)
            one_turn(debug_loop)
        debug_loop.remove_reader(left)
    text = "\n".join(slow_messages(caplog))
    assert "int()" in text and "float()" in text and "str()" in text
    assert "TimerHandle" in text


def test_trap_34_slow_task_steps_are_logged(debug_loop, caplog):
    async def a_slow_task() -> None:
        await asyncio.sleep(0)

    debug_loop.slow_callback_duration = 0
    task = debug_loop.create_task(a_slow_task(), name="the slow one")
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        debug_loop.run_until_complete(task)
    messages = [message for message in slow_messages(caplog) if "the slow one" in message]
    assert messages and all(message.startswith("Executing <Task ") for message in messages[:2])
    assert "a_slow_task" in messages[0]


def test_trap_34_fast_callbacks_are_not_logged(debug_loop, caplog):
    debug_loop.slow_callback_duration = float("inf")
    debug_loop.call_soon(int)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        one_turn(debug_loop)
    assert slow_messages(caplog) == []


def test_trap_34_nothing_is_measured_without_debug(loop, caplog):
    loop.set_debug(False)
    loop.slow_callback_duration = 0
    loop.call_soon(int)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        one_turn(loop)
    assert slow_messages(caplog) == []


def test_trap_34_the_limit_can_change_while_the_loop_runs(debug_loop, caplog):
    def lower() -> None:
        debug_loop.slow_callback_duration = 0

    debug_loop.slow_callback_duration = float("inf")
    debug_loop.call_soon(int)
    debug_loop.call_soon(lower)
    debug_loop.call_soon(float)
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        one_turn(debug_loop)
    text = "\n".join(slow_messages(caplog))
    assert "float()" in text and "int()" not in text


# Calls from the wrong thread.


def call_from_a_thread(loop: asyncio.AbstractEventLoop, call: Any) -> BaseException | None:
    """Run the loop; while it runs, make the call from another thread; give back what it raised."""
    caught: list[BaseException] = []

    def in_thread() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)
        finally:
            loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=in_thread)
    loop.call_soon(thread.start)
    guard = loop.call_later(DEADLINE_S, loop.stop)
    loop.run_forever()
    guard.cancel()
    thread.join(DEADLINE_S)
    return caught[0] if caught else None


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at"])
def test_trap_34_calls_from_another_thread_are_detected(debug_loop, method):
    arguments = {"call_soon": (print,), "call_later": (5, print), "call_at": (5, print)}[method]
    error = call_from_a_thread(debug_loop, lambda: getattr(debug_loop, method)(*arguments))
    assert type(error) is RuntimeError and "Non-thread-safe operation" in str(error)


def test_trap_34_the_threadsafe_call_is_allowed(debug_loop):
    assert call_from_a_thread(debug_loop, lambda: debug_loop.call_soon_threadsafe(int)) is None


def test_trap_34_completing_a_future_from_another_thread_is_detected(debug_loop):
    future = debug_loop.create_future()
    future.add_done_callback(lambda done: None)
    error = call_from_a_thread(debug_loop, lambda: future.set_result(None))
    assert type(error) is RuntimeError and "Non-thread-safe operation" in str(error)


def test_trap_34_a_loop_that_does_not_run_belongs_to_nobody(debug_loop, loop_name):
    """With hoop, where there is no GIL, to the thread that ran it. (docs/threads.md)"""
    errors: list[BaseException] = []
    seen: list[int] = []

    def in_thread() -> None:
        try:
            debug_loop.call_soon(seen.append, 1)
        except BaseException as error:
            errors.append(error)

    debug_loop.run_until_complete(asyncio.sleep(0))
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(DEADLINE_S)
    one_turn(debug_loop)
    if loop_name == "hoop" and not has_gil():
        assert seen == [] and type(errors[0]) is RuntimeError and "Non-thread-safe operation" in str(errors[0])
    else:
        assert errors == [] and seen == [1]


# Source tracebacks.


def schedulers(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    return {
        "call_soon": lambda: loop.call_soon(divmod, 1, 0),
        "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(divmod, 1, 0),
        "call_later": lambda: loop.call_later(-1, divmod, 1, 0),
        "call_at": lambda: loop.call_at(0, divmod, 1, 0),
    }


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_trap_34_the_source_traceback_ends_at_the_call(debug_loop, method):
    contexts: list[dict[str, Any]] = []
    debug_loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    line = schedulers.__code__.co_firstlineno
    schedulers(debug_loop)[method]()
    one_turn(debug_loop)
    [context] = contexts
    last = context["source_traceback"][-1]
    assert last.filename == __file__ and line < last.lineno < line + 8
    assert f"loop.{method}(" in last.line


def test_trap_34_tasks_know_where_they_were_made(debug_loop):
    contexts: list[dict[str, Any]] = []
    debug_loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))

    async def fails() -> None:
        raise LookupError

    task = debug_loop.create_task(fails())
    debug_loop.run_until_complete(asyncio.wait([task]))
    del task
    gc.collect()
    [context] = contexts
    last = context["source_traceback"][-1]
    assert last.filename == __file__ and "debug_loop.create_task(fails())" in last.line


def test_trap_34_the_default_handler_shows_where_the_running_handle_was_made(debug_loop, caplog):
    def reports() -> None:
        debug_loop.call_exception_handler({"message": "reported from a callback"})

    debug_loop.call_soon(reports)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        one_turn(debug_loop)
    [record] = caplog.records
    assert record.getMessage().startswith("reported from a callback\n")
    assert "Handle created at (most recent call last):" in record.getMessage()
    assert "debug_loop.call_soon(reports)" in record.getMessage()


def test_trap_34_the_default_handler_shows_the_source_of_the_failure(debug_loop, caplog):
    debug_loop.call_soon(divmod, 1, 0)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        one_turn(debug_loop)
    [record] = caplog.records
    assert "Object created at (most recent call last):" in record.getMessage()
    assert "debug_loop.call_soon(divmod, 1, 0)" in record.getMessage()


def test_without_debug_there_are_no_source_tracebacks(loop):
    loop.set_debug(False)
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
    loop.call_soon(divmod, 1, 0)
    one_turn(loop)
    assert "source_traceback" not in contexts[0]


# Coroutine origins, and switching while the loop runs.


@pytest.mark.usefixtures("origin_depth")
class TestOriginTracking:
    def depths(self, loop: asyncio.AbstractEventLoop) -> list[int]:
        seen: list[int] = []
        loop.call_soon(lambda: seen.append(sys.get_coroutine_origin_tracking_depth()))
        one_turn(loop)
        return seen

    @pytest.mark.parametrize("outside", [0, 3])
    def test_trap_34_it_is_on_while_a_debug_loop_runs(self, debug_loop, outside):
        sys.set_coroutine_origin_tracking_depth(outside)
        assert self.depths(debug_loop)[0] > 3
        assert sys.get_coroutine_origin_tracking_depth() == outside

    def test_trap_34_it_is_untouched_by_another_loop(self, loop):
        loop.set_debug(False)
        sys.set_coroutine_origin_tracking_depth(3)
        assert self.depths(loop) == [3]
        assert sys.get_coroutine_origin_tracking_depth() == 3

    def test_trap_34_it_is_restored_when_the_run_ends_by_an_exception(self, debug_loop):
        def interrupt() -> None:
            raise KeyboardInterrupt

        sys.set_coroutine_origin_tracking_depth(2)
        debug_loop.call_soon(interrupt)
        with pytest.raises(KeyboardInterrupt):
            debug_loop.run_forever()
        assert sys.get_coroutine_origin_tracking_depth() == 2

    def test_trap_34_set_debug_while_running(self, loop):
        async def main() -> list[int]:
            seen = []
            for enabled in (True, False, True):
                loop.set_debug(enabled)
                assert loop.get_debug() is enabled
                await asyncio.sleep(0)  # asyncio changes the depth by a callback.
                await asyncio.sleep(0)
                seen.append(sys.get_coroutine_origin_tracking_depth())
            return seen

        sys.set_coroutine_origin_tracking_depth(0)
        loop.set_debug(False)
        one, two, three = loop.run_until_complete(main())
        assert one > 0 and two == 0 and three > 0
        assert sys.get_coroutine_origin_tracking_depth() == 0

    def test_trap_34_checks_follow_set_debug_at_once(self, loop):
        async def main() -> None:
            loop.set_debug(True)
            with pytest.raises(TypeError):
                loop.call_soon("not callable")
            loop.set_debug(False)

        loop.run_until_complete(main())

    def test_trap_34_a_coroutine_never_awaited_shows_its_origin(self, debug_loop):
        async def forgotten() -> None:
            """Never awaited."""

        async def main() -> None:
            forgotten()
            gc.collect()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            debug_loop.run_until_complete(main())
        messages = [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]
        assert len(messages) == 1
        assert "forgotten' was never awaited" in messages[0]
        assert "Coroutine created at" in messages[0]


def test_a_debug_loop_closes_twice_and_shows_its_state(debug_loop):
    assert "debug=True" in repr(debug_loop)
    debug_loop.close()
    debug_loop.close()
    assert "closed=True" in repr(debug_loop)
