"""What areas do that work on any asyncio loop, where hoop's own has more."""

from __future__ import annotations

from typing import Any


def unref(timer: Any) -> None:
    """Have loop.run() not wait for it, where the loop has such timers."""
    if hasattr(timer, "unref"):
        timer.unref()
