"""Workers that share a listening socket: a connection that one of them leaves in the queue reaches an idle neighbour.

A worker that is woken by the kernel keeps the news of a connection to itself (EPOLLEXCLUSIVE). puma#3934, libuv#1111:
if it then cannot or will not accept, the connection waits although others are idle.

Each worker is a loop in a thread of its own. The first one is the one that the kernel wakes first, since it came first;
it leaves without having accepted in the way that the test names. A test fails by waiting longer than DEADLINE_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hoop
import pytest

DEADLINE_S = 60.0


class Worker:
    """A loop in a thread, with a server on a shared listener. Connections tell the worker's name.

    on_waking is called when the loop has slept, before it looks at why it was woken. (Its clock is asked then.)
    """

    def __init__(self, name: bytes, listener: socket.socket, **arguments: Any) -> None:
        self.name = name
        self.listener = listener
        self.arguments = arguments
        self.on_waking: Callable[[], None] | None = None
        self.loop = hoop.Loop(clock=self.time_ns)
        self.listening = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.listening.wait(DEADLINE_S)

    def time_ns(self) -> int:
        if self.on_waking is not None:
            self.on_waking()
        return time.monotonic_ns()

    def connected(self) -> asyncio.Protocol:
        name = self.name

        class Say(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.write(name)

        return Say()

    def run(self) -> None:
        with contextlib.closing(self.loop):
            if self.listener.family == socket.AF_UNIX:
                serving = self.loop.create_unix_server(
                    self.connected, sock=self.listener, cleanup_socket=False, **self.arguments
                )
            else:
                serving = self.loop.create_server(self.connected, sock=self.listener, **self.arguments)
            self.server = self.loop.run_until_complete(serving)
            self.loop.call_soon(self.listening.set)
            with contextlib.suppress(KeyboardInterrupt):
                self.loop.run_forever()
                self.server.close()
                self.server.abort_clients()
                self.loop.run_until_complete(asyncio.sleep(0))

    def server_close(self) -> None:
        self.on_waking = None
        self.server.close()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


def listener_of(family: int, folder: str) -> socket.socket:
    listener = socket.socket(family)
    listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else os.path.join(folder, "s"))
    listener.listen(64)
    listener.setblocking(False)
    return listener


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two objects for one listening socket."""
    with tempfile.TemporaryDirectory(prefix="hoop") as folder, listener_of(request.param, folder) as listener:
        with listener.dup() as other:
            yield listener, other


def dial(listener: socket.socket) -> socket.socket:
    sock = socket.socket(listener.family)
    sock.settimeout(DEADLINE_S)
    sock.connect(listener.getsockname())
    return sock


@contextlib.contextmanager
def stopped(*workers: Worker) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()


def test_a_full_worker(shared: tuple[socket.socket, socket.socket]) -> None:
    """puma#3934. Both have room for one; whoever got the first connection is told of the second, too."""
    limits = hoop.Limits(max_connections=1, when_full="wait")
    first = Worker(b"1", shared[0], backlog=1, limits=limits)
    second = Worker(b"2", shared[1], backlog=1, limits=limits)
    address = shared[0].getsockname()
    with stopped(first, second), contextlib.ExitStack() as clients:
        names = set()
        for _ in range(2):
            client = clients.enter_context(dial(shared[0]))
            names.add(client.recv(1))
        assert names == {b"1", b"2"}
        assert address == shared[0].getsockname()


def test_every_one_of_many_workers_gets_what_the_others_have_no_room_for(
    shared: tuple[socket.socket, socket.socket],
) -> None:
    """Handed from one to the next, as often as it takes."""
    limits = hoop.Limits(max_connections=2, when_full="wait")
    with contextlib.ExitStack() as sockets:
        workers = [Worker(b"%d" % number, sockets.enter_context(shared[0].dup()), limits=limits) for number in range(5)]
        with stopped(*workers):
            names = [sockets.enter_context(dial(shared[0])).recv(1) for _ in range(10)]
    assert sorted(names) == [b"%d" % (number // 2) for number in range(10)]


def test_a_worker_that_closes_its_server_as_it_is_woken(shared: tuple[socket.socket, socket.socket]) -> None:
    """libuv#1111: the news is this loop's, and before it looks at what it was told of, something closes the server."""
    first = Worker(b"1", shared[0])
    second = Worker(b"2", shared[1])
    with stopped(first, second), shared[0].dup() as third:
        first.on_waking = first.server_close
        with dial(third) as client:
            assert client.recv(1) == b"2"


def test_a_loop_that_is_left_as_it_is_woken(shared: tuple[socket.socket, socket.socket]) -> None:
    """By KeyboardInterrupt, and then it is closed although its server is not."""

    def interrupt() -> None:
        first.on_waking = None
        raise KeyboardInterrupt

    first = Worker(b"1", shared[0])
    second = Worker(b"2", shared[1])
    with stopped(first, second):
        first.on_waking = interrupt
        with dial(shared[1]) as client:
            assert client.recv(1) == b"2"


def test_a_worker_that_has_no_descriptor_left(tmp_path: Any) -> None:
    """EMFILE is a process's own: so the two workers are processes. The first reports it, and its neighbour accepts."""
    program = tmp_path / "worker.py"
    program.write_text(WITHOUT_DESCRIPTORS)
    with listener_of(socket.AF_INET, "") as listener, contextlib.ExitStack() as stack:
        workers = []
        for name in ("1", "2"):
            worker = subprocess.Popen(
                [sys.executable, str(program), name, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdout=subprocess.PIPE,
                stdin=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            stack.callback(worker.wait)
            stack.callback(worker.kill)
            stack.enter_context(worker.stdout)  # type: ignore[arg-type]
            stack.enter_context(worker.stdin)  # type: ignore[arg-type]
            workers.append(worker)
            assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        names = []
        for _ in range(8):
            with dial(listener) as client:
                names.append(client.recv(1))
        assert names == [b"2"] * 8


WITHOUT_DESCRIPTORS = """
import asyncio
import os
import resource
import socket
import sys

import hoop

name, number = sys.argv[1].encode(), int(sys.argv[2])


class Say(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(name)
        transport.close()


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    listener = socket.socket(fileno=number)
    await loop.create_server(Say, sock=listener)
    if name == b"1":
        least = os.open(os.devnull, os.O_RDONLY)
        os.close(least)
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, least))
    print("ready", flush=True)
    await asyncio.Event().wait()


hoop.run(main())
"""
