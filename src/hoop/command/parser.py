"""What the subcommands' parsers share: a mistake is told in one line, and what people write for sizes and times."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

EXIT_USAGE = 2
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in a line, without the usage, which is a page long."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message} (see {self.prog} --help)\n")
        sys.exit(EXIT_USAGE)


def size(text: str) -> int:
    """Bytes: 300000, 64k, 512M, 2GiB."""
    found = re.fullmatch(r"(\d+)([kmg]?)(?:i?b)?", text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, such as 512M")
    return int(found[1]) * UNITS[found[2]]


def seconds(text: str) -> float:
    """As a number, with s, m, h or d behind it if it is more convenient."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)([smhd]?)", text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def seconds_or_none(text: str) -> float | None:
    return None if text == "none" else seconds(text)


def worker_count(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
