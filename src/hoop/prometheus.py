"""Metrics of a loop as Prometheus reads them.

    hoop.prometheus.render()      # the text, to be served by the application's own server
    prometheus_client.REGISTRY.register(hoop.prometheus.Collector())      # beside the application's metrics

For all workers of a cluster the master answers by itself: see `metrics_bind` of hoop.cluster.Options. Names are listed
in docs/metrics.md. Text exposition format 0.0.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hoop.figures import BOUNDS, Buckets, Figure, Sample, Sources

if TYPE_CHECKING:
    from hoop.agent.agent import Agent
    from hoop.workers.pool import WorkerPool

__all__ = ["CONTENT_TYPE", "Collector", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TYPES = {"counter": "counter", "sum": "gauge", "gauge": "gauge", "histogram": "histogram"}
ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
BOUND_TEXTS = (*map(repr, BOUNDS), "+Inf")


def render(
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    agents: Mapping[str, Agent] | None = None,
    worker_pools: Mapping[str, WorkerPool] | None = None,
) -> str:
    """The metrics of a loop, by default the running one, with its pool and with agents and worker pools by names that
    become labels. Counters are those since the first call for a loop.

    In the loop's thread, or while it does not run; to be asked from others make a Collector. RuntimeError without a
    running loop, TypeError for a loop that is not hoop's.
    """
    return text_of(Sources(loop, agents, worker_pools).samples())


class Collector:
    """For registries of prometheus_client: collect() may be called in any thread. Made where render() may be called.

    A collector that was made before fork(2) has nothing to tell in the child; make one in each process.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        agents: Mapping[str, Agent] | None = None,
        worker_pools: Mapping[str, WorkerPool] | None = None,
    ) -> None:
        self._sources = Sources(loop, agents, worker_pools)

    def describe(self) -> list[Any]:
        """Nothing: registries need not collect to know the names."""
        return []

    def collect(self) -> Iterator[Any]:
        """prometheus_client's metric families."""
        make: Any = import_module("prometheus_client.core").Metric
        for figure, samples in by_figure(self._sources.samples()).items():
            name = figure.prometheus_name
            metric = make(name.removesuffix("_total"), figure.help, TYPES[figure.kind])
            for sample in samples:
                for suffix, labels, value in lines_of(sample):
                    metric.add_sample(name + suffix, labels, float(value))
            yield metric


def text_of(samples: Iterable[Sample]) -> str:
    """The exposition of samples, in the order of their figures."""
    lines: list[str] = []
    for figure, its_samples in by_figure(samples).items():
        name = figure.prometheus_name
        lines.append(f"# HELP {name} {figure.help.translate(ESCAPED_HELP)}\n# TYPE {name} {TYPES[figure.kind]}\n")
        for sample in its_samples:
            if isinstance(sample.value, Buckets):
                lines += histogram_lines(name, sample.labels, sample.value)
            else:
                lines.append(f"{name}{in_braces(sample.labels)} {sample.value!r}\n")
    return "".join(lines)


ESCAPED_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


def by_figure(samples: Iterable[Sample]) -> dict[Figure, list[Sample]]:
    """Each figure once, in the order of coming."""
    found: dict[Figure, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.figure, []).append(sample)
    return found


def lines_of(sample: Sample) -> Iterator[tuple[str, dict[str, str], float]]:
    """The suffix of the name, the labels and the value of each line of a sample."""
    labels = dict(sample.labels)
    if not isinstance(sample.value, Buckets):
        yield "", labels, sample.value
        return
    for bound, count in zip(BOUND_TEXTS, (*sample.value.within, sample.value.total), strict=True):
        yield "_bucket", {**labels, "le": bound}, count
    yield "_count", labels, sample.value.total
    yield "_sum", labels, sample.value.sum_s


def histogram_lines(name: str, labels: Mapping[str, str], value: Buckets) -> Iterator[str]:
    """As lines_of(), with the labels written once: most lines of a page are of histograms."""
    own = "".join([f'{label}="{escaped(text)}",' for label, text in labels.items()])
    for bound, count in zip(BOUND_TEXTS, (*value.within, value.total), strict=True):
        yield f'{name}_bucket{{{own}le="{bound}"}} {count}\n'
    braces = in_braces(labels)
    yield f"{name}_count{braces} {value.total}\n"
    yield f"{name}_sum{braces} {value.sum_s!r}\n"


def in_braces(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{label}="{escaped(text)}"' for label, text in labels.items()]) + "}"


def escaped(text: str) -> str:
    return text if text.isalnum() else text.translate(ESCAPED)
