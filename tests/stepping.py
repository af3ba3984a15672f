"""Running a loop that a test holds in its hands: one turn of it, or until something stops it."""

from __future__ import annotations

import asyncio

DEADLINE_S = 30.0


def one_turn(loop: asyncio.AbstractEventLoop) -> None:
    """Exactly one poll and one batch: that is what stop() before run_forever() means."""
    loop.stop()
    loop.run_forever()


def run_guarded(loop: asyncio.AbstractEventLoop) -> None:
    """run_forever() that fails at the deadline instead of hanging."""
    expired: list[bool] = []

    def expire() -> None:
        expired.append(True)
        loop.stop()

    guard = loop.call_later(DEADLINE_S, expire)
    try:
        loop.run_forever()
    finally:
        guard.cancel()
    assert not expired, "what should have stopped the loop was lost, or nothing woke it"
