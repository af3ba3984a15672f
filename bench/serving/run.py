"""The command line: which rows, which servers, where the results go."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.build import ROOT
from bench.measure import machine
from bench.processes import ChildFailed
from bench.serving.report import PAGE, RESULTS, page_text, table
from bench.serving.rows import ROWS, Measured, Row, missing_program
from bench.serving.servers import SERVERS, ServerKind

DESCRIPTION = """\
Does the same to hoop's cluster and to the servers that Python has: reloads under load, a broken deploy, kill -9 of a
worker, a handler that blocks the loop, many connections to share out. Prints a table; see docs/serving.md."""


def measured(row: Row, kind: ServerKind) -> Measured:
    """What the row finds, or why it found nothing."""
    try:
        return row.measure(kind)
    except (ChildFailed, OSError) as error:
        return {"failure": f"failed: {error}"}


def measure_row(row: Row, kinds: Sequence[ServerKind]) -> dict[str, Measured]:
    """The row on each server: side by side if nothing is timed closely, else one after another."""
    wanted = [kind for kind in kinds if not row.only or kind.name in row.only]
    with concurrent.futures.ThreadPoolExecutor(len(wanted) if row.is_idle and wanted else 1) as threads:
        results = threads.map(lambda kind: measured(row, kind), wanted)
        found = dict(zip((kind.name for kind in wanted), results, strict=True))
    for name, result in found.items():
        print(f"{row.name} {name}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return found


def new_content(kinds: Sequence[ServerKind]) -> dict[str, Any]:
    """Of a results file without rows."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision.stdout.strip(),
        "machine": machine(),
        "versions": {kind.name: kind.versions() for kind in kinds},
        "rows": {},
    }


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new results, and those of old that the new run has not measured."""
    rows = {name: {**old["rows"].get(name, {}), **new["rows"].get(name, {})} for name in ROWS}
    versions = {**old["versions"], **new["versions"]}
    return {**new, "versions": versions, "rows": {name: found for name, found in rows.items() if found}}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=DESCRIPTION)
    parser.add_argument(
        "--only", action="append", choices=ROWS, metavar="ROW", help="only this row; " + ", ".join(ROWS)
    )
    parser.add_argument("--servers", default=",".join(SERVERS), help="separated by commas; %(default)s")
    parser.add_argument("--json", type=Path, help="where results go")
    parser.add_argument("--record", action="store_true", help=f"into {RESULTS.name}, and the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    options.servers = options.servers.split(",")
    unknown = set(options.servers) - set(SERVERS)
    if unknown:
        parser.error(f"unknown server {', '.join(sorted(unknown))}; known are {', '.join(SERVERS)}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit status is 1 if a row failed on hoop itself."""
    options = parse(arguments)
    kinds = []
    for name in options.servers:
        if SERVERS[name].is_installed():
            kinds.append(SERVERS[name])
        else:
            print(f"{name}: not installed; it comes with `pip install 'hoop[bench]'`", file=sys.stderr)
    content = new_content(kinds)
    for name in options.only or ROWS:
        program = missing_program(ROWS[name])
        if program is not None:
            print(f"{name}: not measured, {program} is not installed", file=sys.stderr)
            continue
        content["rows"][name] = measure_row(ROWS[name], kinds)
    print(*table(content), sep="\n")
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.record:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else None
        content = merged(kept, content) if kept else content
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")
        PAGE.write_text(page_text(PAGE.read_text(), content))
    return int(any("failure" in found.get("hoop", {}) for found in content["rows"].values()))
