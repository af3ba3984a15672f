"""Loops that are abandoned, forked or left to the interpreter's end, and their descriptors (traps 5, 7, 8)."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from interpreter import IN_CHILD, run_script
from stepping import one_turn

DEADLINE_S = 60.0
FD_DIRECTORY = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


def open_descriptors() -> set[int]:
    """The descriptors of this process; the one that lists the directory is gone again."""
    numbers = {int(name) for name in os.listdir(FD_DIRECTORY)}
    return {number for number in numbers if is_open(number)}


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def settled() -> None:
    """Garbage of earlier tests must not change the counts."""
    gc.collect()


@pytest.fixture
def loop_class(loop_name: str) -> type:
    if loop_name == "asyncio":
        return asyncio.SelectorEventLoop
    import hoop

    return hoop.Loop


# Closed loops.


def test_a_closed_loop_holds_no_descriptor(loop_factory):
    before = open_descriptors()
    for _ in range(30):
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_soon_threadsafe(int)
        one_turn(loop)
        loop.close()
        loop.close()
        assert open_descriptors() == before
    del loop


def test_closing_leaves_watched_descriptors_to_their_owner(loop_factory):
    left, right = socket.socketpair()
    with left, right:
        loop = loop_factory()
        loop.add_reader(left, print)
        loop.add_writer(left, print)
        loop.close()
        right.send(b"still open")
        assert left.recv(100) == b"still open"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio's own finalizer fails
def test_a_constructor_that_fails_leaks_nothing(loop_class):
    before = open_descriptors()
    for _ in range(5):
        with pytest.raises(TypeError):
            loop_class(nonsense=1)
    gc.collect()
    assert open_descriptors() == before


# Abandoned loops (trap 5).


def abandon(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> weakref.ref[asyncio.AbstractEventLoop]:
    """Make a loop that is part of cycles through everything that it holds, and forget it."""
    loop = loop_factory()
    left, right = socket.socketpair()

    class Owner:
        def __init__(self) -> None:
            self.loop, self.sockets = loop, (left, right)
            self.kept: list[Any] = []

        def method(self, *args: object) -> None:
            """Keeps its owner, and so the loop and the sockets."""

    owner = Owner()
    loop.call_soon(owner.method, owner)
    loop.call_soon_threadsafe(owner.method, loop)
    owner.kept.append(loop.call_later(3600, owner.method, loop))
    owner.kept.append(loop.call_at(float("inf"), owner.method))
    loop.add_reader(left, owner.method, left, loop)
    loop.add_writer(right, owner.method, right)
    loop.set_exception_handler(owner.method)
    loop.set_task_factory(owner.method)
    future = loop.create_future()
    future.add_done_callback(owner.method)
    owner.kept.append(future)
    loop.me = loop
    return weakref.ref(loop)


def test_trap_05_an_abandoned_loop_gives_a_resource_warning(loop_factory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        text = repr(loop)
        del loop
        gc.collect()
    messages = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    assert f"unclosed event loop {text}" in messages


def test_a_closed_loop_gives_no_warning(loop_factory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        del loop
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_trap_05_abandoned_loops_leak_no_descriptor(loop_factory):
    before = open_descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(5):
            loop_factory().run_until_complete(asyncio.sleep(0))
        gc.collect()
    assert open_descriptors() == before


@pytest.mark.parametrize("where", ["here", "another thread"])
def test_trap_05_a_hundred_abandoned_loops_in_cycles_are_collected(loop_factory, where):
    before = open_descriptors()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refs = [abandon(loop_factory) for _ in range(100)]
            assert len(open_descriptors()) > len(before)
            if where == "here":
                gc.collect()
            else:
                thread = threading.Thread(target=gc.collect)
                thread.start()
                thread.join(DEADLINE_S)
            gc.collect()
    finally:
        gc.enable()
    assert [ref() for ref in refs] == [None] * 100
    assert open_descriptors() == before


class Keeping(asyncio.Protocol):
    """A cycle with its transport, which it tells of."""

    def __init__(self, told: list[Any] | None = None) -> None:
        self.told = told

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.told is not None:
            self.told.append(transport)


def test_transports_that_a_foreign_thread_collects_while_their_loop_ends_leak_nothing(loop_factory):
    """The loop is closed before it comes to what their finalizers have left for it."""
    gc.collect()
    before = open_descriptors()
    loop = loop_factory()

    async def abandon_some() -> None:
        server = await loop.create_server(lambda: Keeping(accepted), "127.0.0.1", 0)
        for _ in range(3):
            made = await loop.create_connection(Keeping, *server.sockets[0].getsockname())
            made[0].pause_reading()
        while len(accepted) < 3:
            await asyncio.sleep(0)
        accepted[0].get_extra_info("socket")
        for transport in accepted:
            transport.pause_reading()
        accepted.clear()
        server.close()
        reading, writing = os.pipe()
        made = await loop.connect_read_pipe(Keeping, open(reading, "rb", 0))
        made[0].pause_reading()
        os.close(writing)
        del made, transport, server
        await asyncio.sleep(0)
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join(DEADLINE_S)
        loop.stop()

    accepted: list[Any] = []
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task = loop.create_task(abandon_some())
            loop.run_forever()
            assert task.done()
            loop.close()
            del loop, task
            gc.collect()
    finally:
        gc.enable()
    assert open_descriptors() == before


def test_trap_05_an_abandoned_loop_that_ran_tasks_is_collected(loop_factory):
    async def waits(loop: asyncio.AbstractEventLoop) -> None:
        await loop.create_future()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop = loop_factory()
        loop.set_exception_handler(lambda handler_loop, context: None)
        task = loop.create_task(waits(loop))
        loop.run_until_complete(asyncio.sleep(0))
        ref = weakref.ref(loop)
        del loop, task
        gc.collect()
        gc.collect()
    assert ref() is None


def test_a_loop_is_tracked_by_the_collector(loop):
    assert gc.is_tracked(loop)


def test_handles_keep_working_after_their_loop_is_gone(loop_factory):
    loop = loop_factory()
    handles = [loop.call_soon(print), loop.call_later(5, print), loop.call_soon_threadsafe(print)]
    loop.close()
    del loop
    gc.collect()
    for handle in handles:
        assert "Handle" in repr(handle)
        handle.cancel()
        assert handle.cancelled()


# Limits and inheritance.


def test_trap_08_the_descriptor_limit_is_unchanged(loop_factory):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = loop_factory()
    loop.run_until_complete(asyncio.sleep(0))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    loop.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_trap_07_no_descriptor_of_a_loop_is_inherited(loop_factory):
    before = open_descriptors()
    loop = loop_factory()
    try:
        loop.call_later(0.0001, int)
        loop.add_signal_handler(signal.SIGUSR1, int)
        loop.run_until_complete(asyncio.sleep(0.0002))
        own = open_descriptors() - before
        assert own
        assert [number for number in own if os.get_inheritable(number)] == []
    finally:
        loop.close()


# Scripts: forks and the end of the interpreter.


HEADER = """
import asyncio, gc, os, select, signal, socket, sys, threading, warnings
warnings.simplefilter("ignore")

def factory():
    if {loop_name!r} == "asyncio":
        return asyncio.SelectorEventLoop()
    import hoop
    return hoop.new_event_loop()

def use(loop):
    \"\"\"Timers, readers and a call from a thread, all at once.\"\"\"
    async def main():
        left, right = socket.socketpair()
        readable = loop.create_future()
        loop.add_reader(left, readable.set_result, 1)
        called = loop.create_future()
        threading.Thread(target=loop.call_soon_threadsafe, args=(called.set_result, 2)).start()
        right.send(b"x")
        results = [await readable, await called, await asyncio.sleep(0.001, 3)]
        loop.remove_reader(left)
        left.close(), right.close()
        return results
    assert loop.run_until_complete(asyncio.wait_for(main(), 20)) == [1, 2, 3]
"""


def check_script(loop_name: str, body: str, *options: str) -> None:
    code, output, errors = run_script(IN_CHILD + HEADER.format(loop_name=loop_name) + body, *options)
    assert (code, output) == (0, "done"), errors


def test_trap_07_a_new_loop_works_in_a_forked_child(loop_name):
    check_script(
        loop_name,
        """
loop = factory()
use(loop)

def child():
    new = factory()
    use(new)
    new.close()

for _ in range(3):
    assert in_child(child) == 0
    use(loop)
loop.close()
print("done")
""",
    )


def test_trap_07_a_new_loop_works_in_a_child_forked_inside_a_callback(loop_name):
    check_script(
        loop_name,
        """
loop = factory()
codes = []

def child():
    new = factory()
    use(new)
    new.close()

async def main():
    codes.append(in_child(child))
    await asyncio.sleep(0.001)

loop.run_until_complete(main())
use(loop)
loop.close()
assert codes == [0], codes
print("done")
""",
    )


@pytest.mark.parametrize(
    "misuse",
    [
        "loop.close()",
        "loop.run_until_complete(asyncio.sleep(0.001))",
        "loop.call_soon_threadsafe(int)",
        "loop.remove_reader(left)",
        "loop.add_reader(right, int)",
        "loop.call_soon(int); loop.stop(); loop.run_forever(); loop.close(); gc.collect()",
    ],
    ids=["close", "run", "threadsafe", "remove reader", "add reader", "run and collect"],
)
def test_trap_07_whatever_a_child_does_to_the_parents_loop_the_parent_goes_on(loop_name, misuse):
    """In the child it may work or raise, but it may not crash and never reaches the parent's registrations."""
    if loop_name == "asyncio" and ("close" in misuse or "reader" in misuse):
        pytest.skip("asyncio: the child changes the epoll object that it shares with its parent")
    check_script(
        loop_name,
        f"""
loop = factory()
left, right = socket.socketpair()
seen = []
def readable():
    seen.append(left.recv(1))
    loop.stop()
loop.add_reader(left, readable)
use(loop)

def child():
    try:
        {misuse}
    except (RuntimeError, OSError) as error:
        assert str(error)
    return 0

for count in (1, 2, 3):
    assert in_child(child) == 0
    right.send(b"x")
    guard = loop.call_later(20, loop.stop)
    loop.run_forever()
    guard.cancel()
    assert seen == [b"x"] * count, seen
    use(loop)
loop.close()
print("done")
""",
    )


def test_trap_07_a_child_that_drops_the_parents_loop_does_not_disturb_it(loop_name):
    if loop_name == "asyncio":
        pytest.skip("asyncio: closing it from its finalizer changes the epoll object shared with the parent")
    check_script(
        loop_name,
        """
box = [factory()]
use(box[0])

def child():
    box.clear()
    gc.collect()
    new = factory()
    use(new)
    new.close()

assert in_child(child) == 0
use(box[0])
box[0].close()
print("done")
""",
    )


@pytest.mark.parametrize("state", ["fresh", "used", "pending", "stopped inside"])
def test_an_open_loop_at_the_end_of_the_interpreter(loop_name, state):
    body = {
        "fresh": "",
        "used": "use(loop)",
        "pending": "loop.call_soon(print); loop.call_later(5, print); loop.call_soon_threadsafe(print)\n"
        "left, right = socket.socketpair(); loop.add_reader(left, print)\n"
        "loop.add_signal_handler(signal.SIGUSR1, print)",
        "stopped inside": "loop.call_soon(sys.exit, 0)\nprint('done')\nloop.run_forever()",
    }[state]
    end = "" if "inside" in state else "print('done')"
    check_script(loop_name, f"loop = factory()\nloop.me = loop\n{body}\n{end}")
    check_script(loop_name, f"loop = factory()\n{body}\n{end}", "-X", "dev")


def test_daemon_threads_that_call_the_loop_at_the_end_of_the_interpreter(loop_name):
    check_script(
        loop_name,
        """
loop = factory()
started = threading.Event()

def hammer():
    while True:
        loop.call_soon_threadsafe(int)
        started.set()

for _ in range(2):
    threading.Thread(target=hammer, daemon=True).start()
started.wait(20)
use(loop)
print("done")
""",
    )


# References.


def test_running_callbacks_leaves_no_references(loop):
    class Payload:
        """Something a weak reference can point at."""

    payload = Payload()
    before = sys.getrefcount(payload)
    for _ in range(300):
        loop.call_soon(lambda argument: None, payload)
        loop.call_later(-1, lambda argument: None, payload)
        loop.call_soon_threadsafe(lambda argument: None, payload)
        loop.call_soon(print, payload).cancel()
        loop.call_later(10, print, payload).cancel()
        one_turn(loop)
    one_turn(loop)
    gc.collect()
    assert sys.getrefcount(payload) == before


def test_memory_does_not_grow_with_the_turns(loop):
    """Blocks that the interpreter holds, after warming up, over the same work again and again."""

    def count(number: int) -> None:
        if number:
            loop.call_soon(count, number - 1)
            loop.call_later(0, int)
        else:
            loop.call_soon(loop.stop)

    def work() -> int:
        loop.call_soon(count, 3000)
        loop.run_forever()
        one_turn(loop)
        gc.collect()
        return sys.getallocatedblocks()

    work()
    first = work()
    assert max(work() for _ in range(5)) - first < 1000
