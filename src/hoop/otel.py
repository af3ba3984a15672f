"""Metrics of a loop by OpenTelemetry.

    hoop.otel.instrument()        # in each process, once its loop is there

Needs opentelemetry-api (pip install 'hoop[otel]') and uses nothing else: which SDK exports what, and where to, is the
application's choice. Names are listed in docs/metrics.md; they follow those of OpenTelemetry's nodejs.eventloop.* and
db.client.connection.*.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hoop.core.board import Lags
from hoop.figures import (
    DELAYS,
    GENERATION,
    OF_AGENTS,
    OF_LOOPS,
    OF_PERIODS,
    OF_POOLS,
    OF_WORKER_POOLS,
    PERCENTILES,
    UTILIZATION,
    WORKER_COUNT,
    Figure,
    Sample,
    Sources,
)
from hoop.stats import BoardReading

if TYPE_CHECKING:
    from hoop.agent.agent import Agent
    from hoop.workers.pool import WorkerPool

__all__ = ["instrument", "resource_attributes"]

MAKERS = {
    "counter": "create_observable_counter",
    "sum": "create_observable_up_down_counter",
    "gauge": "create_observable_gauge",
}


def instrument(
    meter_provider: Any = None,
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    agents: Mapping[str, Agent] | None = None,
    worker_pools: Mapping[str, WorkerPool] | None = None,
) -> None:
    """Have meter_provider, by default the global one, observe a loop, by default the running one, with its pool and
    with agents and worker pools by names that become attributes.

    In the loop's thread, or while it does not run. In a cluster: in each worker, after the fork. Nothing wakes the loop
    for it: readers look at what the loop writes down anyway.

    ImportError without opentelemetry-api, RuntimeError without a running loop, TypeError for a loop that is not hoop's.
    """
    try:
        metrics: Any = import_module("opentelemetry.metrics")
    except ImportError as error:
        raise ImportError("hoop.otel needs opentelemetry-api: pip install 'hoop[otel]'") from error
    observed = Observed(Sources(loop, agents, worker_pools), metrics.Observation)
    meter = metrics.get_meter("hoop", vars(sys.modules["hoop"])["__version__"], meter_provider)
    figures = [*OF_LOOPS, *OF_PERIODS, *OF_POOLS]
    figures += [*(OF_AGENTS if agents else ()), *(OF_WORKER_POOLS if worker_pools else ())]
    if current_worker() is not None:
        figures += [WORKER_COUNT, GENERATION]
    for figure in figures:
        if figure.kind in MAKERS:
            make = getattr(meter, MAKERS[figure.kind])
            make(figure.name, callbacks=[observed.callback(figure)], unit=figure.unit, description=figure.help)


def resource_attributes() -> dict[str, str]:
    """For the Resource of a meter provider in a worker of a cluster: who among the workers this process is, by its
    slot, which its successors will have, too. Elsewhere: which process of this machine.

    Returns service.instance.id.
    """
    worker = current_worker()
    if worker is None:
        own = str(os.getpid())
    else:
        own = f"{worker.id}" if worker.role is None else f"{worker.role}-{worker.id}"
    return {"service.instance.id": f"{socket.gethostname()}-{own}"}


def current_worker() -> Any:
    """hoop.cluster.worker; None in a process that is none. (Who is one has loaded the module.)"""
    module = sys.modules.get("hoop.cluster.worker_process")
    return None if module is None else module.current


class Observed:
    """What the callbacks of one set of instruments observe: in one collection all of them see the same moment."""

    def __init__(self, sources: Sources, observation: Callable[..., Any]) -> None:
        self._sources = sources
        self._observation = observation
        self._lock = threading.Lock()  # readers have threads of their own
        self._asked: set[Figure] = set()  # in the collection under way
        self._samples: dict[Figure, list[Sample]] = {}
        self._last = sources.reading(), time.monotonic()
        self._is_fresh = False

    def callback(self, figure: Figure) -> Callable[[Any], Iterable[Any]]:
        """For the instrument of a figure."""

        def observe(options: Any) -> Iterable[Any]:
            return [
                self._observation(
                    sample.value, {figure.attribute(label): text for label, text in sample.labels.items()}
                )
                for sample in self._of(figure)
            ]

        return observe

    def _of(self, figure: Figure) -> list[Sample]:
        if self._sources.is_inherited:  # the lock is the parent's, too, and may be held for ever
            return self._sources.samples()  # none; it says why, once
        with self._lock:
            if figure in self._asked or not self._is_fresh:  # its instrument is asked once in a collection
                self._asked.clear()
                self._samples = self._collect()
                self._is_fresh = True
            self._asked.add(figure)
            return self._samples.get(figure, [])

    def _collect(self) -> dict[Figure, list[Sample]]:
        found: dict[Figure, list[Sample]] = {}
        reading, now = self._sources.reading(), time.monotonic()
        (before, then), self._last = self._last, (reading, now)
        for sample in [
            *self._sources.samples(),
            *of_period(before, reading, now - then),
            *of_worker(self._sources.loop),
        ]:
            found.setdefault(sample.figure, []).append(sample)
        return found


def of_period(before: BoardReading, now: BoardReading, seconds: float) -> Iterable[Sample]:
    """Gauges of the time between two readings of one loop."""
    if seconds > 0:
        yield Sample(UTILIZATION, {}, min(1.0, (now.busy_ns - before.busy_ns) / 1e9 / seconds))
    lags: Lags = now.lag.since(before.lag)
    if lags.count:
        for part, percentile in PERCENTILES.items():
            yield Sample(DELAYS[part], {}, lags.percentile_ns(percentile) / 1e9)
        yield Sample(DELAYS["mean"], {}, lags.sum_ns / lags.count / 1e9)


def of_worker(loop: Any) -> Iterable[Sample]:
    """Each worker counts itself: the sum over all of them is how many there are."""
    worker = current_worker()
    if worker is not None:
        state = "draining" if loop.is_draining() else "serving" if worker._is_ready else "starting"
        yield Sample(WORKER_COUNT, {"state": state}, 1)
        yield Sample(GENERATION, {}, worker.generation)
