"""The event loop policy, for programs that still use one. Python 3.16 removes policies, 3.14 deprecates them."""

from __future__ import annotations

import asyncio
import sys
import warnings

from hoop.loop import Loop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    DefaultPolicy = asyncio.DefaultEventLoopPolicy


class EventLoopPolicy(DefaultPolicy):
    """asyncio's default policy, making hoop loops."""

    def _loop_factory(self) -> Loop:
        return Loop()

    def new_event_loop(self) -> Loop:
        """A new, open loop."""
        return Loop()


def install() -> None:
    """Make hoop the loop of asyncio.run() and asyncio.new_event_loop(), by asyncio.set_event_loop_policy().

    DeprecationWarning from Python 3.12 on: prefer hoop.run(), or asyncio.run(loop_factory=hoop.new_event_loop).
    """
    if sys.version_info >= (3, 12):
        warnings.warn("hoop.install() is deprecated in favor of hoop.run()", DeprecationWarning, stacklevel=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(EventLoopPolicy())
