"""Running a loop that a test holds in its hands: one turn of it, or until something stops it."""

from __future__ import annotations

import asyncio

DEADLINE_S = 60.0


def one_turn(loop: asyncio.AbstractEventLoop) -> None:
    """Exactly one poll and one batch: that is what stop() before run_forever() means."""
    loop.stop()
    loop.run_forever()


def run_guarded(loop: asyncio.AbstractEventLoop, *, is_ours: bool = True) -> None:
    """run_forever() that fails at the deadline instead of hanging.

    is_ours: this thread has made the loop, or run it last. Else a timer can only be set once it runs (without a GIL).
    """
    expired: list[bool] = []
    guards: list[asyncio.Handle] = []

    def expire() -> None:
        expired.append(True)
        loop.stop()

    def set_guard() -> None:
        guards.append(loop.call_later(DEADLINE_S, expire))

    if is_ours:
        set_guard()
    else:
        loop.call_soon_threadsafe(set_guard)
    try:
        loop.run_forever()
    finally:
        for guard in guards:
            guard.cancel()
    assert not expired, "what should have stopped the loop was lost, or nothing woke it"
