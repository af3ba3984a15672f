"""A TCP transport against a model: random calls, some from inside callbacks, and a peer that reads as it likes.

The model is three sentences. What write and writelines have accepted arrives, in order and once: all of it after close,
a beginning of it after abort. The protocol sees connection_made, then any number of data_received and of pause_writing
and resume_writing in turns, at most one eof_received after the last data, and then connection_lost once. What the peer
has sent arrives in order, all of it unless the transport was closed before. A BufferedProtocol sees the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from dataclasses import dataclass, field
from typing import Any

from conformance.peers import BufferedRecorder, HandlerLog, Recorder, off_loop, pattern, soon, tcp_pair, turns
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

LARGE = st.integers(50_000, 300_000)
SIZES = st.one_of(st.integers(0, 100), st.integers(1000, 20_000), LARGE, LARGE)
PIECES = st.lists(st.one_of(st.integers(0, 100), st.integers(1000, 50_000)), max_size=5)
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("writelines"), PIECES),
    st.tuples(st.just("limits"), st.sampled_from([0, 1, 5000, 65536])),
    st.tuples(st.sampled_from(["pause_reading", "resume_reading"]), st.none()),
)
ENDS = st.tuples(st.sampled_from(["close", "abort", "write_eof"]), st.none())
STEPS = st.one_of(OPERATIONS, OPERATIONS, ENDS)
CALLBACKS = ("connection_made", "data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost")

GRAMMAR = re.compile(r"m[dpr]*e?[pr]*l")
LETTERS = {
    "connection_made": "m",
    "data_received": "d",
    "buffer_updated": "d",
    "eof_received": "e",
    "pause_writing": "p",
    "resume_writing": "r",
    "connection_lost": "l",
}


@dataclass
class Script:
    """What one example does."""

    steps: list[tuple[tuple[str, Any], int]]  # an operation and how many turns to wait after it
    inside: dict[str, list[tuple[str, Any]]]  # operations for successive calls of a callback
    buffer_size: int  # of a BufferedProtocol; 0: it is a Protocol
    keep_open: bool  # what eof_received returns
    send_buffer: int
    receive_buffer: int
    read_sizes: list[int]  # how the peer reads, over and over
    sent: list[int]  # what the peer sends
    peer_ends: bool  # whether it then ends its direction


SCRIPTS = st.builds(
    Script,
    steps=st.lists(st.tuples(st.one_of(OPERATIONS, OPERATIONS, OPERATIONS, ENDS), st.integers(0, 3)), max_size=12),
    inside=st.dictionaries(st.sampled_from(CALLBACKS), st.lists(STEPS, max_size=4)),
    buffer_size=st.sampled_from([0, 0, 7, 3000, 70_000]),
    keep_open=st.booleans(),
    send_buffer=st.sampled_from([4096, 32768]),
    receive_buffer=st.sampled_from([4096, 32768]),
    read_sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=4),
    sent=st.lists(st.integers(1, 10_000), max_size=5),
    peer_ends=st.booleans(),
)


@dataclass
class Driver:
    """Applies operations to a transport and keeps the model."""

    loop_name: str
    protocol: Any = None
    transport: Any = None
    written: bytearray = field(default_factory=bytearray)
    ended_writing: bool = False
    aborted: bool = False
    settling: bool = False  # everything is to be read now: no more pauses
    writes: int = 0

    def data(self, size: int) -> bytes:
        self.writes += 1
        return pattern(size, seed=self.writes)

    def apply(self, operation: tuple[str, Any], inside: str | None = None) -> None:
        name, argument = operation
        transport = self.transport
        if self.settling and name == "pause_reading":
            return
        if self.loop_name == "asyncio":
            # std: close and abort inside resume_writing (or in a pause that it causes) end in connection_lost twice
            if inside in ("pause_writing", "resume_writing") and name in ("close", "abort"):
                return
            # std: abort after a close that had to wait for the buffer raises AttributeError once the connection is lost
            if name == "abort" and transport.is_closing():
                return
            # std: writelines keeps empty pieces for ever
            if name == "writelines" and not all(argument):
                return
            # std: resuming after the end of the stream reads the end again
            if name == "resume_reading" and self.protocol.count("eof_received"):
                return
        if name in ("write", "writelines") and transport.is_closing():
            return  # asyncio sends it while the buffer is not empty, and drops it otherwise: nothing to rely on
        if name == "write":
            self.write(transport.write, self.data(argument), [argument])
        elif name == "writelines":
            pieces = [self.data(size) for size in argument]
            self.write(transport.writelines, pieces, argument)
        elif name == "limits":
            transport.set_write_buffer_limits(high=argument)
        elif name == "abort":
            self.aborted = True
            transport.abort()
        elif name == "write_eof":
            if not transport.is_closing():
                self.ended_writing = True
            transport.write_eof()
        else:
            getattr(transport, name)()
        if name in ("close", "abort"):
            assert transport.is_closing() and not transport.is_reading()
        assert 0 <= transport.get_write_buffer_size() <= len(self.written)

    def write(self, method: Any, argument: Any, sizes: list[int]) -> None:
        """Note what is written before writing it: the call may come back through pause_writing."""
        if self.ended_writing:
            try:
                method(argument)
            except RuntimeError:
                return
            assert sum(sizes) == 0, "a write after write_eof was accepted"
            return
        self.written += argument if isinstance(argument, bytes) else b"".join(argument)
        method(argument)


async def play(script: Script, loop_name: str) -> None:
    loop = asyncio.get_running_loop()
    log = HandlerLog(loop)
    driver = Driver(loop_name)
    waiting = {name: list(operations) for name, operations in script.inside.items()}

    def hook(name: str) -> Any:
        def run_next(protocol: Recorder, *_: Any) -> Any:
            driver.transport = protocol.transport
            if waiting.get(name):
                driver.apply(waiting[name].pop(0), inside=name)
            return script.keep_open if name == "eof_received" else None

        return run_next

    hooks = {name: hook(name) for name in CALLBACKS}
    protocol: Any = Recorder(**hooks)
    if script.buffer_size:
        hooks["buffer_updated"] = hooks.pop("data_received")
        protocol = BufferedRecorder(script.buffer_size, **hooks)
    driver.protocol = protocol
    ours, peer = tcp_pair(send_buffer=script.send_buffer, receive_buffer=script.receive_buffer)
    from_peer = b"".join(pattern(size, seed=-index - 1) for index, size in enumerate(script.sent))

    def read() -> bytes:
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while True:
                for size in script.read_sizes:
                    chunk = peer.recv(size)
                    if not chunk:
                        return bytes(received)
                    received += chunk
        return bytes(received)

    def send() -> None:
        with contextlib.suppress(OSError):
            at = 0
            for size in script.sent:
                peer.sendall(from_peer[at : at + size])
                at += size
            if script.peer_ends:
                peer.shutdown(socket.SHUT_WR)

    reading = asyncio.ensure_future(off_loop(read))
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    driver.transport = transport
    sending = asyncio.ensure_future(off_loop(send))
    for operation, pause in script.steps:
        driver.apply(operation)
        await turns(pause)
    driver.settling = True
    driver.apply(("resume_reading", None))
    await protocol.until(
        lambda: (
            transport.is_closing()
            or (len(protocol.data) == len(from_peer) and (not script.peer_ends or protocol.count("eof_received") == 1))
        )
    )
    transport.close()
    received = await reading
    await soon(sending)
    await protocol.until_lost()
    await turns(5)
    peer.close()

    # what arrived at the peer
    clean = not driver.aborted and bytes(protocol.data) == from_peer and protocol.lost_with is None
    event("all delivered" if clean else "a beginning delivered")
    if clean:
        assert received == driver.written
    else:  # aborted, or closed with something unread, which resets the connection
        assert driver.written.startswith(received)
    # what arrived here
    assert from_peer.startswith(protocol.data)
    letters = "".join(LETTERS[call[0]] for call in protocol.calls)
    assert GRAMMAR.fullmatch(letters), letters
    flow = re.sub("[^pr]", "", letters)
    assert re.fullmatch("(pr)*p?", flow), letters
    if "p" in flow:
        event("writing was paused")
    # what is left
    assert protocol.lost_with is None or isinstance(protocol.lost_with, ConnectionError)
    assert log == []
    assert ours.fileno() == -1


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=SCRIPTS)
def test_transport_follows_the_model(run: Any, loop_name: str, script: Script) -> None:
    run(play(script, loop_name))
