"""The tables that the benchmark prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.loops import ALONE, C_SERVER, NODE
from bench.results import Series, WorkloadResult, median, spread

BASES = ("asyncio", "uvloop", C_SERVER, NODE)  # what ratios are shown against
DISTURBED_SHARE = 0.95  # a spinning client that got less of its core was disturbed by something
NOT_MEASURED = "–"
NAMES = {C_SERVER: "C epoll", NODE: "Node", ALONE: "Python alone"}


def name_of(contender: str) -> str:
    """How tables name a contender."""
    return NAMES.get(contender, contender)


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align cells: the first column to the left, all others to the right. A row of two cells is a name and a remark."""
    whole = [row for row in rows if len(row) == len(header)]
    widths = [max(len(row[column]) for row in [header, *whole]) for column in range(len(header))]
    widths[0] = max([widths[0], *(len(row[0]) for row in rows)])

    def line(row: Sequence[str]) -> str:
        if len(row) != len(header):
            return f"{row[0]:<{widths[0]}}  {'  '.join(row[1:])}"
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    return [line(header), "-" * len(line(header)), *(line(row) for row in rows)]


def workload_table(result: WorkloadResult, missing: Mapping[str, str]) -> list[str]:
    """The table of one workload; `missing` names loops that could not take part, and why."""
    lines = [result.title]
    if result.skipped:
        return [*lines, f"  not measured: {result.skipped}", ""]
    bases = [base for base in BASES if base in result.series]
    ratio_header = [f"/{name_of(base)}" for base in bases]
    header = ["loop", "req/s", "±", *ratio_header, "CPU µs/req", "±", *ratio_header, "p50 µs", "p99 µs"]
    rows = [_workload_row(result, series, bases) for series in result.series.values()]
    rows += [[name_of(name), reason] for name, reason in missing.items()]
    return [*lines, *(f"  {line}" for line in render_table(header, rows)), *_remarks(result), ""]


def _workload_row(result: WorkloadResult, series: Series, bases: Sequence[str]) -> list[str]:
    if not series.is_complete:
        return [name_of(series.contender), f"failed: {series.failure or 'no sample'}"]
    row = [name_of(series.contender)]
    for metric, digits in (("rate", 0), ("cpu_us", 2)):
        values = series.values(metric)
        ratios = result.ratios(series, metric)
        row += [f"{median(values):,.{digits}f}", f"{spread(values):.0%}"]
        row += [_ratio_cell(ratios, base, series.contender) for base in bases]
    return [*row, f"{median(series.values('p50_us')):,.1f}", f"{median(series.values('p99_us')):,.1f}"]


def _ratio_cell(ratios: Mapping[str, float], base: str, contender: str) -> str:
    if base == contender:
        return "1"
    return f"{ratios[base]:.2f}" if base in ratios else NOT_MEASURED


def _remarks(result: WorkloadResult) -> list[str]:
    remarks = []
    for series in result.series.values():
        unclosed = max((sample.unclosed for sample in series.samples.values()), default=0)
        if unclosed:
            name = name_of(series.contender)
            remarks.append(f"{name} left {unclosed} connections open after the end of the client's stream")
    samples = [sample for series in result.series.values() for sample in series.samples.values()]
    disturbed = sum(sample.client_busy < DISTURBED_SHARE for sample in samples)
    if disturbed and result.client_spins:
        remarks.append(f"in {disturbed} of {len(samples)} windows the client did not have its core to itself")
    return [f"  note: {remark}" for remark in remarks]


def micro_table(results: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], loops: Sequence[str]) -> list[str]:
    """Nanoseconds for each operation: `results[benchmark][loop]` has "median_ns", or "failure"."""
    failures: list[str] = []
    rows = []
    peers = [loop for loop in loops if loop != "hoop"]
    compares = "hoop" in loops and bool(peers)
    for benchmark, title in titles.items():
        by_loop = results.get(benchmark, {})
        medians = {loop: entry["median_ns"] for loop, entry in by_loop.items() if "median_ns" in entry}
        failures += [
            f"  {loop}, {title}: failed: {entry['failure']}" for loop, entry in by_loop.items() if "failure" in entry
        ]
        row = [title, *(_micro_cell(by_loop.get(loop, {})) for loop in loops)]
        if compares:
            best = min((medians[peer] for peer in peers if peer in medians), default=None)
            row.append(f"{medians['hoop'] / best:.2f}" if best and "hoop" in medians else NOT_MEASURED)
        rows.append(row)
    header = ["ns per operation", *loops, *(["hoop/best peer"] if compares else [])]
    return ["micro benchmarks", *(f"  {line}" for line in render_table(header, rows)), *failures, ""]


def _micro_cell(entry: Mapping[str, Any]) -> str:
    if "failure" in entry:
        return "failed"
    return f"{entry['median_ns']:,.0f}" if "median_ns" in entry else NOT_MEASURED
