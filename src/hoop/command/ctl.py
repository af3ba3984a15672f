"""hoop ctl: commands for a cluster that runs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hoop.cluster.control import ControlClient, Json, find_control
from hoop.command.reaching import add_control_option, ask_soon, status_of
from hoop.monitor import table_lines

LOOKS = ("status", "tasks", "blocked")

DESCRIPTION = """\
Command a cluster that `hoop serve` or hoop.cluster.run() has started, of the same user on the same machine.
"""
EPILOG = """\
examples:
  hoop ctl status                 the master, its workers, their state
  hoop ctl status --json          the same for programs
  hoop ctl blocked                what has held the loops of workers, where HOOP_MONITOR is set
  hoop ctl reload                 new code; returns when it serves, fails with the traceback if it does not
  hoop ctl scale 8
  hoop ctl stop                   drain and end; returns when it has ended
  hoop ctl --control /run/app/control.sock status

exit status: 0 done, 1 the cluster could not do it (the old workers serve on), 2 wrong options, 4 no cluster answers.
"""
COMMANDS = {
    "status": "what runs, and how it goes",
    "blocked": "what has held the workers' loops, in a cluster that runs with HOOP_MONITOR",
    "reload": "replace the workers, one after the other, by ones with the code of now",
    "upgrade": "replace the master's own program (another hoop or Python) under the same process number",
    "scale": "have N workers",
    "stop": "answer what is under way, and end",
    "messages": "show what workers send to the master, until Ctrl-C",
    "tasks": "where each task of one process waits (see hoop.inspect)",
}


def add_to(commands: Any) -> None:
    """The subcommand's parser."""
    parser = commands.add_parser(
        "ctl",
        help="command a cluster that runs",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_control_option(parser)
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = subcommands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--json", action="store_true", help="answer in JSON")
        sub.add_argument("--control", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # on either side
        if name == "scale":
            sub.add_argument("workers", metavar="N", type=int)
        sub.set_defaults(run=run, command=name, parser=sub)


def run(arguments: argparse.Namespace) -> int:
    """Ask, and show the answer; the exit status."""
    return status_of("ctl", arguments, reach)


def reach(arguments: argparse.Namespace) -> int:
    with ControlClient(find_control(arguments.control)) as client:
        return ask(client, arguments)


def ask(client: ControlClient, arguments: argparse.Namespace) -> int:
    given = {"workers": arguments.workers} if arguments.command == "scale" else {}
    if arguments.command in LOOKS:
        result = ask_soon(client, arguments.command)
    else:
        result = client.ask(arguments.command, **given)
    if arguments.command == "messages":
        for message in client.lines():
            print(json.dumps(message), flush=True)
        return 0
    if arguments.command == "stop":
        for _ in client.lines():
            pass  # its end is the cluster's
    if arguments.json:
        print(json.dumps({"ok": True, "result": result}, indent=2))
    elif arguments.command == "status":
        print("\n".join(status_lines(result)))
    elif arguments.command == "blocked":
        print("\n".join(blocked_lines(result)))
    elif arguments.command == "tasks":
        print("\n".join(task_lines(result)))
    else:
        print(DONE[arguments.command].format(**given))
    return 0


DONE = {
    "reload": "reloaded",
    "upgrade": "the new program takes over",
    "scale": "scaling to {workers} workers",
    "stop": "ended",
}


# ---- status, for people ---------------------------------------------------------------------------------------------


def status_lines(status: Json) -> list[str]:
    """A line about the master, one with the addresses, and a table of the workers."""
    columns = [name for name in COLUMNS if any(name in worker for worker in status["workers"])]
    rows = [[TITLES.get(name, name.upper()) for name in columns]]
    rows += [[cell(name, worker.get(name)) for name in columns] for worker in status["workers"]]
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
    programs = f"hoop {status['hoop']}, Python {status['python']}"
    age, who = duration(status["age"]), status.get("kind", "master")
    generation = f", generation {status['generation']}" if "generation" in status else ""
    lines = [f"{who} {status['pid']} {status['state']}, up {age}{generation}, {programs}"]
    if status["addresses"]:
        lines.append(f"on {', '.join(status['addresses'])}")
    if status.get("last_failure"):
        lines.append(f"last failure: {status['last_failure']}")
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def blocked_lines(result: Json) -> list[str]:
    """A table for each worker."""
    lines: list[str] = []
    for worker in result["workers"]:
        name = worker["role"] if "role" in worker else f"worker {worker['slot']}"
        who = f"{name} (process {worker['pid']})"
        if not worker["answers"]:
            held = "" if worker["held"] is None else f", its loop has been held for {worker['held']:.1f} s"
            lines.append(f"{who}: no answer within 2 s{held}")
        elif worker["found"] is None:
            lines.append(f"{who}: not monitored")
        else:
            lines += table_lines(worker["found"], who)
    return lines


def task_lines(tasks: list[Json]) -> list[str]:
    """Each task with its stack, the outermost coroutine first, as in a traceback."""
    lines = [f"{len(tasks)} task{'s' * (len(tasks) != 1)}"]
    for task in tasks:
        lines.append(f"{task['name']}: {task['coroutine']}")
        lines += [f"  {frame['file']}:{frame['line']} in {frame['function']}" for frame in task["stack"]]
        if task["awaits"] is not None:
            lines.append(f"  awaits {task['awaits']}")
    return lines


COLUMNS = (
    "slot",
    "role",
    "pid",
    "generation",
    "state",
    "age",
    "requests",
    "connections",
    "accepts",
    "utilization",
    "rss",
)
TITLES = {"generation": "GEN", "connections": "CONNS", "utilization": "BUSY"}


def cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "age":
        return duration(value)
    if name == "rss":
        return f"{value / (1 << 20):.0f}M"
    if name == "utilization":
        return f"{value:.0%}"
    return str(value)


def duration(seconds: float) -> str:
    """The two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days}d" * bool(days), f"{hours}h" * bool(hours), f"{minutes}m" * bool(minutes), f"{rest}s"]
    return " ".join([part for part in parts if part][:2])
