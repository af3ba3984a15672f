"""hoop.run(main(), drain=...): a program that SIGTERM and SIGINT end gracefully."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from hoop.drain import Drain
from hoop.loop import Loop

T = TypeVar("T")

ENDING = (signal.SIGTERM, signal.SIGINT)
STATUS_OF_SIGNALS = 128  # a shell's: 128 and the number of the signal that ended the process


class DrainedRun(Generic[T]):
    """The task of main, and what signals do to it: the first one drains the loop, the second one ends it at once."""

    def __init__(self, loop: Loop, task: asyncio.Task[T], drain: Drain) -> None:
        self._loop = loop
        self._task = task
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None
        self.forced_by: signal.Signals | None = None

    def on_signal(self, number: signal.Signals) -> None:
        """Drain, or when that has begun: abort connections and cancel main."""
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain_and_end())
            return
        self.forced_by = number
        self._draining.cancel()
        for server in list(self._loop._servers):
            server.close()
            server.abort_clients()
        self._task.cancel()

    async def _drain_and_end(self) -> None:
        await self._loop.drain(self._drain)
        self._task.cancel()

    async def outcome(self) -> T | None:
        """What main returned; None if it was cancelled by a signal's work."""
        for number in ENDING:
            self._loop.add_signal_handler(number, self.on_signal, number)
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait((self._task,))
            raise
        finally:
            for number in ENDING:
                self._loop.remove_signal_handler(number)
        draining = self._draining
        if draining is None:
            return self._task.result()
        draining.cancel()  # main may have ended before it
        await asyncio.wait((draining,))
        if not draining.cancelled():
            draining.result()
        return None if self._task.cancelled() else self._task.result()


def run_drained(runner: asyncio.Runner, main: Coroutine[Any, Any, T], drain: Drain) -> T | None:
    """main's result on the runner's loop. A second signal makes that KeyboardInterrupt, or SystemExit(143)."""
    loop: Any = runner.get_loop()

    async def outcome() -> tuple[T | None, signal.Signals | None]:
        course = DrainedRun(loop, loop.create_task(main), drain)
        return await course.outcome(), course.forced_by

    result, forced_by = runner.run(outcome())
    if forced_by == signal.SIGINT:
        raise KeyboardInterrupt
    if forced_by is not None:
        sys.exit(STATUS_OF_SIGNALS + forced_by)
    return result
