"""docs/compatibility.md, from the results of runs, kept in results.json: one Python at a time adds its own."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections import Counter
from pathlib import Path
from typing import Any

import expected
import suite

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "compatibility.md"

HEAD = """\
# Compatibility, measured by CPython's own tests

<!-- Generated: python tests/conformance/cpython/run.py --table. Do not edit. -->

The runner in `tests/conformance/cpython` takes `test.test_asyncio` from the interpreter it runs on, puts another event
loop behind `asyncio.SelectorEventLoop`, `asyncio.new_event_loop` and the default policy, and runs every module in a
process of its own. asyncio's own loop and uvloop are run in the very same way. Two private names that tests use are
lent: uvloop's loops get a `_default_executor` for tearDown to read, and hoop's TLS transports asyncio's method for
`test_ssl` alone, which has bytes wait, by way of `write()`. Where a Python has no row of uvloop's, uvloop was not run
on it.

- **run**: tests that made a loop and ran on it. Tests that make none (of futures, locks, queues on asyncio's own test
  loop, of the selector loop's own classes) say nothing about another loop and are left out.
- **white-box**: tests that reach into the selector loop (a private method, a module mocked inside asyncio). Those that
  hoop cannot pass are listed one by one, with what they poke at, in `tests/conformance/cpython/expected.txt`, and are
  left out of every row alike.
- **failed**: all other tests that failed twice, or that hung (20 seconds on uvloop; those that `expected.txt` says hang
  on hoop are not run there, and counted here), while asyncio's own loop passes them on the same machine. A few of
  uvloop's are white-box, too: tests that patch a method of its compiled loop, or pass a mock for a socket. They have
  not been sorted out one by one.
- **skipped**: by CPython itself on this machine, or failing on asyncio's own loop as well.
- **retried**: failed at first, passed when tried again, alone; counted as passed. CPython's tests have short time
  limits.

| Python | loop | run | passed | failed | white-box | skipped | retried |
|---|---|---:|---:|---:|---:|---:|---:|
"""


def uvloop_version() -> str | None:
    try:
        return importlib.metadata.version("uvloop")
    except importlib.metadata.PackageNotFoundError:
        return None


def has_uvloop() -> bool:
    return uvloop_version() is not None


def summary(verdicts: dict[str, suite.Verdict], lines: list[expected.Line]) -> dict[str, Any]:
    """The counts of one run, and the names of what failed."""
    counts = dict.fromkeys(("passed", "white-box", "skipped", "retried"), 0)
    failed: set[str] = set()
    reasons: Counter[str] = Counter()
    for result in (result for verdict in verdicts.values() for result in verdict.results.values()):
        line = expected.line_about(result.test, lines)
        counts["retried"] += result.second_try == "passed"
        if result.loops == 0 and not result.has_failed and result.outcome != "excluded":
            counts["skipped"] += result.outcome == "skipped"
        elif line is not None and line.white_box:
            counts["white-box"] += 1
            reasons[line.reason.removeprefix("white-box: ")] += 1
        elif result.outcome == "skipped" or (result.is_excused and result.second_try != "passed"):
            counts["skipped"] += 1
        elif result.outcome == "passed" or result.second_try == "passed":
            counts["passed"] += 1
        else:
            failed.add(result.test)
    return {**counts, "failed": sorted(failed), "reasons": dict(sorted(reasons.items()))}


def grouped(tests: list[str]) -> list[str]:
    """The same test in several classes (a selector each) on one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for test in tests:
        module, *case, method = test.split(".")
        groups.setdefault((module, method), []).append(".".join(case))
    return [
        f"`{module}: {method}`" + (f" ({len(cases)} classes)" if len(cases) > 1 else "")
        for (module, method), cases in groups.items()
    ]


def by_number(python: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", python)]


def write(runs: dict[str, dict[str, suite.Verdict]]) -> None:
    """Take the results of this Python's runs (by loop) into results.json, and write the page anew."""
    lines = expected.read()
    kept: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    minor = ".".join(platform.python_version_tuple()[:2])
    kept = {python: rows for python, rows in kept.items() if not python.startswith(minor + ".")}
    names = {"uvloop": f"uvloop {uvloop_version()}"}
    kept[platform.python_version()] = {
        names.get(loop, loop): summary(runs[loop], lines) for loop in ("asyncio", "hoop", "uvloop") if loop in runs
    }
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(kept))


def page(kept: dict[str, dict[str, Any]]) -> str:
    text, failures, left_out = HEAD, "", ""
    for python in sorted(kept, key=by_number):
        for loop, row in kept[python].items():
            failed = row["failed"]
            numbers = (row["passed"] + len(failed), row["passed"], len(failed))
            numbers += (row["white-box"], row["skipped"], row["retried"])
            text += f"| {python} | {loop} | " + " | ".join(map(str, numbers)) + " |\n"
            if failed:
                failures += f"\n### {loop} on Python {python}\n\n" + "".join(f"- {line}\n" for line in grouped(failed))
        left_out += f"\n### Python {python}\n\n"
        left_out += "".join(f"- {count} × {reason}\n" for reason, count in kept[python]["hoop"]["reasons"].items())
    text += f"\n## What fails\n{failures or chr(10) + 'Nothing.' + chr(10)}"
    return f"{text}\n## What the white-box tests poke at\n{left_out}"
