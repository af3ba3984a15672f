"""The tables of docs/agent.md and docs/worker_pool.md, made from bench/pools/results.json; a test compares them.

python -m bench.pools.report
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.build import BENCH, ROOT
from bench.pools.rows import ROWS
from bench.targets.report import made_anew, markdown_table

RESULTS = BENCH / "pools" / "results.json"
BEGIN, END = "<!-- figures begin -->", "<!-- figures end -->"


def pages() -> dict[str, Path]:
    return {page: ROOT / "docs" / f"{page}.md" for page in {row.page for row in ROWS.values()}}


def page_text(page: str, text: str, content: Mapping[str, Any]) -> str:
    """The page with what stands between its markers made anew."""
    return made_anew(text, BEGIN, END, _lines(page, content))


def table(content: Mapping[str, Any], page: str | None = None) -> list[str]:
    """What was measured, of one page or of all."""
    lines = []
    for name, row in ROWS.items():
        found = content["rows"].get(name)
        if found is None or page not in (None, row.page):
            continue
        wanted = ", ".join(f"{most:g} {row.unit}".rstrip() for most in row.most.values())
        judged = [f"**{found[who]:,g}**" + (f" ({who})" if who != "hoop" else "") for who in row.most]
        others = [f"{who} {value:,g}" for who, value in found.items() if who not in row.most]
        title = f"{row.title}, {row.unit}" if row.unit else row.title
        lines.append([title, wanted, "; ".join(judged), "; ".join(others)])
    return markdown_table(["", "at most", "hoop", "beside it"], lines)


def _lines(page: str, content: Mapping[str, Any]) -> Iterator[str]:
    about = content["machine"]
    yield ""
    text = (
        f"By `python -m bench.pools` on {content['date']}, {about['python']}, {about['system']}, "
        f"{about['processor']}, {about['cores']} cores; {', '.join(content['versions'])}."
    )
    yield from textwrap.wrap(text, 120, break_on_hyphens=False)
    yield ""
    yield from table(content, page)
    yield ""


def write_pages() -> None:
    content = json.loads(RESULTS.read_text())
    for page, path in pages().items():
        path.write_text(page_text(page, path.read_text(), content))


if __name__ == "__main__":
    write_pages()
