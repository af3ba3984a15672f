"""Measures a workload in interleaved rounds. In each, every contender has a new process; these are loaded by turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from bench.by_turns import Servers, turns_of
from bench.progress import Steps, bar
from bench.report import name_of
from bench.results import Series, WorkloadResult, median
from bench.rounds import Setting, contenders_of, round_order
from bench.workloads import Workload


def measure_workload(workload: Workload, loops: Sequence[str], setting: Setting) -> WorkloadResult:
    """All rounds of one workload. A contender that fails is not tried again; its reason stays in the result."""
    timing, steps = setting.timing, setting.steps
    result = WorkloadResult(workload.name, workload.title, client_spins=setting.cores.are_separate)
    contenders = contenders_of(workload, loops)
    missing = workload.missing_packages()
    if missing:
        result.skipped = f"{' and '.join(missing)} not installed"
        steps.advance(len(contenders) * timing.rounds)
        return result
    result.series = {contender: Series(contender) for contender in contenders}
    for number in range(timing.rounds):
        order = round_order(contenders, number)
        for together in [[one] for one in order] if workload.computes_always else [order]:
            _measure_together(workload, together, number, result, setting)
    return result


def _measure_together(
    workload: Workload, contenders: Sequence[str], number: int, result: WorkloadResult, setting: Setting
) -> None:
    """One round of contenders that are alive together."""
    timing = setting.timing.longer(workload.longer)
    first = number * turns_of(timing)
    failures = {name: series.failure for name, series in result.series.items() if series.failure is not None}
    with ExitStack() as stack:
        servers = Servers(workload, setting.cores, stack, failures, number)
        for contender in contenders:
            servers.start(contender)
        for turn in servers.by_turns(timing, contenders):
            result.series[turn.contender].samples[turn.number] = turn.sample
            setting.display.show(list(_live_lines(result, setting.steps, f"{workload.name}: {turn.contender}")))
    for contender, reason in failures.items():
        result.series[contender].failure = reason
    for contender in contenders:
        text = f"{workload.name}, round {number + 1}, {contender}: {_outcome(result.series[contender], first)}"
        steps = setting.steps
        steps.advance()
        setting.display.show(list(_live_lines(result, steps, text)), summary=f"[{steps.finished}/{steps.total}] {text}")


def _outcome(series: Series, first: int) -> str:
    if series.failure is not None:
        return f"failed: {series.failure}"
    rate, cpu_us = (
        median({number: value for number, value in series.values(metric).items() if number >= first})
        for metric in ("rate", "cpu_us")
    )
    return f"{rate:,.0f} req/s, {cpu_us:.2f} µs CPU/req"


def _live_lines(result: WorkloadResult, steps: Steps, text: str) -> Iterator[str]:
    """The bar of the whole run, and the standing in this workload."""
    yield steps.line(text)
    medians = {name: median(series.values("rate")) for name, series in result.series.items() if series.samples}
    most = max(medians.values(), default=1.0)
    for name, series in result.series.items():
        if series.failure is not None:
            yield f"  {name_of(name):<8} failed: {series.failure}"
        elif name in medians:
            text = f"{medians[name]:>9,.0f} req/s  {median(series.values('cpu_us')):>7.2f} µs CPU"
            yield f"  {name_of(name):<8} {bar(medians[name] / most)} {text}"
        else:
            yield f"  {name_of(name):<8}"
