"""docs/compatibility.md, from the results of the runs that are kept in results.json: one Python at a time adds its own."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
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
process of its own.

- **run**: tests that made a loop and ran on it. Tests that make none (of futures, locks, queues on asyncio's own test
  loop, of the selector loop's own classes) say nothing about another loop and are left out.
- **failed**: tests of behaviour that failed twice, while asyncio's own loop passes them on the same machine.
- **white-box**: tests that reach into the selector loop (a private method, a module mocked inside asyncio). Each is
  listed with what it pokes at in `tests/conformance/cpython/expected.txt`; they are left out of both rows alike.
- **skipped**: by CPython itself on this machine, or failing on asyncio's own loop as well.

| Python | loop | run | passed | failed | white-box | skipped |
|---|---|---:|---:|---:|---:|---:|
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
    counts = {"passed": 0, "white-box": 0, "skipped": 0}
    failed: set[str] = set()
    for verdict in verdicts.values():
        for result in verdict.results.values():
            line = expected.line_about(result.test, lines)
            if result.loops == 0 and not result.has_failed and result.outcome != "excluded":
                counts["skipped"] += result.outcome == "skipped"
            elif line is not None and line.white_box:
                counts["white-box"] += 1
            elif result.outcome == "skipped" or result.on_asyncio in ("failed", "hung", "died"):
                counts["skipped"] += 1
            elif result.outcome == "passed" or result.second_try == "passed":
                counts["passed"] += 1
            else:
                failed.add(result.test)
    return {**counts, "failed": sorted(failed)}


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


def write(verdicts: dict[str, suite.Verdict], beside: dict[str, suite.Verdict]) -> None:
    """Take the results of this Python's runs into results.json, and write the page anew."""
    lines = expected.read()
    kept: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    minor = ".".join(platform.python_version_tuple()[:2])
    kept = {python: rows for python, rows in kept.items() if not python.startswith(minor + ".")}
    rows = {"hoop": summary(verdicts, lines)}
    if beside:
        rows[f"uvloop {uvloop_version()}"] = summary(beside, lines)
    kept[platform.python_version()] = rows
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(kept))


def page(kept: dict[str, dict[str, Any]]) -> str:
    text = HEAD
    failures = ""
    for python in sorted(kept, key=by_number):
        for loop, row in kept[python].items():
            failed = row["failed"]
            text += f"| {python} | {loop} | {row['passed'] + len(failed)} | {row['passed']} | {len(failed)} "
            text += f"| {row['white-box']} | {row['skipped']} |\n"
            if failed:
                failures += f"\n### {loop} on Python {python}\n\n" + "".join(f"- {line}\n" for line in grouped(failed))
    return text + "\n## What fails\n" + (failures or "\nNothing.\n")
