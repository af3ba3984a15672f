"""What a part of the benchmark hands over to be judged: figures, by contender and by round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.loops import ALONE, C_SERVER
from bench.measure import Cores
from bench.progress import Display, Steps
from bench.results import WorkloadResult, median
from bench.rounds import Timing

HOOP = "hoop"
NODE = "node"
BLOCKING = "blocking on asyncio"  # files: what the system calls cost where the loop may stand still
LIMITS = (C_SERVER, NODE, ALONE, BLOCKING)  # what stands in a figure beside the loops, and is no peer

Rounds = dict[int, float]


@dataclass
class Figure:
    """One measurement of all contenders: by metric, by contender, by round. A contender that failed has its reason."""

    name: str
    title: str
    metrics: dict[str, dict[str, Rounds]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, metric: str, contender: str, values: Mapping[int, float] | Sequence[float] | float) -> None:
        """Values of further rounds: they are numbered after those that there are."""
        if isinstance(values, Mapping):
            found = list(values.items())
        else:
            found = list(enumerate(values if isinstance(values, Sequence) else [values]))
        rounds = self.metrics.setdefault(metric, {}).setdefault(contender, {})
        first = max(rounds, default=-1) + 1
        rounds.update({first + number: float(value) for number, value in found})

    def put(self, metric: str, contender: str, number: int, value: float) -> None:
        """The value of the round of that number."""
        self.metrics.setdefault(metric, {}).setdefault(contender, {})[number] = value

    def extend(self, other: Figure) -> None:
        """Take over the rounds of a later measurement of the same."""
        for metric, by_contender in other.metrics.items():
            for contender, rounds in by_contender.items():
                self.add(metric, contender, rounds)
        self.failures |= other.failures

    def values(self, metric: str, contender: str) -> Rounds:
        """One metric of a contender by round; nothing if it failed or was not measured."""
        return {} if contender in self.failures else self.metrics.get(metric, {}).get(contender, {})

    def peers(self, metric: str, ours: str) -> list[str]:
        """Who is compared with `ours`: neither hoop in another guise, nor a limit, nor one that did nothing at all in
        most windows: its answers wait for a timer of TCP's, and cost it nothing meanwhile."""
        return [
            name
            for name in self.metrics.get(metric, {})
            if name not in (ours, *LIMITS)
            and HOOP not in name
            and (values := self.values(metric, name))
            and median(values) > 0
        ]


@dataclass(frozen=True)
class Lengths:
    """How long a run takes: windows, micro benchmarks, connections held."""

    timing: Timing
    size_timing: Timing  # of the size matrix, which has many windows
    micro_rounds: int
    micro_seconds: float  # of each benchmark in each round
    held: int  # idle connections whose memory is measured


@dataclass(frozen=True)
class Session:
    """What all parts of a run share. `loops` are those that are installed and wanted; `again` is the number of further
    rounds where a part measures a second time, and otherwise None."""

    lengths: Lengths
    loops: tuple[str, ...]
    cores: Cores
    display: Display
    steps: Steps
    again: int | None = None

    def rounds(self, usual: int) -> int:
        return usual if self.again is None else self.again


@dataclass(frozen=True)
class Part:
    """One part of the benchmark. `has` says whether it hands over the figure of that name. `measure` is given the
    session and the names of the figures that are wanted, or None for all, and returns them, perhaps with others;
    `count` says how many steps (Steps.advance) that will take. A part that cannot be measured here raises NotMeasured,
    with the reason.

    `repeats`: whether it can measure some of its figures again, which adds rounds to them.
    """

    name: str
    title: str
    has: Callable[[str], bool]
    measure: Callable[[Session, Sequence[str] | None], list[Figure]]
    count: Callable[[Session, Sequence[str] | None], int]
    repeats: bool = False


class NotMeasured(Exception):
    """A part cannot be measured here; the text is the reason."""


def figure_of_workload(result: WorkloadResult) -> Figure:
    """What the rounds of a workload have found."""
    figure = Figure(result.name, result.title)
    for contender, series in result.series.items():
        if series.failure is not None:
            figure.failures[contender] = series.failure
        for metric in ("cpu_us", "rate", "p50_us", "p99_us"):
            figure.add(metric, contender, series.values(metric))
    return figure


def figures_of_micro(found: Mapping[str, Mapping[str, Mapping[str, Any]]], titles: Mapping[str, str]) -> list[Figure]:
    """What the micro benchmarks have found: "median_ns" and "rounds" by benchmark and loop, or "failure"."""
    figures = []
    for name, by_loop in found.items():
        figure = Figure(f"micro/{name}", titles[name])
        for loop, entry in by_loop.items():
            if "failure" in entry:
                figure.failures[loop] = entry["failure"]
            else:
                figure.add("ns", loop, entry["rounds"])
        figures.append(figure)
    return figures
