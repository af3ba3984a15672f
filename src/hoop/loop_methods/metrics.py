"""loop.metrics(): what the loop's meter counts, as a plain value."""

from __future__ import annotations

import asyncio

from hoop import stats
from hoop.jobs.pool import loop_pool_if_made
from hoop.loop_methods.base_loop import BaseLoop


class Metrics(BaseLoop, asyncio.AbstractEventLoop):
    """metrics and reset_metrics."""

    def metrics(self) -> stats.Metrics:
        """A snapshot of what the loop has done and how late it was (docs/metrics.md). Counting is always on.

        In the loop's own thread, or while the loop does not run.
        """
        pool = loop_pool_if_made(self)
        return stats.Metrics(**self._measured(), pool=None if pool is None else pool.stats())

    def reset_metrics(self) -> None:
        """Set counters, times and distributions to zero; not the pool's."""
        self._reset_meter()
