"""The arithmetic and the tables of the benchmark, and the histogram of its load generators."""

from __future__ import annotations

import ctypes
import io
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.progress import Display, Steps, bar
from bench.report import micro_table, render_table, workload_table
from bench.results import Sample, Series, WorkloadResult, median, paired_ratio, spread
from bench.rounds import round_order

ROOT = Path(__file__).resolve().parents[2]


def sample(rate: float, cpu_us: float, *, client_busy: float = 1.0, unclosed: int = 0) -> Sample:
    return Sample(rate, cpu_us, 50.0, 90.0, 100.0, 1000, 1.0, 0.99, client_busy, unclosed=unclosed)


def result_of(*series: Series) -> WorkloadResult:
    return WorkloadResult("echo", "echo, 1 KiB", {one.contender: one for one in series})


def test_sample_from_what_a_client_prints() -> None:
    report = {
        "requests": 2000,
        "seconds": 0.5,
        "p50_us": 1,
        "p99_us": 2,
        "p999_us": 2.5,
        "max_us": 3,
        "server_cpu_seconds": 0.01,
        "client_cpu_seconds": 0.25,
    }
    made = Sample.from_report(report)
    assert (made.p99_us, made.p999_us, made.max_us) == (2.0, 2.5, 3.0)
    assert (made.rate, made.cpu_us, made.server_busy, made.client_busy) == (4000.0, 5.0, 0.02, 0.5)
    with pytest.raises(ValueError, match="no request was answered"):
        Sample.from_report(report | {"requests": 0})


def test_median_and_spread() -> None:
    values = {0: 100.0, 1: 110.0, 2: 90.0}
    assert median(values) == 100.0
    assert spread(values) == pytest.approx(0.2)
    assert spread({0: 7.0}) == 0.0


def test_a_ratio_is_taken_within_rounds() -> None:
    """The machine became three times slower after the first round: the ratio of the medians would be far off."""
    ours = {0: 300.0, 1: 100.0, 2: 100.0}
    theirs = {0: 150.0, 1: 50.0, 3: 1.0}
    assert paired_ratio(ours, theirs) == 2.0
    assert paired_ratio(ours, {7: 1.0}) is None
    assert paired_ratio({0: 1.0}, {0: 0.0}) is None


def test_rounds_alternate_in_order() -> None:
    assert [round_order("abc", number) for number in range(3)] == [list("abc"), list("cba"), list("bca")]


def test_the_table_shows_medians_ratios_and_what_is_missing() -> None:
    hoop = Series("hoop", {0: sample(200_000, 5.0), 1: sample(220_000, 5.2), 2: sample(210_000, 5.1)})
    uvloop = Series("uvloop", {0: sample(100_000, 10.0), 1: sample(110_000, 10.4), 2: sample(105_000, 10.2)})
    broken = Series("rloop", {0: sample(1, 1)}, failure="round 2: server was killed by SIGSEGV")
    lines = workload_table(result_of(hoop, uvloop, broken), {"zloop": "not installed"})
    rows = {line.split()[0]: line.split() for line in lines[3:] if line}
    assert rows["hoop"] == ["hoop", "210,000", "10%", "2.00", "5.10", "4%", "0.50", "50.0", "90.0"]
    assert rows["uvloop"][3] == "1"
    assert " ".join(rows["rloop"]) == "rloop failed: round 2: server was killed by SIGSEGV"
    assert " ".join(rows["zloop"]) == "zloop not installed"


def test_a_failed_base_gives_no_ratio() -> None:
    hoop = Series("hoop", {0: sample(10, 1)})
    lines = workload_table(result_of(hoop, Series("uvloop", failure="round 1: no answer within 20 s")), {})
    assert next(line for line in lines if "hoop" in line).split()[3] == "–"
    assert result_of(hoop).as_json()["results"][0]["rate"]["ratio_to"] == {}


def test_notes_tell_of_disturbances() -> None:
    series = Series("hoop", {0: sample(10, 1, client_busy=0.6), 1: sample(10, 1, unclosed=3)})
    notes = [line for line in workload_table(result_of(series), {}) if "note:" in line]
    assert len(notes) == 2
    assert "left 3 connections open" in notes[0]
    assert "in 1 of 2 windows" in notes[1]


def test_a_skipped_workload_says_why() -> None:
    result = WorkloadResult("uvicorn", "uvicorn", skipped="httptools not installed")
    assert "not measured: httptools not installed" in "\n".join(workload_table(result, {}))


def test_columns_are_aligned() -> None:
    assert render_table(["loop", "n", "±"], [["a", "1,000", "5%"], ["bcdefg", "failed: x"]]) == [
        "loop        n   ±",
        "-----------------",
        "a       1,000  5%",
        "bcdefg  failed: x",
    ]


def test_micro_table_compares_with_the_best_peer() -> None:
    results = {
        "sleep": {
            "hoop": {"median_ns": 400.0},
            "asyncio": {"median_ns": 2000.0},
            "uvloop": {"median_ns": 1000.0},
            "rloop": {"failure": "TypeError"},
        }
    }
    lines = micro_table(results, {"sleep": "sleep(0)"}, ["hoop", "asyncio", "uvloop", "rloop"])
    assert lines[3].split() == ["sleep(0)", "400", "2,000", "1,000", "failed", "0.40"]
    assert "rloop, sleep(0): failed: TypeError" in lines[4]


def test_without_a_terminal_the_display_writes_lines() -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.show(["live"], summary="one")
    display.show(["live only"])
    display.show(["live"], summary="too soon", interval_s=60)
    display.say(["table"])
    assert stream.getvalue() == "one\ntable\n"


def test_steps_and_bar() -> None:
    steps = Steps(4)
    steps.advance()
    assert "1/4" in steps.line("x")
    steps.advance(9)
    assert "4/4" in steps.line("x")
    assert bar(0.5, 4) == "[##..]"
    assert bar(7, 2) == "[##]"


@pytest.fixture(scope="module")
def histogram(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("histogram") / "histogram.so"
    source = ROOT / "bench" / "c" / "histogram.c"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True, timeout=60)
    loaded = ctypes.CDLL(str(library))
    loaded.histogram_add.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    loaded.histogram_percentile_ns.argtypes = [ctypes.c_void_p, ctypes.c_double]
    loaded.histogram_percentile_ns.restype = ctypes.c_uint64
    return loaded


def test_histogram_percentiles_are_close_from_above(histogram: ctypes.CDLL) -> None:
    generator = random.Random(1)
    values = [int(10 ** generator.uniform(0, 10)) for _ in range(5000)] + list(range(200))
    memory = ctypes.create_string_buffer(64 * 1024)  # more than the structure has; cleared is empty
    for value in values:
        histogram.histogram_add(memory, value)
    values.sort()
    for fraction in (0.001, 0.25, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(0, -(-int(fraction * 1e6) * len(values) // 1_000_000) - 1)]
        found = histogram.histogram_percentile_ns(memory, fraction)
        assert exact <= found <= exact * (1 + 1 / 64) + 1


def test_histogram_takes_any_value(histogram: ctypes.CDLL) -> None:
    memory = ctypes.create_string_buffer(64 * 1024)
    assert histogram.histogram_percentile_ns(memory, 0.5) == 0
    for value in (-5, 0, 1 << 39, (1 << 40) - 1, 1 << 40, 1 << 62):
        histogram.histogram_add(memory, value)
    assert histogram.histogram_percentile_ns(memory, 0.1) == 0
    assert histogram.histogram_percentile_ns(memory, 1.0) <= 1 << 62
