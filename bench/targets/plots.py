"""The plots beside RESULTS.md: bars of the servers, latency, and curves against message size, connections and more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.build import BENCH
from bench.plot import COLOURS, OTHER_COLOUR
from bench.report import name_of
from bench.results import median
from bench.targets.figures import HOOP, NODE, Figure
from bench.targets.sizes import CONNECTIONS, KINDS, SIZES, STATES, SizeCell
from bench.targets.tables import UNITS
from bench.workloads import WORKLOADS, size_name

FOLDER = BENCH / "plots"
NAMES = {  # of the files, and what they show
    "servers": "CPU time of each request, by workload",
    "latency": "Percentiles of latency in an open loop",
    "sizes": "CPU time of an echo against the size of its message",
    "curves": "Throughput against connections, and other curves",
}
DOTS_PER_INCH = 75
PANEL_WIDTH, PANEL_HEIGHT = 3.6, 2.4  # inches
COLUMNS = 4
CURVE = re.compile(r"(?P<series>[\w/-]+)/(?P<number>\d+)")
PERCENTILES = {"p50_us": "p50", "p99_us": "p99", "p999_us": "p99.9"}
FURTHER_COLOURS = {"aiofastnet": "#b56576", NODE: "#3c873a"}


def file_name(name: str, python: str) -> str:
    return f"{name}-{python}.png"


def draw_all(figures: Mapping[str, Figure], content: Mapping[str, Any], python: str) -> list[str]:
    """Draw every plot for which there are figures; returns lines that say which, or why there is none."""
    try:
        import matplotlib
    except ImportError:
        return ["no plots: matplotlib is not installed"]
    matplotlib.use("Agg")
    FOLDER.mkdir(exist_ok=True)
    about = content["machine"]
    lines = []
    for name, draw in (("servers", _servers), ("latency", _latency), ("sizes", _sizes), ("curves", _curves)):
        path = FOLDER / file_name(name, python)
        picture = draw(figures)
        if picture is None:
            path.unlink(missing_ok=True)
            lines.append(f"no plot of {name}: nothing was measured")
            continue
        picture.suptitle(f"{NAMES[name]}: {about['python']}, {about['processor']}, {content['date']}", fontsize=10)
        _save(picture, path)
        lines.append(f"wrote {path}")
    return lines


def _save(picture: Any, path: Path) -> None:
    picture.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def colour_of(contender: str) -> str:
    return FURTHER_COLOURS.get(contender) or COLOURS.get(contender, OTHER_COLOUR)


def _grid(panels: int, columns: int = COLUMNS, height: float = PANEL_HEIGHT) -> tuple[Any, list[Any]]:
    """A picture, and the axes of its panels."""
    from matplotlib.figure import Figure as Picture

    columns = min(columns, panels)
    rows = -(-panels // columns)
    picture = Picture(figsize=(PANEL_WIDTH * columns, height * rows + 0.5), layout="constrained")
    axes = list(picture.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.set_axis_off()
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.spines["top"].set_visible(False)
        axis.spines["right"].set_visible(False)
    return picture, axes[:panels]


def _medians(figure: Figure, metric: str) -> dict[str, float]:
    return {name: median(values) for name in figure.metrics.get(metric, {}) if (values := figure.values(metric, name))}


def _servers(figures: Mapping[str, Figure]) -> Any:
    """A panel for each workload: the bar is CPU time, the text beside it the rate."""
    shown = [figures[one.name] for one in WORKLOADS if one.name in figures and _medians(figures[one.name], "cpu_us")]
    if not shown:
        return None
    picture, axes = _grid(len(shown))
    for axis, figure in zip(axes, shown, strict=True):
        found, rates = _medians(figure, "cpu_us"), _medians(figure, "rate")
        order = sorted(rates, key=lambda name: found[name])  # who has no rate is no server
        axis.barh([name_of(name) for name in order], [found[name] for name in order], color=[*map(colour_of, order)])
        axis.invert_yaxis()
        axis.set_xlim(0, max(found.values()) * 1.35)
        axis.set_title(figure.name, fontsize=8)
        axis.set_xlabel("µs of CPU for each request", fontsize=7)
        for place, name in enumerate(order):
            axis.text(found[name], place, f" {found[name]:.3g}; {rates[name] / 1000:.3g}k/s", va="center", fontsize=6.5)
    return picture


def _latency(figures: Mapping[str, Figure]) -> Any:
    """A panel for each load: a group of bars for each percentile."""
    shown = [figure for name, figure in figures.items() if name.startswith("latency/") and "p99_us" in figure.metrics]
    if not shown:
        return None
    picture, axes = _grid(len(shown), columns=2, height=2.8)
    for axis, figure in zip(axes, shown, strict=True):
        loops = list(_medians(figure, "p99_us"))
        width = 0.8 / max(len(loops), 1)
        for place, loop in enumerate(loops):
            heights = [_medians(figure, metric).get(loop, 0.0) for metric in PERCENTILES]
            places = [group + (place + 0.5) * width - 0.4 for group in range(len(PERCENTILES))]
            axis.bar(places, heights, width, color=colour_of(loop), label=name_of(loop))
        axis.set_xticks(range(len(PERCENTILES)), PERCENTILES.values())
        axis.set_yscale("log")
        axis.set_ylabel("µs", fontsize=7)
        axis.set_title(figure.title, fontsize=6.5)
        axis.legend(fontsize=6, frameon=False)
    return picture


def _sizes(figures: Mapping[str, Figure]) -> Any:
    """A panel for each kind of server and number of connections; whole lines are fresh, dashed ones churned."""
    panels = [(kind, connections) for connections in CONNECTIONS for kind in KINDS]
    if not any(name.rpartition("/")[2] in STATES for name in figures):
        return None
    picture, axes = _grid(len(panels), columns=len(KINDS))
    for axis, (kind, connections) in zip(axes, panels, strict=True):
        for state, style in zip(STATES, ("-", ":"), strict=True):
            curves: dict[str, list[tuple[float, float]]] = {}
            for size in SIZES:
                figure = figures.get(SizeCell(kind, size, connections, state).name)
                for name, value in (_medians(figure, "cpu_us") if figure else {}).items():
                    curves.setdefault(name, []).append((size, value))
            _draw_curves(axis, curves, style)
        axis.set_xticks(SIZES, [size_name(size) for size in SIZES])
        axis.minorticks_off()
        axis.set_title(f"{kind}, {connections} connection{'s' if connections > 1 else ''}", fontsize=8)
        axis.set_ylabel("µs of CPU", fontsize=7)
    axes[0].legend(fontsize=6, frameon=False)
    return picture


def _draw_curves(axis: Any, curves: Mapping[str, Sequence[tuple[float, float]]], style: str = "-") -> None:
    for name, points in curves.items():
        label = name_of(name) if style == "-" else None
        width = 1.8 if name == HOOP else 1.0
        order = sorted(points)
        axis.plot(*zip(*order, strict=True), style, marker=".", color=colour_of(name), label=label, linewidth=width)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.grid(color="#e5e5e5", linewidth=0.5)


def _curves(figures: Mapping[str, Figure]) -> Any:
    """A panel for each metric of each series of figures: NAME/1, NAME/10 and so on."""
    panels: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for name, figure in figures.items():
        if match := CURVE.fullmatch(name):
            for metric in figure.metrics:
                for contender, value in _medians(figure, metric).items():
                    panel = panels.setdefault((match["series"], metric), {})
                    panel.setdefault(contender, []).append((int(match["number"]), value))
    if not panels:
        return None
    picture, axes = _grid(len(panels), columns=3)
    for axis, ((series, metric), curves) in zip(axes, panels.items(), strict=True):
        _draw_curves(axis, curves)
        axis.set_title(series, fontsize=8)
        axis.set_ylabel(UNITS.get(metric, (metric, 0))[0], fontsize=7)
        axis.legend(fontsize=6, frameon=False)
    return picture
