"""Runs the micro benchmarks in a child process for each loop, in interleaved rounds."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

from bench.micro import BENCHMARKS
from bench.pace import Pace
from bench.processes import START_LIMIT_S, Child, ChildFailed, running
from bench.progress import Display, Steps
from bench.rounds import round_order

TITLES = {name: micro.title for name, micro in BENCHMARKS.items()}

Answer = dict[str, Any]  # with "median_ns", "least_ns", "median_cpu_ns" and "batches", or with "failure"


class MicroRounds:
    """A run of the micro benchmarks; `seconds` is the length of each benchmark in each round."""

    def __init__(self, loops: Sequence[str], seconds: float, pace: Pace, display: Display, steps: Steps) -> None:
        self._loops = loops
        self._seconds = seconds
        self._pace = pace
        self._display = display
        self._steps = steps
        self._answers: dict[str, dict[str, list[Answer]]] = {
            name: {loop: [] for loop in loops} for name in BENCHMARKS
        }  # by benchmark, by loop, one for each round

    def measure(self, rounds: int) -> dict[str, dict[str, Any]]:
        """All rounds. The result has by benchmark, by loop: "median_ns", "least_ns", "cpu_ns" and "rounds", or
        "failure"."""
        for number in range(rounds):
            for loop in round_order(self._loops, number):
                text = f"micro, round {number + 1}, {loop}"
                self._measure_loop(loop, text)
                self._steps.advance()
                self._display.show(
                    [self._steps.line(text)], summary=f"[{self._steps.finished}/{self._steps.total}] {text}"
                )
        return {
            name: {loop: _combine(answers) for loop, answers in by_loop.items()}
            for name, by_loop in self._answers.items()
        }

    def _measure_loop(self, loop: str, text: str) -> None:
        """One round of one loop. After a crash the next child goes on behind the benchmark that crashed."""
        waiting = [
            name for name, by_loop in self._answers.items() if not any("failure" in answer for answer in by_loop[loop])
        ]
        while waiting:
            with running(self._command(loop, waiting)) as child:
                goes_on = True
                while waiting and goes_on:
                    name = waiting.pop(0)
                    self._display.show([self._steps.line(f"{text}: {TITLES[name]}")])
                    answer, goes_on = self._next_answer(child)
                    self._answers[name][loop].append(answer)

    def _command(self, loop: str, benchmarks: Sequence[str]) -> list[str]:
        command = [sys.executable, "-m", "bench.micro", "--loop", loop, "--seconds", str(self._seconds)]
        command += self._pace.of_child()
        for name in benchmarks:
            command += ["--only", name]
        return command

    def _next_answer(self, child: Child) -> tuple[Answer, bool]:
        """What became of the next benchmark, and whether the child can go on with another."""
        try:
            child.read_json(START_LIMIT_S)  # it begins
            answer = child.read_json(10 * self._seconds + START_LIMIT_S)
        except ChildFailed as failure:
            return {"failure": str(failure)}, False
        answer.pop("end", None)
        self._pace.take(answer.pop("pace"))
        return answer, True


def _combine(answers: Sequence[Answer]) -> dict[str, Any]:
    failures = [answer["failure"] for answer in answers if "failure" in answer]
    if failures:
        return {"failure": failures[0]}
    medians = [float(answer["median_ns"]) for answer in answers]
    least = min(float(answer["least_ns"]) for answer in answers)
    cpu_ns = statistics.median(float(answer["median_cpu_ns"]) for answer in answers)
    return {"median_ns": statistics.median(medians), "least_ns": least, "cpu_ns": cpu_ns, "rounds": medians}
