"""How a figure is judged: a row of the table of targets, what it requires, and whether that is met."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.results import median, paired_ratio
from bench.targets.figures import HOOP, Figure

BEST = "best"  # stands for the best peer of the figure
TOLERANCE = 0.03  # of a comparison within a run: what a repetition of the same measurement differs by

MORE_IS_BETTER = ("rate",)
NOT_MEASURED = "not measured"
MET, WITHIN, MISSED = "met", "met within the tolerance", "missed"


@dataclass(frozen=True)
class Requirement:
    """At most, or of rates at least, `ratio` times what `base` has; without a base `ratio` is the figure itself.

    `since` and `before` bound the Pythons that it applies to.
    """

    ratio: float
    base: str | None = None
    since: tuple[int, int] = (3, 0)
    before: tuple[int, int] = (4, 0)

    def applies(self, version: tuple[int, int]) -> bool:
        return self.since <= version < self.before


@dataclass(frozen=True)
class Row:
    """One row of the table: a figure, the metric that is judged, and what is required of `ours`."""

    figure: str
    requirements: tuple[Requirement, ...]
    title: str = ""  # where the figure's own is not enough
    metric: str = "cpu_us"
    ours: str = HOOP


def compared(ratio: float, base: str = BEST, **bounds: tuple[int, int]) -> Requirement:
    """`ratio` times what another contender of the same figure has: the best peer, if none is named."""
    return Requirement(ratio, base, **bounds)


def itself(value: float) -> Requirement:
    """The figure itself."""
    return Requirement(value)


def row(figure: str, *requirements: Requirement, metric: str = "cpu_us", ours: str = HOOP, title: str = "") -> Row:
    """An entry of the table."""
    return Row(figure, requirements, title, metric, ours)


def judge(entry: Row, figures: Mapping[str, Figure], reason: str | None = None) -> list[dict[str, Any]]:
    """What became of each requirement of a row, for the tables and the results file. `reason` says why there is no such
    figure, if there is none.
    """
    figure = figures.get(entry.figure)
    version = sys.version_info[:2]
    verdicts = []
    for requirement in entry.requirements:
        if requirement.applies(version):
            verdict = _judge(entry, requirement, figure)
            if figure is None:
                verdict["why"] = reason or "its part did not hand over this figure"
            verdicts.append(verdict)
    return verdicts


def _judge(entry: Row, requirement: Requirement, figure: Figure | None) -> dict[str, Any]:
    verdict: dict[str, Any] = {
        "figure": entry.figure,
        "title": entry.title or (figure.title if figure else entry.figure),
        "metric": entry.metric,
        "ours": entry.ours,
        "required": requirement.ratio,
        "base": requirement.base,
        "verdict": NOT_MEASURED,
    }
    if figure is None:
        return verdict
    ours = figure.values(entry.metric, entry.ours)
    if entry.ours in figure.failures:
        return verdict | {"verdict": MISSED, "why": f"{entry.ours} failed: {figure.failures[entry.ours]}"}
    if not ours:
        return verdict | {"why": f"{entry.ours} was not measured"}
    verdict["value"] = median(ours)
    if requirement.base is None:
        return verdict | _against(entry.metric, median(ours), requirement.ratio, 0.0)
    base = best_peer(figure, entry.metric, entry.ours) if requirement.base == BEST else requirement.base
    theirs = figure.values(entry.metric, base) if base else {}
    ratio = paired_ratio(ours, theirs)
    if base is None or ratio is None:
        missing = "no peer" if base is None else figure.failures.get(base, f"{base} was not measured")
        return verdict | {"why": missing}
    verdict |= {"against": base, "against_value": median(theirs), "ratio": ratio}
    return verdict | _against(entry.metric, ratio, requirement.ratio, TOLERANCE)


def _against(metric: str, found: float, required: float, tolerance: float) -> dict[str, Any]:
    if metric in MORE_IS_BETTER:
        found, required = -found, -required
    slack = abs(required) * tolerance
    return {"verdict": MET if found <= required else WITHIN if found <= required + slack else MISSED}


def best_peer(figure: Figure, metric: str, ours: str) -> str | None:
    """The peer with the best median; None if there is no peer."""
    sign = -1 if metric in MORE_IS_BETTER else 1
    peers = figure.peers(metric, ours)
    return min(peers, key=lambda name: sign * median(figure.values(metric, name)), default=None)
