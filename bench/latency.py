"""The latency view: an open loop at 50 and 80 % of saturation, for an echo and for uvicorn.

    python -m bench.latency                                   # hoop, asyncio, uvloop and blazio: about two minutes
    python -m bench.latency --only echo --rounds 1

First uvloop's saturation is measured: the rate of a closed loop that always asks again. Then every loop gets 50 and
80 % of that rate: the same work for all, as users bring it, and not a share of what each can do, which would load the
fastest most. Messages are due at random (c/open_client.c), go out when they are due, and their latency counts from
then. A loop that cannot carry the rate shows it in its percentiles, or fails with messages that were never answered.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.build import BuildError, build_programs
from bench.by_turns import Servers
from bench.loops import LOOPS
from bench.measure import Cores, choose_cores
from bench.pace import USUAL_PATIENCE_S
from bench.processes import ChildFailed
from bench.progress import Display, Steps
from bench.report import render_table
from bench.results import Sample, median
from bench.rounds import Timing, measure_once, round_order
from bench.workloads import PAGE, Workload, echo, http

LOOPS_COMPARED = ("hoop", "asyncio", "uvloop", "blazio", "zuvloop")
BASE = "uvloop"  # whose saturation is the measure; without it, asyncio's
SHARES = (0.5, 0.8)  # of the saturation
CONNECTIONS = 64
SATURATION_ROUNDS = 3
TURN_S = 0.15  # a stall of a hundredth of a window is that window's p99: many short windows, and their median
LEAST_TURNS = 15
LATE_US = 200.0  # a generator that is later than this in one of a hundred messages was disturbed by something
METRICS = ("p50_us", "p99_us", "p999_us", "late_p99_us", "rate", "cpu_us")

KINDS: dict[str, Workload] = {
    "echo": echo("protocol", size=1024, connections=CONNECTIONS),
    "uvicorn": http("uvicorn", "uvicorn + httptools, plain text", "uvicorn_plain", ("uvicorn", "httptools")),
}
OPEN_ARGUMENTS = {
    "echo": ("--size", "1024", "--connections", str(CONNECTIONS)),
    "uvicorn": ("--path", "/", "--body", PAGE, "--connections", str(CONNECTIONS)),
}


@dataclass
class Percentiles:
    """What was found for one kind of server at one rate: by metric, by loop, by round."""

    kind: str
    share: float
    offered: float  # messages a second
    base: str
    metrics: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return name_of(self.kind, self.share)

    @property
    def title(self) -> str:
        return f"{KINDS[self.kind].title}; open loop, {self.offered:,.0f}/s: {self.share:.0%} of {self.base}'s most"

    def add(self, loop: str, number: int, sample: Sample) -> None:
        """What was measured in that round."""
        for metric in METRICS:
            self.metrics.setdefault(metric, {}).setdefault(loop, {})[number] = getattr(sample, metric)

    def median(self, metric: str, loop: str) -> float:
        return median(self.metrics[metric][loop])


def in_short_windows(timing: Timing) -> Timing:
    """Many windows in each round, of which one follows another: what disturbs one disturbs its neighbours, too."""
    return replace(timing, seconds=max(timing.seconds, LEAST_TURNS * TURN_S), turn_s=TURN_S)


def name_of(kind: str, share: float) -> str:
    """As `--targets` names it: latency/echo-80."""
    return f"latency/{kind}-{share * 100:.0f}"


def all_names() -> list[str]:
    return [name_of(kind, share) for kind in KINDS for share in SHARES]


@dataclass(frozen=True)
class View:
    """How to measure, and on which loops."""

    loops: Sequence[str]
    timing: Timing
    cores: Cores
    display: Display
    steps: Steps

    @property
    def base(self) -> str:
        return BASE if BASE in self.loops else "asyncio"

    def saturation(self, kind: str) -> float:
        """Requests a second of the base in a closed loop: the median of some rounds. ChildFailed if it fails."""
        timing = replace(self.timing, seconds=min(self.timing.seconds, 1.0))
        rates = {}
        for number in range(SATURATION_ROUNDS):
            rates[number] = measure_once(KINDS[kind], self.base, timing, self.cores).rate
            self._step(f"{kind}, saturation of {self.base}: {rates[number]:,.0f}/s")
        return median(rates)

    def measure(self, kind: str, share: float, saturation: float) -> Percentiles:
        """All rounds at one rate. A loop that fails is not tried again."""
        found = Percentiles(kind, share, share * saturation, self.base)
        arguments = (*OPEN_ARGUMENTS[kind], "--rate", f"{found.offered:.0f}")
        workload = replace(KINDS[kind], client="open_client", client_arguments=arguments)
        for number in range(self.timing.rounds):
            order = round_order(self.loops, number)
            with ExitStack() as stack:
                servers = Servers(workload, self.cores, stack, found.failures, number)
                for loop in order:
                    servers.start(loop)
                for turn in servers.by_turns(self.timing, order):
                    found.add(turn.contender, turn.number, turn.sample)
            for loop in order:
                failure = found.failures.get(loop)
                text = f"failed: {failure}" if failure else f"p99 {found.median('p99_us', loop):,.0f} µs"
                self._step(f"{found.name}, round {number + 1}, {loop}: {text}")
        return found

    def _step(self, text: str) -> None:
        self.steps.advance()
        summary = f"[{self.steps.finished}/{self.steps.total}] {text}"
        self.display.show([self.steps.line(text)], summary=summary)


def count_steps(names: Sequence[str], loops: Sequence[str], rounds: int) -> int:
    """How many windows these figures take."""
    kinds = {name.partition("/")[2].partition("-")[0] for name in names}
    return SATURATION_ROUNDS * len(kinds) + len(names) * len(loops) * rounds


def measure_all(view: View, names: Sequence[str]) -> list[Percentiles]:
    """Every figure of these names. ChildFailed if the base itself fails."""
    found = []
    for kind, workload in KINDS.items():
        shares = [share for share in SHARES if name_of(kind, share) in names]
        if shares and not workload.missing_packages():
            saturation = view.saturation(kind)
            found += [view.measure(kind, share, saturation) for share in shares]
    return found


def table(found: Percentiles, loops: Sequence[str]) -> list[str]:
    """Latencies in microseconds; "late" is how late the generator itself was in one of a hundred messages."""
    header = ["loop", "answered/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/req", "late µs"]
    rows = []
    for loop in loops:
        if loop in found.failures:
            rows.append([loop, f"failed: {found.failures[loop]}"])
            continue
        values = {metric: found.median(metric, loop) for metric in METRICS}
        latencies = [f"{values[name]:,.1f}" for name in ("p50_us", "p99_us", "p999_us")]
        rows.append(
            [loop, f"{values['rate']:,.0f}", *latencies, f"{values['cpu_us']:.2f}", f"{values['late_p99_us']:,.1f}"]
        )
    return [found.title, *(f"  {line}" for line in render_table(header, rows)), *_remarks(found), ""]


def _remarks(found: Percentiles) -> list[str]:
    late = [value for rounds in found.metrics.get("late_p99_us", {}).values() for value in rounds.values()]
    disturbed = sum(value > LATE_US for value in late)
    if not disturbed:
        return []
    return [f"  note: in {disturbed} of {len(late)} windows the generator itself was late: its core was not its own"]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description="Latencies under an open loop.")
    parser.add_argument("--loops", default=",".join(LOOPS_COMPARED), help="separated by commas")
    parser.add_argument("--only", action="append", choices=list(KINDS), help="only this kind of server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured in a round, in short windows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status is 1 if hoop failed."""
    options = parse_arguments(arguments)
    loops = [name for name in options.loops.split(",") if name in LOOPS and LOOPS[name].is_installed()]
    names = [name_of(kind, share) for kind in options.only or KINDS for share in SHARES]
    display, timing = Display(), in_short_windows(Timing(options.rounds, options.seconds, warmup_s=0.3))
    view = View(loops, timing, choose_cores(USUAL_PATIENCE_S), display, Steps(count_steps(names, loops, timing.rounds)))
    try:
        build_programs()
        found = measure_all(view, names)
    except (BuildError, ChildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    for one in found:
        display.say(table(one, loops), to=sys.stdout)
    if options.json:
        options.json.write_text(json.dumps([vars(one) | {"name": one.name} for one in found], indent=1) + "\n")
    return int(any("hoop" in one.failures for one in found))


if __name__ == "__main__":
    raise SystemExit(main())
