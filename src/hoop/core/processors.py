"""How many processors there are for this process, and whether its threads can use more than one."""

from __future__ import annotations

import os
import sys


def usable_processors() -> int:
    """Those that the scheduler lets it run on, where the system tells; quotas of cgroups are not considered."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gil() -> bool:
    """Whether threads that run Python take turns: on a free-threaded build until an extension switches that on."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
