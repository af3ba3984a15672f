"""The command itself: which of its subcommands is wanted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import hoop
from hoop.command import ctl, doctor, serve, top
from hoop.command.parser import Parser

EPILOG = """\
examples:
  hoop serve app:app                     serve `app` of app.py, a worker for each CPU
  hoop serve app:app --bind 0.0.0.0:80 --workers 4
  hoop ctl status                        what runs, and how it goes
  hoop ctl reload                        new code, without losing a request
  hoop top                               what each worker does, each second
  hoop doctor app:app                    what is in its way on this machine

`hoop serve --help`, and the like for the others, tell the rest.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hoop",
        description="Serve applications with many processes on the event loop hoop.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hoop {hoop.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve.add_to(commands)
    ctl.add_to(commands)
    top.add_to(commands)
    doctor.add_to(commands)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line say; the exit status. SystemExit where argparse answers by itself."""
    arguments = make_parser().parse_args(words)
    status: int = arguments.run(arguments)
    return status
