"""The other ends of the storm's connections: a process without an event loop, on plain non-blocking sockets.

    python -m faults.chaos.peers SEED CONNECTIONS

The first line of standard input is JSON: where each entrance is ("protocol": ["127.0.0.2", 4711], ...). The first line
of the answer is the address where this process listens; when standard input ends no connection is begun any more, and
when the last has ended a line follows for each: [number, how it ended, bytes sent, bytes received, whether they were
the right ones].
"""

from __future__ import annotations

import errno
import heapq
import itertools
import json
import os
import random
import select
import socket
import ssl
import struct
import sys
import time
import warnings
from collections.abc import Generator
from typing import Any

from faults.chaos.plans import HEADER, Plan, piece, plan_of

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
PATIENCE_S = 40.0  # without any progress: then somebody has been forgotten
CHUNK = 60_000
BURST = 50  # connections begun at once

# (events waited for, the longest wait in seconds) -> the events that came, 0 when the time is over
Life = Generator[tuple[int, float], int, None]


class Stuck(Exception):
    """Nothing has happened for PATIENCE_S."""


class Peer:
    """One connection, from its making to its end."""

    def __init__(self, seed: int, plan: Plan, address: Any, sock: socket.socket | None = None) -> None:
        self.seed = seed
        self.plan = plan
        self.address = address
        self.sock: Any = sock
        self.random = random.Random(f"{seed}:{plan.number}:peer")
        self.header = struct.pack("!Q", plan.number)
        self.sent = 0  # the header included
        self.refused = 0  # the size of a write that TLS has begun: OpenSSL wants it again as it was
        self.received = 0
        self.is_right = True
        self.is_ended = False  # the other side sent its end
        self.outcome = "unknown"

    def life(self) -> Life:
        try:
            yield from self.connect()
            yield from getattr(self, self.plan.fate)()
            self.outcome = "ended" if self.is_ended else "left"
        except Stuck:
            self.outcome = "stuck"
        except ssl.SSLError:  # the end of the stream where none was due
            self.outcome = "reset"
        except OSError as error:
            is_refused = error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.EAGAIN) and self.sent == 0
            self.outcome = "refused" if is_refused else "reset"
        finally:
            if self.sock is not None:
                self.sock.close()

    def connect(self) -> Life:
        if self.sock is None:
            family = socket.AF_UNIX if self.plan.entrance == "unix" else socket.AF_INET
            self.sock = socket.socket(family)
            if self.plan.fate == "slow" and family == socket.AF_INET:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.sock.setblocking(False)
            try:
                self.sock.connect(self.address)
            except BlockingIOError:
                if family == socket.AF_UNIX:
                    raise  # the queue is full, and nothing would tell when it is no more
                yield from self.wait(WRITE)
                number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    raise OSError(number, os.strerror(number)) from None
        if self.plan.entrance == "tls" and self.plan.fate not in ("silent", "torn"):
            yield from self.handshake()

    def handshake(self) -> Life:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, do_handshake_on_connect=False, suppress_ragged_eofs=False)
        while True:
            try:
                return self.sock.do_handshake()
            except ssl.SSLWantReadError:
                yield from self.wait(READ)
            except ssl.SSLWantWriteError:
                yield from self.wait(WRITE)

    def wait(self, events: int) -> Life:
        came = yield events, PATIENCE_S
        if not came:
            raise Stuck

    def pause(self, seconds: float) -> Life:
        yield 0, seconds

    # ---- one attempt each: whether anything moved

    def send_some(self, limit: int) -> bool:
        size = min(limit - self.sent, self.refused or self.random.choice((1, 100, 5000, CHUNK)))
        if self.sent == 0:
            # Where the queue of a listener overflows, Linux answers by SYN cookies. Such a connection is made by the
            # first packet that is not dropped, and a byte or two that were sent before would be lost unnoticed.
            size = HEADER
        if self.sent < HEADER:
            data = self.header[self.sent : self.sent + size]
        else:
            data = piece(self.seed, self.plan.number, self.sent - HEADER, size)
        try:
            self.sent += self.sock.send(data)
        except BlockingIOError:
            return False
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.refused = size
            return False
        self.refused = 0
        return True

    def read_some(self, size: int = CHUNK) -> bool:
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLEOFError:
            data = b""  # an end without a farewell
        if not data:
            self.is_ended = True
        elif data != piece(self.seed, self.plan.number, self.received, len(data)):
            self.is_right = False
        self.received += len(data)
        return True

    def converse(self, limit: int, pace_s: float = 0.0, is_reading: bool = True) -> Life:
        """Send up to limit bytes (the header included), and read all along; slowly, if there is a pace."""
        while self.sent < limit and not self.is_ended:
            moved = self.send_some(limit)
            if is_reading:
                moved |= self.read_some(2000 if pace_s else CHUNK)
            if pace_s:
                yield from self.pause(pace_s)
            elif not moved:
                yield from self.wait(WRITE | READ if is_reading else WRITE)

    def finish(self, pace_s: float = 0.0) -> Life:
        """No more from here: read to the end. TLS has no half-closed connections, so there the bytes are counted."""
        if self.plan.linger_s:
            yield from self.pause(self.plan.linger_s)
        if self.plan.entrance != "tls":
            self.sock.shutdown(socket.SHUT_WR)
        while not self.is_ended and not (self.plan.entrance == "tls" and self.received >= self.plan.down):
            if not self.read_some(2000 if pace_s else CHUNK):
                yield from self.wait(READ)
            elif pace_s:
                yield from self.pause(pace_s)

    # ---- fates

    def orderly(self) -> Life:
        yield from self.converse(HEADER + self.plan.up)
        yield from self.finish()

    def slow(self) -> Life:
        yield from self.converse(HEADER + self.plan.up, pace_s=0.005)
        yield from self.finish(pace_s=0.005)

    def stall(self) -> Life:
        yield from self.converse(HEADER + min(self.plan.at, 5000), is_reading=False)
        yield from self.pause(self.random.uniform(0.2, 1.5))
        yield from self.orderly()

    def reset(self) -> Life:
        yield from self.converse(HEADER + self.plan.at, is_reading=self.random.random() < 0.5)
        self.leave_at_once()

    def drop(self) -> Life:
        yield from self.converse(HEADER + min(self.plan.at, 5000), is_reading=False)
        if self.plan.linger_s:
            yield from self.pause(self.plan.linger_s)

    def silent(self) -> Life:
        yield from self.pause(self.random.uniform(0, 3))

    def torn(self) -> Life:
        self.leave_at_once()
        yield from ()

    def leave_at_once(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Crowd:
    """Keeps as many connections going as it is told to, until it is told to end."""

    def __init__(self, seed: int, size: int, entrances: dict[str, Any]) -> None:
        self.seed = seed
        self.size = size
        self.entrances = entrances
        self.numbers = itertools.count(1)
        self.order = itertools.count()
        self.epoll = select.epoll()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.listener.setblocking(False)
        self.lives: dict[Peer, Life] = {}
        self.masks: dict[Peer, int] = {}  # what the kernel was told; a closed descriptor leaves its set by itself
        self.by_fd: dict[int, Peer] = {}
        self.timers: list[tuple[float, int, Peer, int]] = []
        self.waits: dict[Peer, int] = {}  # which of its waits a peer is in: timers of others are void
        self.results: list[tuple[Any, ...]] = []
        self.is_ending = False

    def run(self) -> None:
        stdin, listener = sys.stdin.fileno(), self.listener.fileno()
        self.epoll.register(listener, READ)
        self.epoll.register(stdin, READ)
        while self.lives or not self.is_ending:
            if not self.is_ending:
                self.begin_some()
            timeout = 0.1 if not self.timers else max(0.0, min(0.1, self.timers[0][0] - time.monotonic()))
            for fd, events in self.epoll.poll(timeout):
                if self.is_ending or fd not in (stdin, listener):
                    self.resume(self.by_fd[fd], events)
                elif fd == stdin:
                    self.end()
                else:
                    self.accept()
            while self.timers and self.timers[0][0] <= time.monotonic():
                _, _, peer, wait = heapq.heappop(self.timers)
                if self.waits.get(peer) == wait:
                    self.resume(peer, 0)

    def end(self) -> None:
        self.is_ending = True
        self.epoll.unregister(sys.stdin.fileno())
        self.listener.close()

    def begin_some(self) -> None:
        for _ in range(min(BURST, self.size - len(self.lives))):
            plan = plan_of(self.seed, next(self.numbers))
            if plan.entrance != "out":  # those numbers are for connections that come from the loop
                self.begin(Peer(self.seed, plan, self.entrances[plan.entrance]))

    def accept(self) -> None:
        for _ in range(BURST):
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            plan = plan_of(self.seed, next(self.numbers))
            while plan.entrance != "out":
                plan = plan_of(self.seed, next(self.numbers))
            self.begin(Peer(self.seed, plan, None, sock))

    def begin(self, peer: Peer) -> None:
        self.lives[peer] = peer.life()
        self.waits[peer] = 0
        self.resume(peer, None)

    def resume(self, peer: Peer, events: int | None) -> None:
        """Let a peer live on, up to its next wait."""
        if peer not in self.lives:
            return
        self.waits[peer] += 1
        try:
            mask, delay_s = self.lives[peer].send(events)  # type: ignore[arg-type]  # None begins it
        except StopIteration:
            del self.lives[peer], self.waits[peer]
            self.masks.pop(peer, None)
            self.results.append((peer.plan.number, peer.outcome, peer.sent, peer.received, peer.is_right))
            return
        self.watch(peer, mask)
        heapq.heappush(self.timers, (time.monotonic() + delay_s, next(self.order), peer, self.waits[peer]))

    def watch(self, peer: Peer, mask: int) -> None:
        former = self.masks.get(peer, 0)
        if mask == former:
            return
        fd = peer.sock.fileno()
        if mask == 0:
            self.epoll.unregister(fd)
        elif former == 0:
            self.by_fd[fd] = peer
            self.epoll.register(fd, mask)
        else:
            self.epoll.modify(fd, mask)
        self.masks[peer] = mask


def main() -> None:
    # Python 3.11 leaves a socket open whose connection is reset while ssl wraps it. It is not hoop's, so not told.
    warnings.simplefilter("ignore", ResourceWarning)
    seed, size = map(int, sys.argv[1:])
    entrances = json.loads(sys.stdin.readline())
    where = {name: tuple(address) if isinstance(address, list) else address for name, address in entrances.items()}
    crowd = Crowd(seed, size, where)
    print(json.dumps(crowd.listener.getsockname()), flush=True)
    crowd.run()
    for result in crowd.results:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
