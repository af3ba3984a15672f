"""What more cores than are here would do for loops in threads of one process: Amdahl's law, with serial parts measured.

A request of one loop costs c of CPU time. Of that, these cannot be done by two loops at once:

- accept: connections of one listening socket leave its queue one after the other. Measured: the same number of waiting
  connections is accepted by one thread, and by two; what two do not save is serial.
- collector: CPython stops all threads while it looks for cycles. Measured: its share of the time of a request.
- shared lines: what two threads of one process cost more than two processes under the same load, beyond the collector:
  reference counts and locks of what they share, and the allocator's own. Taken as serial altogether, which is the worst
  that it can be. Below the noise of the measurement it is nothing.

Posting to a loop from other threads has no part in a request; a loop's inbox is its own.

So N loops do N / (1 + (N - 1) * serial / c) times what one does. What the model leaves out: the kernel's own locks but
that of the queue of accept(2), memory bandwidth, caches that sockets share, and the share of the clients.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.servers.serving import listen_on_loopback
from bench.threaded.loopback import LOADS, Course, course_of

LOOPS = (2, 4, 16, 64)
WAITING = 256  # connections for a round of accept(2)
ROUNDS = 41


@dataclass
class Serial:
    """Microseconds of a request that one loop at a time can spend."""

    accept: float
    collector: float
    shared: float

    @property
    def whole(self) -> float:
        return self.accept + self.collector + self.shared


def accepting(listener: socket.socket, threads: int) -> float:
    """Seconds until that many threads have accepted WAITING connections that wait."""
    clients = [socket.create_connection(listener.getsockname()) for _ in range(WAITING)]
    begin = threading.Barrier(threads + 1)
    accepted: list[int] = []

    def run() -> None:
        mine = []
        begin.wait()
        try:
            while True:
                mine.append(listener._accept()[0])  # type: ignore[attr-defined]  # the system call without an object
        except BlockingIOError:
            accepted.extend(mine)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - begun
    assert len(accepted) == WAITING, f"{len(accepted)} of {WAITING} were accepted"
    for number in accepted:
        os.close(number)
    for client in clients:
        client.close()
    return took


def serial_accept_us() -> float:
    with listen_on_loopback() as listener:
        times = [(accepting(listener, 1), accepting(listener, 2)) for _ in range(ROUNDS)]
    alone, together = (median([pair[side] for pair in times]) for side in (0, 1))
    print(f"accept(2): {alone / WAITING * 1e6:.2f} µs by one thread, {together / WAITING * 1e6:.2f} µs by two")
    return max(0.0, 2 * together - alone) / WAITING * 1e6


def serial_parts(course: Course, accept_us: float) -> Serial:
    collector = course.middle("2 loops", "gc_share") * course.middle("2 loops", "cpu_us")
    dearer = course.middle("2 loops", "cpu_us") - course.middle("2 processes", "cpu_us")
    return Serial(accept_us, collector, max(0.0, dearer - collector))


def factors(serial_us: float, cpu_us: float, loops: Sequence[int] = LOOPS) -> list[float]:
    """What each of these numbers of loops does, of what one does."""
    return [count / (1 + (count - 1) * serial_us / cpu_us) for count in loops]


def show() -> None:
    accept_us = serial_accept_us()
    print(f"{'load':<10}{'CPU':>9}{'accept':>9}{'collector':>11}{'shared':>9}" + "".join(f"{n:>8}" for n in LOOPS))
    for load in LOADS:
        course = course_of(["hoop"], load)["hoop"]
        serial = serial_parts(course, accept_us if load == "connect" else 0.0)
        cpu_us = course.middle("2 processes", "cpu_us")
        parts = f"{cpu_us:>9.2f}{serial.accept:>9.3f}{serial.collector:>11.3f}{serial.shared:>9.3f}"
        print(f"{load:<10}{parts}" + "".join(f"{factor:>8.1f}" for factor in factors(serial.whole, cpu_us)))
    print(f"µs for a request; then times what one loop does. {len(os.sched_getaffinity(0))} processors here")
