"""A socket handle against a model: random calls, some inside callbacks, and a peer that sends and ends at random.

The model is naive. What write() and end() took arrives at the peer, in order and once: all of it, or a beginning of it
after destroy(). What the peer sent arrives in on_data, in order, all of it unless the socket was destroyed. The events
are on_data, on_drain and on_timeout in any number and order, at most one on_end after the last on_data, then at most
one on_error, and one on_close, after which there is nothing. on_drain comes only after write() has returned False.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import hoop
from conformance.peers import DEADLINE_S, HandlerLog, off_loop, pattern, soon, turns
from hypothesis import event, given, settings
from hypothesis import strategies as st

LARGE = st.integers(50_000, 300_000)
SIZES = st.one_of(st.integers(0, 100), st.integers(1000, 20_000), LARGE)
QUIET = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.sampled_from(["pause", "resume", "look", "attach"]), st.none()),
    st.tuples(st.just("set_timeout"), st.sampled_from([None, 1e-9, 60])),
)
ENDS = st.one_of(
    st.tuples(st.just("end"), st.one_of(st.none(), SIZES)),
    st.tuples(st.just("destroy"), st.booleans()),
)
CALLBACKS = ("connection", "data", "end", "drain", "timeout", "error", "close")

GRAMMAR = re.compile(r"k[drt]*e?[rt]*x?c")
LETTERS = {"connection": "k", "data": "d", "drain": "r", "timeout": "t", "end": "e", "error": "x", "close": "c"}


@dataclass
class Script:
    """What one example does."""

    half_open: bool
    steps: list[tuple[tuple[str, Any], int]]  # an operation and how many turns to wait after it
    inside: dict[str, list[tuple[str, Any]]]  # operations for successive calls of a callback
    send_buffer: int
    sent: list[int]  # what the peer sends
    peer_ends_first: bool  # or only when it has seen our end


SCRIPTS = st.builds(
    Script,
    half_open=st.booleans(),
    steps=st.lists(st.tuples(st.one_of(QUIET, QUIET, QUIET, ENDS), st.integers(0, 3)), max_size=10),
    inside=st.dictionaries(st.sampled_from(CALLBACKS), st.lists(st.one_of(QUIET, QUIET, ENDS), max_size=3)),
    send_buffer=st.sampled_from([4096, 32768]),
    sent=st.lists(st.integers(1, 10_000), max_size=5),
    peer_ends_first=st.booleans(),
)


@dataclass
class Driver:
    """Applies operations to a handle and keeps the model."""

    script: Script
    handle: Any = None
    letters: str = ""
    arrived: bytearray = field(default_factory=bytearray)
    written: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    destroyed_with: list[Exception | None] = field(default_factory=list)
    owes_drain: bool = False
    settling: bool = False
    writes: int = 0

    def attach(self, handle: hoop.Socket) -> None:
        self.handle = handle
        handle.on_data = self.on_data
        handle.on_end = lambda _: self.note("end")
        handle.on_drain = lambda _: self.on_drain()
        handle.on_timeout = lambda _: self.note("timeout")
        handle.on_error = self.on_error
        handle.on_close = lambda _: self.note("close")
        self.note("connection")

    def on_data(self, handle: hoop.Socket, data: bytes) -> None:
        self.arrived += data
        assert handle is self.handle and handle.bytes_read == len(self.arrived)
        self.note("data")

    def on_drain(self) -> None:
        assert self.owes_drain and not self.has_ended
        self.owes_drain = False
        self.note("drain")

    def on_error(self, handle: hoop.Socket, error: Exception) -> None:
        assert handle.error is error
        self.note("error")

    def note(self, name: str) -> None:
        self.letters += LETTERS[name]
        waiting = self.script.inside.get(name)
        if waiting:
            self.apply(waiting.pop(0))

    def apply(self, operation: tuple[str, Any]) -> None:
        name, argument = operation
        if name == "write" or (name == "end" and argument is not None):
            self.writes += 1
            self.write(name, pattern(argument, seed=self.writes))
        elif name == "end":
            self.has_ended = True
            self.handle.end()
        elif name == "destroy":
            error = ConnectionError("the test's own") if argument else None
            self.destroyed_with.append(error)
            self.handle.destroy(error)
            assert self.handle.is_closed
        elif name == "set_timeout":
            self.handle.set_timeout(argument)
        elif name == "look":
            assert 0 <= self.handle.write_buffer_size <= len(self.written)
            assert self.handle.bytes_written == len(self.written)
        elif not self.settling:
            if name == "attach":
                self.handle.on_data = self.on_data
            else:
                getattr(self.handle, name)()

    def write(self, method: str, data: bytes) -> None:
        was_closed = self.handle.is_closed
        try:
            is_enough = getattr(self.handle, method)(data) is False
        except RuntimeError:
            assert self.has_ended, "a write before end() was refused"
            return
        assert not self.has_ended, "a write after end() was taken"
        self.has_ended = method == "end"
        if was_closed:
            assert is_enough or method == "end"
        else:
            self.written += data
            self.owes_drain = self.owes_drain or is_enough


async def play(script: Script) -> None:
    loop: Any = asyncio.get_running_loop()
    log = HandlerLog(loop)
    driver = Driver(script)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, script.send_buffer)  # accepted sockets inherit it
    listener.bind(("127.0.0.1", 0))
    server = loop.listen_tcp(driver.attach, sock=listener, allow_half_open=script.half_open)
    closed = loop.create_future()
    server.on_close = lambda _: closed.set_result(None)
    from_peer = b"".join(pattern(size, seed=-index - 1) for index, size in enumerate(script.sent))
    peer = socket.create_connection(server.address, DEADLINE_S)

    has_sent = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            peer.sendall(from_peer)
            if script.peer_ends_first:
                peer.shutdown(socket.SHUT_WR)
        has_sent.set()

    def read() -> bytes:
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while chunk := peer.recv(20_000):
                received += chunk
        has_sent.wait(DEADLINE_S)
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)
        return bytes(received)

    sending = asyncio.ensure_future(off_loop(send))
    reading = asyncio.ensure_future(off_loop(read))
    while driver.handle is None:
        await asyncio.sleep(0)
    for operation, pause in script.steps:
        driver.apply(operation)
        await turns(pause)
    driver.settling = True
    driver.handle.resume()
    if not driver.has_ended:
        driver.apply(("end", None))
    server.close()
    await soon(closed)
    received = await soon(reading)
    await soon(sending)
    await turns(5)
    peer.close()

    assert GRAMMAR.fullmatch(driver.letters), driver.letters
    assert from_peer.startswith(driver.arrived)
    clean = not driver.destroyed_with and driver.handle.error is None
    event("all delivered" if clean else "a beginning delivered")
    if clean:
        assert received == driver.written
        assert driver.arrived == from_peer
        assert "e" in driver.letters
    else:
        assert driver.written.startswith(received)
        assert driver.handle.error is None or isinstance(driver.handle.error, ConnectionError)
    assert driver.handle.bytes_written == len(driver.written)
    assert ("x" in driver.letters) == (driver.handle.error is not None)
    assert log == []


@settings(max_examples=120, deadline=None)
@given(script=SCRIPTS)
def test_a_socket_follows_the_model(script: Script) -> None:
    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(play(script), 60))
