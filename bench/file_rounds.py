"""Runs the file benchmark in a child process for each contender, in interleaved rounds, and makes its table."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from bench.files import CONTENDERS, WAYS, WORKLOADS
from bench.loops import LOOPS
from bench.pace import Pace
from bench.processes import START_LIMIT_S, Child, ChildFailed, running
from bench.progress import Display, Steps
from bench.report import render_table
from bench.results import median, spread
from bench.rounds import round_order

BASE = "executor on uvloop"  # what ratios are shown against

Outcome = dict[str, Any]  # "contender", "way", "loop"; "us", "cpu_us": by workload, by round; "failure"


def contenders(loops: Sequence[str]) -> list[Outcome]:
    """Those whose loop takes part, with a failure where a package is missing."""
    found = []
    for way, loop in CONTENDERS:
        if loop in loops:
            package = WAYS[way].package
            is_there = package is None or importlib.util.find_spec(package) is not None
            outcome: Outcome = {"contender": f"{way} on {loop}", "way": way, "loop": loop, "us": {}, "cpu_us": {}}
            found.append(outcome | {"failure": None if is_there else f"{package} is not installed"})
    return found


def count_steps(loops: Sequence[str], rounds: int) -> int:
    """How many children a run starts."""
    return sum(outcome["failure"] is None for outcome in contenders(loops)) * rounds


def measure_all(
    loops: Sequence[str], rounds: int, seconds: float, pace: Pace, display: Display, steps: Steps
) -> list[Outcome]:
    """All rounds. A contender that fails is not tried again."""
    outcomes = contenders(loops)
    measured = [outcome for outcome in outcomes if outcome["failure"] is None]
    for number in range(rounds):
        for index in round_order([str(place) for place in range(len(measured))], number):
            outcome = measured[int(index)]
            text = f"files, round {number + 1}, {outcome['contender']}"
            display.show([steps.line(text)], summary=f"[{steps.finished + 1}/{steps.total}] {text}")
            if outcome["failure"] is None:
                try:
                    _measure(outcome, number, seconds, pace)
                except ChildFailed as failure:
                    outcome["failure"] = f"round {number + 1}: {failure}"
            steps.advance()
    return outcomes


def _measure(outcome: Outcome, number: int, seconds: float, pace: Pace) -> None:
    command = [sys.executable, "-m", "bench.files", "--way", outcome["way"], "--loop", outcome["loop"]]
    with running([*command, "--seconds", str(seconds), *pace.of_child()]) as child:
        for workload in WORKLOADS:
            answer = _next_answer(child, seconds)
            pace.take(answer["pace"])
            for metric in ("us", "cpu_us"):
                outcome[metric].setdefault(workload, {})[number] = float(answer[metric])


def _next_answer(child: Child, seconds: float) -> dict[str, Any]:
    child.read_json(START_LIMIT_S)  # it begins
    answer = child.read_json(10 * seconds + START_LIMIT_S)
    if "failure" in answer:
        raise ChildFailed(str(answer["failure"]))
    return answer


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Microseconds for each operation, by the clock and of CPU, and the clock's ratio to BASE within a round; less is
    better."""
    base = next((outcome for outcome in outcomes if outcome["contender"] == BASE and outcome["failure"] is None), None)
    header = ["µs per operation"]
    for _, title in WORKLOADS.values():
        header += [title, "±", *(["/uvloop"] if base else []), "CPU"]
    rows = []
    for outcome in outcomes:
        name = f"{WAYS[outcome['way']].title}, {LOOPS[outcome['loop']].name}"
        if outcome["failure"] is not None:
            rows.append([name, str(outcome["failure"])])
            continue
        row = [name]
        for workload in WORKLOADS:
            values = outcome["us"][workload]
            row += [f"{median(values):,.1f}", f"{spread(values):.0%}"]
            if base:
                theirs = base["us"][workload]
                row.append(f"{median({number: values[number] / theirs[number] for number in values}):.2f}")
            row.append(f"{median(outcome['cpu_us'][workload]):,.1f}")
        rows.append(row)
    note = ["CPU: microseconds of CPU time, all threads"]
    note += ["/uvloop is the ratio to run_in_executor on uvloop"] if base else []
    return ["files", *(f"  {line}" for line in [*render_table(header, rows), *note]), ""]
