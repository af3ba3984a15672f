"""The loops that tests run on, by name. Not in conftest.py: tests/apps has one too, and a module name is unique."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory_named(name: str) -> LoopFactory:
    """The factory behind a fixture parameter: "asyncio" is the stdlib selector loop, "hoop" is this project's."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    import hoop

    if os.environ.get("HOOP_TEST_POLL_EVERY_TURN") == "1":
        return functools.partial(hoop.Loop, poll_every_turn=True)
    return hoop.new_event_loop
