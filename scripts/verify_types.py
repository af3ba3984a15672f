"""verify_types.py: every name that hoop exports has a known type, as `pyright --verifytypes hoop` sees it.

For the Python that runs this, with hoop and the servers of hoop.adapters installed: their classes are bases of ours.
The pyright is that of the extra `lint`, in build/lint or on PATH. Exit status: 0 for 100 %, 1 for less with each name
that lacks something, 3 without a pyright.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LINT = Path(__file__).resolve().parents[1] / "build" / "lint" / "bin"
INTERPRETER = Path(sys.executable).parent  # not resolved: the folder of its environment


def report_of(pyright: str) -> dict[str, Any]:
    """What pyright says of hoop, which it looks for in the environment of the first `python` on PATH."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(INTERPRETER), os.environ["PATH"]]),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # there is a newer one: it is pinned
    }
    command = [pyright, "--verifytypes", "hoop", "--ignoreexternal", "--outputjson"]
    with tempfile.TemporaryDirectory() as empty:  # a folder with sources would be taken for the project
        done = subprocess.run(command, cwd=empty, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"{pyright} ended with {done.returncode} and no report:\n{done.stdout}") from None
    return report


def faults_of(report: dict[str, Any]) -> list[str]:
    """A line for each name without a known type, and for whatever else keeps the package from being complete."""
    completeness = report["typeCompleteness"]
    faults = [one["message"] for one in report.get("generalDiagnostics", [])]
    for symbol in completeness["symbols"]:
        is_known = symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
        if symbol["isExported"] and not is_known and symbol["diagnostics"]:  # a class without: one of its attributes
            reasons = "; ".join(" ".join(one["message"].split()) for one in symbol["diagnostics"])
            faults.append(f"{symbol['name']}: {reasons}")
    if not completeness["exportedSymbolCounts"]["withKnownType"]:
        faults.append("hoop was not found, or exports nothing")
    if completeness["completenessScore"] < 1 and not faults:
        faults.append(f"the score is {completeness['completenessScore']:.2%}, with no reason given")
    return faults


def main() -> int:
    pyright = shutil.which("pyright", path=os.pathsep.join([str(LINT), os.environ["PATH"]]))
    if pyright is None:
        print("no pyright is here: make lint, or pip install 'pyright[nodejs]'", file=sys.stderr)
        return 3
    report = report_of(pyright)
    faults = faults_of(report)
    print("\n".join(faults) or "every exported name has a known type")
    known = report["typeCompleteness"]["exportedSymbolCounts"]["withKnownType"]
    print(f"{report['typeCompleteness']['completenessScore']:.1%}, {known} names, pyright {report['version']}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
