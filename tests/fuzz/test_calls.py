"""A minute of random calls under the sanitizers, a few seconds elsewhere: HOOP_FUZZ_SECONDS, HOOP_FUZZ_SEED."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
IS_SANITIZED = os.environ.get("HOOP_SANITIZED") == "1"
SEED = int(os.environ.get("HOOP_FUZZ_SEED") or 20_240_901)
SECONDS = float(os.environ.get("HOOP_FUZZ_SECONDS") or (60 if IS_SANITIZED else 5))


def written(folder: Path, name: str, last: int = 40) -> str:
    try:
        lines = (folder / name).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-last:])


@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at descriptors by way of /proc")
@pytest.mark.timeout(SECONDS + 240)
def test_any_call_with_anything(tmp_path: Path) -> None:
    """Whatever is called with whatever from wherever answers with a result or an exception, and leaves nothing open."""
    paths = [str(FOLDER.parent), *(path for path in sys.path if path)]
    print(f"HOOP_FUZZ_SEED={SEED} HOOP_FUZZ_SECONDS={SECONDS}")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.calls", str(tmp_path), str(SEED), str(SECONDS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=SECONDS + 200,
        check=False,
    )
    report = {name: written(tmp_path, name) for name in ("faults", "crash", "errors", "calls")}
    shown = "\n".join(f"---- {name}\n{text}" for name, text in report.items()) + done.stderr
    assert done.returncode == 0, f"exit status {done.returncode}\n{shown}"
    assert report["faults"].endswith(" rounds"), shown
    print(report["faults"])
