"""Runs modules of CPython's test.test_asyncio in processes of their own, and judges what came out by expected.txt."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import expected

CHILD = Path(__file__).with_name("child.py")
ENVIRONMENT = dict(os.environ)  # pytest changes its own between tests, while threads here copy it
# A test that takes longer hangs: the slowest takes about ten seconds on an idle machine. (Several hang on uvloop.)
SILENCE_S = {"hoop": 60.0, "asyncio": 60.0, "uvloop": 20.0}
MODULE_S = {"hoop": 300.0, "asyncio": 300.0, "uvloop": 1800.0}  # whatever hangs, all others are to have their turn
DETAILS_LINES = 40
BETWEEN_TESTS = "between_tests"
# hung and died: and took the process with it. not run: what would have come afterwards, if no process got as far.
FAILURES = ("failed", "hung", "died", "not run")


@dataclass
class Result:
    """What became of one test. outcome: passed, skipped, excluded, or one of FAILURES."""

    test: str
    outcome: str
    details: str = ""
    loops: int = 0
    seconds: float = 0.0
    second_try: str = ""  # what came of running it again, alone
    on_asyncio: str = ""  # what asyncio's own loop makes of it here

    @property
    def has_failed(self) -> bool:
        return self.outcome in FAILURES

    @property
    def is_excused(self) -> bool:
        """A failure that says nothing about the loop: it passed when tried again, or asyncio's loop fails as well."""
        if self.test.endswith(BETWEEN_TESTS):
            return False
        return self.second_try == "passed" or self.on_asyncio in ("failed", "hung", "died")


@dataclass
class Verdict:
    """A module's results, sorted by whether they were expected."""

    module: str
    results: dict[str, Result] = field(default_factory=dict)
    unexpected_failures: list[Result] = field(default_factory=list)
    unexpected_passes: list[Result] = field(default_factory=list)
    excused: list[Result] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.unexpected_failures and not self.unexpected_passes


def package_folder() -> Path | None:
    """Where this interpreter keeps test.test_asyncio; None if it came without its tests, as many distributions' do."""
    try:
        found = importlib.util.find_spec("test.test_asyncio")
    except ModuleNotFoundError:
        return None
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])


def modules() -> list[str]:
    """The test modules, without those for Windows alone."""
    folder = package_folder()
    if folder is None:
        return []
    names = sorted(path.stem for path in folder.glob("test_*.py"))
    return [name for name in names if not name.startswith("test_windows")]


# ---- processes ---------------------------------------------------------------------------------------------------


def run_once(
    loop: str, module: str, tests: list[str] | None, exclude: list[str], deadline: float
) -> tuple[dict[str, Result], list[str]]:
    """One child process: the results, and the tests that it did not come to."""
    with tempfile.TemporaryDirectory(prefix="asyncio-tests-") as folder:
        plan, report = Path(folder, "plan"), Path(folder, "report")
        plan.write_text(json.dumps({"tests": tests, "exclude": exclude}))
        report.touch()
        output = Path(folder, "output")
        work = Path(folder, "work")
        work.mkdir()
        with output.open("wb") as sink:
            child = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", str(CHILD), loop, module, str(plan), str(report)],
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        try:
            ending = watch(child, report, SILENCE_S[loop], deadline)
        finally:
            end_session(child)
        return read_report(module, report, ending, output.read_text(errors="replace"))


def watch(child: subprocess.Popen[bytes], report: Path, silence_s: float, deadline: float) -> str:
    """Wait for child; "" if it ended by itself with success, else "hung" or "died"."""
    size, changed = 0, time.monotonic()
    while True:
        try:
            status = child.wait(0.2)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            if report.stat().st_size != size:
                size, changed = report.stat().st_size, now
            if now > min(changed + silence_s, deadline):
                show_stacks(child)
                return "hung"
        else:
            return "died" if status != 0 else ""


def show_stacks(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGABRT)  # faulthandler writes every thread's stack
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(5)


def end_session(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and whatever its tests left running; the session is the child's own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def read_report(module: str, report: Path, ending: str, output: str) -> tuple[dict[str, Result], list[str]]:
    results: dict[str, Result] = {}
    planned: list[str] | None = None
    running: str | None = None
    is_done = False
    for text in report.read_text().splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:  # the process was killed while it wrote
            break
        event = line.pop("event")
        if event == "start":
            running = line["test"]
        elif event == "plan":
            planned = line["tests"]
        elif event == "done":
            is_done = True
        else:
            running = None
            results[line["test"]] = Result(**line)
    if is_done:
        return results, []
    tail = "\n".join(output.splitlines()[-2 * DETAILS_LINES :])
    if planned is None:  # the module itself could not be loaded, or says that it is not for this machine
        outcome = "skipped" if "unittest.case.SkipTest" in output else "failed"
        name = f"{module}.import"
        return {name: Result(name, outcome, tail, loops=1)}, []
    lost = running or f"{module}.{BETWEEN_TESTS}"
    results[lost] = Result(lost, ending or "died", tail, loops=1)
    return results, [test for test in planned if test not in results]


def run_tests(loop: str, module: str, tests: list[str] | None, exclude: list[str]) -> dict[str, Result]:
    """All tests of module, or those named; a new process takes over where one hung or died."""
    deadline = time.monotonic() + MODULE_S[loop]
    results, left = run_once(loop, module, tests, exclude, deadline)
    while left and time.monotonic() < deadline:
        more, left_then = run_once(loop, module, left, exclude, deadline)
        results.update(more)
        if left_then == left:
            break
        left = left_then
    for test in left:
        results[test] = Result(test, "not run", f"no process came to it within {MODULE_S[loop]:.0f} s", loops=1)
    return results


# ---- judgement ---------------------------------------------------------------------------------------------------


def run_module(loop: str, module: str, lines: Iterable[expected.Line]) -> Verdict:
    """Run module on loop and compare with expected.txt. asyncio itself is measured as it is: nothing is expected of it.

    An unexpected failure is tried again, alone, for the tests have short time limits and machines are busy; and on
    asyncio's own loop, for what fails there too says nothing about the other loop.
    """
    lines = list(lines)
    # What hoop does not do yet may hang on hoop alone: the others are measured by it.
    exclude = [line.pattern for line in lines if line.action == "exclude" and (line.white_box or loop == "hoop")]
    verdict = Verdict(module, run_tests(loop, module, None, exclude))
    surprises = []
    for result in verdict.results.values():
        line = expected.line_about(result.test, lines)
        action = line.action if line is not None and loop != "asyncio" else "passes"
        if result.has_failed and action == "passes":
            surprises.append(result)
        elif result.outcome == "passed" and action == "fails" and loop == "hoop":
            verdict.unexpected_passes.append(result)
    if surprises:
        try_again(loop, module, surprises)
    for result in surprises:
        (verdict.excused if result.is_excused else verdict.unexpected_failures).append(result)
    return verdict


def try_again(loop: str, module: str, surprises: list[Result]) -> None:
    # What is not a test (setUpClass, import) cannot be asked for by name.
    names = [result.test for result in surprises]
    again = run_tests(loop, module, names, [])
    for result in surprises:
        result.second_try = again[result.test].outcome if result.test in again else "failed"
    still = [result for result in surprises if result.second_try != "passed"]
    if still and loop != "asyncio":
        baseline = run_tests("asyncio", module, [result.test for result in still], [])
        for result in still:
            result.on_asyncio = baseline[result.test].outcome if result.test in baseline else ""


def describe(verdict: Verdict, *, everything: bool = False) -> str:
    """What a person needs to know about a module's run."""
    parts = []
    for result in verdict.results.values():
        if result.has_failed and (everything or result in verdict.unexpected_failures):
            details = "\n".join(result.details.splitlines()[-DETAILS_LINES:])
            notes = f" (again: {result.second_try or '-'}, on asyncio: {result.on_asyncio or '-'})"
            parts.append(f"{result.outcome.upper()} {result.test}{notes}\n{details}")
    parts += [
        f"PASSES {result.test}, which {expected.FILE.name} expects to fail: take the line out"
        for result in verdict.unexpected_passes
    ]
    return "\n\n".join(parts)


def remarks(verdict: Verdict) -> list[str]:
    """A line about each failure that was excused: nobody should have to guess how steady a run was."""
    return [
        f"{result.test} {result.outcome}, and passed when tried again"
        if result.second_try == "passed"
        else f"{result.test} {result.outcome} twice, as it does on asyncio's own loop on this machine"
        for result in verdict.excused
    ]
