"""What the loops of processes have done between two looks at them: rates and shares, of counters that only rise.

Whoever looks again and again has Looks of its own, so that one client's figures do not depend on another's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hoop.stats import BoardReading

SHORTEST_S = 1e-3  # between two looks: rates of less say nothing


@dataclass(frozen=True)
class Sample:
    """One process at one moment."""

    at: float  # time.monotonic()
    reading: BoardReading
    cpu_s: float | None  # processor time since the process began; None: the system does not tell


class Looks:
    """What was seen last, of each process."""

    def __init__(self) -> None:
        self._seen: dict[int, Sample] = {}

    def figures(self, key: int, sample: Sample, began: float) -> dict[str, Any]:
        """What has happened since the last look at the process of that key, or, at the first one, since it began."""
        before = self._seen.get(key)
        self._seen[key] = sample
        return figures_between(before, sample, began)

    def keep(self, keys: Collection[int]) -> None:
        """Forget all others: they are gone."""
        self._seen = {key: sample for key, sample in self._seen.items() if key in keys}


def figures_between(before: Sample | None, now: Sample, began: float) -> dict[str, Any]:
    """Times in seconds. The turn that has not ended counts, too: else a loop that is blocked would look idle."""
    if before is not None and now.reading.turns < before.reading.turns:
        before = None  # another process has taken the place
    seconds = max(now.at - (began if before is None else before.at), SHORTEST_S)
    held = held_of(now)
    lag = now.reading.lag if before is None else now.reading.lag.since(before.reading.lag)
    busy = busy_of(now) - (0.0 if before is None else busy_of(before))
    spent = None if now.cpu_s is None else now.cpu_s - (before.cpu_s or 0.0 if before is not None else 0.0)
    return {
        "seconds": round(seconds, 3),
        "cpu": None if spent is None else round(max(spent, 0.0) / seconds, 4),
        "accepts_per_s": rate("accepts", before, now, seconds),
        "requests_per_s": rate("requests", before, now, seconds),
        "utilization": round(min(max(busy / seconds, 0.0), 1.0), 4),
        "lag_p50": lag.percentile_ns(50) / 1e9 if lag.count else None,
        "lag_p99": lag.percentile_ns(99) / 1e9 if lag.count else None,
        "lag_max": max(lag.max_ns / 1e9, held) if lag.count or held else None,
        "held": round(held, 6),
        "jobs": now.reading.jobs,
    }


def rate(name: str, before: Sample | None, now: Sample, seconds: float) -> float:
    counted: int = getattr(now.reading, name) - (0 if before is None else getattr(before.reading, name))
    return round(counted / seconds, 2)


def held_of(sample: Sample) -> float:
    """For how long the turn has lasted that the loop is in; 0 while it sleeps or does not run."""
    since = sample.reading.busy_since
    return max(sample.at - since, 0.0) if sample.reading.is_running and since is not None else 0.0


def busy_of(sample: Sample) -> float:
    return sample.reading.busy_ns / 1e9 + held_of(sample)
