"""examples/grafana_dashboard.json asks for what hoop tells, and for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hoop
from hoop.figures import FIGURES, OF_CLUSTERS, OF_LOOPS, OF_PERIODS

DASHBOARD = Path(__file__).resolve().parents[2] / "examples" / "grafana_dashboard.json"
SUFFIXES = ("_bucket", "_count", "_sum")
NAMES = {figure.prometheus_name: figure for figure in FIGURES if figure not in OF_PERIODS}
OF_PROMETHEUS = {"job", "le"}  # labels that it adds, and that of histograms


def expressions(value: Any) -> Iterator[str]:
    """PromQL wherever it stands: of panels, and of variables."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query") and isinstance(inner, str) and "hoop_" in inner:
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def figure_of(name: str) -> Any:
    if name not in NAMES:
        base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), "")
        return NAMES[base] if base in NAMES and NAMES[base].kind == "histogram" else None
    return NAMES[name] if NAMES[name].kind != "histogram" else None


def faults(expression: str) -> list[str]:
    wrong = []
    for name, braces in re.findall(r"\b(hoop_\w+)(?:\{(.*?)\})?", expression):
        figure = figure_of(name)
        if figure is None:
            wrong.append(name)
            continue
        labels = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", re.sub(r'"[^"]*"', "", braces)))
        slot = set() if figure in OF_CLUSTERS and figure.labels else {"slot"}
        wrong += [f"{name}: {label}" for label in sorted(labels - set(figure.labels) - OF_PROMETHEUS - slot)]
        if figure.kind in ("counter", "histogram") and f"({name}" not in expression.replace("label_values(", "("):
            wrong.append(f"{name}: a counter by itself")
    return wrong


def test_it_uses_names_and_labels_that_are_told():
    found = list(expressions(json.loads(DASHBOARD.read_text())))
    assert len(found) > 15
    assert [fault for expression in found for fault in faults(expression)] == []


def test_what_it_uses_is_rendered():
    """By one process, but for what a cluster alone has."""
    loop = hoop.Loop()
    text = hoop.prometheus.render(loop)
    loop.close()
    rendered = set(re.findall(r"^(hoop_\w+)", text, re.MULTILINE))
    of_clusters = {figure.prometheus_name for figure in OF_CLUSTERS}
    used = set(re.findall(r"hoop_\w+", " ".join(expressions(json.loads(DASHBOARD.read_text())))))
    assert used - rendered - of_clusters == set()
    assert {figure.prometheus_name for figure in OF_LOOPS if figure.kind != "histogram"} <= rendered


def test_panels_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and all(x < 24 for x, _ in cells)
        taken |= cells


def test_names_that_are_not_told_are_found():
    assert faults("sum(hoop_nothing)") == ["hoop_nothing"]
    assert faults("rate(hoop_eventloop_delay_seconds[1m])") == ["hoop_eventloop_delay_seconds"]
    assert faults('rate(hoop_eventloop_turns_total{pid="1"}[1m])') == ["hoop_eventloop_turns_total: pid"]
    assert faults("hoop_eventloop_turns_total > 1") == ["hoop_eventloop_turns_total: a counter by itself"]
