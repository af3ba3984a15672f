"""The targets of the benchmark: how rows are judged, and that the table names figures that exist."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from bench.targets import results, run, tables
from bench.targets.figures import Figure
from bench.targets.parts import PARTS
from bench.targets.rows import MET, MISSED, NOT_MEASURED, WITHIN, Row, compared, itself, judge, row
from bench.targets.table import ROWS


def figure(name: str = "echo", metric: str = "cpu_us", failures: dict[str, str] | None = None, **values: Any) -> Figure:
    made = Figure(name, "echo, 1 KiB", failures=failures or {})
    for contender, rounds in values.items():
        made.add(metric, contender, rounds)
    return made


def verdict_of(entry: Row, made: Figure | None) -> dict[str, Any]:
    (verdict,) = judge(entry, {made.name: made} if made else {})
    return verdict


def test_the_best_peer_is_the_one_with_the_best_median() -> None:
    made = figure(hoop=[5.0, 5.0, 5.0], uvloop=[6.0, 6.1, 6.2], blazio=[9.0, 5.5, 5.4], c=[1.0, 1.0, 1.0])
    verdict = verdict_of(row("echo", compared(1.0)), made)
    assert (verdict["against"], verdict["verdict"]) == ("blazio", MET)
    assert verdict["ratio"] == pytest.approx(5.0 / 5.5)
    made = figure(metric="rate", hoop=[100], uvloop=[50], blazio=[70])
    verdict = verdict_of(row("echo", compared(1.5), metric="rate"), made)
    assert (verdict["against"], verdict["verdict"]) == ("blazio", MISSED)


@pytest.mark.parametrize(("ours", "expected"), [(4.9, MET), (5.0, MET), (5.14, WITHIN), (5.16, MISSED)])
def test_a_comparison_has_a_tolerance(ours: float, expected: str) -> None:
    assert verdict_of(row("echo", compared(0.5, "uvloop")), figure(hoop=[ours], uvloop=[10.0]))["verdict"] == expected
    inverse = figure(metric="rate", hoop=[25 / ours], uvloop=[10.0])
    if expected != WITHIN:
        assert verdict_of(row("echo", compared(0.5, "uvloop"), metric="rate"), inverse)["verdict"] == expected


def test_a_figure_of_its_own_has_none() -> None:
    assert verdict_of(row("echo", itself(5)), figure(hoop=[5.01]))["verdict"] == MISSED
    assert verdict_of(row("echo", itself(5)), figure(hoop=[5.0]))["verdict"] == MET


def test_what_was_not_measured_is_no_miss_but_a_failure_of_hoop_is() -> None:
    assert verdict_of(row("echo", compared(1.0)), None)["verdict"] == NOT_MEASURED
    lonely = verdict_of(row("echo", compared(1.0, "node")), figure(hoop=[5.0]))
    assert (lonely["verdict"], lonely["why"]) == (NOT_MEASURED, "node was not measured")
    crashed = figure(hoop=[5.0], uvloop=[6.0], failures={"hoop": "round 2: crashed"})
    assert verdict_of(row("echo", compared(1.0)), crashed)["verdict"] == MISSED
    theirs = figure(hoop=[5.0], uvloop=[6.0], failures={"uvloop": "crashed"})
    assert verdict_of(row("echo", compared(1.0)), theirs)["why"] == "no peer"


def test_who_stood_still_is_no_peer() -> None:
    made = figure(hoop=[5.0, 5.0, 5.0], zloop=[0.0, 0.0, 600.0], uvloop=[6.0, 6.0, 6.0])
    assert made.peers("cpu_us", "hoop") == ["uvloop"]
    assert verdict_of(row("echo", compared(1.0)), made)["against"] == "uvloop"


def test_hoop_in_another_guise_is_no_peer() -> None:
    made = figure(**{"fs on hoop": [4], "executor on hoop": [1], "executor on uvloop": [9], "blocking on asyncio": [2]})
    assert made.peers("cpu_us", "fs on hoop") == ["executor on uvloop"]


def test_requirements_of_other_pythons_are_left_out() -> None:
    entry = row("echo", compared(1.0, before=(3, 1)), compared(2.0, since=sys.version_info[:2]))
    assert [verdict["required"] for verdict in judge(entry, {})] == [2.0]


def test_rounds_of_a_second_look_count_beside_the_first() -> None:
    first, again = figure(hoop=[5, 6], uvloop=[7, 8]), figure(hoop=[1], uvloop=[2])
    first.extend(again)
    assert first.values("cpu_us", "hoop") == {0: 5, 1: 6, 2: 1}
    verdicts = [
        {"figure": "near", "verdict": MISSED, "ratio": 1.1, "required": 1.0},
        {"figure": "far", "verdict": MISSED, "ratio": 1.2, "required": 1.0},
        {"figure": "met", "verdict": MET, "ratio": 1.0, "required": 1.0},
    ]
    assert run.close_misses(verdicts) == ["near"]


def test_every_row_is_of_a_figure_that_a_part_has() -> None:
    lost = [entry.figure for entry in ROWS if not any(part.has(entry.figure) for part in PARTS)]
    assert not lost


def test_the_table_of_a_part() -> None:
    made = figure(hoop=[5.0], uvloop=[6.0], c=[4.0])
    made.add("rate", "hoop", [100_000])
    verdicts = judge(row("echo", compared(1.0), compared(1.05, "c")), {"echo": made})
    lines = tables.target_table(verdicts, {"echo": made}, "servers")
    assert "uvloop 6.00" in lines[3] and "C epoll 4.00" in lines[3] and "5.00 µs CPU/req, 100,000/s" in lines[3]
    assert lines[4].split() == ["≤", "1.05", "×", "C", "epoll", "1.250", "missed"]
    assert tables.summary(verdicts)[0] == "2 requirements: 1 met, 1 missed"


def test_a_figure_survives_the_results_file() -> None:
    made = figure(hoop=[5.0, 6.0], uvloop=[6.123456789], failures={"blazio": "crashed"})
    entry = json.loads(json.dumps(results.figure_as_json(made)))
    assert entry["metrics"]["cpu_us"] == {"hoop": [5.0, 6.0], "uvloop": [6.123]}
    again = results.figure_from_json("echo", entry)
    assert again.values("cpu_us", "hoop") == {0: 5.0, 1: 6.0} and again.failures == made.failures


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--loops", "nonsense"]])
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run.main(arguments)
    assert caught.value.code == 2
