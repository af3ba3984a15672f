"""The figures of a run, and the arithmetic on them: medians, spreads, and ratios within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One measured window of one server."""

    rate: float  # requests per second
    cpu_us: float  # server CPU time per request, microseconds
    p50_us: float
    p99_us: float
    max_us: float
    requests: float  # of large messages also parts
    seconds: float
    server_busy: float  # share of a core: 1.0 is one core all the time
    client_busy: float
    p999_us: float = 0.0
    late_p99_us: float = 0.0  # of an open loop: how late the generator itself was
    unclosed: int = 0  # connections that the server left open after the end of the client's stream

    @staticmethod
    def from_report(report: Mapping[str, Any]) -> Sample:
        """From what a load generator printed. ValueError if nothing was answered."""
        requests, seconds = float(report["requests"]), float(report["seconds"])
        if requests == 0 or seconds <= 0:
            raise ValueError("no request was answered")
        cpu_s = float(report["server_cpu_seconds"])
        return Sample(
            rate=requests / seconds,
            cpu_us=cpu_s / requests * 1e6,
            p50_us=float(report["p50_us"]),
            p99_us=float(report["p99_us"]),
            max_us=float(report["max_us"]),
            requests=requests,
            seconds=seconds,
            server_busy=cpu_s / seconds,
            client_busy=float(report["client_cpu_seconds"]) / seconds,
            p999_us=float(report["p999_us"]),
            late_p99_us=float(report.get("late_p99_us", 0.0)),
            unclosed=int(report.get("unclosed", 0)),
        )


@dataclass
class Series:
    """The samples of one contender on one workload, by round; `failure` says why there are no more."""

    contender: str
    samples: dict[int, Sample] = field(default_factory=dict)
    failure: str | None = None

    def values(self, metric: str) -> dict[int, float]:
        """One metric of each round."""
        return {number: float(getattr(sample, metric)) for number, sample in self.samples.items()}

    @property
    def is_complete(self) -> bool:
        return self.failure is None and bool(self.samples)


@dataclass
class WorkloadResult:
    """All contenders on one workload. `skipped` says why nothing was measured, `client_spins` whether the client had a
    core of its own to spin on."""

    name: str
    title: str
    series: dict[str, Series] = field(default_factory=dict)
    skipped: str | None = None
    client_spins: bool = True

    def as_json(self) -> dict[str, Any]:
        """For the results file: every sample, and what the table shows."""
        return {
            "name": self.name,
            "title": self.title,
            "skipped": self.skipped,
            "results": [self._series_as_json(series) for series in self.series.values()],
        }

    def _series_as_json(self, series: Series) -> dict[str, Any]:
        rounds = [{"round": number} | asdict(sample) for number, sample in sorted(series.samples.items())]
        entry: dict[str, Any] = {"contender": series.contender, "failure": series.failure, "rounds": rounds}
        if series.is_complete:
            for metric in ("rate", "cpu_us", "p50_us", "p99_us"):
                values = series.values(metric)
                entry[metric] = {"median": median(values), "spread": spread(values)}
                if metric in ("rate", "cpu_us"):
                    entry[metric]["ratio_to"] = self.ratios(series, metric)
        return entry

    def ratios(self, series: Series, metric: str) -> dict[str, float]:
        """This contender's metric over that of every other one that completed the workload."""
        return {
            other.contender: ratio
            for other in self.series.values()
            if other.is_complete
            and other is not series
            and (ratio := paired_ratio(series.values(metric), other.values(metric))) is not None
        }


def median(values: Mapping[int, float]) -> float:
    """The median over the rounds."""
    return statistics.median(values.values())


def spread(values: Mapping[int, float]) -> float:
    """The distance of the largest from the smallest value, as a share of the median."""
    middle = median(values)
    return (max(values.values()) - min(values.values())) / middle if middle else 0.0


def paired_ratio(values: Mapping[int, float], base: Mapping[int, float]) -> float | None:
    """The median of the ratios within each round that both have; None if there is none.

    Within a round both ran within seconds of each other: a machine that slows down between rounds does not move it.
    """
    ratios = [values[number] / base[number] for number in values.keys() & base.keys() if base[number]]
    return statistics.median(ratios) if ratios else None
