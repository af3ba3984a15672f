"""The other end of a connection, protocols that write down what happens to them, and ways to wait for it.

Nothing here waits by sleeping: a test waits for a callback (`Recorder.until`), for a blocking call in a thread
(`off_loop`), or for a number of loop turns (`turns`) when it wants to see that nothing more comes. Raw peers are
blocking sockets with a timeout, so that a test ends even when the loop under test never answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

DEADLINE_S = 60.0
LOCALHOST = "127.0.0.1"

# More turns than any loop takes between two looks at its descriptors.
SETTLING_TURNS = 25


class Recording:
    """What Recorder and BufferedRecorder share: the list of calls, hooks per callback, and waiting for a condition.

    A hook is called as hook(protocol, *arguments) after the call has been noted; what it returns or raises is what the
    callback returns or raises.
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.data = bytearray()
        self.transport: Any = None
        self.hooks = hooks
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def _called(self, name: str, *arguments: Any) -> Any:
        self.calls.append((name, *arguments))
        try:
            hook = self.hooks.get(name)
            return hook(self, *arguments) if hook is not None else None
        finally:
            self._wake()

    def _wake(self) -> None:
        for waiting in list(self._waiting):
            predicate, future = waiting
            if not future.done() and predicate():
                future.set_result(None)
            if future.done():
                self._waiting.remove(waiting)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._called("connection_made", transport)

    def eof_received(self) -> bool | None:
        return self._called("eof_received")

    def pause_writing(self) -> None:
        self._called("pause_writing")

    def resume_writing(self) -> None:
        self._called("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._called("connection_lost", exc)

    @property
    def names(self) -> list[str]:
        """The callbacks so far, runs of data_received/buffer_updated shown once."""
        names: list[str] = []
        for call in self.calls:
            if call[0] not in ("data_received", "buffer_updated") or not names or names[-1] != call[0]:
                names.append(call[0])
        return names

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)

    @property
    def lost_with(self) -> BaseException | None:
        """The argument of connection_lost, which must have been called exactly once."""
        (call,) = (call for call in self.calls if call[0] == "connection_lost")
        return call[1]

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until predicate() holds after one of this protocol's callbacks."""
        if predicate():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((predicate, future))
        await asyncio.wait_for(future, DEADLINE_S)

    async def until_called(self, name: str, times: int = 1) -> None:
        await self.until(lambda: self.count(name) >= times)

    async def until_received(self, size: int) -> bytes:
        await self.until(lambda: len(self.data) >= size)
        return bytes(self.data)

    async def until_lost(self) -> BaseException | None:
        await self.until_called("connection_lost")
        return self.lost_with


class Recorder(Recording, asyncio.Protocol):
    """A Protocol that notes every callback."""

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._called("data_received", data)


def echo(protocol: Recorder, data: bytes) -> None:
    """A hook for data_received."""
    protocol.transport.write(data)


class BufferedRecorder(Recording, asyncio.BufferedProtocol):
    """A BufferedProtocol that notes every callback but get_buffer (whose hook may supply the buffer)."""

    def __init__(self, size: int = 65536, **hooks: Callable[..., Any]) -> None:
        super().__init__(**hooks)
        self.buffer = bytearray(size)
        self.size_hints: list[int] = []

    def get_buffer(self, sizehint: int) -> Any:
        self.size_hints.append(sizehint)
        hook = self.hooks.get("get_buffer")
        return hook(self, sizehint) if hook is not None else self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self._called("buffer_updated", nbytes)


class Clients:
    """A protocol factory that remembers its protocols."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.protocols: list[Recorder] = []
        self._hooks = hooks
        self._arrived = asyncio.Event()

    def __call__(self) -> Recorder:
        protocol = Recorder(**self._hooks)
        self.protocols.append(protocol)
        self._arrived.set()
        return protocol

    async def until_made(self, count: int = 1) -> Recorder:
        """Wait until count protocols have been made and connected; the last of them."""
        while len(self.protocols) < count:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), DEADLINE_S)
        for protocol in self.protocols[:count]:
            await protocol.until_called("connection_made")
        return self.protocols[count - 1]


class HandlerLog(list):
    """An exception handler that keeps its contexts."""

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.append(context)
        self._arrived.set()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._arrived = asyncio.Event()
        loop.set_exception_handler(self)

    async def first(self) -> dict[str, Any]:
        await asyncio.wait_for(self._arrived.wait(), DEADLINE_S)
        return self[0]


def context_keys(context: dict[str, Any]) -> set[str]:
    """The keys of an exception handler's context, without those that debug mode adds."""
    return set(context) - {"source_traceback", "handle_traceback"}


# Sockets


def tcp_pair(
    *, send_buffer: int | None = None, receive_buffer: int | None = None, family: int = socket.AF_INET
) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on the loopback: ours, non-blocking, and the peer's, blocking with a timeout.

    send_buffer is SO_SNDBUF of our end, receive_buffer is SO_RCVBUF of the peer's.
    """
    with socket.socket(family) as listener:
        if receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind((LOCALHOST if family == socket.AF_INET else "::1", 0))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        ours = socket.socket(family)
        if send_buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        ours.connect(listener.getsockname())
        peer, _ = listener.accept()
    ours.setblocking(False)
    peer.settimeout(DEADLINE_S)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, peer


def keep_little_in_the_kernel(*sockets: Any) -> None:
    """Give each buffers of a fixed size, 256 KiB. Else Linux lets them grow to what tcp_rmem and tcp_wmem allow."""
    for sock in sockets:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 128 * 1024)  # doubled, for the kernel's own


async def connected(protocol: Any, **buffers: Any) -> tuple[Any, socket.socket]:
    """A transport of the running loop for protocol, and the raw socket at its other end. Arguments as for tcp_pair."""
    ours, peer = tcp_pair(**buffers)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
    return transport, peer


async def congested(protocol: Any, *, at_least: int = 1, **buffers: Any) -> tuple[Any, socket.socket, bytes]:
    """As connected, with small kernel buffers that are full: the bytes written so far, more than at_least unsent."""
    buffers = {"send_buffer": 8192, "receive_buffer": 8192, **buffers}
    transport, peer = await connected(protocol, **buffers)
    written = b""
    while transport.get_write_buffer_size() < at_least:
        chunk = pattern(256 * 1024, seed=len(written))
        transport.write(chunk)
        written += chunk
    return transport, peer, written


def dial(address: tuple[Any, ...]) -> socket.socket:
    """Blocking: a raw connection to a listener of the loop under test. The kernel answers, the loop need not run."""
    return socket.create_connection(address[:2], timeout=DEADLINE_S)


def address_of(server: Any) -> tuple[Any, ...]:
    return server.sockets[0].getsockname()


async def closed(server: Any) -> None:
    """server.wait_closed(), with a deadline."""
    await asyncio.wait_for(server.wait_closed(), DEADLINE_S)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Blocking: size bytes, fewer at the end of the stream."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(min(65536, size - len(data)))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def read_to_end(sock: socket.socket) -> bytes:
    """Blocking: everything up to the end of the stream."""
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


def read_until_gone(sock: socket.socket) -> bytes:
    """Blocking: everything up to the end of the stream, or up to a reset (as when the other end left data unread)."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65536):
            data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close with a reset (RST) instead of the orderly end of the stream."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def refused_port() -> int:
    """A port of the loopback on which nobody listens (it has just been free)."""
    with socket.socket() as sock:
        sock.bind((LOCALHOST, 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def listening(*, backlog: int = 128, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A raw blocking listener with a timeout, on the loopback."""
    with socket.socket(family) as listener:
        listener.bind((LOCALHOST if family == socket.AF_INET else "::1", 0))
        listener.listen(backlog)
        listener.settimeout(DEADLINE_S)
        yield listener


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat, so that a lost, doubled or swapped piece shows."""
    return random.Random(seed).randbytes(size)


# Waiting and measuring


async def off_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a blocking function in a thread of its own (not of the loop's pool) and wait for its result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def finish(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def work() -> None:
        result = error = None
        try:
            result = function(*arguments)
        except BaseException as exc:
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop has closed: the test has ended already
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=work, daemon=True).start()
    return await asyncio.wait_for(future, 2 * DEADLINE_S)


async def soon(awaitable: Any) -> Any:
    """The result, with a deadline."""
    return await asyncio.wait_for(awaitable, DEADLINE_S)


async def turns(count: int = SETTLING_TURNS) -> None:
    """Let the loop turn count times, so that whatever is ready by now has been dispatched."""
    for _ in range(count):
        await asyncio.sleep(0)


async def idle_turns(idle_s: float = 0.3) -> int:
    """How often the loop turns while it has nothing to do for idle_s seconds.

    Counted, not timed: a busy machine makes an idle loop no busier, and leaves a spinning one its thousands.
    """
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    timer = threading.Timer(idle_s, lambda: loop.call_soon_threadsafe(over.set))
    await turns()
    with turn_counter(loop) as count:
        timer.start()
        await asyncio.wait_for(over.wait(), DEADLINE_S)
        return count()


@contextlib.contextmanager
def turn_counter(loop: Any) -> Iterator[Callable[[], int]]:
    """A function that tells how many turns loop has begun since."""
    if hasattr(loop, "metrics"):
        before = loop.metrics().turns
        yield lambda: int(loop.metrics().turns - before)
        return
    if not hasattr(loop, "_selector"):
        pytest.skip(f"{loop!r} counts no turns")
    select, timeouts = loop._selector.select, []

    def counted(timeout: float | None = None) -> Any:
        timeouts.append(timeout)
        return select(timeout)

    loop._selector.select = counted
    try:
        yield lambda: len(timeouts)
    finally:
        del loop._selector.select


# What an idle loop may take: waiting needs fewer than five, a timer that looks again now and then some thirty; a
# spinning loop takes thousands.
MOST_IDLE_TURNS = 100


def open_descriptors() -> set[int]:
    """The numbers of this process's open descriptors. Without io_urings: a loop opens one when it first has many to
    send to, and closes it at its end, for which test_sent_together.py looks."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    numbers = set()
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            os.fstat(int(name))
            if not is_io_uring(f"{folder}/{name}"):
                numbers.add(int(name))
    return numbers


def is_io_uring(path: str) -> bool:
    """Whether a file in /proc/self/fd is one. OSError if it is gone."""
    return os.path.islink(path) and os.readlink(path) == "anon_inode:[io_uring]"


async def accept_one(listener: socket.socket) -> socket.socket:
    """Accept on a blocking raw listener, in a thread."""
    peer, _ = await off_loop(listener.accept)
    peer.settimeout(DEADLINE_S)
    return peer
