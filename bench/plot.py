"""Draws the results as a PNG: throughput and CPU time of each workload, and the micro benchmarks.

A panel has the short name of its workload; what that is stands in the legend at the foot.

`python -m bench.plot RESULTS.json PLOT.png` draws a results file again.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.loops import C_SERVER
from bench.micro import BENCHMARKS
from bench.report import name_of

COLOURS = {
    "hoop": "#d1495b",
    C_SERVER: "#2e2e2e",
    "asyncio": "#8d99ae",
    "uvloop": "#3d6fb4",
    "blazio": "#edae49",
    "zloop": "#5a9367",
    "zuvloop": "#2a9d8f",
    "rloop": "#8e6c8a",
}
OTHER_COLOUR = "#bbbbbb"
COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 5.2, 2.7  # inches
MICRO_ROW_HEIGHT = 0.34  # inches for each benchmark
LEGEND_COLUMNS = 2
LEGEND_LINE_HEIGHT = 0.2  # inches
LEGEND_WIDTH = 92  # characters of a line, beside the name
DOTS_PER_INCH = 110


def draw(results: Mapping[str, Any], path: Path) -> str | None:
    """Draw results, in the form of the JSON file, to a PNG. Returns None, or the reason why there is no plot."""
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is not installed"
    matplotlib.use("Agg")
    workloads = [entry for entry in results["workloads"] if not entry["skipped"] and _completed(entry)]
    micro = {name: by_loop for name, by_loop in results["micro"].items() if name in BENCHMARKS}
    if not workloads and not micro:
        return "nothing was measured that could be drawn"
    figure = _figure(results, workloads, micro)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return None


def _completed(workload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in workload["results"] if "rate" in entry]


def _figure(results: Mapping[str, Any], workloads: list[Mapping[str, Any]], micro: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure

    rows = -(-len(workloads) // COLUMNS)
    micro_height = MICRO_ROW_HEIGHT * len(micro) + 1.2 if micro else 0.0
    lines = _legend_lines(workloads)
    legend_height = LEGEND_LINE_HEIGHT * (max(map(len, lines)) + 1) if workloads else 0.0
    heights = [PANEL_HEIGHT] * rows + [height for height in (micro_height, legend_height) if height]
    figure = Figure(figsize=(PANEL_WIDTH * COLUMNS, sum(heights) + 0.7), layout="constrained")
    about = results["machine"]
    figure.suptitle(
        f"Event loops compared: {about['python']}, {about['processor']}, {about['cores']} cores, "
        f"medians of {results['timing']['rounds']} interleaved rounds",
        fontsize=11,
    )
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for number, workload in enumerate(workloads):
        _draw_workload(figure.add_subplot(grid[number // COLUMNS, number % COLUMNS]), workload)
    if micro:
        _draw_micro(figure.add_subplot(grid[rows, :]), micro)
    if workloads:
        _draw_legend(figure.add_subplot(grid[-1, :]), lines)
    return figure


def _legend_lines(workloads: list[Mapping[str, Any]]) -> list[list[tuple[str, str]]]:
    """For each column of the legend its lines: a name, or nothing where a line goes on, and a text."""
    columns: list[list[tuple[str, str]]] = [[] for _ in range(LEGEND_COLUMNS)]
    in_a_column = -(-len(workloads) // LEGEND_COLUMNS)
    for number, workload in enumerate(workloads):
        texts = textwrap.wrap(workload["title"], LEGEND_WIDTH)
        names = [workload["name"], *[""] * (len(texts) - 1)]
        columns[number // in_a_column] += zip(names, texts, strict=True)
    return columns


def _draw_legend(axes: Any, columns: list[list[tuple[str, str]]]) -> None:
    axes.set_axis_off()
    most = max(map(len, columns))
    for column, lines in enumerate(columns):
        for row, (name, text) in enumerate(lines):
            place = {"y": 1 - (row + 1) / (most + 1), "transform": axes.transAxes, "fontsize": 7.5}
            axes.text(x=column / LEGEND_COLUMNS, s=name, fontweight="bold", **place)
            axes.text(x=column / LEGEND_COLUMNS + 0.12, s=text, **place)


def _draw_workload(axes: Any, workload: Mapping[str, Any]) -> None:
    """A bar for each contender: its length is the rate, the text has the CPU time."""
    entries = workload["results"]
    names = [name_of(entry["contender"]) for entry in entries]
    rates = [entry["rate"]["median"] if "rate" in entry else 0.0 for entry in entries]
    colours = [COLOURS.get(entry["contender"], OTHER_COLOUR) for entry in entries]
    axes.barh(names, rates, color=colours, xerr=_whiskers(entries), error_kw={"ecolor": "#555555", "elinewidth": 0.8})
    axes.invert_yaxis()
    axes.set_title(workload["name"], fontsize=9)
    most = max(one["rate"] for entry in entries for one in entry["rounds"])
    axes.set_xlim(0, most * 1.4)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value / 1000:g}k" if value else "0")
    axes.tick_params(labelsize=8)
    axes.set_xlabel("requests/s (whiskers: smallest and largest round)", fontsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for position, entry in enumerate(entries):
        end = max((one["rate"] for one in entry["rounds"]), default=0.0) if "rate" in entry else 0.0
        text = f"{entry['cpu_us']['median']:.2f} µs CPU" if "rate" in entry else "failed"
        axes.text(end + most * 0.03, position, text, va="center", fontsize=7.5)


def _whiskers(entries: list[Mapping[str, Any]]) -> list[list[float]]:
    below, above = [], []
    for entry in entries:
        rates = [one["rate"] for one in entry["rounds"]] if "rate" in entry else [0.0]
        middle = entry["rate"]["median"] if "rate" in entry else 0.0
        below.append(middle - min(rates))
        above.append(max(rates) - middle)
    return [below, above]


def _draw_micro(axes: Any, micro: Mapping[str, Mapping[str, Any]]) -> None:
    """A row for each benchmark, a dot for each loop, on a logarithmic scale."""
    loops = list(dict.fromkeys(loop for by_loop in micro.values() for loop in by_loop))
    for loop in loops:
        points = [
            (by_loop[loop]["median_ns"], row)
            for row, by_loop in enumerate(micro.values())
            if "median_ns" in by_loop.get(loop, {})
        ]
        colour = COLOURS.get(loop, OTHER_COLOUR)
        size = 90 if loop == "hoop" else 45
        axes.scatter([x for x, _ in points], [y for _, y in points], s=size, color=colour, label=loop, zorder=3)
    axes.set_xscale("log")
    axes.set_yticks(range(len(micro)), [BENCHMARKS[name].title for name in micro])
    axes.invert_yaxis()
    axes.grid(axis="both", color="#e5e5e5", zorder=0)
    axes.tick_params(labelsize=8)
    axes.set_title("micro benchmarks: ns per operation, further left is faster", fontsize=9, loc="left")
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(loops), frameon=False)


def main() -> None:
    """Draw a results file."""
    parser = argparse.ArgumentParser(prog="python -m bench.plot")
    parser.add_argument("results", type=Path)
    parser.add_argument("plot", type=Path)
    arguments = parser.parse_args()
    problem = draw(json.loads(arguments.results.read_text()), arguments.plot)
    if problem:
        raise SystemExit(f"no plot: {problem}")


if __name__ == "__main__":
    main()
