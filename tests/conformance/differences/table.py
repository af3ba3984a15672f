"""The differences that are allowed, what matches them, and the part of docs/differences.md that is made of them.

In the folder tests, bring the page up to date:

    python -m conformance.differences.table --write
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[2] / "docs" / "differences.md"
BEGIN = "<!-- Made of tests/conformance/differences/allowed.toml by table.py there. Do not edit. -->\n"
END = "<!-- End of what is made. -->\n"


@dataclass(frozen=True)
class Pattern:
    """Calls and their outcomes; `*` stands for anything."""

    call: str
    asyncio: str
    hoop: str
    is_certain: bool = True  # False: it depends on the micro version, so that it need not occur

    @cached_property
    def expression(self) -> re.Pattern[str]:
        parts = (".*".join(map(re.escape, part.split("*"))) for part in (self.call, self.asyncio, self.hoop))
        return re.compile("\0".join(parts), re.DOTALL)

    def fits(self, call: str, theirs: str, ours: str) -> bool:
        return self.expression.fullmatch(f"{call}\0{theirs}\0{ours}") is not None


@dataclass(frozen=True)
class Difference:
    """A row of the table, and the patterns that it allows."""

    subject: str
    asyncio: str
    hoop: str
    why: str
    patterns: tuple[Pattern, ...]
    is_here: bool  # whether it is expected on this Python

    def row(self) -> str:
        return f"| {self.subject} | {self.asyncio} | {self.hoop} | {self.why} |\n"


def is_version(wanted: str) -> bool:
    """Whether this Python is one of ">=3.12" or "<3.14" or both, with a comma between them."""
    for condition in filter(None, wanted.split(",")):
        operator, version = condition[: condition.index("3")].strip(), condition[condition.index("3") :].strip()
        number = tuple(map(int, version.split(".")))
        here = sys.version_info[: len(number)]
        if not {">=": here >= number, "<": here < number, "==": here == number}[operator]:
            return False
    return True


def allowed() -> list[Difference]:
    entries = tomllib.loads((HERE / "allowed.toml").read_text())["difference"]
    return [
        Difference(
            *(entry[name] for name in ("subject", "asyncio", "hoop", "why")),
            tuple(
                Pattern(case["call"], case["asyncio"], case["hoop"], not case.get("micro", False))
                for case in entry["cases"]
                if is_version(case.get("python", ""))
            ),
            is_version(entry.get("python", "")),
        )
        for entry in entries
    ]


def rows(differences: Iterable[Difference]) -> str:
    """The table, by subject; marks of code do not count."""
    ordered = sorted(differences, key=lambda one: one.subject.replace("`", "").casefold())
    return "| subject | asyncio | hoop | why |\n|---|---|---|---|\n" + "".join(one.row() for one in ordered)


def page_with(text: str, table: str) -> str:
    """The page, with the part that is made of the table exchanged."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    text = page_with(PAGE.read_text(), rows(allowed()))
    if "--write" in sys.argv:
        PAGE.write_text(text)
    else:
        print(text)
