"""How one window of one server is measured: who takes part, in what order, with which commands."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.build import BENCH, program
from bench.loops import C_SERVER, NODE
from bench.measure import Cores
from bench.processes import CRASH_GRACE_S, START_LIMIT_S, Child, ChildFailed, run_client, running
from bench.progress import Display, Steps
from bench.results import Sample
from bench.workloads import Workload

NODE_WARMUP_S = 1.0  # until its compiler has seen what is hot
CLIENT_EXTRA_LIMIT_S = 20.0  # for connecting and draining, beyond warm-up and window


@dataclass(frozen=True)
class Timing:
    """How long to measure."""

    rounds: int  # each has new processes
    seconds: float  # in which each contender is measured in a round
    warmup_s: float  # of a new process
    turn_s: float = (
        0.02  # where several are loaded by turns (by_turns.py), those seconds come in windows of this length
    )

    def longer(self, times: int) -> Timing:
        """The same with windows so many times as long."""
        return replace(self, seconds=self.seconds * times, turn_s=self.turn_s * times)

    def warmup_of(self, contender: str) -> float:
        """The first warm-up of that contender's process."""
        return max(self.warmup_s, NODE_WARMUP_S) if contender == NODE else self.warmup_s


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
    """Forwards in even rounds, backwards in odd ones: none always runs after the same one. Who is last in one round and
    first in the next runs twice in a row, so that is another one each time."""
    shift = number // 2 % max(1, len(contenders))
    shifted = [*contenders[shift:], *contenders[:shift]]
    return shifted if number % 2 == 0 else shifted[::-1]


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
    timing = replace(timing, warmup_s=timing.warmup_of(contender))
    for _ in cores.pace.attempts():
        sample = _measure_server(workload, contender, timing, cores)
    return sample


def _measure_server(workload: Workload, contender: str, timing: Timing, cores: Cores) -> Sample:
    with running(server_command(workload, contender), cores.server) as server:
        port = port_of(server)
        try:
            return load(workload, server.pid, port, timing, cores)
        except ChildFailed as failure:
            raise ChildFailed(reason_of(server, failure)) from None


def port_of(server: Child) -> int:
    """Where a server listens that has just been started. ChildFailed, with the reason, if it does not come to that."""
    return int(ready_of(server)["port"])


def ready_of(server: Child) -> Mapping[str, Any]:
    """What a server says when it listens: the "port", and the "pid" that serves there if that is not its own.
    ChildFailed, with the reason, if it does not come to that."""
    try:
        return server.read_json(START_LIMIT_S)
    except ChildFailed as failure:
        raise ChildFailed(f"server: {failure}") from None


def reason_of(server: Child, failure: ChildFailed) -> str:
    """Why a server could not be loaded: how it ended, where it has, or else what its client says."""
    ending = server.ending(CRASH_GRACE_S)
    return f"server {ending}" if ending else str(failure)


def load(workload: Workload, pid: int, port: int, timing: Timing, cores: Cores) -> Sample:
    """One window of a client; `pid` is the server whose CPU time counts. ChildFailed, with the reason, if anything goes
    wrong."""
    command = [*client_command(workload, pid, port, timing, cores), "--warmup", str(timing.warmup_s)]
    report = run_client(command, cores.client, timing.warmup_s + timing.seconds + CLIENT_EXTRA_LIMIT_S)
    raise_errors(report)
    return sample_of(report)


def client_command(workload: Workload, pid: int, port: int, timing: Timing, cores: Cores) -> list[str]:
    """The command line of the load generator, but for its warm-up."""
    command = [program(workload.client), "--port", str(port), "--server-pid", str(pid)]
    command += ["--duration", str(timing.seconds), *workload.client_arguments]
    return command if cores.are_separate else [*command, "--block"]


def raise_errors(report: Mapping[str, Any]) -> None:
    """ChildFailed with the first error that a load generator has met, if it has met any."""
    if report["errors"]:
        first = " ".join(str(report["first_error"]).split())  # a response has lines
        raise ChildFailed(f"{report['errors']} errors, the first: {first}")


def sample_of(report: Mapping[str, Any]) -> Sample:
    """What a load generator has measured. ChildFailed if that is nothing."""
    try:
        return Sample.from_report(report)
    except (KeyError, ValueError) as error:
        raise ChildFailed(f"load generator: {error}") from None
