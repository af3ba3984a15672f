"""Makes bench/RESULTS.md, its plots and the tables of README.md and docs/benchmarks.md from the results files that are
kept.

    python -m bench.targets.report             # from every bench/results-3.x.json
    python -m bench.targets.report --no-plots

A test compares the texts with what the files give, so run this after `python -m bench --targets --record`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.build import BENCH, ROOT
from bench.loops import C_SERVER
from bench.report import name_of
from bench.results import median, paired_ratio
from bench.targets import plots
from bench.targets.figures import HOOP, NODE, Figure
from bench.targets.results import figures_of
from bench.targets.rows import MET, MISSED, NOT_MEASURED, WITHIN, best_peer
from bench.targets.tables import requirement, shown, target_row, without_repeats

RESULTS = BENCH / "RESULTS.md"
README = ROOT / "README.md"
MARKED = (README, ROOT / "docs" / "benchmarks.md")  # have the short tables, between the markers
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
UVLOOP = "uvloop"
IN_README = (  # figures of the part "servers"
    *("protocol-1k-10", "protocol-1k-200", "protocol-64k-50", "streams-1k-100", "own-streams-1k-100", "sock-1k-10"),
    *("tls-1k-100", "tls-64k-50", "udp-512-window32", "connect", "uvicorn", "aiohttp", "fastapi-10k"),
)
MICRO_IN_README = (
    *("call_soon_batch", "call_soon_chain", "sleep_zero", "create_task", "call_later_cancel", "call_later_fire"),
    *("call_soon_threadsafe", "executor_one", "executor_hundred", "getaddrinfo_localhost", "udp_ping_pong"),
)
DASH = "–"
DISTURBED = 2.5  # a load average at the start of a part: the part before it alone makes up to 2, by server and client

Content = Mapping[str, Any]  # of a results file


def recorded_path() -> Path:
    """Where the results of this Python are kept."""
    return BENCH / f"results-{sys.version_info[0]}.{sys.version_info[1]}.json"


def recorded() -> list[Content]:
    """What is kept, the oldest Python first."""
    paths = sorted(BENCH.glob("results-3.*.json"), key=lambda path: int(path.stem.rpartition(".")[2]))
    return [json.loads(path.read_text()) for path in paths]


def made_anew(page: str, begin: str, end: str, lines: Iterable[str]) -> str:
    """The page with lines between its two markers. ValueError if it lacks one."""
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"no {begin} and {end} in it")
    return before + "\n".join([begin, *lines, end]) + after


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def python_of(content: Content) -> str:
    """As file names have it: 3.13."""
    return ".".join(content["machine"]["python"].split()[-1].split(".")[:2])


# ---- RESULTS.md ------------------------------------------------------------------------------------------------------


def results_text(contents: Sequence[Content]) -> str:
    """The whole page."""
    lines = [
        "# Results",
        "",
        "Made by `python -m bench.targets.report` from the results files beside it, which `python -m bench --targets",
        "--record` writes. [README.md](README.md) says how all of it is measured, and what the columns mean.",
    ]
    for content in contents:
        lines += ["", *_python_section(content)]
    return "\n".join(lines) + "\n"


def _python_section(content: Content) -> Iterator[str]:
    about, timing = content["machine"], content["timing"]
    python = python_of(content)
    yield f"## {about['python']}"
    yield ""
    yield f"{content['date']}, hoop at {content['revision']}; {about['processor']}, {about['cores']} cores,"
    yield f"{about['system']}. Peers: {_versions(content)}."
    yield f"{timing['timing']['rounds']} interleaved rounds; servers are measured for {timing['timing']['seconds']:g} s"
    yield f"in each, in the size matrix for {timing['size_timing']['seconds']:g} s, by turns of {_turn_ms(timing)} ms."
    if slow := content.get("pace", {}).get("slow"):
        yield f"{slow} of {content['pace']['measured']} measurements count although the cores were slow."
    yield ""
    yield _counts(content["rows"])
    for name, text in plots.NAMES.items():
        if (plots.FOLDER / plots.file_name(name, python)).exists():
            yield ""
            yield f"![{text}]({plots.FOLDER.name}/{plots.file_name(name, python)})"
    yield from _missed(content["rows"])
    figures = figures_of(content)
    for part, entry in content["parts"].items():
        rows = [row for row in content["rows"] if row["part"] == part]
        if rows:
            yield from _part_section(entry, rows, figures, content)


def _turn_ms(timing: Mapping[str, Any]) -> str:
    """Of results from before servers were measured by turns: a window, which they had each to themselves."""
    return f"{1000 * timing['timing'].get('turn_s', timing['timing']['seconds']):.0f}"


def _versions(content: Content) -> str:
    return ", ".join(f"{name} {version}" for name, version in content["loops"].items() if name != HOOP)


def _counts(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = {kind: sum(row["verdict"] == kind for row in rows) for kind in (MET, WITHIN, MISSED, NOT_MEASURED)}
    return f"{len(rows)} requirements: " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) + "."


def _missed(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    missed = [row for row in rows if row["verdict"] == MISSED]
    if missed:
        yield ""
        yield "### Missed"
        yield ""
        cells = []
        for row in missed:
            against = f"{row['ratio']:.3f} × {name_of(row['against'])}" if "ratio" in row else row.get("why")
            cells.append(
                [row["title"], requirement(row), against or shown(row["metric"], row["value"], with_unit=True)]
            )
        yield from markdown_table(["row", "required", "measured"], cells)


def _part_section(
    entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Figure], content: Content
) -> Iterator[str]:
    yield ""
    yield f"### {entry['title'][0].upper()}{entry['title'][1:]}"
    yield ""
    if (entry["revision"], entry["date"]) != (content["revision"], content["date"]):
        yield f"Measured on {entry['date']}, hoop at {entry['revision']}."
        yield ""
    if entry.get("load", 0) > DISTURBED:
        yield f"Other programs ran beside it: the load average was {entry['load']} at the start."
        yield ""
    cells = []
    for row in rows:
        found = target_row(row, figures.get(row["figure"]))
        cells.append(found if len(found) > 2 else [found[0], DASH, DASH, DASH, requirement(row), DASH, found[1]])
    yield from markdown_table(["row", "peers", "limit", "hoop", "target", "ratio", "met"], without_repeats(cells))


# ---- README.md -------------------------------------------------------------------------------------------------------


def readme_text(readme: str, contents: Sequence[Content]) -> str:
    """The README, or another page, with what stands between its markers made anew."""
    return made_anew(readme, BEGIN, END, _readme_lines(contents))


def _readme_lines(contents: Sequence[Content]) -> Iterator[str]:
    for content in contents:
        about = content["machine"]
        figures = figures_of(content)
        yield ""
        yield f"{about['python']}, {about['system']}, {about['processor']}, {about['cores']} cores, {content['date']}:"
        yield ""
        header = ["workload", "requests/s", "CPU", "to uvloop", "to the best peer", "to the limit", "asyncio / uvloop"]
        rows = [_readme_row(figures[name]) for name in IN_README if _is_whole(figures.get(name), "cpu_us")]
        yield from markdown_table(header, rows)
        yield ""
        header = ["operation", "hoop", "uvloop", "asyncio", "best peer", "hoop / best"]
        micro = [f"micro/{name}" for name in MICRO_IN_README]
        rows = [_readme_micro_row(figures[name]) for name in micro if _is_whole(figures.get(name), "ns")]
        if rows:
            yield from markdown_table(header, rows)
            yield ""


def _is_whole(figure: Figure | None, metric: str) -> bool:
    return figure is not None and bool(figure.values(metric, HOOP)) and best_peer(figure, metric, HOOP) is not None


def _readme_row(figure: Figure) -> list[str]:
    cpu = figure.values("cpu_us", HOOP)
    best = best_peer(figure, "cpu_us", HOOP)
    limit = next((name for name in (C_SERVER, NODE) if figure.values("cpu_us", name)), None)

    def to(name: str | None) -> str:
        ratio = paired_ratio(cpu, figure.values("cpu_us", name)) if name else None
        return DASH if ratio is None else f"{ratio:.2f}"

    asyncio = paired_ratio(figure.values("cpu_us", "asyncio"), figure.values("cpu_us", UVLOOP))
    return [
        figure.title,
        f"{median(figure.values('rate', HOOP)):,.0f}",
        f"{median(cpu):.2f} µs",
        to(UVLOOP),
        f"{to(best)} ({best})",
        f"{to(limit)} ({name_of(limit)})" if limit else DASH,
        DASH if asyncio is None else f"{asyncio:.2f}",
    ]


def _readme_micro_row(figure: Figure) -> list[str]:
    best = best_peer(figure, "ns", HOOP)
    found = {name: figure.values("ns", name) for name in (HOOP, UVLOOP, "asyncio", best or "")}
    texts = {name: f"{median(values):,.0f} ns" if values else DASH for name, values in found.items()}
    ratio = paired_ratio(found[HOOP], found[best or ""])
    cells = [figure.title, texts[HOOP], texts[UVLOOP], texts["asyncio"], f"{best} {texts[best or '']}"]
    return [*cells, DASH if ratio is None else f"{ratio:.2f}"]


# ---- the command -----------------------------------------------------------------------------------------------------


def write_all(with_plots: bool = True) -> list[str]:
    """Write everything; returns lines that say so."""
    contents = recorded()
    lines = []
    for content in contents if with_plots else ():
        lines += plots.draw_all(figures_of(content), content, python_of(content))
    RESULTS.write_text(results_text(contents))
    for page in MARKED:
        page.write_text(readme_text(page.read_text(), contents))
    return [*lines, f"wrote {RESULTS}", *(f"wrote the tables of {page}" for page in MARKED)]


def main() -> None:
    """Make everything from the results files."""
    parser = argparse.ArgumentParser(prog="python -m bench.targets.report")
    parser.add_argument("--no-plots", action="store_true", help="only the texts")
    print(*write_all(not parser.parse_args().no_plots), sep="\n")


if __name__ == "__main__":
    main()
