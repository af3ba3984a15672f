"""The size matrix: echoes of 64 B to 1 MiB at 1 and 50 connections, each in a really fresh process, and again in the
same process after connections of other sizes have come and gone.

No server here frees a large block first (see servers/serving.py): the first window meets malloc as a new process has
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench.build import program
from bench.by_turns import Servers
from bench.loops import C_SERVER
from bench.measure import Cores
from bench.processes import ChildFailed, run_client
from bench.results import median
from bench.rounds import Timing, contenders_of, round_order
from bench.targets.figures import Figure, Part, Session
from bench.workloads import KIB, Workload, echo, tls_echo

SIZES = (64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB)  # bytes
CONNECTIONS = (1, 50)
KINDS = ("protocol", "buffered", "streams", "tls")
STATES = ("fresh", "churned")
PEERS = {  # those that can be the best; the others are in the rows of other parts
    "protocol": ("asyncio", "uvloop", "blazio", "zuvloop"),
    "buffered": ("asyncio", "uvloop", "blazio", "zuvloop"),
    "streams": ("uvloop", "blazio", "zuvloop"),
    "tls": ("asyncio", "uvloop", "aiofastnet"),
}
CHURN = (  # clients that come and go: connections, size, seconds
    (100, 64, 0.02),
    (20, 256 * KIB, 0.06),
    (50, 16 * KIB, 0.03),
)
CHURN_LIMIT_S = 20.0
LARGE = 256 * KIB  # from here on a window has few messages, so that it is LONGER times as long; ...
LONGER = 6
PROCESSES = 3  # ... and where a process has its buffers decides what a message costs, so that there are more of them


@dataclass(frozen=True)
class SizeCell:
    """One cell of the matrix: the workload, and whether its server is fresh or has had other connections before."""

    kind: str
    size: int
    connections: int
    state: str

    @property
    def name(self) -> str:
        return f"{self.workload.name}/{self.state}"

    @property
    def workload(self) -> Workload:
        if self.kind == "tls":
            return tls_echo(size=self.size, connections=self.connections)
        workload = echo(self.kind, size=self.size, connections=self.connections)
        return replace(workload, has_c_server=self.has_limit)

    @property
    def title(self) -> str:
        return f"{self.workload.title}, {self.state}"

    @property
    def has_limit(self) -> bool:
        """Whether a server in C does the same: streams are a task for each connection, which none in C has."""
        return self.kind in ("protocol", "buffered")


CELLS = tuple(
    SizeCell(kind, size, connections, state)
    for kind in KINDS
    for size in SIZES
    for connections in CONNECTIONS
    for state in STATES
)


def timing_of(cell: SizeCell, timing: Timing) -> Timing:
    """How long a cell is measured in each process."""
    if cell.size < LARGE:
        return timing
    longer = timing.longer(LONGER)
    return replace(longer, seconds=longer.seconds / PROCESSES)


def _workloads(kind: str, only: Sequence[str] | None) -> Iterator[SizeCell]:
    """A cell for each process that must be started: both states are measured in it."""
    wanted = [cell for cell in CELLS if cell.kind == kind and (only is None or cell.name in only)]
    seen = set()
    for cell in wanted:
        if cell.workload.name not in seen:
            seen.add(cell.workload.name)
            yield cell


def _contenders(cell: SizeCell, session: Session) -> list[str]:
    loops = [loop for loop in session.loops if loop == "hoop" or loop in PEERS[cell.kind]]
    return contenders_of(cell.workload, loops)


def _rounds(cell: SizeCell, session: Session) -> int:
    """How many there are, each with new processes."""
    rounds = session.rounds(session.lengths.size_timing.rounds)
    return rounds * PROCESSES if cell.size >= LARGE else rounds


def _churn(workload: Workload, port: int, cores: Cores) -> None:
    for connections, size, seconds in CHURN:
        command = [program(workload.client), "--port", str(port), "--connections", str(connections)]
        command += ["--size", str(size), "--warmup", "0", "--duration", str(seconds)]
        report = run_client(command, cores.client, CHURN_LIMIT_S)
        if report["errors"]:
            raise ChildFailed(f"churn: {report['first_error']}")


def _measure_kind(kind: str, session: Session, only: Sequence[str] | None) -> list[Figure]:
    figures: list[Figure] = []
    for cell in _workloads(kind, only):
        by_state = {state: Figure((one := replace(cell, state=state)).name, one.title) for state in STATES}
        for number in range(_rounds(cell, session)):
            _add_round(cell, round_order(_contenders(cell, session), number), number, by_state, session)
        figures += by_state.values()
    return figures


def _add_round(
    cell: SizeCell, order: Sequence[str], number: int, by_state: Mapping[str, Figure], session: Session
) -> None:
    """New processes of all contenders, loaded by turns, churned, and loaded by turns again."""
    workload = cell.workload
    timing = timing_of(cell, session.lengths.size_timing)
    failures = {name: reason for figure in by_state.values() for name, reason in figure.failures.items()}
    with ExitStack() as stack:
        servers = Servers(workload, session.cores, stack, failures, number)
        for contender in order:
            servers.start(contender, *([] if contender == C_SERVER else ["--fresh"]))
        for state, figure in by_state.items():
            if state != STATES[0]:
                _churn_all(servers, workload, session.cores)
            for turn in servers.by_turns(timing, order):
                session.display.show([session.steps.line(f"{workload.name}, {state}: {turn.contender}")])
                for metric in ("cpu_us", "rate"):
                    figure.put(metric, turn.contender, turn.number, float(getattr(turn.sample, metric)))
    for figure in by_state.values():
        figure.failures |= failures
    for contender in order:
        _show(workload, contender, by_state, session)


def _churn_all(servers: Servers, workload: Workload, cores: Cores) -> None:
    """Have other connections come and go at each server."""
    for contender, port in servers.ports.items():
        try:
            _churn(workload, port, cores)
        except ChildFailed as failure:
            servers.give_up(contender, failure)


def _show(workload: Workload, contender: str, by_state: Mapping[str, Figure], session: Session) -> None:
    found = [median(values) for figure in by_state.values() if (values := figure.values("cpu_us", contender))]
    text = " and ".join(f"{cpu_us:.2f}" for cpu_us in found)
    session.steps.advance()
    steps = session.steps
    summary = f"[{steps.finished}/{steps.total}] {workload.name}: {contender} {text or 'failed'} µs CPU/req"
    session.display.show([steps.line(workload.name)], summary=summary)


def _part(kind: str) -> Part:
    def measure(session: Session, only: Sequence[str] | None) -> list[Figure]:
        return _measure_kind(kind, session, only)

    def count(session: Session, only: Sequence[str] | None) -> int:
        return sum(len(_contenders(cell, session)) * _rounds(cell, session) for cell in _workloads(kind, only))

    title = f"{kind}: messages of 64 B to 1 MiB, in a fresh process and after churn"
    names = {cell.name for cell in CELLS if cell.kind == kind}
    return Part(f"sizes-{kind}", title, names.__contains__, measure, count, repeats=True)


PARTS = tuple(_part(kind) for kind in KINDS)
