"""The command line of `python -m bench --targets`: measures the parts, looks twice where a row is close, and judges."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.build import BENCH, BuildError, build_programs
from bench.loops import LOOPS, how_to_get, loops_here
from bench.measure import choose_cores, machine
from bench.pace import PATIENCE_HELP
from bench.processes import ChildFailed
from bench.progress import Display, Steps
from bench.rounds import Timing
from bench.targets import report
from bench.targets.figures import Figure, Lengths, NotMeasured, Part, Session
from bench.targets.parts import PARTS
from bench.targets.report import recorded_path
from bench.targets.results import as_json, dump, figures_of, revision
from bench.targets.rows import MISSED, NOT_MEASURED, TOLERANCE, Row, judge
from bench.targets.table import ROWS
from bench.targets.tables import summary, target_table

USUAL = Lengths(Timing(3, 0.24, 0.1), Timing(3, 0.12, 0.04), 3, 0.09, 1000)
FULL = Lengths(Timing(5, 2.0, 0.3), Timing(5, 0.8, 0.2), 5, 0.3, 4000)
RESULTS = BENCH / "results" / "targets.json"
SECOND_LOOK = 1.15  # a row that misses by less is measured again, ...
PATIENCE_S = 900.0  # a run with windows and rounds as usual takes half an hour
AGAIN = 3  # ... in so many further rounds, which count beside the first ones


@dataclass
class Run:
    """A run under way, and what it has found."""

    options: argparse.Namespace
    session: Session
    missing: dict[str, str]
    figures: dict[str, Figure] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # by name: when, how long, and a "reason" if it failed

    def verdicts(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """What became of the rows; only of those figures, if names are given."""
        rows = [one for one in ROWS if names is None or one.figure in names]
        return [verdict | {"part": part_of(one.figure)} for one in rows for verdict in self._judge(one)]

    def _judge(self, one: Row) -> list[dict[str, Any]]:
        reason = self.parts.get(part_of(one.figure), {}).get("reason")
        return judge(one, self.figures, reason)


def part_of(figure: str) -> str:
    """The name of the part that hands over a figure."""
    return next((part.name for part in PARTS if part.has(figure)), "")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options. Ends the process with a message if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench --targets", description="What hoop must reach, row by row.")
    parser.add_argument("--full", action="store_true", help="long windows and five rounds: an hour and a half or so")
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--only",
        action="append",
        metavar="PART",
        help=f"a part, or a figure; may be repeated. Parts: {', '.join(names)}",
    )
    parser.add_argument("--loops", help=f"separated by commas, of {','.join(LOOPS)}; default: all that are installed")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of each row")
    parser.add_argument("--seconds", type=float, help="how long each server is measured in each round")
    parser.add_argument("--once", action="store_true", help="no second look at rows that miss by little")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, metavar="SECONDS", help=PATIENCE_HELP)
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"results; default: {RESULTS}")
    parser.add_argument("--record", action="store_true", help="to bench/results-3.x.json, and what is made from it")
    parser.add_argument("--keep", action="store_true", help="keep what the file has and this run does not measure")
    options = parser.parse_args(list(arguments))
    unknown = [name for name in options.only or () if name not in names and not any(part.has(name) for part in PARTS)]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; parts are {', '.join(names)}")
    if options.loops and (wrong := [name for name in options.loops.split(",") if name not in LOOPS]):
        parser.error(f"unknown loops {', '.join(wrong)}; known are {', '.join(LOOPS)}")
    if options.json is None:
        options.json = recorded_path() if options.record else RESULTS
    return options


def start(options: argparse.Namespace) -> Run:
    """Settle the lengths, the loops and the cores."""
    lengths = FULL if options.full else USUAL
    for name in ("timing", "size_timing"):
        timing = getattr(lengths, name)
        timing = replace(timing, rounds=options.rounds or timing.rounds, seconds=options.seconds or timing.seconds)
        lengths = replace(lengths, **{name: timing})
    lengths = replace(lengths, micro_rounds=options.rounds or lengths.micro_rounds)
    wanted = options.loops.split(",") if options.loops else loops_here()
    loops = tuple(name for name in wanted if LOOPS[name].is_installed())
    missing = {name: how_to_get(LOOPS[name]) for name in wanted if name not in loops}
    session = Session(lengths, loops, choose_cores(options.patience), Display(), Steps(0))
    run = Run(options, session, missing)
    if options.keep and options.json.exists():
        kept = json.loads(options.json.read_text())
        run.figures = figures_of(kept)
        run.parts = kept["parts"]
    return run


def _wanted(part: Part, only: Sequence[str] | None) -> tuple[bool, list[str] | None]:
    """Whether a part runs, and the figures that are wanted of it: None stands for all."""
    if only is None or part.name in only:
        return True, None
    figures = [name for name in only if part.has(name)]
    return bool(figures), figures


def measure(run: Run, about: Mapping[str, Any]) -> None:
    """Every part that was asked for; after each its table is shown and the results file is written."""
    planned = []
    total = 0
    for part in PARTS:
        is_wanted, names = _wanted(part, run.options.only)
        steps = part.count(run.session, names) if is_wanted else 0
        if steps:
            planned.append((part, names))
            total += steps
    run.session.steps.total = total
    for part, names in planned:
        found = measure_part(run, part, names)
        run.session.display.say(target_table(run.verdicts(found), run.figures, part.title), to=sys.stdout)
        save(run, about)


def measure_part(run: Run, part: Part, names: Sequence[str] | None) -> list[str]:
    """One part, and its second look; returns the names of its figures."""
    began = time.monotonic()
    about: dict[str, Any] = {
        "title": part.title,
        "revision": revision(),
        "date": time.strftime("%Y-%m-%d"),
        "load": round(os.getloadavg()[0], 2),
    }
    run.parts[part.name] = about
    found: list[str] = []
    try:
        for figure in part.measure(run.session, names):
            run.figures[figure.name] = figure
            found.append(figure.name)
        close = [] if run.options.once or not part.repeats else close_misses(run.verdicts(found))
        if close:
            look_again(run, part, close)
            about["again"] = close
    except (NotMeasured, ChildFailed, OSError) as error:
        about["reason"] = str(error)
        run.session.display.say([f"{part.name}: not measured: {error}"], to=sys.stdout)
    about["seconds"] = round(time.monotonic() - began, 1)
    return found


def close_misses(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures of rows that were missed by little."""
    names = []
    for verdict in verdicts:
        if verdict["verdict"] == MISSED and "ratio" in verdict:
            short = verdict["ratio"] / verdict["required"]
            if max(short, 1 / short) < SECOND_LOOK and verdict["figure"] not in names:
                names.append(verdict["figure"])
    return names


def look_again(run: Run, part: Part, names: Sequence[str]) -> None:
    """More rounds of these figures, which count beside the first ones."""
    session = replace(run.session, again=AGAIN)
    session.steps.total += part.count(session, names)
    for figure in part.measure(session, names):
        if figure.name in run.figures:
            run.figures[figure.name].extend(figure)


def heading(run: Run, about: Mapping[str, Any]) -> list[str]:
    """What is compared, where, and how."""
    session, cores, load = run.session, run.session.cores, about["load_average_at_start"]
    where = f"server on core {cores.server}, client on core {cores.client}" if cores.are_separate else "one core"
    return [
        f"{about['python']} on {about['system']}, {about['processor']}, {about['cores']} cores; {where}",
        f"loops: {', '.join(f'{name} {LOOPS[name].version()}' for name in session.loops)}",
        *(f"{name}: {reason}" for name, reason in run.missing.items()),
        f"{session.lengths.timing.rounds} interleaved rounds; a ratio is the median of the ratios within turns;",
        f"a comparison is met within the tolerance where it misses by at most {TOLERANCE:.0%}",
        *([f"note: the load average was {load}: other programs ran beside the benchmark"] if load > 0.5 else []),
        "",
    ]


def save(run: Run, about: Mapping[str, Any]) -> None:
    """Write the results file."""
    path: Path = run.options.json
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(as_json(run.figures, run.verdicts(), run.parts, about, run.session, run.missing)))


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status: 1 if a row is missed."""
    run = start(parse_arguments(arguments))
    try:
        build_programs()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    about = machine()
    run.session.display.say(heading(run, about), to=sys.stdout)
    try:
        measure(run, about)
    except KeyboardInterrupt:
        run.session.display.say(["interrupted; finished parts are kept"])
        return 130
    run.session.display.say([f"results: {run.options.json}"], to=sys.stdout)
    if run.options.record:
        run.session.display.say(report.write_all(), to=sys.stdout)
    verdicts = [one for one in run.verdicts() if one["verdict"] != NOT_MEASURED or run.options.only is None]
    run.session.display.say(summary(verdicts), to=sys.stdout)
    return 1 if any(verdict["verdict"] == MISSED for verdict in verdicts) else 0
