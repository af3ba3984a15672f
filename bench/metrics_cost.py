"""What metrics cost: python -m bench.metrics_cost [echo] [time] [scrape]

echo: instructions of an echo on a loop that writes down what it does, as in a cluster or after
hoop.prometheus.Collector(), and on one that does not; by valgrind, as in bench.instructions, which does not see the
kernel's. Both ends are in the loop: what is written down is that of two turns.
time: processor time of the same, the kernel's with it: the least of many runs in turn.
scrape: the time of one GET /metrics of a cluster of 16 workers, and how often it woke them.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import operations
from bench.instructions import COUNTS, executed, prepare
from bench.processes import python_environment

WORKERS = 16
SCRAPES = 200
ROUNDS = 40
ECHOES = 4000
APP = """
import asyncio, hoop
async def main(worker):
    for sock in worker.sockets:
        await hoop.start_server(lambda reader, writer: writer.close(), sock=sock)
    worker.ready()
    await asyncio.Event().wait()
"""
PROGRAM = f"""
import os, hoop.cluster
def tell(): print("started", flush=True)
cluster = hoop.cluster.Cluster("app:main", workers={WORKERS}, bind="127.0.0.1:0", control=False, blocked_timeout=None,
    metrics_bind="unix:metrics", on_start=tell)
cluster.run()
"""


def echo() -> None:
    prepare()
    figures = {}
    for watched in ("0", "1"):
        environment = {**python_environment(), "HOOP_BENCH_WATCHED": watched}
        count = COUNTS["echo"]
        once, twice = executed("echo", count, 2 * count, environment=environment)
        figures[watched] = (twice - once) / count
    more = figures["1"] - figures["0"]
    print(
        f"echo: {figures['0']:.0f} instructions, {figures['1']:.0f} with its figures written down: "
        f"{more:.0f} more, {100 * more / figures['0']:.2f} %"
    )


def time_of_echoes() -> None:
    least = dict.fromkeys(("0", "1"), float("inf"))
    marks = operations.Marks()
    for _ in range(ROUNDS):
        for watched in least:
            os.environ["HOOP_BENCH_WATCHED"] = watched
            began = time.process_time()
            operations.perform("echo", ECHOES, marks)
            least[watched] = min(least[watched], (time.process_time() - began) / ECHOES)
    more = least["1"] - least["0"]
    print(
        f"time: {least['0'] * 1e6:.3f} us an echo, {least['1'] * 1e6:.3f} with its figures written down: "
        f"{more * 1e9:.0f} ns more, {100 * more / least['0']:.2f} %"
    )


def get(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: client.recv(1 << 20), b""))


def wake_ups(pids: list[int]) -> int:
    """How often these processes have given the processor up to wait, and so how often they were woken."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def scrape() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "app.py").write_text(APP)
        master = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=folder, env=python_environment(), stdout=subprocess.PIPE, text=True
        )
        try:
            assert master.stdout is not None and master.stdout.readline() == "started\n"
            path = os.path.join(folder, "metrics")
            children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text()
            pids = [int(pid) for pid in children.split()]
            while wake_ups(pids) != (before := wake_ups(pids)):
                time.sleep(0.5)
            times = []
            for _ in range(SCRAPES):
                began = time.perf_counter()
                page = get(path)
                times.append(time.perf_counter() - began)
            woken = wake_ups(pids) - before
        finally:
            master.send_signal(signal.SIGTERM)
            master.wait()
    times.sort()
    median_ms, p99_ms = statistics.median(times) * 1e3, times[int(SCRAPES * 0.99)] * 1e3
    print(
        f"scrape of {len(pids)} workers, {len(page)} bytes, {SCRAPES} times: median {median_ms:.2f} ms, "
        f"p99 {p99_ms:.2f} ms; the workers were woken {woken} times"
    )


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["echo", "time", "scrape"]
    for name in wanted:
        {"echo": echo, "time": time_of_echoes, "scrape": scrape}[name]()
