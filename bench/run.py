"""The benchmark's command line: what is measured, in which order, and where the results go."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import c10k, file_rounds, idle_memory, micro_rounds, plot
from bench.build import BENCH, BuildError, build_programs
from bench.loops import LOOPS, NODE, how_to_get, loops_here
from bench.measure import Cores, choose_cores, machine
from bench.pace import PATIENCE_HELP, USUAL_PATIENCE_S
from bench.progress import Display, Steps
from bench.report import micro_table, workload_table
from bench.results import WorkloadResult
from bench.rounds import Setting, Timing, contenders_of, has_node
from bench.workload_rounds import measure_workload
from bench.workloads import USUAL, WORKLOADS, Workload

RESULTS = BENCH / "results"
FORMAT_VERSION = 1
MICRO = "micro"
FILES = "files"
C10K = "c10k"
MEMORY = "memory"


@dataclass(frozen=True)
class Preset:
    """How long a run takes; single options replace its parts."""

    timing: Timing
    micro_rounds: int
    micro_seconds: float  # of each benchmark in each round
    idle_seconds: float  # of the C10k demonstration
    held: int  # connections whose memory is measured


QUICK = Preset(Timing(rounds=3, seconds=0.35, warmup_s=0.1), 2, 0.08, 5.0, 500)
NORMAL = Preset(Timing(rounds=3, seconds=1.0, warmup_s=0.25), 3, 0.15, 5.0, 2000)
FULL = Preset(Timing(rounds=5, seconds=3.0, warmup_s=0.5), 5, 0.4, 10.0, 4000)


@dataclass
class Run:
    """A run under way, and what it has found."""

    arguments: argparse.Namespace
    preset: Preset
    loops: list[str]
    missing: dict[str, str]
    cores: Cores
    display: Display = field(default_factory=Display)
    machine: dict[str, Any] = field(default_factory=machine)
    workloads: list[WorkloadResult] = field(default_factory=list)
    micro: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    c10k: list[dict[str, Any]] = field(default_factory=list)

    def whole_loops(self) -> list[str]:
        """The loops that are measured on more than some kinds of server."""
        return [name for name in self.loops if LOOPS[name].servers is None]

    def notes(self) -> list[str]:
        """What a reader must know to judge the figures."""
        notes = []
        if not self.cores.are_separate:
            notes.append("fewer than two cores: server and client share one, so the client sleeps instead of spinning")
        load = self.machine["load_average_at_start"]
        if load > 0.5:
            notes.append(f"the load average was {load} at the start: other programs ran beside the benchmark")
        return notes

    def as_json(self) -> dict[str, Any]:
        """Everything, for the results file."""
        return {
            "format": FORMAT_VERSION,
            "machine": self.machine,
            "cores": self.cores.as_json(),
            "pace": self.cores.pace.as_json(),
            "timing": asdict(self.preset.timing),
            "loops": {name: LOOPS[name].version() for name in self.loops},
            "missing": self.missing,
            "notes": self.notes(),
            "workloads": [result.as_json() for result in self.workloads],
            "micro": self.micro,
            "files": self.files,
            "memory": self.memory,
            "c10k": self.c10k,
        }


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. Ends the process with a message if they are wrong."""
    names = [workload.name for workload in WORKLOADS] + [MICRO, FILES, MEMORY, C10K]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare hoop with other event loops.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="short windows: two to three minutes in all")
    length.add_argument("--full", action="store_true", help="long windows and more rounds: half an hour or so")
    parser.add_argument(
        "--targets",
        action="store_true",
        help="what hoop must reach, row by row; has options of its own: `--targets --help`",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="WORKLOAD",
        help=f"only this; may be repeated: {', '.join(names)}",
    )
    parser.add_argument("--loops", type=_loop_names, help=f"separated by commas, of {','.join(LOOPS)}; default: all")
    parser.add_argument("--rounds", type=_positive(int, 1000), help="interleaved rounds of each workload")
    parser.add_argument("--seconds", type=_positive(float, 60), help="how long each server is measured in each round")
    parser.add_argument("--c10k-loop", type=_loop_names, help="loops of the C10k demonstration; default: hoop")
    parser.add_argument("--connections", type=_positive(int, 100_000), default=10_000, help="of the C10k demonstration")
    parser.add_argument("--patience", type=float, default=USUAL_PATIENCE_S, metavar="SECONDS", help=PATIENCE_HELP)
    parser.add_argument("--json", type=Path, default=RESULTS / "bench.json", metavar="FILE", help="results as JSON")
    parser.add_argument("--plot", type=Path, default=RESULTS / "bench.png", metavar="FILE", help="plot as PNG")
    return parser.parse_args(arguments)


def _loop_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in LOOPS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown loops {unknown}; known are {', '.join(LOOPS)}")
    return names


def _positive(kind: Callable[[str], float], most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {most}")
        return value

    return number


def start(arguments: argparse.Namespace) -> Run:
    """Settle the preset, the loops and the cores."""
    preset = QUICK if arguments.quick else FULL if arguments.full else NORMAL
    timing = Timing(
        rounds=arguments.rounds or preset.timing.rounds,
        seconds=arguments.seconds or preset.timing.seconds,
        warmup_s=preset.timing.warmup_s,
    )
    preset = replace(preset, timing=timing)
    wanted = arguments.loops or loops_here()
    loops = [name for name in wanted if LOOPS[name].is_installed()]
    missing = {name: "not installed" for name in wanted if name not in loops}
    return Run(arguments, preset, loops, missing, choose_cores(arguments.patience))


def measure(run: Run) -> None:
    """Everything that was asked for, a table after each part."""
    only = run.arguments.only
    workloads = [workload for workload in WORKLOADS if workload.name in only] if only else list(USUAL)
    with_micro = not only or MICRO in only
    with_files = not only or FILES in only
    file_steps = file_rounds.count_steps(run.whole_loops(), run.preset.micro_rounds) if with_files else 0
    steps = Steps(_count_steps(run, workloads, with_micro) + file_steps)
    setting = Setting(run.preset.timing, run.cores, run.display, steps)
    for workload in workloads:
        result = measure_workload(workload, run.loops, setting)
        run.workloads.append(result)
        missing = {name: reason for name, reason in run.missing.items() if workload.takes(name)}
        if workload.node_server and not has_node():
            missing[NODE] = "not installed"
        run.display.say(workload_table(result, missing), to=sys.stdout)
    if with_micro:
        rounds = micro_rounds.MicroRounds(run.whole_loops(), run.preset.micro_seconds, run.display, steps)
        run.micro = rounds.measure(run.preset.micro_rounds)
        run.display.say(micro_table(run.micro, micro_rounds.TITLES, run.whole_loops()), to=sys.stdout)
    if with_files:
        preset = run.preset
        run.files = file_rounds.measure_all(
            run.whole_loops(), preset.micro_rounds, preset.micro_seconds, run.cores.pace, run.display, steps
        )
        run.display.say(file_rounds.table(run.files), to=sys.stdout)
    if not only or MEMORY in only:
        options = idle_memory.Options(run.preset.held)
        run.memory = idle_memory.measure_all(run.loops, options, run.cores, run.display)
        run.display.say(idle_memory.table(run.memory), to=sys.stdout)
    if not only or C10K in only:
        measure_c10k(run)


def _count_steps(run: Run, workloads: Sequence[Workload], with_micro: bool) -> int:
    total = sum(len(contenders_of(workload, run.loops)) for workload in workloads) * run.preset.timing.rounds
    return total + (len(micro_rounds.TITLES) * run.preset.micro_rounds if with_micro else 0)


def measure_c10k(run: Run) -> None:
    """The demonstration on each loop that was asked for: hoop, or if there is no hoop the first loop there is."""
    wanted = run.arguments.c10k_loop or (["hoop"] if "hoop" in run.loops else run.loops[:1])
    for name in wanted:
        if not LOOPS[name].is_installed():
            run.display.say([f"C10k on {name}: not installed", ""], to=sys.stdout)
            continue
        for server in ("protocol_echo", "limited_echo") if name == "hoop" else ("protocol_echo",):
            options = c10k.Options(int(run.arguments.connections), idle_s=run.preset.idle_seconds, server=server)
            outcome = c10k.demonstrate(name, options, run.cores, run.display)
            run.c10k.append(outcome)
            run.display.say(c10k.table(outcome), to=sys.stdout)


def heading(run: Run) -> list[str]:
    """What is compared, where, and how."""
    about, timing = run.machine, run.preset.timing
    loops = ", ".join(f"{name} {LOOPS[name].version()}" for name in run.loops)
    cores = (
        f"server on core {run.cores.server}, client on core {run.cores.client}"
        if run.cores.are_separate
        else "one core"
    )
    return [
        f"{about['python']} on {about['system']}, {about['processor']}, {about['cores']} cores; {cores}",
        f"loops: {loops or 'none'}",
        *(f"{name}: {how_to_get(LOOPS[name]) if name in LOOPS else reason}" for name, reason in run.missing.items()),
        f"medians of {timing.rounds} interleaved rounds of {timing.seconds:g} s, by turns;",
        "± is (largest - smallest) / median;",
        "/NAME is the ratio to that loop within a round: of req/s more is better, of CPU time less",
        *(f"note: {note}" for note in run.notes()),
        "",
    ]


def save(run: Run) -> list[str]:
    """Write the results and the plot; returns lines that say so."""
    path: Path = run.arguments.json
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run.as_json(), indent=1) + "\n")
    lines = [f"results: {path}"]
    problem = plot.draw(run.as_json(), run.arguments.plot)
    return [*lines, f"no plot: {problem}" if problem else f"plot: {run.arguments.plot}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--targets" in given:
        from bench.targets import run as targets_run

        return targets_run.main([argument for argument in given if argument != "--targets"])
    run = start(parse_arguments(arguments))
    try:
        build_programs()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    run.display.say(heading(run), to=sys.stdout)
    try:
        measure(run)
    except KeyboardInterrupt:
        run.display.say(["interrupted; finished workloads are kept"])
        return 130
    finally:
        run.display.say(save(run), to=sys.stdout)
    return 1 if hoop_failed(run) else 0


def hoop_failed(run: Run) -> bool:
    """Whether this project's own loop failed anywhere. The failures of other loops are results."""
    series = [result.series["hoop"] for result in run.workloads if "hoop" in result.series]
    micro = [by_loop["hoop"] for by_loop in run.micro.values() if "hoop" in by_loop]
    files = [outcome for outcome in run.files if outcome["way"].startswith("fs") and outcome["loop"] == "hoop"]
    held = [outcome for outcome in run.memory if outcome["loop"] == "hoop"]
    demonstrations = [outcome for outcome in run.c10k if outcome["loop"] == "hoop"]
    return (
        any(one.failure for one in series)
        or any("failure" in entry for entry in micro)
        or any(outcome["failure"] for outcome in [*files, *held])
        or any(outcome["failure"] or outcome["end"]["errors"] for outcome in demonstrations)
    )
