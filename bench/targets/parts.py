"""The parts of the benchmark that hand over figures to `--targets`, in the order in which they run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench import alone, file_rounds, idle_memory, imports, latency, micro_rounds, scaling
from bench.build import TLS_FILE
from bench.loops import ALONE, LOOPS
from bench.processes import START_LIMIT_S, ChildFailed, running
from bench.rounds import Setting, contenders_of
from bench.serving import figures as serving
from bench.targets import sizes
from bench.targets.figures import Figure, NotMeasured, Part, Session, figure_of_workload, figures_of_micro
from bench.workload_rounds import measure_workload
from bench.workloads import WORKLOADS, Workload

NOT_JUDGED = ("limited-1k-10",)  # has no peer
IMPORT_ROUNDS = 10


def whole_loops(session: Session) -> list[str]:
    """The loops that are measured on more than some kinds of server."""
    return [name for name in session.loops if LOOPS[name].servers is None]


# ---- servers under load ----------------------------------------------------------------------------------------------


def _wanted_workloads(only: Sequence[str] | None) -> list[Workload]:
    return [one for one in WORKLOADS if one.name not in NOT_JUDGED and (only is None or one.name in only)]


def _count_servers(session: Session, only: Sequence[str] | None) -> int:
    contenders = sum(len(contenders_of(one, session.loops)) for one in _wanted_workloads(only))
    return contenders * session.rounds(session.lengths.timing.rounds)


def _measure_servers(session: Session, only: Sequence[str] | None) -> list[Figure]:
    timing = replace(session.lengths.timing, rounds=session.rounds(session.lengths.timing.rounds))
    setting = Setting(timing, session.cores, session.display, session.steps)
    figures = []
    for workload in _wanted_workloads(only):
        result = measure_workload(workload, session.loops, setting)
        if not result.skipped:
            figures.append(figure := figure_of_workload(result))
            if workload.name in alone.ALONE:
                figure.add("cpu_us", ALONE, [_measured_alone(workload.name, session) for _ in range(timing.rounds)])
    return figures


def _measured_alone(name: str, session: Session) -> float:
    """What its Python code takes without a loop, in a process on the server's core."""
    with running([sys.executable, "-m", "bench.alone", name], session.cores.server) as child:
        return float(child.read_json(START_LIMIT_S)["cpu_us"])


# ---- what else the benchmark has -------------------------------------------------------------------------------------


def _operations(only: Sequence[str] | None) -> list[str]:
    return [name for name in micro_rounds.TITLES if only is None or f"micro/{name}" in only]


def _count_micro(session: Session, only: Sequence[str] | None) -> int:
    return len(_operations(only)) * session.rounds(session.lengths.micro_rounds)


def _measure_micro(session: Session, only: Sequence[str] | None) -> list[Figure]:
    names, seconds = _operations(only), session.lengths.micro_seconds
    rounds = micro_rounds.MicroRounds(whole_loops(session), seconds, session.display, session.steps, names)
    found = rounds.measure(session.rounds(session.lengths.micro_rounds))
    return figures_of_micro(found, {name: micro_rounds.TITLES[name] for name in names})


def _count_files(session: Session, _only: Sequence[str] | None) -> int:
    return file_rounds.count_steps(whole_loops(session), session.rounds(session.lengths.micro_rounds))


def _measure_files(session: Session, _only: Sequence[str] | None) -> list[Figure]:
    lengths = session.lengths
    outcomes = file_rounds.measure_all(
        whole_loops(session),
        session.rounds(lengths.micro_rounds),
        lengths.micro_seconds,
        session.cores.pace,
        session.display,
        session.steps,
    )
    figures = {name: Figure(f"files/{name}", title) for name, (_, title) in file_rounds.WORKLOADS.items()}
    for outcome in outcomes:
        for name, figure in figures.items():
            if outcome["failure"] is not None:
                figure.failures[outcome["contender"]] = outcome["failure"]
            else:
                figure.add("us", outcome["contender"], outcome["us"][name])
                figure.add("cpu_us", outcome["contender"], outcome["cpu_us"][name])
    return list(figures.values())


def _latency_view(session: Session) -> latency.View:
    timing = replace(session.lengths.timing, rounds=session.rounds(session.lengths.timing.rounds))
    timing = latency.in_short_windows(timing)
    loops = [name for name in session.loops if name in latency.LOOPS_COMPARED]
    return latency.View(loops, timing, session.cores, session.display, session.steps)


def _count_latency(session: Session, only: Sequence[str] | None) -> int:
    view = _latency_view(session)
    return latency.count_steps(latency.all_names() if only is None else only, view.loops, view.timing.rounds)


def _measure_latency(session: Session, only: Sequence[str] | None) -> list[Figure]:
    if not session.cores.are_separate:
        raise NotMeasured("the generator needs a core of its own")
    try:
        found = latency.measure_all(_latency_view(session), latency.all_names() if only is None else only)
    except ChildFailed as failure:
        raise NotMeasured(f"saturation: {failure}") from None
    return [Figure(one.name, one.title, one.metrics, one.failures) for one in found]


def _held(only: Sequence[str] | None) -> list[str]:
    return [name for name in idle_memory.SERVERS if only is None or f"memory/{name}" in only]


def _count_memory(session: Session, only: Sequence[str] | None) -> int:
    return len(_held(only)) * session.rounds(1)


def _measure_memory(session: Session, only: Sequence[str] | None) -> list[Figure]:
    """One round tells: but what an allocator keeps from before hides as much of the growth, now and then."""
    figures = []
    for name in _held(only):
        figure = Figure(f"memory/{name}", f"an idle connection: {idle_memory.SERVERS[name]}")
        for _ in range(session.rounds(1)):
            _add_memory(figure, session, name)
            session.steps.advance()
        if name != "tls_echo" or TLS_FILE.exists():
            figures.append(figure)
    return figures


def _add_memory(figure: Figure, session: Session, server: str) -> None:
    options = idle_memory.Options(session.lengths.held)
    for outcome in idle_memory.measure_all(session.loops, options, session.cores, session.display, [server]):
        if outcome["failure"] is not None:
            figure.failures[outcome["loop"]] = outcome["failure"]
            continue
        for metric, stage in (("kib", "echoed"), ("opened_kib", "opened"), ("bulk_kib", "bulk")):
            figure.add(metric, outcome["loop"], outcome[stage] / idle_memory.KIB)


def _count_imports(_session: Session, _only: Sequence[str] | None) -> int:
    return 1


def _measure_imports(session: Session, _only: Sequence[str] | None) -> list[Figure]:
    names = [name for name in imports.MODULES if importlib.util.find_spec(name.partition(":")[0]) is not None]
    if "hoop" not in names:
        raise NotMeasured("hoop is not installed")
    figure = Figure("import", f"import, after {imports.BASE}")
    for name, rounds in imports.measure(names, session.rounds(IMPORT_ROUNDS)).items():
        for metric, key in (("ms", "ms"), ("cpu_ms", "CPU ms"), ("mb", "MB")):
            figure.add(metric, name, [float(one[key]) for one in rounds if one.get(key) is not None])
    session.steps.advance()
    return [figure]


def _has_server(name: str) -> bool:
    return any(one.name == name for one in WORKLOADS)


def _starts_with(prefix: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefix)


PARTS: tuple[Part, ...] = (
    Part("servers", "servers under load", _has_server, _measure_servers, _count_servers, repeats=True),
    *sizes.PARTS,
    Part("micro", "single operations", _starts_with("micro/"), _measure_micro, _count_micro, repeats=True),
    Part("files", "whole files", _starts_with("files/"), _measure_files, _count_files),
    # Not measured again: saturation would be another one, and so the rate.
    Part("latency", "latency under an open loop", _starts_with("latency/"), _measure_latency, _count_latency),
    *scaling.PARTS,
    *serving.PARTS,
    Part("memory", "memory of idle connections", _starts_with("memory/"), _measure_memory, _count_memory, repeats=True),
    Part("imports", "importing", _starts_with("import"), _measure_imports, _count_imports),
)
