"""The table of docs/monitor.md, made from bench/blocking/results.json; a test compares both."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from bench.blocking.cases import CASES, line_of
from bench.blocking.tools import TOOLS
from bench.build import BENCH, ROOT
from bench.targets.report import made_anew, markdown_table

RESULTS = BENCH / "blocking" / "results.json"
PAGE = ROOT / "docs" / "monitor.md"
BEGIN, END = "<!-- blocking table begins -->", "<!-- blocking table ends -->"
NOT_FOUND = "–"


def page_text(page: str, content: Mapping[str, Any]) -> str:
    """The page with what stands between its markers made anew."""
    return made_anew(page, BEGIN, END, _lines(content))


def table(content: Mapping[str, Any]) -> list[str]:
    """A column for each tool that was there, a line for each case, and one for the cost."""
    tools = [name for name in TOOLS if name in content["versions"]]
    rows = [[title, *(content["cases"][case][tool] for tool in tools)] for case, (_, title) in CASES.items()]
    cost = content["cost"]
    rows.append(["an empty callback, µs (without the tool)", *(cost_cell(cost, tool) for tool in tools)])
    return markdown_table(["", *(TOOLS[name].title for name in tools)], rows)


def verdict(case: str, found: Mapping[str, Any]) -> str:
    """Whether the tool said anything, and whether that has the line that blocks in it, or only the coroutine."""
    if "failure" in found:
        return f"failed: {found['failure']}"
    said = "\n".join(found["said"])
    if not found["said"]:
        return NOT_FOUND
    if re.search(rf"cases\.py\W+(line )?{line_of(case)}\b", said):
        return "the line"
    function = CASES[case][0].__name__
    return "the function" if function in said else "the coroutine" if "hold" in said else "that something did"


def cost_cell(cost: Mapping[str, Any], tool: str) -> str:
    base = cost["plain-hoop" if TOOLS[tool].is_on_hoop else "asyncio"]
    found = cost[tool]
    if "failure" in found or "failure" in base:
        return "failed"
    return f"{found['ns'] / 1000:.2f} ({base['ns'] / 1000:.2f})"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    about = content["machine"]
    versions = "; ".join(content["versions"].values())
    yield ""
    text = (
        f"By `python -m bench.blocking` on {content['date']}, {about['system']}, {about['processor']}, "
        f"{about['cores']} cores; {versions}. hoop.monitor runs on hoop, the others on asyncio's own loop."
    )
    yield from textwrap.wrap(text, 120, break_on_hyphens=False)
    yield ""
    yield from table(content)
    yield ""


def write_page() -> None:
    PAGE.write_text(page_text(PAGE.read_text(), json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    write_page()
