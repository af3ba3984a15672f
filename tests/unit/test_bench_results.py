"""RESULTS.md, its plots and the README's table: they are what the results files give."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from bench import scaled
from bench.targets import plots, report, results
from bench.targets.figures import Figure
from bench.targets.rows import compared, itself, judge, row
from bench.targets.sizes import CELLS


def content() -> dict[str, Any]:
    """Of a small run, as a results file has it."""
    made = [Figure("protocol-1k-10", "protocol echo"), Figure("micro/sleep_zero", "sleep(0)")]
    for place, name in enumerate(("hoop", "uvloop", "asyncio", "c")):
        made[0].add("cpu_us", name, [5.0 + place, 5.1 + place])
        made[0].add("rate", name, [200_000.0 - place, 190_000.0])
        made[1].add("ns", name, [100.0 * (place + 1)])
    for cell in CELLS:
        made.append(Figure(cell.name, cell.title))
        made[-1].add("cpu_us", "hoop", [cell.size / 100 + 5])
    for number in (1, 100):
        made.append(Figure(f"connections/{number}", "echo"))
        made[-1].add("rate", "hoop", [1e5])
    made.append(Figure("latency/echo-80", "open loop"))
    for metric in plots.PERCENTILES:
        made[-1].add(metric, "hoop", [70.0])
    figures = {figure.name: figure for figure in made}
    rows = [row("protocol-1k-10", compared(0.5), compared(1.0, "c")), row("micro/none", itself(3), metric="ns")]
    return {
        "date": "2030-01-02",
        "revision": "abcdef0",
        "machine": {"python": "CPython 3.13.9", "processor": "Some", "cores": 2, "system": "Linux 6"},
        "timing": {"timing": {"rounds": 2, "seconds": 0.5}, "size_timing": {"seconds": 0.1}},
        "loops": {"hoop": "0", "uvloop": "1.2"},
        "parts": {
            "servers": {"title": "servers under load", "revision": "1111111", "date": "2030-01-01", "load": 0.1},
            "micro": {"title": "single operations", "revision": "abcdef0", "date": "2030-01-02", "load": 3.0},
        },
        "rows": [
            verdict | {"part": "servers" if entry.metric == "cpu_us" else "micro"}
            for entry in rows
            for verdict in judge(entry, figures)
        ],
        "figures": {name: results.figure_as_json(figure) for name, figure in figures.items()},
    }


def test_the_page_of_results_is_what_the_files_give() -> None:
    """Else: python -m bench.targets.report."""
    assert report.RESULTS.read_text() == report.results_text(report.recorded())


def test_the_tables_of_readme_and_site_are_what_the_files_give() -> None:
    """Else: python -m bench.targets.report."""
    for page in report.MARKED:
        text = page.read_text()
        assert text == report.readme_text(text, report.recorded())


def test_the_page_tells_what_is_missed_and_what_was_not_measured() -> None:
    text = report.results_text([json.loads(results.dump(content()))])
    assert "3 requirements: 1 met, 1 missed, 1 not measured." in text
    assert "| protocol echo | ≤ 0.5 × best | 0.835 × uvloop |" in text
    assert "Measured on 2030-01-01, hoop at 1111111." in text
    assert "the load average was 3.0" in text
    assert "| micro/none | – | – | – | ≤ 3 ns | – | not measured: its part did not hand over this figure |" in text


def test_the_table_of_the_readme() -> None:
    text = report.readme_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", [content()])
    assert text.startswith(f"before\n{report.BEGIN}\n") and text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert "| protocol echo | 195,000 | 5.05 µs | 0.83 | 0.83 (uvloop) | 0.63 (C epoll) | 1.17 |" in text
    assert "| sleep(0) | 100 ns | 200 ns | 300 ns | uvloop 200 ns | 0.50 |" in text
    with pytest.raises(ValueError, match="measured: begin"):
        report.readme_text("no markers", [])


def test_every_plot_is_drawn_and_of_moderate_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plots, "FOLDER", tmp_path)
    made = content()
    lines = plots.draw_all(results.figures_of(made), made, "3.13")
    assert len(lines) == len(plots.NAMES)
    for name in plots.NAMES:
        drawn = (tmp_path / plots.file_name(name, "3.13")).read_bytes()
        assert drawn.startswith(b"\x89PNG") and len(drawn) < 300_000
    assert "nothing was measured" in plots.draw_all({}, made, "3.13")[0]
    assert not list(tmp_path.iterdir())


def test_a_results_file_has_a_line_for_each_metric() -> None:
    text = results.dump(content())
    assert json.loads(text) == content()
    assert '    "cpu_us": {"hoop": [5, 5.1], "uvloop": [6, 6.1], "asyncio": [7, 7.1], "c": [8, 8.1]},\n' in text


def test_memory_that_tuning_tells_of_is_that_of_the_results() -> None:
    rows = {
        "`asyncio.Protocol`": "asyncio.Protocol",
        "streams with their task: hoop's own; the others', asyncio's": "streams; hoop with its own compiled ones",
        "`asyncio.Protocol` over TLS 1.3": "asyncio.Protocol over TLS 1.3",
    }
    page = (report.ROOT / "docs" / "tuning.md").read_text()
    results = report.RESULTS.read_text()
    for told, measured in rows.items():
        ours, uvloop, asyncio = re.search(
            rf"^\| {re.escape(told)} \| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE
        ).groups()
        row = re.search(rf"^\| an idle connection: {re.escape(measured)} \| (.*uvloop.*)$", results, re.MULTILINE)[1]
        assert f"uvloop {uvloop}" in row and f"asyncio {asyncio}" in row and f"| {ours} KiB |" in row


def test_growth_is_told_by_neighbours_and_not_by_the_machine() -> None:
    calls = itertools.count()

    class Side:
        """On a machine that becomes slower and slower."""

        def __init__(self, cost_ns: float) -> None:
            self._cost_ns = cost_ns

        def cost_ns(self) -> float:
            return self._cost_ns * (1 + next(calls) // 2)

    found = scaled.measured(cast(Any, Side(100.0)), cast(Any, Side(110.0)), seconds=0.0)
    assert found["times"] == pytest.approx(1.1)
    assert found["ns"] == pytest.approx(110.0 * (scaled.LEAST_BATCHES + 1) / 2)
