"""What the operating system says about the machine and about a process: cores, CPU time, memory, wake-ups."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.pace import Pace

CPU_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED: nanoseconds of all threads, user and kernel (clock_getcpuclockid(3))


@dataclass(frozen=True)
class Cores:
    """The core that a server is pinned to, and the one of its client; None: they share what there is."""

    server: int | None
    client: int | None
    pace: Pace = field(default_factory=lambda: Pace((), 0.0), compare=False)  # by default it is not looked at

    @property
    def are_separate(self) -> bool:
        return self.server is not None

    def as_json(self) -> dict[str, int | None]:
        """As results files have it."""
        return {"server": self.server, "client": self.client}


def choose_cores(patience_s: float = 0.0) -> Cores:
    """Two cores that this process may use, of different physical cores if possible; `patience_s` is how long a run may
    wait in all for them to be fast (see pace.py)."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return Cores(None, None)
    siblings = _thread_siblings(usable[0])
    others = [core for core in usable[1:] if core not in siblings]
    chosen = usable[0], others[0] if others else usable[1]
    return Cores(*chosen, Pace(chosen, patience_s))


def _thread_siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        text = path.read_text()
    except OSError:
        return set()
    siblings: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


@contextlib.contextmanager
def pinned_to(core: int | None) -> Iterator[None]:
    """What this thread starts in the block runs on that core only. None: anywhere."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Usage:
    """What a process has used until now."""

    at_s: float
    cpu_s: float
    rss_bytes: int
    voluntary_switches: int  # how often its threads went to sleep: an idle process that wakes up shows here
    involuntary_switches: int


def usage_of(pid: int) -> Usage:
    """Read a process' usage. OSError if it does not exist."""
    cpu_s = time.clock_gettime((~pid << 3) | CPU_CLOCK_OF_PROCESS)
    voluntary = involuntary = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        fields = _status_fields(status)
        voluntary += int(fields["voluntary_ctxt_switches"])
        involuntary += int(fields["nonvoluntary_ctxt_switches"])
    return Usage(time.monotonic(), cpu_s, _resident_bytes(pid), voluntary, involuntary)


def _resident_bytes(pid: int) -> int:
    # VmRSS is the sum of counters that each core updates in batches; the roll-up walks the page tables.
    try:
        text = _status_fields(Path(f"/proc/{pid}/smaps_rollup"))["Rss"]
    except OSError:
        text = _status_fields(Path(f"/proc/{pid}/status"))["VmRSS"]
    return int(text.split()[0]) * 1024


def _status_fields(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def _processor_name() -> str:
    try:
        fields = _status_fields(Path("/proc/cpuinfo"))
    except OSError:
        return platform.processor() or platform.machine()
    for name, value in fields.items():
        if name.strip() == "model name":
            return value
    return platform.machine()
