"""A system call that the kernel refuses concerns only its own connection or listener: hoop reports it, and the loop and
all others go on. A listener tries again, since the cause may pass.

ENOSPC and ENOMEM are what epoll_ctl(2) says at the limit of max_user_watches and of a memory cgroup. What every call
does with every error is swept in test_refused_calls.py; here it is in which state a connection, a listener or an
operation is met.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from preloaded import built_shim, run_under

SHIM = Path(__file__).with_name("refuse_next.c")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_shim(SHIM, tmp_path_factory.mktemp("shim"))


PRELUDE = '''
import asyncio
import ctypes
import errno
import os
import socket
import sys

import hoop

shim = ctypes.CDLL(os.environ["LD_PRELOAD"].rpartition(os.pathsep)[2])
number = getattr(errno, sys.argv[1])
reported = []


def refuse(call, fd=-1, times=1):
    shim.refuse(call.encode(), fd, number, times)


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, 30)


class Echo(asyncio.Protocol):
    """Echoes, and remembers how it ended."""
    made = []

    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
        self.made.append(self)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, error):
        self.lost.set_result(error)


async def is_answered(address):
    reader, writer = await soon(asyncio.open_connection(*address))
    writer.write(b"x")
    answer = await soon(reader.read(1))
    writer.close()
    return answer == b"x"


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    listener = server.sockets[0].fileno()
    address = server.sockets[0].getsockname()
    await body(loop, server, listener, address)
    assert shim.refused() > 0, "never refused"
    assert server.is_serving() and await is_answered(address)
    server.close()
    for each in Echo.made:  # a debug build of Python tells what is left open
        each.transport.abort()
        await soon(each.lost)
    print("served", flush=True)


'''

RUN = """

loop = hoop.Loop(poller=sys.argv[2] if len(sys.argv) > 2 else "epoll")
loop.run_until_complete(main())
loop.close()
"""


def served(shim: Path, folder: Path, body: str, *arguments: str) -> None:
    """body: text of a coroutine function body(loop, server, listener, address); afterwards the server must serve."""
    assert run_under(shim, PRELUDE + body + RUN, folder, *arguments) == (0, "served\n")


ANEW = """
async def body(loop, server, listener, address):
    refuse("epoll_ctl", listener)
    for _ in range(6):
        assert await is_answered(address)  # from the fifth on, after the listener has tried again
    (context,) = reported
    assert isinstance(context["exception"], OSError) and context["exception"].errno == number, context
    assert context["socket"].fileno() == listener
    assert "poller" in context["message"]
"""


@pytest.mark.parametrize("error", ["ENOSPC", "ENOMEM"])
def test_a_listener_that_is_registered_anew(shim: Path, tmp_path: Path, error: str) -> None:
    """After four connections it goes to the end of the line of those who share the socket."""
    served(shim, tmp_path, ANEW, error)


AGAIN = """
async def body(loop, server, listener, address):
    refuse("epoll_ctl", listener, 2)
    for _ in range(6):
        assert await is_answered(address)
    assert len(reported) == 2
"""


def test_a_listener_for_which_the_next_try_is_refused_too(shim: Path, tmp_path: Path) -> None:
    served(shim, tmp_path, AGAIN, "ENOSPC")


ACCEPT = """
async def body(loop, server, listener, address):
    refuse("accept4", listener)
    assert await is_answered(address)
    if number == errno.ECONNABORTED:
        assert not reported
    else:
        (context,) = reported
        assert isinstance(context["exception"], OSError) and context["exception"].errno == number, context
"""


@pytest.mark.parametrize("error", ["EMFILE", "ENOMEM", "EPERM", "ECONNABORTED"])
def test_accept(shim: Path, tmp_path: Path, error: str) -> None:
    served(shim, tmp_path, ACCEPT, error)


ACCEPTED = """
async def body(loop, server, listener, address):
    with socket.create_connection(address, timeout=30) as client:
        refuse("epoll_ctl")  # the next descriptor that is registered is the accepted one
        while not Echo.made:
            await asyncio.sleep(0)
        error = await soon(Echo.made[0].lost)
        assert isinstance(error, OSError) and error.errno == number, error
        assert client.recv(1) == b""
    assert not reported, reported  # connection_lost() has told
"""


@pytest.mark.parametrize("error", ["ENOSPC", "ENOMEM"])
def test_a_connection_that_is_registered(shim: Path, tmp_path: Path, error: str) -> None:
    served(shim, tmp_path, ACCEPTED, error)


RESUMED = """
async def body(loop, server, listener, address):
    with socket.create_connection(address, timeout=30) as client:
        while not Echo.made or not hasattr(Echo.made[0], "transport"):
            await asyncio.sleep(0)
        transport = Echo.made[0].transport
        fd = transport.get_extra_info("socket").fileno()
        transport.pause_reading()
        for _ in range(3):
            await asyncio.sleep(0)
        refuse("epoll_ctl", fd)
        transport.resume_reading()
        error = await soon(Echo.made[0].lost)
        assert isinstance(error, OSError) and error.errno == number, error
"""


@pytest.mark.parametrize("error", ["ENOSPC", "ENOMEM"])
def test_a_connection_that_is_resumed(shim: Path, tmp_path: Path, error: str) -> None:
    served(shim, tmp_path, RESUMED, error)


TRANSFER = """
async def body(loop, server, listener, address):
    with socket.create_connection(address, timeout=30) as client:
        while not Echo.made or not hasattr(Echo.made[0], "transport"):
            await asyncio.sleep(0)
        fd = Echo.made[0].transport.get_extra_info("socket").fileno()
        refuse(sys.argv[3], fd)
        await asyncio.to_thread(client.send, b"hello")
        if number == errno.EAGAIN:
            assert await asyncio.to_thread(client.recv, 5) == b"hello"
        else:
            error = await soon(Echo.made[0].lost)
            assert isinstance(error, OSError) and error.errno == number, error
    assert not reported, reported
"""


@pytest.mark.parametrize("call", ["recv", "send"])
@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM", "EHOSTUNREACH"])
def test_a_transfer(shim: Path, tmp_path: Path, call: str, error: str) -> None:
    served(shim, tmp_path, TRANSFER, error, "epoll", call)


USERS = """
async def body(loop, server, listener, address):
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with ours, peer:
        refuse("epoll_ctl", ours.fileno())
        try:
            loop.add_reader(ours, print)
        except OSError as error:
            assert error.errno == number
        else:
            assert False
        refuse("epoll_ctl", ours.fileno())
        try:
            await soon(loop.sock_recv(ours, 1))
        except OSError as error:
            assert error.errno == number
        else:
            assert False
        assert ours._io_refs == 0
        waiting = asyncio.ensure_future(loop.sock_recv(ours, 1))
        await asyncio.sleep(0)
        loop.add_reader(ours, print)
        refuse("epoll_ctl", ours.fileno())
        # It waits: one interest more, of which the kernel is told later.
        sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(10_000_000)))
        for operation in (waiting, sending):
            try:
                await soon(operation)
            except OSError as error:
                assert error.errno == number
            else:
                assert False
        (context,) = reported
        assert context["exception"].errno == number and "add_reader" in context["message"]
        assert not loop.remove_reader(ours)
        peer.send(b"y")
        assert await soon(loop.sock_recv(ours, 1)) == b"y"
"""


@pytest.mark.parametrize("error", ["ENOSPC", "ENOMEM"])
def test_a_descriptor_of_the_user_s(shim: Path, tmp_path: Path, error: str) -> None:
    served(shim, tmp_path, USERS, error)


POLL = """
async def body(loop, server, listener, address):
    refuse("ppoll", -1, 20)
    assert await is_answered(address)
"""


@pytest.mark.parametrize("error", ["EINVAL", "ENOMEM", "EAGAIN", "EINTR"])
def test_the_portable_back_end_s_wait(shim: Path, tmp_path: Path, error: str) -> None:
    """joyent/libuv#1189 (EINVAL); another way of waiting takes its place."""
    served(shim, tmp_path, POLL, error, "poll")


NO_EVENTFD = """
refuse("eventfd", -1, 100)


async def body(loop, server, listener, address):
    future = loop.create_future()
    import threading
    threading.Thread(target=lambda: loop.call_soon_threadsafe(future.set_result, 1)).start()
    assert await soon(future) == 1
"""


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_sandbox_without_eventfd(shim: Path, tmp_path: Path, error: str) -> None:
    """A pipe wakes the loop there."""
    served(shim, tmp_path, NO_EVENTFD, error)
