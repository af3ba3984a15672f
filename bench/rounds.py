"""Measures workloads in interleaved rounds: every contender once, then every contender again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.build import BENCH, program
from bench.loops import C_SERVER, NODE
from bench.measure import Cores
from bench.processes import CRASH_GRACE_S, START_LIMIT_S, ChildFailed, run_client, running
from bench.progress import Display, Steps, bar
from bench.report import name_of
from bench.results import Sample, Series, WorkloadResult, median
from bench.workloads import Workload

NODE_WARMUP_S = 1.0  # until its compiler has seen what is hot
CLIENT_EXTRA_LIMIT_S = 20.0  # for connecting and draining, beyond warm-up and window


@dataclass(frozen=True)
class Timing:
    """How long to measure."""

    rounds: int
    seconds: float  # of one window
    warmup_s: float


@dataclass(frozen=True)
class Setting:
    """What all measurements of a run share."""

    timing: Timing
    cores: Cores
    display: Display
    steps: Steps


def contenders_of(workload: Workload, loops: Sequence[str]) -> list[str]:
    """Who is measured on a workload, servers in C and in JavaScript first."""
    others = [C_SERVER] if workload.has_c_server else []
    if workload.node_server and has_node():
        others.append(NODE)
    return [*others, *filter(workload.takes, loops)]


def has_node() -> bool:
    """Whether Node is installed."""
    return shutil.which("node") is not None


def round_order(contenders: Sequence[str], number: int) -> list[str]:
    """Forwards in even rounds, backwards in odd ones: none always runs after the same one."""
    return list(contenders if number % 2 == 0 else reversed(contenders))


def server_command(workload: Workload, contender: str) -> list[str]:
    """The command line of the server program."""
    if contender == C_SERVER:
        return [program("echo_server"), *(["--copy"] if workload.server == "buffered_echo" else [])]
    if contender == NODE:
        return ["node", str(BENCH / "servers" / f"{workload.node_server}.js")]
    return [sys.executable, "-m", f"bench.servers.{workload.server}", "--loop", contender]


def measure_once(workload: Workload, contender: str, timing: Timing, cores: Cores) -> Sample:
    """Start the server, load it, stop it; again if the cores were slow. ChildFailed, with the reason, if anything goes
    wrong."""
    if contender == NODE:
        timing = replace(timing, warmup_s=max(timing.warmup_s, NODE_WARMUP_S))
    for _ in cores.pace.attempts():
        sample = _measure_server(workload, contender, timing, cores)
    return sample


def _measure_server(workload: Workload, contender: str, timing: Timing, cores: Cores) -> Sample:
    with running(server_command(workload, contender), cores.server) as server:
        try:
            port = int(server.read_json(START_LIMIT_S)["port"])
        except ChildFailed as failure:
            raise ChildFailed(f"server: {failure}") from None
        try:
            return load(workload, server.pid, port, timing, cores)
        except ChildFailed as failure:
            ending = server.ending(CRASH_GRACE_S)
            raise ChildFailed(f"server {ending}" if ending else str(failure)) from None


def load(workload: Workload, pid: int, port: int, timing: Timing, cores: Cores) -> Sample:
    """One window of a client; `pid` is the server whose CPU time counts. ChildFailed, with the reason, if anything goes
    wrong."""
    command = [program(workload.client), "--port", str(port), "--server-pid", str(pid)]
    command += ["--warmup", str(timing.warmup_s), "--duration", str(timing.seconds), *workload.client_arguments]
    if not cores.are_separate:
        command.append("--block")
    report = run_client(command, cores.client, timing.warmup_s + timing.seconds + CLIENT_EXTRA_LIMIT_S)
    if report["errors"]:
        first = " ".join(str(report["first_error"]).split())  # a response has lines
        raise ChildFailed(f"{report['errors']} errors, the first: {first}")
    try:
        return Sample.from_report(report)
    except (KeyError, ValueError) as error:
        raise ChildFailed(f"load generator: {error}") from None


def measure_workload(workload: Workload, loops: Sequence[str], setting: Setting) -> WorkloadResult:
    """All rounds of one workload. A contender that fails is not tried again; its reason stays in the result."""
    timing, display, steps = setting.timing, setting.display, setting.steps
    result = WorkloadResult(workload.name, workload.title, client_spins=setting.cores.are_separate)
    contenders = contenders_of(workload, loops)
    missing = workload.missing_packages()
    if missing:
        result.skipped = f"{' and '.join(missing)} not installed"
        steps.advance(len(contenders) * timing.rounds)
        return result
    result.series = {contender: Series(contender) for contender in contenders}
    for number in range(timing.rounds):
        for contender in round_order(contenders, number):
            series = result.series[contender]
            if series.failure is None:
                display.show(list(_live_lines(result, steps, f"{workload.name}, round {number + 1}: {contender}")))
                _add_sample(workload, series, number, setting)
                text = f"{workload.name}, round {number + 1}, {contender}: {_outcome(series, number)}"
                display.show(
                    list(_live_lines(result, steps, text)), summary=f"[{steps.finished + 1}/{steps.total}] {text}"
                )
            steps.advance()
    return result


def _add_sample(workload: Workload, series: Series, number: int, setting: Setting) -> None:
    try:
        series.samples[number] = measure_once(workload, series.contender, setting.timing, setting.cores)
    except ChildFailed as failure:
        series.failure = f"round {number + 1}: {failure}"


def _outcome(series: Series, number: int) -> str:
    sample = series.samples.get(number)
    if sample is None:
        return f"failed: {series.failure}"
    return f"{sample.rate:,.0f} req/s, {sample.cpu_us:.2f} µs CPU/req, p99 {sample.p99_us:,.0f} µs"


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
