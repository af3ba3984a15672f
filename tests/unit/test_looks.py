"""hoop.cluster.looks: what has happened between two looks at a loop."""

from __future__ import annotations

from typing import Any

import pytest
from hoop.cluster.looks import Looks, Sample, figures_between
from hoop.core.board import Lags
from hoop.stats import BoardReading


def reading(**given: Any) -> BoardReading:
    fields: dict[str, Any] = dict.fromkeys(BoardReading.__annotations__, 0)
    fields |= {"is_running": True, "busy_since": None, "lag": Lags(), "is_torn": False}
    return BoardReading(**fields | given)


def sample(at: float, cpu_s: float | None = 0.0, **given: Any) -> Sample:
    return Sample(at, reading(**given), cpu_s)


def test_rates_are_of_the_time_since_the_last_look() -> None:
    before = sample(10.0, 1.0, turns=5, accepts=100, requests=7, busy_ns=10**9)
    now = sample(12.0, 1.5, turns=9, accepts=110, requests=8, busy_ns=2 * 10**9, jobs=3)
    found = figures_between(before, now, began=0.0)
    assert found["seconds"] == 2.0
    assert (found["accepts_per_s"], found["requests_per_s"]) == (5.0, 0.5)
    assert (found["utilization"], found["cpu"], found["jobs"]) == (0.5, 0.25, 3)
    assert found["lag_p99"] is None


def test_the_first_look_is_at_all_of_its_life() -> None:
    found = figures_between(None, sample(12.0, 5.0, accepts=20, busy_ns=10**9), began=2.0)
    assert (found["seconds"], found["accepts_per_s"], found["utilization"], found["cpu"]) == (10.0, 2.0, 0.1, 0.5)


def test_a_blocked_loop_is_busy_and_late() -> None:
    """It counts nothing while its turn lasts: what it has not counted is what matters."""
    found = figures_between(sample(10.0), sample(11.0, busy_since=8.0), began=0.0)
    assert (found["utilization"], found["held"], found["lag_max"]) == (1.0, 3.0, 3.0)


def test_a_loop_that_does_not_run_holds_nothing() -> None:
    found = figures_between(None, sample(11.0, busy_since=8.0, is_running=False), began=0.0)
    assert (found["utilization"], found["held"], found["lag_max"]) == (0.0, 0.0, None)


def test_another_process_in_the_place_begins_anew() -> None:
    before = sample(10.0, turns=50, accepts=1000)
    assert figures_between(before, sample(20.0, turns=1, accepts=5), began=15.0)["accepts_per_s"] == 1.0


def test_no_processor_time_is_none() -> None:
    assert figures_between(None, sample(1.0, None), began=0.0)["cpu"] is None


def test_two_looks_at_the_same_moment_divide_by_no_zero() -> None:
    assert figures_between(sample(1.0), sample(1.0, accepts=1), began=0.0)["accepts_per_s"] == 1000


def test_each_client_has_looks_of_its_own() -> None:
    one, other = Looks(), Looks()
    for looks in (one, other):
        looks.figures(1, sample(1.0, accepts=1), 0.0)
    one.figures(1, sample(2.0, accepts=2), 0.0)
    assert one.figures(1, sample(3.0, accepts=4), 0.0)["accepts_per_s"] == 2.0
    assert other.figures(1, sample(3.0, accepts=5), 0.0)["accepts_per_s"] == 2.0
    one.keep(set())
    assert one.figures(1, sample(4.0, accepts=4), 0.0)["accepts_per_s"] == pytest.approx(1.0)
