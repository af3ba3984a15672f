"""Whether an operation costs the same beside few and beside many: timers and tasks that are pending, connections.

The figures are curves, "scaling/timers/1000" and so on, and how much the dearest point costs more than the cheapest,
"growth/timers". Connections echo a few at a time, each in its turn, so that only their number differs: ten messages are
under way whether there are ten connections or ten thousand.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.build import program
from bench.loops import C_SERVER, LOOPS
from bench.measure import Cores
from bench.processes import Child, ChildFailed, running
from bench.results import median
from bench.rounds import port_of, round_order
from bench.targets.figures import Figure, Part, Session

COUNTS = {
    "timers": (10, 100, 1000, 10_000, 100_000, 1_000_000),
    "tasks": (1, 10, 100, 1000, 10_000, 100_000, 1_000_000),
    "connections": (1, 10, 100, 1000, 10_000),
}
TITLES = {
    "timers": "call_later and cancel, beside pending timers",
    "tasks": "a task of two steps, beside sleeping tasks",
    "connections": "echo of 64 B, ten connections at a time",
}
FLAT_FROM = {"timers": 10, "tasks": 1, "connections": 10}  # one connection alone needs a poll for each message
SLEEPING = 100_000  # tasks of which the memory row is
IN_FLIGHT = 10
CONNECTIONS_PER_SOURCE = 10_000
STEP_LIMIT_S = 120.0
LEAST_ECHO_S = 1.5  # user time is counted in ticks, of which less has too few
WINDOWS = 5
WARMUP_S = 0.1
US = 1e6


# ---- timers and tasks ------------------------------------------------------------------------------------------------


def measure_pending(subject: str, loop: str, seconds: float, cores: Cores) -> list[dict[str, Any]]:
    """What an operation costs beside each number of pending ones. ChildFailed if that does not come to an end."""
    counts = ",".join(map(str, COUNTS[subject]))
    command = [sys.executable, "-m", "bench.scaled", subject, "--loop", loop, "--counts", counts]
    with running([*command, "--seconds", str(seconds), *cores.pace.of_child()], cores.server) as child:
        answers = [child.read_json(STEP_LIMIT_S) for _ in COUNTS[subject]]
    for answer in answers:
        cores.pace.take(answer["pace"])
    return answers


# ---- connections -----------------------------------------------------------------------------------------------------


class Echoes:
    """A server and its client, until the stack ends: what they have echoed, window by window."""

    def __init__(self, contender: str, count: int, session: Session, stack: ExitStack) -> None:
        command = [program("echo_server")]
        if contender != C_SERVER:
            command = [sys.executable, "-m", "bench.servers.protocol_echo", "--loop", contender]
        server = stack.enter_context(running(command, session.cores.server))
        client = _client(port_of(server), server.pid, count, session.cores.are_separate)
        self._client = stack.enter_context(running(client, session.cores.client))
        self._server_pid = server.pid
        _await_event(self._client, "opened")
        self.echo(WARMUP_S)  # every connection has its turn, and memory is touched
        self.rates: list[float] = []
        self.cpu_us: list[float] = []
        self.user_s = 0.0
        self.messages = 0

    def window(self, seconds: float) -> None:
        user_s = user_seconds(self._server_pid)
        echoed = self.echo(seconds)
        self.user_s += user_seconds(self._server_pid) - user_s
        self.messages += int(echoed["messages"])
        self.rates.append(float(echoed["rate"]))
        self.cpu_us.append(float(echoed["server_cpu_seconds"]) / echoed["messages"] * US)

    def echo(self, seconds: float) -> Mapping[str, Any]:
        self._client.write_line(f"echo {seconds}")
        echoed = _await_event(self._client, "echoed")
        if not echoed["messages"]:
            raise ChildFailed("no message was answered")
        return echoed

    @property
    def user_us(self) -> float:
        return self.user_s / self.messages * US


def measure_connections(contender: str, count: int, seconds: float, session: Session) -> dict[str, float]:
    """CPU time and rate of echoes on so many connections; and how many times that is what ten connections need, whose
    windows come between."""
    with ExitStack() as stack:
        few = Echoes(contender, FLAT_FROM["connections"], session, stack)
        many = Echoes(contender, count, session, stack)
        for number in range(WINDOWS):
            for side in [few, many] if number % 2 == 0 else [many, few]:
                side.window(seconds / WINDOWS)
    found = {
        "rate": statistics.median(many.rates),
        "cpu_us": statistics.median(many.cpu_us),
        "user_us": many.user_us,
        "cpu_times": statistics.median(ours / theirs for ours, theirs in zip(many.cpu_us, few.cpu_us, strict=True)),
    }
    if few.user_us > 0:
        found["user_times"] = many.user_us / few.user_us
    return found


def _client(port: int, server_pid: int, count: int, spins: bool) -> list[str]:
    command = [program("c10k_client"), "--port", str(port), "--server-pid", str(server_pid), "--size", "64"]
    command += ["--connections", str(count), "--in-flight", str(IN_FLIGHT)]
    command += ["--sources", str(math.ceil(count / CONNECTIONS_PER_SOURCE) + 1)]
    return command if spins else [*command, "--block"]


def _await_event(client: Child, name: str) -> Mapping[str, Any]:
    while True:
        event = client.read_json(STEP_LIMIT_S)
        if event.get("errors"):
            raise ChildFailed(str(event["first_error"]))
        if event["event"] == name:
            return event


def user_seconds(pid: int) -> float:
    """CPU time of a process outside of the kernel, by the clock's ticks: a share, so measure for some seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


# ---- figures ---------------------------------------------------------------------------------------------------------


def growth(figures: Mapping[int, Figure], metric: str, contender: str, first: int) -> float | None:
    """The dearest point of a curve over the cheapest one, from `first` on."""
    points = [
        median(values) for count, one in figures.items() if count >= first if (values := one.values(metric, contender))
    ]
    return max(points) / min(points) if points and min(points) > 0 else None


class Curves:
    """The figures of one subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.points = {
            count: Figure(f"scaling/{subject}/{count}", f"{TITLES[subject]}: {count:,}") for count in COUNTS[subject]
        }
        self.growth = Figure(f"growth/{subject}", f"{TITLES[subject]}: the dearest over the cheapest point")
        self.sleeping = Figure("memory/sleeping_task", "a task that sleeps")

    def fail(self, contender: str, reason: str) -> None:
        for one in (*self.points.values(), self.growth, self.sleeping):
            one.failures[contender] = reason

    def figures(self, contenders: Sequence[str]) -> list[Figure]:
        """All, once everything is measured."""
        of_connections = {"cpu_us growth": "cpu_times", "user_us growth": "user_times"}
        metrics = of_connections if self.subject == "connections" else {"ns growth": "times"}
        for name, metric in metrics.items():
            for contender in contenders:
                found = growth(self.points, metric, contender, FLAT_FROM[self.subject])
                if found is not None:
                    self.growth.add(name, contender, found)
        further = [self.sleeping] if self.subject == "tasks" else []
        return [*self.points.values(), self.growth, *further]


def contenders_of(subject: str, session: Session) -> list[str]:
    loops = [name for name in session.loops if LOOPS[name].servers is None]
    return [C_SERVER, *loops] if subject == "connections" else loops


def _measure(subject: str, session: Session) -> list[Figure]:
    curves = Curves(subject)
    contenders = contenders_of(subject, session)
    for number in range(session.rounds(session.lengths.micro_rounds)):
        for contender in round_order(contenders, number):
            text = f"scaling of {subject}, round {number + 1}, {contender}"
            session.display.show([session.steps.line(text)], summary=text)
            if contender not in curves.growth.failures:
                try:
                    _add_round(curves, contender, session)
                except (ChildFailed, OSError) as failure:  # OSError: the server is gone
                    curves.fail(contender, str(failure))
            session.steps.advance()
    return curves.figures(contenders)


def _add_round(curves: Curves, contender: str, session: Session) -> None:
    lengths = session.lengths
    if curves.subject == "connections":
        for count, figure in curves.points.items():
            found = measure_connections(contender, count, max(lengths.timing.seconds, LEAST_ECHO_S), session)
            for metric, value in found.items():
                figure.add(metric, contender, value)
        return
    for answer in measure_pending(curves.subject, contender, lengths.micro_seconds, session.cores):
        for metric in ("ns", "times"):
            curves.points[answer["pending"]].add(metric, contender, answer[metric])
        if answer["pending"] == SLEEPING:
            curves.sleeping.add("kib", contender, answer["kib"])


def _part(subject: str) -> Part:
    names = {*(f"scaling/{subject}/{count}" for count in COUNTS[subject]), f"growth/{subject}"}
    names |= {"memory/sleeping_task"} if subject == "tasks" else set()

    def measure(session: Session, _only: Sequence[str] | None) -> list[Figure]:
        return _measure(subject, session)

    def count(session: Session, _only: Sequence[str] | None) -> int:
        return len(contenders_of(subject, session)) * session.rounds(session.lengths.micro_rounds)

    return Part(f"scaling-{subject}", f"scaling: {TITLES[subject]}", names.__contains__, measure, count)


PARTS = tuple(_part(subject) for subject in COUNTS)
