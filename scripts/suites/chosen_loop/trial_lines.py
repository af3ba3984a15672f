"""Runs Twisted's tests on its asyncio reactor, and appends "outcome test" to the file HOOP_SUITE_RESULTS.

run.py starts it:

    python -m trial_lines twisted.internet.test.test_tcp ...
"""

import os
import sys
from typing import Any

from twisted.internet import asyncioreactor

asyncioreactor.install()

from twisted.trial import reporter, runner  # noqa: E402  # once the reactor stands

RESULTS = os.environ["HOOP_SUITE_RESULTS"]


class Lines(reporter.TreeReporter):
    """As trial's own, and each outcome as a line."""

    def note(self, outcome: str, test: Any) -> None:
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(f"{outcome} {test.id()}\n")

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.outcome = "passed"
        self.note("begun", test)

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self.note(self.outcome, test)

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self.outcome = "failed"

    def addFailure(self, test: Any, error: Any) -> None:
        super().addFailure(test, error)
        self.outcome = "failed"

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self.outcome = "skipped"

    def addExpectedFailure(self, *arguments: Any) -> None:
        super().addExpectedFailure(*arguments)
        self.outcome = "skipped"


def main() -> int:
    suite = runner.TestLoader().loadByNames(sys.argv[1:], recurse=True)
    trial = runner.TrialRunner(Lines, workingDirectory="_trial_temp")
    return 0 if trial.run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
