"""The detectors, each as its page says how to set it up, all with a threshold of 50 ms where they have one.

A tool is a function that a coroutine of the program calls before the cases. It returns a function that returns what the
tool has said since, as texts. Cases are run by call(): a tool that raises in the program has said what it raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

THRESHOLD_S = 0.05
Said = Callable[[], list[str]]


def set_up_nothing() -> Said:
    return list


def set_up_hoop() -> Said:
    import hoop

    watch = hoop.monitor.watch(THRESHOLD_S)
    return lambda: ["\n".join(blocked.stack.format()) for blocked in watch.report()]


def set_up_aiocop() -> Said:
    import aiocop

    said: list[str] = []

    def on_slow_task(event: Any) -> None:
        traces = [blocking["trace"] for blocking in event.blocking_events]
        said.append("\n".join([*traces, *[sample["trace"] for sample in event.cpu_stack_samples]]))

    aiocop.patch_audit_functions()
    aiocop.start_blocking_io_detection(trace_depth=20)
    aiocop.detect_slow_tasks(threshold_ms=int(THRESHOLD_S * 1000), on_slow_task=on_slow_task)
    aiocop.activate()
    return lambda: said


def set_up_blockbuster() -> Said:
    from blockbuster import BlockBuster

    BlockBuster().activate()
    return list


def set_up_asyncio_debug() -> Said:
    said: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logging.getLogger("asyncio").addHandler(Handler())
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = THRESHOLD_S
    return lambda: said


@dataclass(frozen=True)
class Tool:
    title: str
    set_up: Callable[[], Said]
    package: str | None = None
    is_on_hoop: bool = False


TOOLS = {
    "hoop": Tool("hoop.monitor", set_up_hoop, "hoop", is_on_hoop=True),
    "aiocop": Tool("aiocop", set_up_aiocop, "aiocop"),
    "blockbuster": Tool("blockbuster", set_up_blockbuster, "blockbuster"),
    "debug": Tool("asyncio's debug mode", set_up_asyncio_debug),
}
BASES = {"asyncio": Tool("asyncio", set_up_nothing), "plain-hoop": Tool("hoop", set_up_nothing, is_on_hoop=True)}


@contextlib.contextmanager
def call_says(raised: list[str]) -> Iterator[None]:
    """For calls that a tool may refuse: what it says then. Other exceptions go on."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "BlockingError":
            raise
        raised.append(traceback.format_exc())
