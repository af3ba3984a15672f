"""Runs CPython's own tests of asyncio, those of the interpreter that runs this, on hoop.

    python tests/conformance/cpython/run.py                    all modules on hoop; status 1 if anything is unexpected
    python tests/conformance/cpython/run.py test_events -v     one module, with the reports of expected failures
    python tests/conformance/cpython/run.py --loop asyncio     what fails here without hoop
    python tests/conformance/cpython/run.py --table            asyncio, hoop and uvloop (if it is installed), and
                                                               this Python's rows in docs/compatibility.md

What is expected to fail, and why, is in expected.txt beside this file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import expected
import report
import suite


def run_all(loop: str, names: list[str], jobs: int, verbose: bool) -> dict[str, suite.Verdict]:
    """Every module on loop, the slow ones first; prints as it goes."""
    lines = expected.read()
    verdicts: dict[str, suite.Verdict] = {}
    slow_first = sorted(
        names, key=lambda name: name not in ("test_subprocess", "test_ssl", "test_events", "test_tasks")
    )

    def one(name: str) -> None:
        began = time.monotonic()
        verdict = verdicts[name] = suite.run_module(loop, name, lines)
        counts = Counter(result.outcome for result in verdict.results.values())
        what = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"{loop} {name}: {what} ({time.monotonic() - began:.0f} s)", flush=True)
        for line in suite.remarks(verdict):
            print(f"    {line}", flush=True)
        if text := suite.describe(verdict, everything=verbose):
            print(text + "\n", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, slow_first))
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="test modules, without a package (default: all)")
    parser.add_argument("--loop", choices=["hoop", "asyncio", "uvloop"], default="hoop")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--table", action="store_true", help="write this Python's rows of docs/compatibility.md")
    parser.add_argument("-v", "--verbose", action="store_true", help="show expected failures, too")
    options = parser.parse_args()
    if suite.package_folder() is None:
        print("this Python came without its tests (test.test_asyncio)", file=sys.stderr)
        return 2
    names = options.modules or suite.modules()
    verdicts = run_all(options.loop, names, options.jobs, options.verbose)
    if options.table:
        beside = [name for name in ("asyncio", "uvloop") if name != "uvloop" or report.has_uvloop()]
        runs = {"hoop": verdicts} | {name: run_all(name, names, options.jobs, False) for name in beside}
        report.write(runs)
    return 0 if all(verdict.is_good for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
