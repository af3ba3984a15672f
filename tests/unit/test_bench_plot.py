"""The plot: every text is inside the picture, and no two of them overlap."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from bench import plot
from bench.micro import BENCHMARKS
from bench.workloads import WORKLOADS

LOOPS = ("hoop", "asyncio", "uvloop", "blazio", "zloop", "rloop")


def contender(name: str, rate: float) -> dict[str, Any]:
    rounds = [{"rate": rate * share} for share in (0.9, 1.0, 1.2)]
    return {"contender": name, "rate": {"median": rate}, "cpu_us": {"median": 1e6 / rate}, "rounds": rounds}


def results(workloads: int) -> dict[str, Any]:
    """Of a run of that many workloads, as in the results file; one loop has failed."""
    failed = {"contender": "rloop", "failure": "crashed", "rounds": []}
    return {
        "machine": {"python": "CPython 3.13.0", "processor": "Some Processor @ 2.40GHz", "cores": 2},
        "timing": {"rounds": 3},
        "workloads": [
            {
                "name": workload.name,
                "title": workload.title,
                "skipped": None,
                "results": [*(contender(name, 1e5 + 1e4 * place) for place, name in enumerate(LOOPS[:-1])), failed],
            }
            for workload in WORKLOADS[:workloads]
        ],
        "micro": {
            name: {loop: {"median_ns": 100.0 * 3**place} for place, loop in enumerate(LOOPS)} for name in BENCHMARKS
        },
    }


def shown_texts(figure: Any) -> list[tuple[str, Any]]:
    """Each text and its place, without the numbers of the x-axes: matplotlib keeps some that it does not draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    numbers = {id(label) for axes in figure.axes for label in axes.get_xticklabels(which="both")}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and id(text) not in numbers]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]


@pytest.mark.parametrize("workloads", [1, 4, len(WORKLOADS)])
def test_no_text_is_cut_or_covers_another(workloads: int) -> None:
    pytest.importorskip("matplotlib")
    data = results(workloads)
    figure = plot._figure(data, data["workloads"], data["micro"])
    texts = shown_texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
    for (text, box), (other, its) in itertools.combinations(texts, 2):
        overlap = min(box.x1, its.x1) - max(box.x0, its.x0) > 1 and min(box.y1, its.y1) - max(box.y0, its.y0) > 1
        assert not overlap, (text, other)


def test_every_workload_is_in_the_legend(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = results(len(WORKLOADS))
    figure = plot._figure(data, data["workloads"], {})
    shown = " ".join(text for text, _ in shown_texts(figure))
    assert all(workload.name in shown for workload in WORKLOADS)
    assert plot.draw(data, tmp_path / "plot.png") is None
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
