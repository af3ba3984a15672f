"""Runs one module of CPython's own test.test_asyncio, with another event loop behind asyncio's names; run.py starts it.

    python child.py hoop test_events PLAN REPORT

PLAN is a JSON file: {"tests": null or [names], "exclude": [patterns]}. REPORT gets a line of JSON when a test starts
and one when it has ended, so that the parent knows which test was running when this process hung or died. Names are
relative to the package: "test_events.EPollEventLoopTests.test_close".
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import selectors
import signal
import sys
import time
import traceback
import unittest
import warnings
import weakref
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, TextIO

PACKAGE = "test.test_asyncio."
# Tests that reach out to the internet judge the machine, not the loop; all else that regrtest calls a resource may be
# used.
RESOURCES = ["cpu", "subprocess", "walltime"]
MOST_MEMORY = 4 << 30  # bytes
loops_made = 0

# ---- the loop under test -----------------------------------------------------------------------------------------


def hoop_class() -> type[asyncio.AbstractEventLoop]:
    import hoop

    class LoopUnderTest(hoop.Loop):
        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            """The tests ask for a back end by a selector; the portable one answers for poll(2) and select(2) alike."""
            count_loop()
            poller = None
            if selector is not None:
                name = type(selector).__name__.removesuffix("Selector").lower()
                poller = name if name in ("epoll", "kqueue") else "poll"
                selector.close()
            super().__init__(poller=poller)

        async def create_connection(self, *arguments: Any, **options: Any) -> Any:
            """asyncio's TLS transports have a method for test_ssl alone, which has bytes wait; here write() does so."""
            transport, protocol = await super().create_connection(*arguments, **options)
            if options.get("ssl"):
                weak = weakref.proxy(transport)
                transport._test__append_write_backlog = lambda data: weak.write(data)  # type: ignore[attr-defined]
            return transport, protocol

    return LoopUnderTest


def uvloop_class() -> type[asyncio.AbstractEventLoop]:
    import uvloop

    class LoopUnderTest(uvloop.Loop):  # type: ignore[misc, name-defined]
        # The tests' own tearDown reads it; uvloop keeps its executor where Python does not see it.
        _default_executor = None

        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            count_loop()
            if selector is not None:
                selector.close()
            super().__init__()

    return LoopUnderTest


def asyncio_class() -> type[asyncio.AbstractEventLoop]:
    class LoopUnderTest(asyncio.SelectorEventLoop):
        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            count_loop()
            super().__init__(selector)

    return LoopUnderTest


CLASSES: dict[str, Callable[[], type[asyncio.AbstractEventLoop]]] = {
    "hoop": hoop_class,
    "uvloop": uvloop_class,
    "asyncio": asyncio_class,
}


def count_loop() -> None:
    global loops_made
    loops_made += 1


def put_behind_asyncio(loop_class: type[asyncio.AbstractEventLoop]) -> None:
    """Give loop_class every public name by which a program, and so a test, comes by a loop."""
    loop_class.__name__ = "_UnixSelectorEventLoop"  # some tests look for the class by its name in messages
    for module in (asyncio, asyncio.unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, loop_class)
    policy = getattr(asyncio.unix_events, "_UnixDefaultEventLoopPolicy", None)
    if policy is None:
        policy = asyncio.unix_events._DefaultEventLoopPolicy  # type: ignore[attr-defined]  # 3.14's name
    policy._loop_factory = loop_class


# ---- running and reporting ---------------------------------------------------------------------------------------


def short_name(test: Any) -> str:
    """Shorten unittest's name for what fails around tests, "setUpClass (test.test_asyncio.test_x.Case)".

    It becomes test_x.Case.setUpClass.
    """
    name = test.id()
    around = re.fullmatch(r"(\w+) \((.*)\)", name)
    if around:
        name = f"{around[2]}.{around[1]}"
    return str(name).removeprefix(PACKAGE)


class Reporter(unittest.TestResult):
    """Tells the parent the outcome of each test: passed, failed or skipped."""

    def __init__(self, report: TextIO) -> None:
        super().__init__()
        self.report = report
        self.forget()

    def forget(self) -> None:
        self.begun: str | None = None
        self.troubles: list[str] = []
        self.skip_reason: str | None = None
        self.loops_before = loops_made
        self.started = time.monotonic()

    def tell(self, **line: Any) -> None:
        self.report.write(json.dumps(line) + "\n")
        self.report.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.forget()
        self.begun = short_name(test)
        self.tell(event="start", test=self.begun)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        if self.troubles:
            outcome, details = "failed", "\n".join(self.troubles)
        elif self.skip_reason is not None:
            outcome, details = "skipped", self.skip_reason
        else:
            outcome, details = "passed", ""
        self.tell(
            event="end",
            test=short_name(test),  # Python 3.12.1 stops skipped tests that it has not started
            outcome=outcome,
            details=details,
            loops=loops_made - self.loops_before,
            seconds=round(time.monotonic() - self.started, 3),
        )
        self.forget()

    def note(self, test: Any, details: str) -> None:
        if self.begun is not None:
            self.troubles.append(details)
        else:  # setUpClass, setUpModule and their kin
            self.tell(event="end", test=short_name(test), outcome="failed", details=details, loops=1, seconds=0.0)

    def addError(self, test: Any, err: Any) -> None:
        self.note(test, "".join(traceback.format_exception(*err)))

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.note(test, f"{subtest}\n" + "".join(traceback.format_exception(*err)))

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.note(test, "passes, though CPython marks it as an expected failure")

    def addSkip(self, test: Any, reason: str) -> None:
        self.skip_reason = reason


def cases_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases_in(item)
        else:
            yield item


def main() -> None:
    loop_name, module, plan_path, report_path = sys.argv[1:]
    with open(plan_path) as file:
        plan = json.load(file)
    # Many tests mock what a loop waits with. One that then waits for ever notes its calls for ever.
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background. Tests send it to themselves and would wait for ever.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from test import support

    support.use_resources = RESOURCES
    warnings.simplefilter("default")
    loaded = unittest.defaultTestLoader
    # The class is made before, and put in place after, the module's import: both orders occur in programs, but
    # base classes that a test module names must stay asyncio's own.
    loop_class = CLASSES[loop_name]()
    suite = loaded.loadTestsFromName(PACKAGE + module)
    put_behind_asyncio(loop_class)
    wanted = None if plan["tests"] is None else set(plan["tests"])
    chosen = unittest.TestSuite()
    with open(report_path, "w") as report:
        reporter = Reporter(report)
        for case in cases_in(suite):
            name = short_name(case)
            if wanted is not None and name not in wanted:
                continue
            if any(fnmatchcase(name, pattern) for pattern in plan["exclude"]):
                reporter.tell(event="end", test=name, outcome="excluded", details="", loops=0, seconds=0.0)
            else:
                chosen.addTest(case)
        reporter.tell(event="plan", tests=[short_name(case) for case in cases_in(chosen)])
        chosen.run(reporter)
        reporter.tell(event="done")


if __name__ == "__main__":
    main()
