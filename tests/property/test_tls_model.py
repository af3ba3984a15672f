"""Random programs over TLS, with ciphertext that arrives in pieces of any size, or stops arriving.

One end is the TLS transport of a hoop loop. The other end is an SSLObject between two BIOs; a wire carries ciphertext
between them in pieces as the program says, over a socket or through a transport of the test's own. The model: what one
end has written is what the other end gets, in order, none of it while reading is paused, and all of it in the end,
unless the wire was cut or the connection closed, when it is a beginning of it. Writing, pausing, resuming and ending
also happen inside data_received and buffer_updated.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import hoop
import pytest
from conformance.peers import BufferedRecorder, Recorder, pattern, soon, turns
from conformance.tls_peers import NAME, client_context, server_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.each_tls_engine


class Peer:
    """The other end: plaintext in and out, ciphertext in and out, no waiting."""

    def __init__(self, is_server: bool, version: ssl.TLSVersion) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context() if is_server else client_context()
        context.minimum_version = context.maximum_version = version
        name = None if is_server else NAME
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=is_server, server_hostname=name)
        self.received = bytearray()
        self.written = bytearray()
        self.is_handshaken = False
        self.has_ended = False  # the other side has sent close_notify

    def feed(self, data: bytes) -> None:
        self.incoming.write(data)
        self.run()

    def run(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.is_handshaken:
                self.tls.do_handshake()
                self.is_handshaken = True
            while data := self.read():
                self.received += data
            self.has_ended = True

    def read(self) -> bytes:
        try:
            return self.tls.read(65536)
        except ssl.SSLZeroReturnError:
            return b""

    def write(self, data: bytes) -> None:
        if self.is_handshaken:
            self.tls.write(data)
            self.written += data

    def say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()


class SocketWire:
    """Ciphertext through a pair of sockets, under hoop's own stream transport."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        self.unsent = b""

    async def transport(self, protocol: Any) -> Any:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=self.ours)
        return transport

    async def deliver(self, data: bytes) -> None:
        self.unsent += data
        try:
            self.unsent = self.unsent[self.theirs.send(self.unsent) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.unsent = b""
        await turns(4)

    def take(self, size: int) -> bytes:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            return self.theirs.recv(size)
        return b""

    async def end(self) -> None:
        self.theirs.close()


class FakeTransport(asyncio.Transport):
    """Ciphertext through a transport that is not hoop's."""

    _start_tls_compatible = True

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.sent = bytearray()
        self.is_paused = self.is_closed = self.is_full = False
        protocol.connection_made(self)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.sent += data
        if len(self.sent) > 40_000 and not self.is_full:
            self.is_full = True
            self.protocol.pause_writing()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class FakeWire:
    def __init__(self) -> None:
        self.unsent = b""

    async def transport(self, protocol: Any) -> Any:
        self.below = FakeTransport(protocol)
        return self.below

    async def deliver(self, data: bytes) -> None:
        self.unsent += data
        if self.below.is_closed:
            self.unsent = b""
        if self.unsent and not self.below.is_paused:
            data, self.unsent = self.unsent, b""
            self.below.protocol.data_received(data)
        await turns(2)

    def take(self, size: int) -> bytes:
        data = bytes(self.below.sent[:size])
        del self.below.sent[:size]
        if self.below.is_full and len(self.below.sent) < 10_000:
            self.below.is_full = False
            self.below.protocol.resume_writing()
        return data

    async def end(self) -> None:
        if not self.below.is_closed and not self.below.protocol.eof_received():
            self.below.close()


sizes = st.one_of(st.integers(1, 40), st.integers(1, 70_000))
operations = st.one_of(
    st.tuples(st.sampled_from(["write", "writelines", "peer writes", "to us", "to the peer"]), sizes),
    st.tuples(st.sampled_from(["pause", "resume", "turn"]), st.just(0)),
)
programs = st.lists(operations, max_size=25)
inside_operations = st.one_of(
    st.tuples(st.sampled_from(["write", "writelines"]), sizes),
    st.tuples(st.sampled_from(["", "", "pause", "resume"]), st.just(0)),
)
insides = st.lists(inside_operations, max_size=6)


class Play:
    """One program, as it runs."""

    def __init__(
        self,
        wire: Any,
        is_server: bool,
        is_buffered: bool,
        version: ssl.TLSVersion,
        chunk: int,
        inside: list[tuple[str, int]],
    ) -> None:
        self.wire = wire
        self.inside = list(inside)  # for successive calls of the protocol
        self.has_ended = False
        self.is_server = is_server
        self.peer = Peer(not is_server, version)
        self.chunk = chunk
        self.is_paused = False
        self.written = bytearray()
        self.protocol: Any = Recorder(data_received=self.check)
        if is_buffered:
            self.protocol = BufferedRecorder(997, buffer_updated=self.check)

    def check(self, protocol: Any, data: Any) -> None:
        assert not self.is_paused and not self.has_ended
        assert self.peer.written.startswith(protocol.data)
        if self.inside:
            name, size = self.inside.pop(0)
            if name in ("close", "abort"):
                self.has_ended = True
                getattr(self.transport, name)()
            elif name:
                self.act(name, size)

    async def begin(self) -> None:
        below = await self.wire.transport(self.protocol)
        context = server_context() if self.is_server else client_context()
        starting = asyncio.ensure_future(
            asyncio.get_running_loop().start_tls(
                below,
                self.protocol,
                context,
                server_side=self.is_server,
                server_hostname=None if self.is_server else NAME,
            )
        )
        await turns(1)  # from now on what arrives is TLS
        self.peer.run()
        while not starting.done() or not self.peer.is_handshaken:
            await self.to_us(self.chunk)
            await self.to_peer(self.chunk)
        self.transport = await soon(starting)
        self.protocol.transport = self.transport

    async def to_us(self, size: int) -> bool:
        data = self.peer.outgoing.read(size)
        await self.wire.deliver(data)
        return bool(data)

    async def to_peer(self, size: int) -> bool:
        data = self.wire.take(size)
        if data:
            self.peer.feed(data)
        await turns(1)
        return bool(data)

    def act(self, name: str, size: int) -> None:
        """What can be done anywhere."""
        if name == "write":
            data = pattern(size, len(self.written))
            self.written += data
            self.transport.write(data)
        elif name == "writelines":
            data = pattern(size, len(self.written))
            self.written += data
            self.transport.writelines([data[: size // 3], data[size // 3 :]])
        elif name == "pause":
            self.is_paused = True
            self.transport.pause_reading()
        else:
            assert name == "resume"
            self.is_paused = False
            self.transport.resume_reading()

    async def step(self, name: str, size: int) -> None:
        if name == "peer writes":
            self.peer.write(pattern(size, len(self.peer.written)))
        elif name == "to us":
            await self.to_us(size)
        elif name == "to the peer":
            await self.to_peer(size)
        elif name == "turn":
            await turns(1)
        else:
            self.act(name, size)

    async def exchange_everything(self) -> None:
        idle = 0
        while idle < 6:
            moved = await self.to_us(65536)
            moved = await self.to_peer(65536) or moved
            idle = 0 if moved or self.wire.unsent else idle + 1

    def check_pauses(self) -> None:
        changes = [name for name, *_ in self.protocol.calls if name in ("pause_writing", "resume_writing")]
        assert changes == ["pause_writing", "resume_writing"] * (len(changes) // 2)


async def play(action: Play, program: list[tuple[str, int]], ending: str) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    await action.begin()
    for name, size in program:
        await action.step(name, size)
    if ending == "cut":
        action.inside.clear()
        action.is_paused = False
        action.transport.resume_reading()
        await action.wire.end()
        with contextlib.suppress(OSError):
            await action.protocol.until_lost()
        assert action.peer.written.startswith(action.protocol.data)
        assert action.written.startswith(action.peer.received)
        assert problems == []
        return
    await action.step("resume", 0)
    await action.exchange_everything()
    while action.is_paused:  # from inside
        await action.step("resume", 0)
        await action.exchange_everything()
    assert bytes(action.protocol.data) == bytes(action.peer.written)
    assert bytes(action.peer.received) == bytes(action.written)
    action.check_pauses()
    if ending == "we close":
        action.transport.close()
        await action.exchange_everything()
        assert action.peer.has_ended
    action.peer.say_goodbye()
    await action.exchange_everything()
    assert await action.protocol.until_lost() is None
    assert action.protocol.count("connection_lost") == 1
    assert action.protocol.count("eof_received") == (ending == "peer closes")
    assert problems == []
    await action.wire.end()


async def play_to_an_end_inside(action: Play, program: list[tuple[str, int]]) -> None:
    """close() or abort() comes from inside a callback; then nothing but connection_lost does."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    await action.begin()
    is_abort = action.inside[-1][0] == "abort"
    for name, size in program:
        if action.has_ended:
            break
        await action.step(name, size)
    while not action.has_ended:
        if action.is_paused:
            await action.step("resume", 0)
        action.peer.write(b"more")
        await action.exchange_everything()
    received = bytes(action.protocol.data)
    await action.exchange_everything()
    if not is_abort:
        assert bytes(action.peer.received) == bytes(action.written) and action.peer.has_ended
        action.peer.say_goodbye()
        await action.exchange_everything()
    else:
        assert action.written.startswith(action.peer.received)
    assert await action.protocol.until_lost() is None
    assert bytes(action.protocol.data) == received and action.peer.written.startswith(received)
    names = [name for name, *_ in action.protocol.calls]
    assert names.count("connection_lost") == 1 and names[-1] == "connection_lost" and "eof_received" not in names
    assert problems == []
    await action.wire.end()


@pytest.mark.parametrize("wire", [SocketWire, FakeWire])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@given(
    program=programs,
    inside=insides,
    is_server=st.booleans(),
    is_buffered=st.booleans(),
    chunk=st.sampled_from([1 << 20, 5, 60, 700]),
    ending=st.sampled_from(["we close", "peer closes", "cut"]),
)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs(
    wire: Any,
    version: ssl.TLSVersion,
    program: list[tuple[str, int]],
    inside: list[tuple[str, int]],
    is_server: bool,
    is_buffered: bool,
    chunk: int,
    ending: str,
) -> None:
    async def main() -> None:
        action = Play(wire(), is_server, is_buffered, version, chunk, inside)
        await asyncio.wait_for(play(action, program, ending), 60)

    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("wire", [SocketWire, FakeWire])
@given(
    program=programs,
    inside=insides,
    end=st.sampled_from(["close", "abort"]),
    is_buffered=st.booleans(),
    version=st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_programs_that_end_inside_a_callback(
    wire: Any,
    program: list[tuple[str, int]],
    inside: list[tuple[str, int]],
    end: str,
    is_buffered: bool,
    version: ssl.TLSVersion,
) -> None:
    async def main() -> None:
        action = Play(wire(), True, is_buffered, version, 1 << 20, [*inside, (end, 0)])
        await asyncio.wait_for(play_to_an_end_inside(action, program), 60)

    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        runner.run(main())
