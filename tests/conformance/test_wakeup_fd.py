"""The wake-up descriptor of signals belongs to the whole process (signal.set_wakeup_fd): Twisted has one of its own for
SIGCHLD, ros2's launch one for SIGINT (ros2/launch#479), trio's guest mode another. A loop without signal handlers
leaves it alone; one with handlers learns of signals by their bytes, as asyncio does.

Where both want it, asyncio takes it and keeps it, so somebody hears nothing more: marked by the name of the loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import pytest
from interpreter import run_script
from stepping import one_turn, run_guarded

pytestmark = pytest.mark.usefixtures("signal_dispositions")

Pair = tuple[socket.socket, socket.socket]
USR1 = bytes([signal.SIGUSR1])
# No Python code runs after it, unlike signal.raise_signal().
raise_in_c: Callable[[int], int] = ctypes.CDLL(None)["raise"]


def noop(number: int, frame: object) -> None:
    """A Python-level handler: without one the interpreter writes nothing."""


def received(sock: socket.socket) -> bytes:
    """What has come; nothing if there is nothing."""
    try:
        return sock.recv(1000)
    except BlockingIOError:
        return b""


def current_wakeup_fd() -> int:
    """Read, and left as it is."""
    current = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(current, warn_on_full_buffer=False)
    return current


# Without handlers.


def test_a_loop_without_handlers_does_not_touch_it(loop):
    """trio warns when it finds a wake-up descriptor where none should be."""
    seen = []
    loop.call_soon(lambda: seen.append(current_wakeup_fd()))
    one_turn(loop)
    assert seen == [-1] and current_wakeup_fd() == -1


def test_somebody_elses_gets_its_bytes_while_the_loop_runs(loop, wakeup_pair):
    """Twisted's children ended only so; ros2/launch#479."""
    ours, _ = wakeup_pair
    seen: list[bytes] = []

    def read() -> None:
        seen.append(ours.recv(100))
        loop.stop()

    signal.signal(signal.SIGUSR1, noop)
    loop.add_reader(ours, read)
    loop.call_soon(threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start)
    run_guarded(loop)
    assert seen == [USR1]


def test_a_signal_that_comes_while_compiled_code_runs_is_heard_before_the_loop_sleeps(loop):
    """No byte wakes the loop, and no Python code runs that would call the handler."""
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(number)
        loop.call_soon_threadsafe(loop.stop)

    signal.signal(signal.SIGUSR1, handler)
    for count in range(1, 4):
        loop.call_soon(raise_in_c, int(signal.SIGUSR1))
        run_guarded(loop)
        assert len(seen) == count


def test_a_busy_loop_of_compiled_callbacks_hears_python_handlers(loop, loop_name):
    if loop_name == "asyncio":
        pytest.skip("asyncio: the exception is its callback's, or its own code's, as it happens")

    class Alarm(Exception):
        """Raised by the handler below."""

    def handler(number: int, frame: object) -> None:
        raise Alarm

    signal.signal(signal.SIGUSR1, handler)
    repeat = functools.partial(loop.call_soon)
    repeat.__setstate__((loop.call_soon, (repeat,), {}, {}))  # no Python code: it schedules itself, for ever
    loop.call_soon(repeat)
    loop.call_soon(raise_in_c, int(signal.SIGUSR1))
    with pytest.raises(Alarm):
        run_guarded(loop)
    loop.close()


def test_what_a_python_handler_writes_is_sent_though_the_loop_then_sleeps(loop):
    ours, theirs = socket.socketpair()
    seen: list[bytes] = []

    async def main() -> None:
        ended = loop.create_future()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        signal.signal(signal.SIGUSR1, lambda number, frame: transport.write(b"heard"))

        def read() -> None:
            seen.append(theirs.recv(100))
            ended.set_result(None)

        loop.add_reader(theirs, read)
        loop.call_soon(raise_in_c, int(signal.SIGUSR1))
        await asyncio.wait_for(ended, 30)
        loop.remove_reader(theirs)
        transport.abort()

    with theirs:
        theirs.setblocking(False)
        loop.run_until_complete(main())
    assert seen == [b"heard"]


# With handlers.


def test_each_signal_is_counted(loop):
    """Real-time signals, which the kernel queues: one call of C, three bytes, but one call of the Python handler."""
    number = signal.SIGRTMIN
    seen: list[int] = []

    def three_at_once() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        for _ in range(3):
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

    def handler() -> None:
        seen.append(1)
        if len(seen) == 3:
            loop.stop()

    loop.add_signal_handler(number, handler)
    loop.call_soon(three_at_once)
    run_guarded(loop)
    one_turn(loop)
    assert len(seen) == 3


def test_signals_before_a_run_are_counted(loop):
    seen: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    for _ in range(3):
        raise_in_c(signal.SIGUSR1)
    one_turn(loop)
    one_turn(loop)
    assert seen == [1, 1, 1]


@pytest.mark.parametrize("when", ["during the run", "before the run"])
def test_a_replaced_python_handler_takes_nothing_away(loop, when):
    """uvicorn replaces it around serve(), and calls again what it has caught: both hear of the signal."""
    seen: list[str] = []

    def replace_and_send() -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: seen.append("Python's"))
        os.kill(os.getpid(), signal.SIGUSR1)

    def handler() -> None:
        seen.append("the loop's")
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    if when == "before the run":
        replace_and_send()
    else:
        loop.call_soon(replace_and_send)
    run_guarded(loop)
    assert sorted(seen) == ["Python's", "the loop's"]


def test_a_handler_is_called_in_the_turn_after_the_poll_that_saw_it(loop):
    """asyncio reads the byte in one turn and calls the handler in the next."""
    order: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, order.append, "handler")
    loop.call_soon(raise_in_c, int(signal.SIGUSR1))
    for number in range(3):
        loop.call_soon(order.append, f"turn {number}")
        one_turn(loop)
    assert order.index("handler") in (2, 3) and order[0] == "turn 0"


def test_handlers_are_what_asyncio_keeps(loop):
    """prompt_toolkit takes them from loop._signal_handlers to put them back later."""
    loop.add_signal_handler(signal.SIGWINCH, print, "resized")
    kept = loop._signal_handlers.get(signal.SIGWINCH)
    assert (kept._callback, kept._args) == (print, ("resized",))
    assert isinstance(kept, asyncio.Handle)
    loop.remove_signal_handler(signal.SIGWINCH)
    assert loop._signal_handlers.get(signal.SIGWINCH) is None


def test_the_loop_may_run_in_another_thread(loop):
    """Handlers are added in the main thread, and called where the loop runs."""
    seen: list[int] = []
    started = threading.Event()

    def handler() -> None:
        seen.append(threading.get_ident())
        loop.stop()

    def in_thread() -> None:
        loop.call_soon_threadsafe(started.set)  # it is the main thread's until it runs
        run_guarded(loop, is_ours=False)

    thread = threading.Thread(target=in_thread)
    thread.start()
    assert started.wait(30)
    loop.add_signal_handler(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    thread.join(30)
    assert seen == [thread.ident]


# Somebody else's, and handlers.


def until_told(loop: asyncio.AbstractEventLoop, ours: socket.socket) -> tuple[list[bytes], list[int]]:
    """One SIGUSR1 while the loop runs: what came to the descriptor, and the calls of the loop's handler."""
    bytes_seen: list[bytes] = []
    calls: list[int] = []

    def check() -> None:
        if bytes_seen and calls:
            loop.stop()

    def read() -> None:
        bytes_seen.append(ours.recv(100))
        check()

    def handler() -> None:
        calls.append(1)
        check()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.add_reader(ours, read)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    run_guarded(loop)
    loop.remove_reader(ours)
    return bytes_seen, calls


def test_one_that_stood_before_is_told_and_put_back(loop, loop_name, wakeup_pair):
    if loop_name == "asyncio":
        pytest.skip("asyncio: whoever came before hears nothing any more")
    for _ in range(3):
        assert until_told(loop, wakeup_pair[0]) == ([USR1], [1])
        assert current_wakeup_fd() == wakeup_pair[1].fileno()
    signal.raise_signal(signal.SIGUSR1)
    assert received(wakeup_pair[0]) == USR1, "between two runs, too"


def test_one_that_is_set_while_the_loop_runs_is_left_there(loop, loop_name, wakeup_pair):
    if loop_name == "asyncio":
        pytest.skip("asyncio: its handlers are never called any more")
    signal.set_wakeup_fd(-1)
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)
        loop.stop()

    def send() -> None:
        signal.set_wakeup_fd(wakeup_pair[1].fileno(), warn_on_full_buffer=False)
        os.kill(os.getpid(), signal.SIGUSR1)

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(send)
    run_guarded(loop)
    assert calls == [1] and received(wakeup_pair[0]) == USR1
    assert current_wakeup_fd() == wakeup_pair[1].fileno()
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.close()
    assert current_wakeup_fd() == wakeup_pair[1].fileno()


def test_one_that_was_closed_is_not_put_back_and_gets_nothing(loop, loop_name, wakeup_pair):
    """Its number may be a connection's by then."""
    number = wakeup_pair[1].fileno()
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)
        loop.stop()

    def close_and_send() -> None:
        wakeup_pair[1].close()
        other, successor = socket.socketpair()
        assert number in (other.fileno(), successor.fileno())
        strangers.extend((other, successor))
        os.kill(os.getpid(), signal.SIGUSR1)

    strangers: list[socket.socket] = []
    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(close_and_send)
    run_guarded(loop)
    assert calls == [1] and current_wakeup_fd() != number
    signal.raise_signal(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert current_wakeup_fd() == -1
    for stranger in strangers:
        stranger.setblocking(False)
        assert received(stranger) == b""
        stranger.close()


def test_one_that_is_taken_away_while_the_loop_runs(loop, loop_name, wakeup_pair):
    """Twisted sets -1 when its reactor has no use for one any more; so does asyncio's own loop."""
    if loop_name == "asyncio":
        pytest.skip("asyncio: its handlers are never called any more")
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)
        if len(calls) == 2:
            loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(signal.set_wakeup_fd, -1)
    for _ in range(2):
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    run_guarded(loop)
    assert calls == [1, 1] and received(wakeup_pair[0]) == b""


def test_one_that_was_made_blocking_is_reported(loop, loop_name, wakeup_pair, caplog):
    if loop_name == "asyncio":
        pytest.skip("asyncio: does not put it back")
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.call_soon(wakeup_pair[1].setblocking, True)
    one_turn(loop)
    assert current_wakeup_fd() == -1
    assert "cannot be put back" in caplog.text
    loop.close()


def test_one_whose_reader_is_gone_is_reported_once(loop, loop_name, wakeup_pair, caplog):
    if loop_name == "asyncio":
        pytest.skip("asyncio: does not pass bytes on")
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)
        if len(calls) == 2:
            loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler)
    loop.call_soon(wakeup_pair[0].close)
    for _ in range(2):
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    run_guarded(loop)
    assert caplog.text.count("takes no more bytes") == 1


def test_nested_owners_take_turns(loop_factory, loop_name):
    """Two loops with a handler each, by turns, the second closed while the first one runs."""
    if loop_name == "asyncio":
        pytest.skip("asyncio: the wake-up descriptor stays that of the loop that added a handler last")
    one, two = loop_factory(), loop_factory()
    calls: list[str] = []
    two.add_signal_handler(signal.SIGUSR2, calls.append, "two")
    one.add_signal_handler(signal.SIGUSR1, one.stop)
    one.call_soon(os.kill, os.getpid(), signal.SIGUSR2)  # heard by the other one, when that runs
    one.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    run_guarded(one)
    one_turn(two)
    one_turn(two)
    assert calls == ["two"]
    one.call_soon(two.close)
    one.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    run_guarded(one)
    one.close()
    assert current_wakeup_fd() == -1


# The end of loops, and children.


@pytest.mark.parametrize(
    "end", [signal.raise_signal, lambda number: signal.signal(number, noop)], ids=["came", "taken"]
)
def test_a_loop_closed_in_another_thread_leaves_no_dead_descriptor(loop_factory, loop_name, end):
    """Only the main thread may change the wake-up descriptor, and does so when the signal comes or its handler goes.
    Its number must not become another owner's file."""
    if loop_name == "asyncio":
        pytest.skip("asyncio: ValueError, and the descriptor stays")
    loop = loop_factory()
    loop.add_signal_handler(signal.SIGUSR1, print)
    number = current_wakeup_fd()

    def in_thread() -> None:
        loop.run_until_complete(asyncio.sleep(0))  # from then on it is this thread's, which may close it without a GIL
        loop.close()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(30)
    assert loop.is_closed() and current_wakeup_fd() == number
    os.fstat(number)  # it is still open
    end(signal.SIGUSR1)
    assert current_wakeup_fd() == -1
    with pytest.raises(OSError):
        os.fstat(number)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_childs_signals_do_not_reach_the_parents_loop(loop_name):
    """cpython#66285, mended in Python 3.12: the child shares the pipe with its parent."""
    if loop_name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("asyncio: mended in Python 3.12")
    code, output, errors = run_script(
        f"""
import asyncio, os, signal, sys
loop = asyncio.SelectorEventLoop() if {loop_name!r} == "asyncio" else __import__("hoop").Loop()
calls = []
loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)

async def main():
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    for _ in range(20):
        await asyncio.sleep(0)
    print(status, calls)
    os.kill(os.getpid(), signal.SIGUSR1)
    while not calls:
        await asyncio.sleep(0)
    print(calls)

loop.run_until_complete(main())
loop.close()
"""
    )
    assert (code, output.split("\n")) == (0, ["0 []", "[1]"]), errors
