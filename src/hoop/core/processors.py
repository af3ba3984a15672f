"""How many processors there are for this process."""

from __future__ import annotations

import os


def usable_processors() -> int:
    """Those that the scheduler lets it run on, where the system tells; quotas of cgroups are not considered."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
