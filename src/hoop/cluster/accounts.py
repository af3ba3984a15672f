"""What a cluster's workers have counted, also those that are gone: by slots, so that sums never fall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from hoop.figures import BOUNDS, REQUESTS, Buckets, Sample, counters_of
from hoop.stats import BoardReading

Key = tuple[str, str]  # the figure's name, and the state, where it has one
Sums = dict[Key, float | Buckets]


class Placed(Protocol):
    """What is needed of a worker's record."""

    @property
    def slot(self) -> int: ...
    @property
    def name(self) -> str: ...


class Accounts:
    """snapshot: of the program that this process had before, as snapshot() returned it; None: nothing has happened."""

    def __init__(self, snapshot: Mapping[str, Any] | None = None) -> None:
        self.retired: dict[str, Sums] = {}  # by place_name()
        self.restarts: Counter[str] = Counter()  # by reason
        self.reloads: Counter[str] = Counter()  # by outcome
        if snapshot is not None:
            self.restarts.update(snapshot["restarts"])
            self.reloads.update(snapshot["reloads"])
            for place, sums in snapshot["retired"].items():
                self.retired[place] = {(name, state): restored(value) for name, state, value in sums}

    def snapshot(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "restarts": self.restarts,
            "reloads": self.reloads,
            "retired": {place: [[*key, value] for key, value in sums.items()] for place, sums in self.retired.items()},
        }

    def retire(self, place: str, reading: BoardReading) -> None:
        """The worker is gone: what it has counted stays."""
        add(self.retired.setdefault(place, {}), counted(reading))

    def totals(self, living: Iterable[tuple[str, BoardReading]]) -> dict[str, Sums]:
        """By place: of those that are gone, and of those that live."""
        totals = {place: dict(sums) for place, sums in self.retired.items()}
        for place, reading in living:
            add(totals.setdefault(place, {}), counted(reading))
        return totals


def counted(reading: BoardReading) -> Iterable[Sample]:
    yield from counters_of(reading)
    yield Sample(REQUESTS, {}, reading.requests)


def add(sums: Sums, samples: Iterable[Sample]) -> None:
    for sample in samples:
        key = sample.figure.name, sample.labels.get("state", "")
        before = sums.get(key)
        if before is None:
            sums[key] = sample.value
        elif isinstance(before, Buckets) and isinstance(sample.value, Buckets):
            sums[key] = both(before, sample.value)
        elif not isinstance(before, Buckets) and not isinstance(sample.value, Buckets):
            sums[key] = before + sample.value


def both(one: Buckets, other: Buckets) -> Buckets:
    within = tuple([a + b for a, b in zip(one.within, other.within, strict=True)])
    return Buckets(within, one.total + other.total, one.sum_s + other.sum_s)


def restored(value: Any) -> float | Buckets:
    """What was Buckets before it was JSON. Another version's bounds: how long its lags were is not known any more."""
    if not isinstance(value, list):
        return float(value) if isinstance(value, float) else int(value)
    within, total, sum_s = value
    known = tuple(within) if len(within) == len(BOUNDS) else (0,) * len(BOUNDS)
    return Buckets(known, total, sum_s)


def place_name(record: Placed) -> str:
    """A slot's number, or the name of a role: never a process's number, of which there is no end."""
    return str(record.slot) if record.slot >= 0 else record.name
