"""Who watches the loops of this process: variables that hoop.monitor sets, so that a loop that nobody watches pays for
a look at one of them as a run begins, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

on_run: Callable[[Any], Callable[[], object]] | None = None
"""Called with a loop as its run begins; what it returns is called when the run is over."""

report: Callable[[], dict[str, Any]] | None = None
"""What has been found so far, as JSON: see hoop.monitor.Watch.as_json()."""

tell: Callable[[], object] | None = None
"""Write what has been found to stderr, for processes that end without atexit's functions."""
