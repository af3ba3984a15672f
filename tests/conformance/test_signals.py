"""Signals: handlers, signals while the loop sleeps or does not run, the interpreter's wake-up descriptor (trap 37).

asyncio leaves its own descriptor as the interpreter's wake-up descriptor between runs, and -1 after the last handler is
removed. hoop puts back what was there: marked by the name of the loop. test_wakeup_fd.py has those who share it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from stepping import run_guarded

DEADLINE_S = 60.0

pytestmark = pytest.mark.usefixtures("signal_dispositions")


def kill_from_a_thread(number: int) -> Callable[[], None]:
    """A callback that has another thread send the signal, so that the loop is asleep, or about to be, when it comes."""
    return threading.Thread(target=os.kill, args=(os.getpid(), number), daemon=True).start


# Handlers.


def test_a_signal_calls_its_handler_with_its_arguments(loop):
    seen: list[tuple[Any, ...]] = []

    def handler(*args: Any) -> None:
        seen.append(args)
        loop.stop()

    given = object()
    assert loop.add_signal_handler(signal.SIGUSR1, handler, 1, given) is None
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    run_guarded(loop)
    assert seen == [(1, given)]


def test_trap_37_a_signal_wakes_a_sleeping_loop(loop):
    for _ in range(30):
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
        loop.call_soon(kill_from_a_thread(signal.SIGUSR1))
        run_guarded(loop)


def test_a_signal_can_be_named_by_number_or_enum(loop):
    seen: list[str] = []
    loop.add_signal_handler(int(signal.SIGUSR1), seen.append, "number")
    loop.add_signal_handler(signal.Signals.SIGUSR2, seen.append, "enum")

    def send() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)

    async def main() -> None:
        send()
        while len(seen) < 2:
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(main(), DEADLINE_S))
    assert sorted(seen) == ["enum", "number"]


def test_different_signals_at_once_all_arrive(loop):
    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP]
    seen: list[int] = []

    def handler(number: int) -> None:
        seen.append(number)
        if len(seen) == len(numbers):
            loop.stop()

    for number in numbers:
        loop.add_signal_handler(number, handler, number)
    loop.call_soon(lambda: [signal.raise_signal(number) for number in numbers])
    run_guarded(loop)
    assert sorted(seen) == sorted(numbers)


def test_thousands_of_signals(loop):
    """They may be merged, but the last one is followed by a call of the handler, and nothing overflows."""
    sent = [0]
    seen: list[int] = []

    def handler() -> None:
        seen.append(sent[0])
        if sent[0] == 5000:
            loop.stop()

    def send() -> None:
        for _ in range(5000):
            sent[0] += 1
            signal.raise_signal(signal.SIGUSR1)

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(send)
    run_guarded(loop)
    assert seen[-1] == 5000


def test_a_second_handler_replaces_the_first(loop):
    seen: list[str] = []

    def second() -> None:
        seen.append("second")
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, seen.append, "first")
    loop.add_signal_handler(signal.SIGUSR1, second)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    run_guarded(loop)
    assert seen == ["second"]
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


def test_remove_restores_the_default(loop):
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    for number in (signal.SIGUSR1, signal.SIGINT):
        loop.add_signal_handler(number, print)
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
        assert loop.remove_signal_handler(number) is True
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_close_removes_the_handlers(loop):
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGINT, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_can_remove_itself(loop):
    seen: list[bool] = []

    def handler() -> None:
        seen.append(loop.remove_signal_handler(signal.SIGUSR1))
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    run_guarded(loop)
    assert seen == [True] and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_trap_37_a_handler_that_raises_is_reported(loop):
    contexts: list[dict[str, Any]] = []

    def remember(handler_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        contexts.append(context)
        handler_loop.stop()

    loop.set_exception_handler(remember)
    loop.add_signal_handler(signal.SIGUSR1, divmod, 1, 0)
    for count in (1, 2):
        loop.call_soon(signal.raise_signal, signal.SIGUSR1)
        run_guarded(loop)
        assert len(contexts) == count
    assert set(contexts[0]) == {"message", "exception", "handle"}
    assert type(contexts[0]["exception"]) is ZeroDivisionError


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_trap_37_a_handler_can_leave_the_loop(loop, error):
    def handler() -> None:
        raise error

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    with pytest.raises(error):
        run_guarded(loop)
    assert not loop.is_running()


# Wrong arguments.


@pytest.mark.parametrize("wrong", ["SIGUSR1", None, 1.5, b"10"], ids=repr)
def test_wrong_types_are_type_errors(loop, wrong):
    with pytest.raises(TypeError):
        loop.add_signal_handler(wrong, print)
    with pytest.raises(TypeError):
        loop.remove_signal_handler(wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1000, signal.NSIG, 2**40])
def test_numbers_out_of_range_are_value_errors(loop, wrong):
    with pytest.raises(ValueError):
        loop.add_signal_handler(wrong, print)
    with pytest.raises(ValueError):
        loop.remove_signal_handler(wrong)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_uncatchable_signals_are_runtime_errors(loop, number):
    with pytest.raises(RuntimeError, match="cannot be caught"):
        loop.add_signal_handler(number, print)
    assert loop.remove_signal_handler(number) is False


def test_coroutines_are_type_errors(loop):
    async def handler() -> None:
        """Never runs."""

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.add_signal_handler(signal.SIGUSR1, handler)
    coroutine = handler()
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.add_signal_handler(signal.SIGUSR1, coroutine)
    coroutine.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_closed_loop_refuses_handlers(loop):
    loop.close()
    with pytest.raises(RuntimeError):
        loop.add_signal_handler(signal.SIGUSR1, print)


def test_another_thread_cannot_add_handlers(loop_factory):
    errors: list[BaseException] = []

    def in_thread() -> None:
        loop = loop_factory()
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except BaseException as error:
            errors.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(DEADLINE_S)
    assert [type(error) for error in errors] == [RuntimeError]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


# Signals outside of a run.


def test_trap_37_a_signal_before_the_run_is_not_lost(loop):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    signal.raise_signal(signal.SIGUSR1)
    run_guarded(loop)


def test_trap_37_a_signal_between_two_runs_is_not_lost(loop):
    seen: list[int] = []

    def handler() -> None:
        seen.append(1)
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    for count in range(1, 6):
        loop.run_until_complete(asyncio.sleep(0))
        signal.raise_signal(signal.SIGUSR1)
        assert len(seen) == count - 1
        run_guarded(loop)
        assert len(seen) == count


def test_trap_37_two_loops_in_turn(loop_factory):
    for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2):
        loop = loop_factory()
        try:
            loop.add_signal_handler(number, loop.stop)
            loop.call_soon(kill_from_a_thread(number))
            run_guarded(loop)
        finally:
            loop.close()


def test_trap_37_two_open_loops_in_turn(loop_factory, loop_name):
    if loop_name == "asyncio":
        pytest.skip("asyncio: the wake-up descriptor stays that of the loop that added a handler last")
    one, two = loop_factory(), loop_factory()
    try:
        one.add_signal_handler(signal.SIGUSR1, one.stop)
        two.add_signal_handler(signal.SIGUSR2, two.stop)
        for _ in range(3):
            for loop, number in ((one, signal.SIGUSR1), (two, signal.SIGUSR2)):
                loop.call_soon(kill_from_a_thread(number))
                run_guarded(loop)
    finally:
        one.close()
        two.close()


# The interpreter's wake-up descriptor.


def test_trap_37_a_run_without_handlers_keeps_the_wakeup_fd(loop, wakeup_pair):
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    assert signal.set_wakeup_fd(-1) == wakeup_pair[1].fileno()


def test_trap_37_the_wakeup_fd_is_restored_after_a_run_with_handlers(loop, loop_name, wakeup_pair):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(kill_from_a_thread(signal.SIGUSR1))
    run_guarded(loop)
    after_run = signal.set_wakeup_fd(-1)
    if loop_name == "asyncio":
        assert after_run not in (-1, wakeup_pair[1].fileno())
        return
    assert after_run == wakeup_pair[1].fileno()
    signal.set_wakeup_fd(after_run)
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.close()
    assert signal.set_wakeup_fd(-1) == wakeup_pair[1].fileno()


def test_trap_37_the_wakeup_fd_is_restored_after_an_exception(loop, loop_name, wakeup_pair):
    def interrupt() -> None:
        raise KeyboardInterrupt

    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert signal.set_wakeup_fd(-1) == wakeup_pair[1].fileno()


def test_a_loop_in_another_thread_leaves_the_wakeup_fd_alone(loop_factory, wakeup_pair):
    seen: list[int] = []

    def in_thread() -> None:
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        seen.append(1)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(DEADLINE_S)
    assert seen == [1] and signal.set_wakeup_fd(-1) == wakeup_pair[1].fileno()


# Plain Python signal handlers.


def test_a_python_handler_runs_while_the_loop_sleeps(loop):
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(number)
        loop.call_soon_threadsafe(loop.stop)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    run_guarded(loop)
    assert seen == [signal.SIGALRM]


def test_an_exception_of_a_python_handler_leaves_the_sleeping_loop(loop):
    class Alarm(Exception):
        """Raised by the handler below."""

    def handler(number: int, frame: object) -> None:
        raise Alarm

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    with pytest.raises(Alarm):
        run_guarded(loop)
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, "usable again")) == "usable again"


def test_interruptions_do_not_shorten_timers(loop):
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    early: list[float] = []
    when = loop.time() + 0.03

    def fire() -> None:
        if loop.time() < when:
            early.append(when - loop.time())
        loop.stop()

    loop.call_at(when, fire)
    loop.run_forever()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert early == []


# SIGCHLD.


def test_trap_37_sigchld_may_be_handled_by_the_user(loop):
    loop.add_signal_handler(signal.SIGCHLD, loop.stop)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    run_guarded(loop)
    assert child.wait(DEADLINE_S) == 0
    assert loop.remove_signal_handler(signal.SIGCHLD) is True


# Ctrl-C.


HEADER = """
import asyncio, os, signal, sys, threading

def factory():
    if {loop_name!r} == "asyncio":
        return asyncio.SelectorEventLoop()
    import hoop
    return hoop.new_event_loop()

def interrupt_from_a_thread():
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
"""


def run_script(loop_name: str, body: str) -> tuple[int, list[str], str]:
    """Exit code, lines of output and error output of a script that is given `factory` and a way to press Ctrl-C."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    source = HEADER.format(loop_name=loop_name) + body
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.split(), done.stderr


def test_trap_37_ctrl_c_leaves_a_runner_cleanly(loop_name):
    code, lines, errors = run_script(
        loop_name,
        """
async def main():
    asyncio.get_running_loop().call_soon(interrupt_from_a_thread)
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        print("cancelled")
        raise
    finally:
        await asyncio.sleep(0)
        print("cleaned")

with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
""",
    )
    assert lines == ["cancelled", "cleaned"]
    assert code == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt")
    assert "ResourceWarning" not in errors


def test_trap_37_ctrl_c_leaves_run_forever(loop_name):
    code, lines, errors = run_script(
        loop_name,
        """
loop = factory()
loop.call_soon(interrupt_from_a_thread)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted", loop.is_running())
print(loop.run_until_complete(asyncio.sleep(0, "usable")))
loop.close()
""",
    )
    assert (code, lines) == (0, ["interrupted", "False", "usable"]), errors


def test_trap_37_ctrl_c_leaves_a_busy_loop(loop_name):
    """No poll ever sleeps here: the interpreter's own check must raise it."""
    code, lines, errors = run_script(
        loop_name,
        """
loop = factory()
def busy():
    loop.call_soon(busy)
loop.call_soon(busy)
loop.call_soon(interrupt_from_a_thread)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
loop.close()
""",
    )
    assert (code, lines) == (0, ["interrupted"]), errors


def test_a_handler_for_sigint_takes_precedence(loop_name):
    code, lines, errors = run_script(
        loop_name,
        """
async def main():
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    loop.call_soon(interrupt_from_a_thread)
    await stopped.wait()
    print("stopped")

with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
""",
    )
    assert (code, lines) == (0, ["stopped"]), errors
