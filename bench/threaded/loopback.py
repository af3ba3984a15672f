"""Servers of one and of two loops under load over loopback, each loop with a client of its own.

Three shapes take turns: one loop in one process, two loops in two processes, two loops in one process. The clients
sleep until something comes, yet they need a part of the cores, which is shown ("client's share"): where there are no
more cores than loops, the rate cannot double, whatever the loops do. What threads cost one another shows in the CPU
time of a request. So "factor" is the rate that two loops would have on cores of their own, 2 x CPU of one loop : CPU of
two; once against one loop alone, whose client leaves the second core half idle, and once against two processes, whose
clients load the machine alike.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median

from bench.build import program
from bench.loops import LOOPS
from bench.processes import START_LIMIT_S, Child, ChildFailed, run_client, running
from bench.results import Sample
from bench.rounds import CLIENT_EXTRA_LIMIT_S, round_order
from bench.workloads import PAGE

NAMES = ("hoop", "asyncio", "uvloop")
ROUNDS = 3
WARMUP_S = 0.5
SECONDS = 2.0
# The server, the client and what it is told, for one loop.
LOADS = {
    "echo": ("protocol_echo", "echo_client", ("--size", "1024", "--connections", "25", "--depth", "1")),
    "uvicorn": ("uvicorn_plain", "http_client", ("--connections", "32", "--path", "/", "--body", PAGE)),
    "connect": ("protocol_echo", "connect_client", ("--size", "64", "--connections", "16")),
}
# How many processes, and how many loops in each.
SHAPES = {"1 loop": (1, 1), "2 processes": (2, 1), "2 loops": (1, 2)}


@dataclass
class Window:
    """What a shape did in one round."""

    rate: float
    cpu_us: float  # of the servers, for a request
    clients_share: float  # of all the CPU time that servers and clients took
    gc_share: float  # of the servers' CPU time


@dataclass
class Course:
    """The windows of one loop and load, by shape."""

    windows: dict[str, list[Window]] = field(default_factory=lambda: {shape: [] for shape in SHAPES})

    def middle(self, shape: str, what: str) -> float:
        return median([getattr(window, what) for window in self.windows[shape]])

    def factor(self, base: str) -> float:
        """2 x the CPU time of a request in that shape : the same in two loops of one process; median of the rounds."""
        pairs = zip(self.windows[base], self.windows["2 loops"], strict=True)
        return median([2 * first.cpu_us / second.cpu_us for first, second in pairs])


def start_server(stack: contextlib.ExitStack, loop: str, module: str, threads: int) -> tuple[Child, list[int]]:
    command = [sys.executable, "-m", "bench.threaded.server", "--loop", loop, "--server", module]
    server = stack.enter_context(running([*command, "--threads", str(threads)]))
    return server, list(map(int, server.read_json(START_LIMIT_S)["ports"]))


def loaded(port: int, pid: int, load: str) -> Sample:
    _, client, arguments = LOADS[load]
    command = [program(client), "--port", str(port), "--server-pid", str(pid), "--block"]
    command += ["--warmup", str(WARMUP_S), "--duration", str(SECONDS), *arguments]
    report = run_client(command, None, WARMUP_S + SECONDS + CLIENT_EXTRA_LIMIT_S)
    if report["errors"]:
        raise ChildFailed(f"{report['errors']} errors, the first: {report['first_error']}")
    return Sample.from_report(report)


def collector_of(server: Child) -> dict[str, float]:
    server.write_line("?")
    return server.read_json(START_LIMIT_S)


def measure(loop: str, load: str, shape: str) -> Window:
    processes, threads = SHAPES[shape]
    with contextlib.ExitStack() as stack:
        servers = [start_server(stack, loop, LOADS[load][0], threads) for _ in range(processes)]
        places = [(port, server.pid) for server, ports in servers for port in ports]
        before = [collector_of(server) for server, _ in servers]
        with ThreadPoolExecutor(len(places)) as executor:
            samples = list(executor.map(lambda place: loaded(*place, load), places))
        after = [collector_of(server) for server, _ in servers]
    rate = sum(sample.rate for sample in samples)
    # Each client reports its server's CPU time: the same process, if there is one.
    busy = sum(sample.server_busy for sample in samples) / (1 if processes > 1 else len(samples))
    clients_busy = sum(sample.client_busy for sample in samples)
    spent = {key: sum(late[key] - early[key] for early, late in zip(before, after, strict=True)) for key in after[0]}
    return Window(rate, busy / rate * 1e6, clients_busy / (clients_busy + busy), spent["gc_s"] / spent["cpu_s"])


def course_of(names: Sequence[str], load: str) -> dict[str, Course]:
    courses = {name: Course() for name in names}
    for number in range(ROUNDS):
        for shape in SHAPES:
            for name in round_order(names, number):
                courses[name].windows[shape].append(measure(name, load, shape))
    return courses


def show(loads: Sequence[str]) -> None:
    names = [name for name in NAMES if LOOPS[name].is_installed()]
    for load in loads or LOADS:
        print(f"{load}: medians of {ROUNDS} interleaved rounds of {SECONDS:g} s")
        for name, course in course_of(names, load).items():
            for shape in SHAPES:
                rate, cpu = course.middle(shape, "rate"), course.middle(shape, "cpu_us")
                share, collector = course.middle(shape, "clients_share"), course.middle(shape, "gc_share")
                print(
                    f"  {name:<8}{shape:<12}{rate:>10,.0f}/s {cpu:>7.2f} µs CPU, client's share {share:.0%}, "
                    f"collector {collector:.1%}"
                )
            factors = f"{course.factor('1 loop'):.2f} of one loop, {course.factor('2 processes'):.2f} of two processes"
            print(f"  {name:<8}factor {factors}")
