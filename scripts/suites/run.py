"""Other people's test suites, on asyncio and on hoop: what passes on asyncio must pass on hoop.

    make suites                                  all of them; exit status 1 if one fails on hoop only
    make suites SUITES="tornado uvicorn"         these
    python scripts/suites/run.py --help

Each comes from its project's sdist, into build/suites, with a virtual environment of its own that is kept. A test that
fails on hoop alone is run there again, twice at most: the machine may have been busy. What is left is looked up in
left_out.txt, which says why it may fail. The sums go to build/suites/results.json.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

from catalogue import SUITES, TEST_TIMEOUT_S, Suite

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "suites"
LOOPS = ("asyncio", "hoop")
SUITE_TIMEOUT_S = 2400
SECOND_CHANCES = 2
MOST_AGAIN = 60  # more than that is no bad luck

Outcomes = dict[str, str]


def reasons() -> list[tuple[str, str, str]]:
    lines = (HERE / "left_out.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|", 2) for line in lines if line.strip() and not line.startswith("#")]
    return [(suite.strip(), pattern.strip(), reason.strip()) for suite, pattern, reason in rows]


class Place:
    """Where a suite is unpacked, and the Python that runs it."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.folder = WORK / suite.name
        self.python = self.folder / "venv" / "bin" / "python"
        self.sources = self.folder / "sources"

    def pip(self, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", *arguments, "-qq", "--disable-pip-version-check"]
        subprocess.run(command, check=True, cwd=self.folder)

    def prepare(self) -> None:
        """The environment, and the sdist of the version that is installed in it."""
        stamp = self.folder / "prepared"
        wanted = f"{sys.version} {self.suite}"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", str(self.folder / "venv")], check=True)
        self.pip("install", self.suite.name, *self.suite.needs)
        self.pip("download", "--no-deps", "--no-binary", self.suite.name, f"{self.suite.name}=={self.version()}")
        (archive,) = self.folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(self.folder / "unpacked", filter="data")
        (unpacked,) = (self.folder / "unpacked").iterdir()
        unpacked.rename(self.sources)
        for name in self.suite.drops:
            shutil.rmtree(self.sources / name)
        stamp.write_text(wanted)

    def version(self) -> str:
        code = f"import importlib.metadata as m; print(m.version({self.suite.name!r}))"
        return subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    def run(self, loop: str, tests: list[str], attempt: str) -> Outcomes:
        """Run these tests on that loop. A test that a dying process had begun failed; the rest never ran."""
        lines = self.folder / f"{loop}{attempt}.results"
        log = self.folder / f"{loop}{attempt}.log"
        lines.unlink(missing_ok=True)
        environment = {
            **os.environ,
            **dict(self.suite.environment),
            "HOOP_SUITE_LOOP": loop,
            "HOOP_SUITE_NAME": self.suite.name,
            "HOOP_SUITE_RESULTS": str(lines),
            "PYTHONPATH": os.pathsep.join([str(HERE / "chosen_loop"), str(ROOT / "src")]),
        }
        command = [str(self.python), "-m", "trial_lines", *tests]
        if not self.suite.is_trial:
            options = [f"--rootdir={self.sources}", "-o", "addopts=", "--timeout", str(TEST_TIMEOUT_S), "-q"]
            options += ["-p", "no:cacheprovider", "-p", "result_lines", *self.suite.options]
            command = [str(self.python), "-m", "pytest", *options, *tests]
        with log.open("w") as output:
            try:
                subprocess.run(
                    command,
                    cwd=self.sources,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=SUITE_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                print(f"{self.suite.name} on {loop} was ended after {SUITE_TIMEOUT_S} s")
        if not lines.exists():
            raise SystemExit(f"{self.suite.name} ran no test on {loop}: see {log}")
        found = dict(reversed(line.split(" ", 1)) for line in lines.read_text(encoding="utf-8").splitlines())
        return {test: "failed" if outcome == "begun" else outcome for test, outcome in found.items()}


def compared(place: Place) -> dict[str, object]:
    """Run a suite on both loops; what came of it."""
    suite = place.suite
    place.prepare()
    began = time.monotonic()
    on = {loop: place.run(loop, list(suite.tests), "") for loop in LOOPS}
    worse = sorted(test for test in on["asyncio"] if passed(on["asyncio"], test) and not passed(on["hoop"], test))
    for attempt in range(SECOND_CHANCES):
        there = [test for test in worse if test in on["hoop"]]  # a name may have the loop's class in it
        if 0 < len(there) <= MOST_AGAIN:
            again = place.run("hoop", there, f".again{attempt}")
            on["hoop"] |= {test: "passed" for test in worse if passed(again, test)}
            worse = [test for test in worse if not passed(again, test)]
    rows = [(pattern, reason) for name, pattern, reason in reasons() if name == suite.name]
    left_out = {test: reason for test in worse for pattern, reason in rows if fnmatch.fnmatchcase(test, pattern)}
    return {
        "version": place.version(),
        "seconds": round(time.monotonic() - began),
        **{loop: dict(Counter(outcomes.values())) for loop, outcomes in on.items()},
        "left out": left_out,
        "failed on hoop alone": [test for test in worse if test not in left_out],
    }


def passed(outcomes: Outcomes, test: str) -> bool:
    return outcomes.get(test) == "passed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)} (default: all)")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    WORK.mkdir(parents=True, exist_ok=True)
    results = WORK / "results.json"
    told = json.loads(results.read_text()) if results.exists() else {}
    bad = 0
    for name in options.suites or SUITES:
        told[name] = outcome = compared(Place(SUITES[name]))
        results.write_text(json.dumps(told, indent=1) + "\n")
        print(f"{name} {json.dumps(outcome, indent=1)}", flush=True)
        bad += len(outcome["failed on hoop alone"])  # type: ignore[arg-type]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
