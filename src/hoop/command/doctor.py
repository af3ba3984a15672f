"""hoop doctor: what on this machine is in an application's way, what comes of it, and what mends it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from hoop.cluster.log import is_coloured
from hoop.command.checks import ERROR, OK, WARNING, Result, examine
from hoop.command.machine import Machine, Plan, read_machine
from hoop.command.parser import worker_count

DESCRIPTION = """\
Look for what would keep an application from being served well on this machine: limits, the kernel, the container, and,
if it is named, whether the application can be imported. Give the options that `hoop serve` will get.
"""
EPILOG = """\
examples:
  hoop doctor                     this machine
  hoop doctor app:app             and whether the application is imported
  hoop doctor app:app --workers 8 --limit-max-connections 10000
  hoop doctor --json              the same for programs

exit status: 0 nothing, or warnings only; 1 errors; 2 wrong options.
"""
EXIT_ERRORS = 1
COLOURS = {ERROR: "31", WARNING: "33", OK: "32"}
LINE = 110


def add_to(commands: Any) -> None:
    """The subcommand's parser."""
    parser = commands.add_parser(
        "doctor",
        help="what is in the way on this machine, and what mends it",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the application, MODULE:ATTRIBUTE")
    parser.add_argument("--factory", action="store_true", help="TARGET is a function that returns the application")
    parser.add_argument("-w", "--workers", metavar="N", type=worker_count, default="auto")
    parser.add_argument("--backlog", metavar="N", type=int, default=2048)
    parser.add_argument("--balance", choices=("shared", "reuseport", "port_per_worker"), default="shared")
    parser.add_argument("--limit-max-connections", metavar="N", type=int, help="of each worker")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def run(arguments: argparse.Namespace) -> int:
    """Look, and report; the exit status."""
    for name in ("workers", "backlog", "limit_max_connections"):
        value = getattr(arguments, name)
        if isinstance(value, int) and value < 1:
            arguments.parser.error(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    plan = Plan(
        target=arguments.target,
        factory=arguments.factory,
        workers=None if arguments.workers == "auto" else arguments.workers,
        backlog=arguments.backlog,
        max_connections=arguments.limit_max_connections,
        balance=arguments.balance,
    )
    machine = read_machine(plan)
    results = examine(machine, plan)
    has_errors = any(result.level == ERROR for result in results)
    if arguments.json:
        report = {"ok": not has_errors, "results": [one.as_json() for one in results], "machine": machine.as_json()}
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(report_lines(machine, results, coloured=is_coloured(sys.stdout))))
    return EXIT_ERRORS if has_errors else 0


def report_lines(machine: Machine, results: Sequence[Result], *, coloured: bool) -> list[str]:
    """What is wrong comes last, where it is seen."""
    python = ".".join(map(str, machine.python))
    lines = [f"hoop {machine.hoop}, Python {python}, {machine.system} {platform.machine()}", ""]
    for level in (OK, WARNING, ERROR):
        for result in results:
            if result.level == level:
                lines += result_lines(result, coloured=coloured)
    counts = {level: sum(result.level == level for result in results) for level in (ERROR, WARNING)}
    lines += ["", ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items())]
    return lines


def result_lines(result: Result, *, coloured: bool) -> list[str]:
    level = f"{result.level:<8}"
    if coloured:
        level = f"\x1b[{COLOURS[result.level]}m{level}\x1b[0m"
    lines = [f"{level} {result.check}: {result.says}"]
    for word, text in (("so", result.so), ("mend", result.mend)):
        if text:
            lines += textwrap.wrap(
                text, LINE, initial_indent=f"{'':9}{word + ':':<6}", subsequent_indent=" " * 15,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
    if result.detail:
        lines += textwrap.indent(result.detail.rstrip(), " " * 9).splitlines()
    return lines
