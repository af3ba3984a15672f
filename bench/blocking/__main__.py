"""`python -m bench.blocking`: every tool on every case, and what a callback costs with it.

python -m bench.blocking                # print the table
python -m bench.blocking --record       # keep it in results.json, and make the table of docs/monitor.md
python -m bench.blocking.report         # make that table again from what is kept
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from typing import Any

from bench.blocking.cases import CASES
from bench.blocking.program import COST
from bench.blocking.report import RESULTS, table, verdict, write_page
from bench.blocking.tools import BASES, TOOLS
from bench.measure import machine
from bench.processes import python_environment

LIMIT_S = 120.0
COST_ROUNDS = 4


def ask(tool: str, case: str) -> Any:
    """What the program prints, or why it does not."""
    command = [sys.executable, "-m", "bench.blocking.program", tool, case]
    done = subprocess.run(
        command, env=python_environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def least_cost(tools: list[str]) -> dict[str, Any]:
    """Of interleaved rounds, the least: whatever else runs on the machine only adds."""
    rounds = [{tool: ask(tool, COST) for tool in tools} for _ in range(COST_ROUNDS)]
    return {tool: min((one[tool] for one in rounds), key=lambda found: found.get("ns", 0)) for tool in tools}


def version_of(package: str | None) -> str | None:
    """None: it is not installed."""
    if package is None:
        return f"CPython {sys.version.split()[0]}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.blocking", description=__doc__)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    versions = {name: version_of(tool.package) for name, tool in TOOLS.items()}
    tools = [name for name, version in versions.items() if version is not None]
    content: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {name: versions[name] for name in tools},
        "cases": {case: {tool: verdict(case, ask(tool, case)) for tool in tools} for case in CASES},
        "cost": least_cost([*tools, *BASES]),
    }
    print(*table(content), sep="\n")
    if options.record:
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")
        write_page()
    texts = [text for row in content["cases"].values() for text in row.values()]
    return int(any("failed" in text for text in [*texts, *map(str, content["cost"].values())]))


if __name__ == "__main__":
    sys.exit(main())
