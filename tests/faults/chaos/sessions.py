"""The loop's side of the storm's connections: what every kind of server does, and what is written down about it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import socket
import struct
import weakref
from collections.abc import Callable
from typing import Any

from faults.chaos.plans import HEADER, Plan, piece, plan_of

SHOWN_OF_EACH = 8


class ChaosError(Exception):
    """What the storm's own protocols raise; the exception handler expects it."""


class Ledger:
    """All that happened on the loop's side."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.sessions: dict[int, Session] = {}
        self.violations: list[str] = []
        self.broken: collections.Counter[str] = collections.Counter()
        self.counts: collections.Counter[str] = collections.Counter()
        self.protocols: weakref.WeakSet[Any] = weakref.WeakSet()
        self.tasks: set[asyncio.Task[Any]] = set()  # those that the storm may cancel
        self.handlers: set[asyncio.Task[Any]] = set()
        self.alive = 0  # protocols between connection_made and connection_lost
        self.most_alive = 0

    def violate(self, promise: str, what: str) -> None:
        """A promise, one word, was broken. Of each, a few are enough."""
        self.broken[promise] += 1
        if self.broken[promise] <= SHOWN_OF_EACH:
            self.violations.append(f"{promise}: {what}")

    def keep_current_task(self) -> Callable[[], None]:
        """Have the storm cancel the running task, too. A function that cancels it, and does not keep it alive."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        reference = weakref.ref(task)

        def cancel() -> None:
            running = reference()
            assert running is not None
            running.cancel()

        return cancel


class Session:
    """What a connection is to receive and send, whoever moves the bytes."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.header = b""
        self.plan: Plan | None = None
        self.received = 0  # without the header
        self.is_touched = False  # the storm, or its own plan, had a hand in it
        self.is_eof = False
        self.is_due = False  # its behaviour has come

    def feed(self, data: bytes) -> bytes:
        """Take received bytes: those to send for them."""
        answer = b""
        if len(self.header) < HEADER:
            missing = HEADER - len(self.header)
            self.header, data = self.header + data[:missing], data[missing:]
            if len(self.header) < HEADER:
                return b""
            answer = self.begin()
        if self.plan is None:
            return b""
        number, seed = self.plan.number, self.ledger.seed
        if data != piece(seed, number, self.received, len(data)):
            self.ledger.violate("bytes", f"the loop received wrong ones of {self.plan}")
        self.received += len(data)
        if self.received >= self.plan.served_at:
            self.is_due = True
        return answer + data if self.plan.is_echo else answer

    def begin(self) -> bytes:
        (number,) = struct.unpack("!Q", self.header)
        if number in self.ledger.sessions:
            self.ledger.violate("bytes", f"two connections of number {number}")
            return b""
        self.plan = plan_of(self.ledger.seed, number)
        self.ledger.sessions[number] = self
        return b"" if self.plan.is_echo else piece(self.ledger.seed, number, 0, self.plan.down)

    def takes(self, *behaviours: str) -> bool:
        """Whether its plan is one of these, and now is the time."""
        return self.is_due and self.plan is not None and self.plan.behaviour in behaviours


class ProtocolBase(asyncio.BaseProtocol):
    """Sends for what it receives, with flow control both ways; once it has read the end, closes."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.session = Session(ledger)
        self.transport: Any = None
        self.made = self.lost = 0
        self.random = random.Random(ledger.counts["protocols"])
        self.is_paused = self.is_hesitating = self.is_tls = False
        ledger.counts["protocols"] += 1
        ledger.protocols.add(self)

    def connection_made(self, transport: Any) -> None:
        self.made += 1
        if self.made != 1:
            self.ledger.violate("calls", "connection_made came twice")
        self.transport = transport
        self.ledger.alive += 1
        self.ledger.most_alive = max(self.ledger.alive, self.ledger.most_alive)
        self.is_tls = transport.get_extra_info("sslcontext") is not None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost += 1
        self.ledger.alive -= 1
        if self.lost != 1 or self.made != 1:
            self.ledger.violate("calls", f"connection_lost came {self.lost} times, connection_made {self.made} times")
        self.ledger.counts["lost in order" if exc is None else f"lost with {type(exc).__name__}"] += 1

    def take(self, data: bytes) -> None:
        if self.lost or not self.made:
            self.ledger.violate("calls", "data came outside of the connection's life")
        answer = self.session.feed(data)
        if answer:
            self.transport.write(answer)
        if self.session.takes("raise", "abort", "close", "hesitate"):
            self.behave()

    def behave(self) -> None:
        assert self.session.plan is not None
        behaviour = self.session.plan.behaviour
        if behaviour == "hesitate":
            if not self.is_hesitating and self.random.random() < 0.3 and not self.session.is_eof:
                self.is_hesitating = True
                self.transport.pause_reading()
                asyncio.get_running_loop().call_later(self.random.uniform(0, 0.05), self.go_on)
            return
        if self.session.is_touched:
            return
        self.session.is_touched = True
        if behaviour == "raise":
            raise ChaosError("a protocol that raises")
        if behaviour == "abort":
            self.transport.abort()
        else:
            self.transport.close()

    def go_on(self) -> None:
        self.is_hesitating = False
        if not self.is_paused:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self.is_paused:
            self.ledger.violate("calls", "pause_writing came twice in a row")
        self.is_paused = True
        self.ledger.counts["pauses of writing"] += 1
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.is_paused:
            self.ledger.violate("calls", "resume_writing came without a pause")
        if self.lost:
            self.ledger.violate("calls", "resume_writing came after connection_lost")
        self.is_paused = False
        if not self.is_hesitating:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        if self.session.is_eof:
            self.ledger.violate("calls", "eof_received came twice")
        self.session.is_eof = True
        if self.is_tls or self.random.random() < 0.5:
            return False  # the transport closes itself, and delivers what it holds
        self.transport.close()
        return True


class Plain(ProtocolBase, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.take(data)


class Buffered(ProtocolBase, asyncio.BufferedProtocol):
    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.buffer = bytearray(self.random.choice((2000, 10_000, 70_000)))

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.take(bytes(self.buffer[:nbytes]))


async def converse(ledger: Ledger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handler for start_server, also for connections that the loop dialled. Its task may be cancelled anywhere."""
    cancel = ledger.keep_current_task()
    ledger.counts["stream handlers begun"] += 1
    session = Session(ledger)
    ledger.protocols.add(writer)
    try:
        while data := await reader.read(random.choice((2000, 10_000, 70_000))):
            if answer := session.feed(data):
                writer.write(answer)
                await writer.drain()
            if session.takes("raise", "abort", "close", "cancel") and session.plan is not None:
                session.is_touched = True
                if session.plan.behaviour == "raise":
                    raise ChaosError("a handler that raises")
                if session.plan.behaviour == "abort":
                    writer.transport.abort()
                if session.plan.behaviour == "cancel":
                    cancel()
                    await asyncio.sleep(0)
                return
        session.is_eof = True
    except ConnectionError:
        ledger.counts["stream handlers that met a reset"] += 1
    except asyncio.CancelledError:
        session.is_touched = True
        ledger.counts["stream handlers cancelled"] += 1
        raise
    finally:
        writer.close()
        ledger.counts["stream handlers ended"] += 1


async def serve_raw(ledger: Ledger, listener: socket.socket) -> None:
    """A server by sock_accept, sock_recv and sock_sendall; until it is cancelled."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # no descriptor left, or the storm's own doing
                await asyncio.sleep(0.05)
                continue
            task = loop.create_task(converse_raw(ledger, sock))
            ledger.handlers.add(task)
            task.add_done_callback(ledger.handlers.discard)
            del sock, task
    finally:
        listener.close()


async def converse_raw(ledger: Ledger, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ledger.keep_current_task()
    session = Session(ledger)
    with sock, contextlib.suppress(ConnectionError):
        ledger.counts["raw connections"] += 1
        try:
            while data := await loop.sock_recv(sock, random.choice((2000, 10_000, 70_000))):
                if answer := session.feed(data):
                    await loop.sock_sendall(sock, answer)
                if session.takes("raise", "abort", "close", "cancel"):
                    session.is_touched = True
                    return
            session.is_eof = True
        except asyncio.CancelledError:
            session.is_touched = True
            raise


def judge(ledger: Ledger, results: list[tuple[int, str, int, int, bool]]) -> None:
    """Compare what both sides have written down, connection by connection."""
    for number, outcome, sent, received, is_right in results:
        plan = plan_of(ledger.seed, number)
        session = ledger.sessions.get(number)
        ledger.counts[f"peer {outcome}"] += 1
        if not is_right:
            ledger.violate("bytes", f"a peer received wrong ones: {plan}")
        if outcome == "stuck":
            ledger.violate("stuck", f"a peer waited in vain, {sent} sent, {received} received: {plan}")
        if session is None:
            if received:
                ledger.violate("bytes", f"a peer received {received} from nobody: {plan}")
            continue
        if session.received > max(0, sent - HEADER) and plan.entrance != "tls":  # a write begun does not count as sent
            ledger.violate("bytes", f"the loop received {session.received} of {sent - HEADER}: {plan}")
        if not plan.is_complete or session.is_touched:
            continue
        ledger.counts["complete connections"] += 1
        if (session.received, received) != (plan.up, plan.down):
            ledger.violate("bytes", f"{outcome}, {session.received} and {received} arrived of {plan}")
        elif not session.is_eof and plan.entrance != "tls":
            ledger.violate("bytes", f"the end of a stream was not told: {plan}")
