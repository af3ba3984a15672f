"""/metrics of a cluster: all workers, as the master sees them on the board. No worker is asked, none is woken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hoop.cluster.accounts import place_name
from hoop.cluster.stacks import rss_of
from hoop.cluster.supervisor import Stage, Supervisor, Worker
from hoop.figures import (
    CONNECTIONS,
    GENERATION,
    HOLD,
    IN_FLIGHT,
    MEMORY,
    OF_CLUSTERS,
    OF_LOOPS,
    RELOADS,
    RESTARTS,
    WANTED,
    WORKER_COUNT,
    Figure,
    Sample,
    held_s,
)
from hoop.prometheus import text_of
from hoop.stats import BoardReading

COUNTED = {figure.name: figure for figure in (*OF_LOOPS, *OF_CLUSTERS)}
REASONS = ("blocked", "died", "recycled", "reload", "start")


def metrics_page(master: Any) -> tuple[int, str]:
    """The status, and the text."""
    return 200, text_of(samples_of(master)).removesuffix("\n")


def samples_of(master: Any) -> Iterator[Sample]:
    """Counters by slot, with what former workers of the slot have counted; gauges of the processes that there are."""
    records = sorted(master.records.values(), key=lambda record: (record.slot < 0, abs(record.slot)))
    readings = [(record, record.post.read()) for record in records]
    accounts = master.watch.accounts
    supervisor = master.supervisor
    stages = Counter({stage.value: 0 for stage in Stage})
    stages.update(worker.stage.value for worker in supervisor.workers.values() if worker.slot >= 0)
    for stage, count in stages.items():
        yield Sample(WORKER_COUNT, {"state": stage}, count)
    yield Sample(WANTED, {}, len(supervisor.slots))
    for reason in REASONS:
        yield Sample(RESTARTS, {"reason": reason}, accounts.restarts[reason])
    for outcome in ("done", "failed"):
        yield Sample(RELOADS, {"outcome": outcome}, accounts.reloads[outcome])
    totals = accounts.totals([(place_name(record), reading) for record, reading in readings])
    for place, sums in totals.items():
        for (name, state), value in sums.items():
            figure = COUNTED.get(name)
            if figure is not None:  # else another version of hoop has counted it
                yield Sample(figure, {"slot": place, "state": state} if state else {"slot": place}, value)
    yield from gauges(readings)


def gauges(readings: list[tuple[Any, BoardReading]]) -> Iterator[Sample]:
    """By slot; while one worker follows another there are two in a slot."""
    places: dict[str, list[tuple[Any, BoardReading]]] = {}
    for record, reading in readings:
        places.setdefault(place_name(record), []).append((record, reading))
    for figure, together, value_of in GAUGES:
        for place, pairs in places.items():
            yield Sample(figure, {"slot": place}, together([value_of(*pair) for pair in pairs]))


GAUGES: tuple[tuple[Figure, Callable[[list[float]], float], Callable[[Any, BoardReading], float]], ...] = (
    (HOLD, max, lambda record, reading: held_s(reading)),
    (CONNECTIONS, sum, lambda record, reading: reading.connections),
    (IN_FLIGHT, sum, lambda record, reading: reading.jobs),
    (GENERATION, max, lambda record, reading: record.generation),
    (MEMORY, sum, lambda record, reading: rss_of(record.pid) or 0),
)


def why_replaced(supervisor: Supervisor, worker: Worker) -> str | None:
    """The reason for RESTARTS, as a worker's process has ended; None: no other one takes its place."""
    if supervisor.is_stopping or worker.slot >= len(supervisor.slots):
        return None
    if not worker.leaves:
        return "start" if not worker.has_served else "died" if worker.death is None else "blocked"
    return "reload" if worker.generation != supervisor.generation else "recycled"
