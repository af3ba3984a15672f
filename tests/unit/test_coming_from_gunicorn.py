"""docs/coming_from_gunicorn.md: the options of its table exist, hoop's always, the others' where they are installed."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from hoop.command.main import make_parser

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming_from_gunicorn.md").read_text()
OPTION = re.compile(r"`(--[a-z-]+)`")


def options_in(column: int) -> list[str]:
    """Of a column of the table: gunicorn's, uvicorn's, hoop's."""
    table = PAGE.partition("## Options")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20 and all(len(row) == 4 for row in rows)
    return [option for row in rows for option in OPTION.findall(row[column])]


def test_options_of_hoop() -> None:
    commands = next(one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    known = {option for action in commands.choices["serve"]._actions for option in action.option_strings}
    assert set(options_in(3)) - known == set()


def test_options_of_gunicorn() -> None:
    pytest.importorskip("gunicorn")
    from gunicorn.config import KNOWN_SETTINGS

    known = {option for setting in KNOWN_SETTINGS for option in setting.cli or ()}
    assert set(options_in(1)) - known == set()


def test_options_of_uvicorn() -> None:
    pytest.importorskip("uvicorn")
    from uvicorn.main import main

    known = {option for parameter in main.params for option in parameter.opts}
    assert set(options_in(2)) - known == set()


def test_commands_of_hoop_are_understood() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("hoop serve ")]
    assert lines
    for line in lines:
        make_parser().parse_args(shlex.split(line)[1:])
