"""The results file of `--targets`: machine, versions, date, every figure with its rounds, and the verdicts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.build import ROOT
from bench.loops import LOOPS
from bench.targets.figures import Figure, Session
from bench.targets.rows import TOLERANCE

FORMAT_VERSION = 1
DIGITS = 4  # significant ones that are kept of a figure: the file is committed


def revision() -> str:
    """The commit that is measured, with a "+" if files differ from it; nothing where there is no repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def rounded(value: float) -> float:
    """A value with DIGITS significant digits, whole if it has so many before the point."""
    found = float(f"{value:.{DIGITS}g}")
    return int(found) if found.is_integer() else found


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
    """The other way."""
    figure = Figure(name, entry["title"], failures=dict(entry.get("failures", {})))
    for metric, found in entry["metrics"].items():
        for contender, values in found.items():
            figure.add(metric, contender, values)
    return figure


def figures_of(content: Mapping[str, Any]) -> dict[str, Figure]:
    """All figures of a results file."""
    return {name: figure_from_json(name, entry) for name, entry in content["figures"].items()}


def as_json(
    figures: Mapping[str, Figure],
    verdicts: Sequence[Mapping[str, Any]],
    parts: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    session: Session,
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """The content of the file."""
    return {
        "format": FORMAT_VERSION,
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(),
        "machine": dict(about),
        "cores": session.cores.as_json(),
        "pace": session.cores.pace.as_json(),
        "timing": asdict(session.lengths),
        "tolerance": TOLERANCE,
        "loops": {name: LOOPS[name].version() for name in session.loops},
        "missing": dict(missing),
        "parts": dict(parts),
        "rows": [
            {key: rounded(value) if isinstance(value, float) else value for key, value in verdict.items()}
            for verdict in verdicts
        ],
        "figures": {name: figure_as_json(one) for name, one in figures.items()},
    }


def dump(content: Mapping[str, Any]) -> str:
    """The text of the file: a line for each verdict, and for each metric of a figure."""
    entries = []
    for key, value in content.items():
        if key == "rows":
            text = "[\n" + ",\n".join(f"  {_compact(one)}" for one in value) + "\n ]"
        elif key == "figures":
            text = "{\n" + ",\n".join(_figure_lines(value)) + "\n }"
        else:
            text = _compact(value)
        entries.append(f" {_compact(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _figure_lines(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, figure in figures.items():
        metrics = ",\n".join(
            f"    {_compact(metric)}: {_compact(found)}" for metric, found in figure["metrics"].items()
        )
        others = {key: value for key, value in figure.items() if key != "metrics"}
        inner = [f"   {_compact(key)}: {_compact(value)}" for key, value in others.items()]
        inner.append('   "metrics": {\n' + metrics + "\n   }")
        yield f"  {_compact(name)}: {{\n" + ",\n".join(inner) + "\n  }"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
