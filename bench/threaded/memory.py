"""Memory of a cluster of threads beside one of processes.

It is the sum of Pss of all processes (/proc/PID/smaps_rollup): what processes share is counted once.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

WORKERS = 4
LIMIT_S = 60.0
PSS = re.compile(r"^Pss: +(\d+) kB", re.MULTILINE)


def family_of(pid: int) -> list[int]:
    """The process and its descendants."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(one) for path in tasks for one in path.read_text().split()]
    return [pid, *(one for child in children for one in family_of(child))]


def memory_of(target: str, kind: str) -> int:
    """KiB of a cluster that serves."""
    command = [sys.executable, "-m", "hoop", "serve", target, f"--{kind}", str(WORKERS), "--bind", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.start()
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "serving on" in line:
                    break
            else:
                raise SystemExit("".join(said))
            pages = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family_of(process.pid)]
        finally:
            timer.cancel()
            process.send_signal(signal.SIGTERM)
    return sum(int(found) for page in pages for found in PSS.findall(page))


def show(target: str) -> None:
    figures = {kind: memory_of(target, kind) for kind in ("workers", "threads")}
    for kind, figure in figures.items():
        print(f"{target}, --{kind} {WORKERS}: {figure / 1024:.1f} MiB")
    print(f"threads : processes = {figures['threads'] / figures['workers']:.2f}")
