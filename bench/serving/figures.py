"""What the cluster costs, for `--targets`: one worker beside no cluster at all, and the parser of PROXY headers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from bench.build import program
from bench.by_turns import Servers
from bench.rounds import round_order, server_command
from bench.targets.figures import Figure, NotMeasured, Part, Session
from bench.workloads import WORKLOADS

HOOP = "hoop"
ALONE = "hoop without a cluster"
CLUSTERED = {"cluster/echo": "protocol-1k-10", "cluster/uvicorn": "uvicorn"}  # and the workload that it is
HEADERS = {
    "v1": "version 1, IPv4",
    "v1-ipv6": "version 1, IPv6",
    "v2": "version 2",
    "v2-local": "version 2, LOCAL",
    "v2-tlvs": "version 2 with authority, unique id and TLS",
}
PARSER_LIMIT_S = 60.0


def _wanted(only: Sequence[str] | None) -> list[str]:
    return [name for name in CLUSTERED if only is None or name in only]


def _count_cluster(session: Session, only: Sequence[str] | None) -> int:
    return session.rounds(session.lengths.timing.rounds) * len(_wanted(only))


def _measure_cluster(session: Session, only: Sequence[str] | None) -> list[Figure]:
    figures = []
    for name in _wanted(only):
        figure = Figure(name, f"{CLUSTERED[name]} by one worker of a cluster")
        for number in range(session.rounds(session.lengths.timing.rounds)):
            _add_round(figure, number, session)
        figures.append(figure)
    return figures


def _add_round(figure: Figure, number: int, session: Session) -> None:
    """A cluster of one worker and a server without one, alive together and loaded by turns."""
    (workload,) = [one for one in WORKLOADS if one.name == CLUSTERED[figure.name]]
    clustered = [sys.executable, "-m", "bench.servers.clustered", "--server", workload.server]
    timing = session.lengths.timing.longer(workload.longer)
    order = round_order((HOOP, ALONE), number)
    with ExitStack() as stack:
        servers = Servers(workload, session.cores, stack, figure.failures, number)
        for contender in order:
            servers.start(contender, command=clustered if contender == HOOP else server_command(workload, HOOP))
        for turn in servers.by_turns(timing, order):
            for metric in ("cpu_us", "rate"):
                figure.put(metric, turn.contender, turn.number, float(getattr(turn.sample, metric)))
    session.steps.advance()


def _measure_headers(session: Session, _only: Sequence[str] | None) -> list[Figure]:
    command = [program("proxy_header"), str(session.lengths.micro_seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PARSER_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotMeasured(str(error)) from None
    session.steps.advance()
    figures = []
    for name, nanoseconds in json.loads(done.stdout).items():
        figure = Figure(f"proxy-header/{name}", f"parsing a PROXY header: {HEADERS[name]}")
        figure.add("ns", HOOP, float(nanoseconds))
        figures.append(figure)
    return figures


PARTS = (
    Part(
        "cluster",
        "one worker of a cluster",
        CLUSTERED.__contains__,
        _measure_cluster,
        _count_cluster,
        repeats=True,
    ),
    Part(
        "proxy-header",
        "PROXY headers",
        lambda name: name.removeprefix("proxy-header/") in HEADERS,
        _measure_headers,
        lambda session, only: 1,
    ),
)
