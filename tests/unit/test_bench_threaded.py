"""bench.threaded: what its figures are made of."""

from __future__ import annotations

import pytest
from bench.threaded.loopback import Course, Window
from bench.threaded.model import LOOPS, factors, serial_parts

pytestmark = pytest.mark.once


def course(processes_us: float, loops_us: float, gc_share: float = 0.0) -> Course:
    made = Course()
    for shape, cpu_us in {"1 loop": 5.0, "2 processes": processes_us, "2 loops": loops_us}.items():
        made.windows[shape] = [Window(1e5, cpu_us, 0.4, gc_share)] * 3
    return made


def test_loops_that_cost_each_other_nothing_are_twice_as_much() -> None:
    assert course(6.0, 5.0).factor("1 loop") == 2.0
    assert course(6.0, 6.0).factor("2 processes") == 2.0
    assert course(6.0, 12.0).factor("2 processes") == 1.0


def test_nothing_serial_scales_with_the_loops_and_all_serial_not_at_all() -> None:
    assert factors(0.0, 5.0) == list(LOOPS)
    assert factors(5.0, 5.0) == [1.0] * len(LOOPS)


def test_what_the_collector_takes_is_not_counted_again_as_shared() -> None:
    parts = serial_parts(course(5.0, 6.0, gc_share=0.1), accept_us=0.5)
    assert (parts.accept, parts.collector, parts.shared) == (0.5, pytest.approx(0.6), pytest.approx(0.4))
    assert serial_parts(course(6.0, 5.0), 0.0).whole == 0.0
