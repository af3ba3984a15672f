"""`python -m bench.pools`: the figures of hoop.Agent and hoop.WorkerPool.

    python -m bench.pools --only small      # one row, or several
    python -m bench.pools --record          # keep them in results.json, and make the tables of the pages

The exit status is 1 if a figure is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import sys
import time
from typing import Any

import hoop

from bench.measure import machine
from bench.pools.report import RESULTS, table, write_pages
from bench.pools.rows import ROWS

PACKAGES = ("hoop", "redis", "generic-connection-pool", "loky")


def versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pools", description=__doc__)
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    content: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}
    content["rows"] = {}
    for name in options.only or ROWS:
        content["rows"][name] = asyncio.run(ROWS[name].measure(), loop_factory=hoop.new_event_loop)
        print(name, content["rows"][name], file=sys.stderr, flush=True)
    print(*table(content), sep="\n")
    if options.record:
        if RESULTS.exists():
            content["rows"] = {**json.loads(RESULTS.read_text())["rows"], **content["rows"]}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")
        write_pages()
    return int(
        any(found[who] > most for name, found in content["rows"].items() for who, most in ROWS[name].most.items())
    )


if __name__ == "__main__":  # the pool's workers import this file, too
    sys.exit(main())
