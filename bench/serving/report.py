"""The table of docs/serving.md, made from bench/serving/results.json.

    python -m bench.serving.report

A test compares the page with what the file gives, so run this after `python -m bench.serving --record`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.build import BENCH, ROOT
from bench.serving.rows import RELOADS_AT_S, ROWS, SHARE_WORKERS
from bench.serving.servers import HOOP, SERVERS
from bench.targets.report import made_anew, markdown_table

RESULTS = BENCH / "serving" / "results.json"
PAGE = ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- serving table begins -->", "<!-- serving table ends -->"
DASH = "–"

Content = Mapping[str, Any]  # of the results file
Found = Mapping[str, Any]  # of one row and server


def page_text(page: str, content: Content) -> str:
    """The page with what stands between its markers made anew."""
    return made_anew(page, BEGIN, END, _lines(content))


def table(content: Content) -> list[str]:
    """The table itself, a column for each server that was measured."""
    servers = [name for name in SERVERS if any(name in found for found in content["rows"].values())]
    lines = []
    for name, row in ROWS.items():
        found = content["rows"].get(name, {})
        for title, cell in CELLS[name]:
            cells = [_bold(server, _cell(found.get(server), cell)) for server in servers]
            if any(text != DASH for text in cells):
                lines.append([title or row.title, *cells])
    return markdown_table(["", *(_bold(name, name) for name in servers)], lines)


def _lines(content: Content) -> Iterator[str]:
    about = content["machine"]
    versions = "; ".join(content["versions"][name] for name in SERVERS if name in content["versions"])
    yield ""
    text = (
        f"{about['python']}, {about['system']}, {about['processor']}, {about['cores']} cores, {content['date']}, by "
        f"`python -m bench.serving`: two workers, and three reloads in 12 s where a line counts failed requests. "
        f"{versions}."
    )
    yield from textwrap.wrap(text, 120, break_on_hyphens=False)
    yield ""
    yield from table(content)
    yield ""


def _bold(server: str, text: str) -> str:
    return f"**{text}**" if server == HOOP and text not in ("", DASH) else text


def _cell(found: Found | None, cell: Callable[[Found], str]) -> str:
    if found is None:
        return DASH
    return str(found["failure"]) if "failure" in found else cell(found)


def _failed(found: Found) -> str:
    asked = found["failed"] + found["answered"]
    ended = found["generation"] - 1
    late = f" ({ended} of {len(RELOADS_AT_S)} reloads came to their end)" if ended < len(RELOADS_AT_S) else ""
    return f"{found['failed']:,} of {asked:,}{late}"


def _broken(found: Found) -> str:
    if found["serves"] and found["down_after_s"] is None:
        return "old code serves on" if found["failed"] == 0 else f"old code serves on, {found['failed']} failed"
    if found["down_after_s"] is None:
        return "nobody answers"
    return f"whole server down after {found['down_after_s']:.1f} s"


def _forked(found: Found) -> str:
    if not found["serves"]:
        return "whole server down"
    return DASH if found["forked_ms"] is None else f"{max(found['forked_ms'], 1):.0f} ms"


def _serves(found: Found) -> str:
    return DASH if found["serves_ms"] is None else f"{found['serves_ms']:,.0f} ms"


def _kill_failed(found: Found) -> str:
    return f"{found['failed'] - found['refused']} / {found['refused']}"


def _blocked(found: Found) -> str:
    if found["gone_s"] is None:
        return "never noticed" if not found["stack"] else "noticed, left"
    stack = ", its stack in the log" if found["stack"] else ""
    return f"killed after {found['gone_s']:.0f} s{stack}"


def _share(workers: int) -> Callable[[Found], str]:
    def cell(found: Found) -> str:
        shares = found[str(workers)]
        return f"{shares['paced']:.2f} / {shares['waves']:.2f}"

    return cell


# Of each row: lines of the table, each a title (none: the row's own) and what a cell says.
CELLS: dict[str, tuple[tuple[str | None, Callable[[Found], str]], ...]] = {
    **dict.fromkeys(("reload-wrk", "reload-keep-alive", "reload-fresh", "reload-thinking"), ((None, _failed),)),
    "ten-reloads": (
        (None, _failed),
        ("... p99 of `wrk`, in units of that without reloads", lambda found: f"{found['p99_ratio']:.1f}"),
    ),
    "broken": ((None, _broken),),
    "kill": (
        ("`kill -9` of a worker: its replacement is forked after", _forked),
        ("... and serves after", _serves),
        ("... requests failed / connections refused", _kill_failed),
    ),
    "blocked": ((None, _blocked),),
    "shares": tuple(
        (f"shares of {workers} workers, largest / mean: a connection each ms / 64 at once", _share(workers))
        for workers in SHARE_WORKERS
    ),
}


def main() -> None:
    """Make the table anew."""
    content = json.loads(RESULTS.read_text())
    PAGE.write_text(page_text(PAGE.read_text(), content))
    print(f"wrote the table of {PAGE}")


if __name__ == "__main__":
    main()
