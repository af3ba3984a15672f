"""The rows: what is measured, what is required, and where the table that shows it stands."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bench.pools import agent, workers

Found = dict[str, float]


@dataclass(frozen=True)
class Row:
    title: str
    unit: str
    measure: Callable[[], Coroutine[Any, Any, Found]]
    most: dict[str, float]  # by what is judged
    page: str


ROWS: dict[str, Row] = {
    "free": Row(
        "acquire and release of a free connection",
        "µs",
        agent.free_connection,
        {"hoop": 4.0, "hoop without peek": 3.0},
        "agent",
    ),
    "dead": Row("dead connections handed out, of 10,000 whose FIN had come", "", agent.dead_ones, {"hoop": 0}, "agent"),
    "waiters": Row("of 1,000 waiters, served out of their order", "", agent.waiters_in_order, {"hoop": 0}, "agent"),
    "idle": Row("wake-ups in 3 s beside 10,000 free connections", "", agent.idle_ones, {"hoop": 0}, "agent"),
    "small": Row("a small task, there and back", "µs", workers.small_round_trip, {"hoop": 50}, "worker_pool"),
    "large": Row("8 MiB of bytes there, a number back", "ms", workers.large_argument, {"hoop": 4.0}, "worker_pool"),
    "death": Row(
        "from a task that kills its worker to the next one's result",
        "ms",
        workers.after_a_death,
        {"hoop": 100},
        "worker_pool",
    ),
    "lag": Row(
        "p99 of a timer's lateness beside two workers that compute",
        "ms",
        workers.lag_beside_busy_workers,
        {"hoop, nice=5": 5},
        "worker_pool",
    ),
}
