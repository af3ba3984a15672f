"""Runs the micro benchmarks in a child process for each loop, which take turns at each benchmark (see by_turns.py)."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from bench.micro import BENCHMARKS
from bench.processes import START_LIMIT_S, Child, ChildFailed, running
from bench.progress import Display, Steps
from bench.rounds import round_order

TITLES = {name: micro.title for name, micro in BENCHMARKS.items()}

TURN_S = 0.03  # of a benchmark in a loop
TURNS_WITH_THREADS = 5  # times as many: two threads take half as long where the kernel keeps them on one core, which it
# does or not, turn by turn

Answer = dict[str, Any]  # with "median_ns", "least_ns", "median_cpu_ns" and "batches", or with "failure"


class MicroRounds:
    """A run of the micro benchmarks; `seconds` is the length of each benchmark in each round."""

    def __init__(
        self,
        loops: Sequence[str],
        seconds: float,
        display: Display,
        steps: Steps,
        names: Sequence[str] = tuple(BENCHMARKS),
    ) -> None:
        self._loops = loops
        self._names = names
        self._seconds = seconds
        self._turns = max(1, round(seconds / TURN_S))
        self._display = display
        self._steps = steps
        self._answers: dict[str, dict[str, list[Answer]]] = {
            name: {loop: [] for loop in loops} for name in names
        }  # by benchmark, by loop, one for each turn

    def measure(self, rounds: int) -> dict[str, dict[str, Any]]:
        """All rounds. The result has by benchmark, by loop: "median_ns", "least_ns", "cpu_ns" and "rounds", or
        "failure"."""
        for number in range(rounds):
            with ExitStack() as stack:
                children = _Children(stack, self._seconds / self._turns)
                for name in self._names:
                    text = f"micro, round {number + 1}: {TITLES[name]}"
                    self._display.show([self._steps.line(text)])
                    for turn in range(self._turns * (TURNS_WITH_THREADS if BENCHMARKS[name].threads else 1)):
                        for loop in round_order(self._loops, number + turn):
                            answers = self._answers[name][loop]
                            if not any("failure" in answer for answer in answers):
                                answers.append(children.ask(loop, name))
                    self._steps.advance()
                    progress = f"[{self._steps.finished}/{self._steps.total}] {text}"
                    self._display.show([self._steps.line(text)], summary=progress)
        return {
            name: {loop: _combine(answers) for loop, answers in by_loop.items()}
            for name, by_loop in self._answers.items()
        }


class _Children:
    """A process for each loop, made when it is asked first, and anew when it has crashed."""

    def __init__(self, stack: ExitStack, seconds: float) -> None:
        self._stack = stack
        self._seconds = seconds
        self._alive: dict[str, Child] = {}

    def ask(self, loop: str, benchmark: str) -> Answer:
        """Have a loop run a benchmark."""
        try:
            if loop not in self._alive:
                command = [sys.executable, "-m", "bench.micro", "--loop", loop, "--seconds", str(self._seconds)]
                self._alive[loop] = self._stack.enter_context(running(command))
            child = self._alive[loop]
            child.write_line(benchmark)
            answer = child.read_json(10 * self._seconds + START_LIMIT_S)
        except ChildFailed as failure:
            self._alive.pop(loop, None)
            return {"failure": str(failure)}
        answer.pop("end", None)
        return answer


def _combine(answers: Sequence[Answer]) -> dict[str, Any]:
    failures = [answer["failure"] for answer in answers if "failure" in answer]
    if failures:
        return {"failure": failures[0]}
    medians = [float(answer["median_ns"]) for answer in answers]
    least = min(float(answer["least_ns"]) for answer in answers)
    cpu_ns = statistics.median(float(answer["median_cpu_ns"]) for answer in answers)
    return {"median_ns": statistics.median(medians), "least_ns": least, "cpu_ns": cpu_ns, "rounds": medians}
