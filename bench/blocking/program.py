"""The program that is looked at, in a process of its own: `python -m bench.blocking.program TOOL CASE`.

Prints a line of JSON: what the tool said, or for the case "cost" the nanoseconds of a callback that does nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import hoop

from bench.blocking.cases import CASES
from bench.blocking.tools import BASES, TOOLS, call_says

COST = "cost"
CALLBACKS = 50_000  # long enough for a thread that samples to do so in each window
ROUNDS = 5


async def hold(case: str, raised: list[str]) -> None:
    with call_says(raised):
        CASES[case][0]()


async def run_case(tool: str, case: str) -> Any:
    said = TOOLS[tool].set_up()
    await asyncio.sleep(0.1)  # what the set-up itself took is over, and told
    before = len(said())
    raised: list[str] = []
    await asyncio.create_task(hold(case, raised))
    await asyncio.sleep(0.1)
    return {"said": [*said()[before:], *raised]}


async def measure_cost(tool: str) -> Any:
    {**TOOLS, **BASES}[tool].set_up()
    loop = asyncio.get_running_loop()
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter_ns()
        for _ in range(CALLBACKS):
            loop.call_soon(int)
        await asyncio.sleep(0)
        best = min(best, (time.perf_counter_ns() - begun) / CALLBACKS)
    return {"ns": round(best, 1)}


def main(tool: str, case: str) -> None:
    one = {**TOOLS, **BASES}[tool]
    factory = hoop.new_event_loop if one.is_on_hoop else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=factory) as runner:
        found = runner.run(measure_cost(tool) if case == COST else run_case(tool, case))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
