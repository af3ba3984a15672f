"""Do counters hold while workers are killed and reloaded, and their master upgraded? `python metrics_soak.py 180`

Clients ask one after the other and count their answers; in between the cluster suffers. Each counter of each scrape is
at least that of the scrape before, and in the end the sums are what the clients have counted.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from clusters import PATIENCE_S, Address, Client, Cluster, address_in, ask, cluster, until, workers_of

BIND = "127.0.0.1:0"
COUNT = "run worker.count_request(); answer = worker.id"
LONG_S = 120.0  # 36 of them are how long a slot waits whose workers die again and again
Series = dict[str, float]


def metrics_of(running: Cluster) -> Address:
    return address_in(running.expect(r"metrics at (\S+)", LONG_S)[1].replace("http://", "tcp://"))


def page(address: Address) -> str:
    with Client(address) as client:
        client.socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b"".join(iter(lambda: client.socket.recv(65536), b"")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4;"), head
    return body


def scrape(address: Address) -> Series:
    """Each series by its name with its labels, as the page has them."""
    lines = [line.rpartition(" ") for line in page(address).splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def total(series: Series, name: str) -> float:
    """Over all slots."""
    return sum(value for key, value in series.items() if key.partition("{")[0] == name)


def is_counter(name: str) -> bool:
    return name.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))


@dataclass
class Soak:
    running: Cluster
    address: Address
    metrics: Address
    answered: int = 0
    failed: int = 0  # whose worker was killed before the answer: it may have been counted
    scrapes: int = 0
    deeds: list[str] = field(default_factory=list)
    last: Series = field(default_factory=dict)

    def look(self) -> Series:
        """Scrape; nothing that is counted has become less, no series of a counter has gone."""
        found = scrape(self.metrics)
        self.scrapes += 1
        fallen = {
            name: (before, found.get(name))
            for name, before in self.last.items()
            if is_counter(name) and found.get(name, -1.0) < before
        }
        assert fallen == {}, fallen
        self.last = found
        return found

    def ask_for(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            try:
                ask(self.address, COUNT)
            except (ConnectionError, TimeoutError):
                self.failed += 1
            else:
                self.answered += 1

    def kill(self) -> None:
        slot, pid = random.choice(list(workers_of(self.address, 2).items()))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.running.expect(rf"worker {slot}: ready after", LONG_S)

    def reload(self) -> None:
        self.running.send(signal.SIGHUP)
        self.running.expect("reloaded: all", LONG_S)

    def upgrade(self) -> None:
        self.running.send(signal.SIGUSR2)
        self.metrics = metrics_of(self.running)
        self.running.expect("goes on with", LONG_S)
        self.running.expect("reloaded: all", LONG_S)


def soak(running: Cluster, deeds: Iterable[Callable[[Soak], None]]) -> Soak:
    """Do the deeds while a client asks, scrape around each, and compare what was counted."""
    metrics = metrics_of(running)
    course = Soak(running, running.serving(), metrics)
    is_over = threading.Event()
    client = threading.Thread(target=course.ask_for, args=(is_over,))
    client.start()
    try:
        for deed in deeds:
            course.look()
            deed(course)
            course.deeds.append(deed.__name__)
            course.look()
    finally:
        is_over.set()
        client.join(PATIENCE_S)
    counted = total(course.look(), "hoop_server_requests_total")
    assert course.answered <= counted <= course.answered + course.failed, (course.answered, course.failed, counted)
    return course


def main(seconds: float) -> None:
    began = time.monotonic()
    random.seed(seconds)

    def chosen() -> Callable[[Soak], None] | None:
        if time.monotonic() - began > seconds:
            return None
        return random.choices([Soak.kill, Soak.reload, Soak.upgrade], [6, 3, 1])[0]

    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), workers=6, metrics_bind=BIND) as running:
        course = soak(running, iter(chosen, None))
        until(lambda: total(course.look(), "hoop_cluster_workers") == 6)
        done = {name: course.deeds.count(name) for name in ("kill", "reload", "upgrade")}
        counted = total(course.last, "hoop_server_requests_total")
        accepted = total(course.last, "hoop_server_connection_accepted_total")
        print(f"{time.monotonic() - began:.0f} s, {done}, {course.scrapes} scrapes, each counter monotone")
        print(f"answered {course.answered}, failed {course.failed}; requests {counted:.0f}, accepted {accepted:.0f}")
        assert running.stop() == 0


if __name__ == "__main__":
    main(float(sys.argv[1]))
