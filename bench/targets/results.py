"""The results file of `--targets`: machine, versions, date, every figure with its rounds, and the verdicts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.build import ROOT
from bench.loops import LOOPS
from bench.targets.figures import Figure, Session
from bench.targets.rows import TOLERANCE

FORMAT_VERSION = 1
DIGITS = 5  # significant ones that are kept of a figure: the file is committed


def revision() -> str:
    """The commit that is measured, with a "+" if files differ from it; nothing where there is no repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def figure_as_json(figure: Figure) -> dict[str, Any]:
    """By metric and contender the values in the order of the rounds."""
    metrics = {
        metric: {
            name: [rounded(value) for _, value in sorted(rounds.items())] for name, rounds in found.items() if rounds
        }
        for metric, found in figure.metrics.items()
    }
    entry: dict[str, Any] = {"title": figure.title, "metrics": metrics}
    return entry | ({"failures": figure.failures} if figure.failures else {})


def figure_from_json(name: str, entry: Mapping[str, Any]) -> Figure:
    figure = Figure(name, entry["title"], failures=dict(entry.get("failures", {})))
    for metric, found in entry["metrics"].items():
        for contender, values in found.items():
            figure.add(metric, contender, values)
    return figure


def as_json(
    figures: Mapping[str, Figure],
    verdicts: Sequence[Mapping[str, Any]],
    parts: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    session: Session,
    missing: Mapping[str, str],
    kept: Mapping[str, Any] | None,
) -> str:
    """The text of the file; `kept` is an earlier one, whose other figures and parts stay."""
    content = {
        "format": FORMAT_VERSION,
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(),
        "machine": about,
        "cores": asdict(session.cores),
        "timing": asdict(session.lengths),
        "tolerance": TOLERANCE,
        "loops": {name: LOOPS[name].version() for name in session.loops},
        "missing": dict(missing),
        "parts": (kept["parts"] if kept else {}) | parts,
        "rows": list(verdicts),
        "figures": (kept["figures"] if kept else {}) | {name: figure_as_json(one) for name, one in figures.items()},
    }
    return _dump(content)


def _dump(content: Mapping[str, Any]) -> str:
    """A line for each row, and for each contender of a figure."""
    return json.dumps(content, indent=1) + "\n"
