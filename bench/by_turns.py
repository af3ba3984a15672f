"""Servers of one workload that are alive together, and loaded by turns: a short window each, again and again.

What disturbs a shared machine, a busy neighbour above all, goes on for seconds, and makes the same instructions take up
to twice as long. Windows that follow one another within a tenth of a second find the machine in the same state, so
their ratio holds although none of the figures does. Servers that have nothing to do meanwhile sleep.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench.measure import Cores
from bench.processes import Child, ChildFailed, running
from bench.results import Sample
from bench.rounds import (
    CLIENT_EXTRA_LIMIT_S,
    Timing,
    client_command,
    raise_errors,
    ready_of,
    reason_of,
    round_order,
    sample_of,
    server_command,
)
from bench.workloads import Workload

LATER_WARMUP_S = 0.008  # of all windows but the first: the caches become the server's own again


@dataclass(frozen=True)
class Turn:
    """What came of one window. The number is one of all rounds."""

    number: int
    contender: str
    sample: Sample


@dataclass(frozen=True)
class _Server:
    child: Child
    port: int
    pid: int  # whose CPU time counts


def turns_of(timing: Timing) -> int:
    """How many windows a round has for each contender."""
    return max(1, round(timing.seconds / timing.turn_s))


class Servers:
    """Servers of one workload in one round, one for each contender, until the stack ends. Who fails is loaded no more:
    its reason stands in `failures`, which the caller keeps for the rounds that follow."""

    def __init__(
        self, workload: Workload, cores: Cores, stack: ExitStack, failures: MutableMapping[str, str], number: int = 0
    ) -> None:
        self._workload = workload
        self._cores = cores
        self._stack = stack
        self._failures = failures
        self._number = number
        self._alive: dict[str, _Server] = {}

    @property
    def ports(self) -> dict[str, int]:
        """Where those that are alive listen."""
        return {contender: server.port for contender, server in self._alive.items()}

    def start(self, contender: str, *options: str, command: Sequence[str] | None = None) -> None:
        """One more, by another command than the workload's if one is given, unless it has failed before."""
        if contender in self._failures:
            return
        command = [*(command or server_command(self._workload, contender)), *options]
        try:
            child = self._stack.enter_context(running(command, self._cores.server))
            ready = ready_of(child)
        except ChildFailed as failure:
            self._note(contender, str(failure))
            return
        self._alive[contender] = _Server(child, int(ready["port"]), int(ready.get("pid", child.pid)))

    def give_up(self, contender: str, failure: ChildFailed) -> None:
        """It has failed, for that reason, or for the server's own where that has ended."""
        self._note(contender, reason_of(self._alive.pop(contender).child, failure))

    def _note(self, contender: str, reason: str) -> None:
        self._failures[contender] = f"round {self._number + 1}: {reason}"

    def by_turns(self, timing: Timing, order: Sequence[str]) -> Iterator[Turn]:
        """Load each in `order`, then in another one, and so on (see round_order). Each has a client of its own, whose
        connections stay open. What its end shows comes as a turn once more."""
        turns = turns_of(timing)
        window = replace(timing, seconds=timing.seconds / turns)
        with ExitStack() as stack:
            clients: dict[str, Child] = {}
            latest: dict[str, Turn] = {}
            for number in range(turns):
                for contender in round_order(order, number):
                    if contender in self._alive and (sample := self._sample(contender, window, clients, stack)):
                        latest[contender] = Turn(self._number * turns + number, contender, sample)
                        yield latest[contender]
            for contender in order:
                if contender in self._alive and (end := self._end(clients[contender], latest[contender])):
                    yield end

    def _sample(self, contender: str, window: Timing, clients: dict[str, Child], stack: ExitStack) -> Sample | None:
        """Load it for one window; None if it fails."""
        server = self._alive[contender]
        warmup_s = LATER_WARMUP_S if contender in clients else window.warmup_of(contender)
        try:
            if contender not in clients:
                command = [*client_command(self._workload, server.pid, server.port, window, self._cores), "--turns"]
                clients[contender] = stack.enter_context(running(command, self._cores.client))
            clients[contender].write_line(str(warmup_s))
            report = clients[contender].read_json(warmup_s + window.seconds + CLIENT_EXTRA_LIMIT_S)
            raise_errors(report)
            return sample_of(report)
        except ChildFailed as failure:
            self.give_up(contender, failure)
            return None

    def _end(self, client: Child, latest: Turn) -> Turn | None:
        """Have the client wait for what is in flight, and for the end of each connection."""
        client.end_input()
        try:
            report = client.read_json(CLIENT_EXTRA_LIMIT_S)
            raise_errors(report)
        except ChildFailed as failure:
            self.give_up(latest.contender, failure)
            return None
        if not report["unclosed"]:
            return None
        return replace(latest, sample=replace(latest.sample, unclosed=int(report["unclosed"])))
