"""The tables that `--targets` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import name_of, render_table
from bench.results import median
from bench.targets.figures import LIMITS, Figure
from bench.targets.rows import BEST, MET, MISSED, MORE_IS_BETTER, NOT_MEASURED, WITHIN

SHOWN = 4  # peers of a row, the best ones
SAME = 4  # cells that are left out where they repeat those of the line above
UNITS = {  # of metrics: what a figure is shown in, and how many digits
    "cpu_us": ("µs CPU/req", 2),
    "rate": ("req/s", 0),
    "ns": ("ns", 0),
    "us": ("µs", 1),
    "p99_us": ("µs", 0),
    "kib": ("KiB", 2),
    "user_us": ("µs user CPU/req", 2),
    "ms": ("ms", 1),
    "cpu_ms": ("ms CPU", 1),
    "mb": ("MB", 2),
}


def shown(metric: str, value: float, with_unit: bool = False) -> str:
    """A value as tables have it."""
    unit, digits = UNITS.get(metric, (metric, 2))
    return f"{value:,.{digits}f}" + (f" {unit}" if with_unit else "")


def requirement(verdict: Mapping[str, Any]) -> str:
    """What is required: "≤ 1.05 × C epoll"."""
    sign = "≥" if verdict["metric"] in MORE_IS_BETTER else "≤"
    if verdict["base"] is None:
        return f"{sign} {shown(verdict['metric'], verdict['required'], with_unit=True)}"
    base = "best" if verdict["base"] == BEST else name_of(verdict["base"])
    return f"{sign} {verdict['required']:.3g} × {base}"


def outcome(verdict: Mapping[str, Any]) -> str:
    """Met or not."""
    if verdict["verdict"] == NOT_MEASURED:
        return f"{NOT_MEASURED}: {verdict['why']}"
    if "why" in verdict:
        return f"{verdict['verdict']}: {verdict['why']}"
    return str(verdict["verdict"])


def _values(figure: Figure | None, verdict: Mapping[str, Any], is_limit: bool) -> str:
    """The others of a row, best first."""
    if figure is None:
        return "–"
    metric = verdict["metric"]
    names = [name for name in LIMITS if name != verdict["ours"]] if is_limit else figure.peers(metric, verdict["ours"])
    found = {name: median(values) for name in names if (values := figure.values(metric, name))}
    order = sorted(found, key=lambda name: found[name], reverse=metric in MORE_IS_BETTER)
    return ", ".join(f"{name_of(name)} {shown(metric, found[name])}" for name in order[:SHOWN]) or "–"


def target_row(verdict: Mapping[str, Any], figure: Figure | None) -> list[str]:
    """Row, peers, limit, hoop, target, ratio, met or not."""
    if verdict["verdict"] == NOT_MEASURED and "value" not in verdict:
        return [verdict["title"], outcome(verdict)]
    ours = shown(verdict["metric"], verdict["value"], with_unit=True) if "value" in verdict else "–"
    rates = figure.values("rate", verdict["ours"]) if figure and verdict["metric"] != "rate" else {}
    if rates:
        ours += f", {median(rates):,.0f}/s"
    ratio = f"{verdict['ratio']:.3f}" if "ratio" in verdict else "–"
    others = [_values(figure, verdict, is_limit) for is_limit in (False, True)]
    return [verdict["title"], *others, ours, requirement(verdict), ratio, outcome(verdict)]


def without_repeats(rows: Sequence[list[str]]) -> list[list[str]]:
    """The rows with the first cells of a further requirement of the same row left empty."""
    found: list[list[str]] = []
    before: list[str] = []
    for whole in rows:
        is_same = len(whole) > SAME and whole[:SAME] == before[:SAME]
        found.append([*[""] * SAME, *whole[SAME:]] if is_same else whole)
        before = whole
    return found


def target_table(verdicts: Sequence[Mapping[str, Any]], figures: Mapping[str, Figure], title: str) -> list[str]:
    """The table of one part."""
    if not verdicts:
        return [f"{title}: nothing is required", ""]
    rows = without_repeats([target_row(verdict, figures.get(verdict["figure"])) for verdict in verdicts])
    header = ["row", "peers", "limit", "hoop", "target", "ratio", "met"]
    return [title, *(f"  {line}" for line in render_table(header, rows)), ""]


def summary(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many are met, and which are not."""
    counts = {kind: sum(one["verdict"] == kind for one in verdicts) for kind in (MET, WITHIN, MISSED, NOT_MEASURED)}
    lines = [
        f"{len(verdicts)} requirements: " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    ]
    for verdict in verdicts:
        if verdict["verdict"] in (MISSED, NOT_MEASURED):
            ratio = f": {verdict['ratio']:.3f} of {name_of(verdict['against'])}" if "ratio" in verdict else ""
            lines.append(f"  {outcome(verdict)}: {verdict['title']}, {requirement(verdict)}{ratio}")
    return lines
