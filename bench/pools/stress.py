"""Random tasks, deaths, timeouts and aborts on one hoop.WorkerPool, each outcome compared with what it must be.

    python -m bench.pools.stress --tasks 10000 --seed 1

At the end every task has ended, the pool's counts add up, and no process or descriptor is left. Prints the counts;
AssertionError if anything differs. hoop is imported late, since each worker imports this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.pools import tasks

AT_ONCE = 12
WORKERS = 3
TIMEOUT_S = 0.02
LONGEST_ABORT_S = 0.05
LIMIT_S = 120.0  # for one task to end: more than that is a hang
KINDS = {  # what a task does, and how often
    "double": (tasks.double, 50),
    "large": (tasks.large, 10),
    "fail": (tasks.fail, 10),
    "unpicklable": (tasks.unpicklable, 5),
    "die": (tasks.die, 5),
    "leave": (tasks.leave, 4),
    "time out": (tasks.hang, 6),
    "abort": (tasks.hang, 6),
    "abort soon": (tasks.double, 4),
}


def expected(kind: str, number: int) -> tuple[Any, ...]:
    """The model: what may come of a task."""
    match kind:
        case "double":
            return (number * 2,)
        case "large":
            return (bytes([number % 256]) * (300_000 + number),)
        case "fail":
            return (("ValueError", str(number)),)
        case "unpicklable":
            return ("did not pickle",)
        case "die":
            return (("WorkerDied", None, 9),)
        case "leave":
            return (("WorkerDied", number % 100, None),)
        case "time out":
            return ("TimeoutError",)
        case "abort":
            return ("cancelled",)
    return ("cancelled", number * 2)


async def outcome_of(pool: Any, kind: str, number: int, chance: random.Random) -> Any:
    """Run one task; what came of it, in the model's words."""
    import hoop

    function = KINDS[kind][0]
    timeout = TIMEOUT_S if kind == "time out" else None
    task = asyncio.ensure_future(pool.run(function, number, timeout=timeout))
    if kind in ("abort", "abort soon"):
        asyncio.get_running_loop().call_later(chance.random() * LONGEST_ABORT_S, task.cancel)
    done, _ = await asyncio.wait([task], timeout=LIMIT_S)
    assert done, f"task {number} ({kind}) has not ended after {LIMIT_S} s: {pool.stats()}"
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    match error:
        case None:
            return task.result()
        case hoop.WorkerDied():
            return "WorkerDied", error.status, error.signal
        case TimeoutError():
            return "TimeoutError"
        case ValueError():
            return "ValueError", str(error)
    return "did not pickle" if "pickle" in str(error) or "local object" in str(error) else repr(error)


async def run_all(count: int, seed: int) -> Counter[str]:
    """How many of each kind have ended as they must. AssertionError for one that has not."""
    import hoop

    chance = random.Random(seed)
    names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
    ended: Counter[str] = Counter()
    waiting = iter(range(count))
    async with hoop.WorkerPool("process", min_workers=1, max_workers=WORKERS, idle_timeout=0.05) as pool:

        async def run_some() -> None:
            for number in waiting:
                kind = chance.choices(names, weights)[0]
                outcome = await outcome_of(pool, kind, number, chance)
                assert outcome in expected(kind, number), (number, kind, str(outcome)[:200])
                ended[kind] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(run_some())
        stats = pool.stats()
        assert stats.queued == stats.running == 0, stats
        assert stats.done + stats.failed + stats.cancelled >= count, stats
    stats = pool.stats()
    assert (stats.starting, stats.idle, stats.running, stats.queued) == (0, 0, 0, 0), stats
    assert ended.total() == count
    ended["workers started"], ended["deaths"] = stats.started, stats.deaths
    return ended


def descriptors() -> set[tuple[str, str]]:
    found = set()
    for path in Path("/dev/fd").iterdir():
        try:
            found.add((path.name, os.readlink(path)))
        except OSError:  # that of the listing itself
            continue
    return found


def children() -> list[str]:
    """Of this process, by their numbers. Zombies count."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pools.stress", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    import hoop
    from hoop.workers import pool as _  # noqa: F401  (its modules are open before the descriptors are counted)

    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
        before = descriptors()
        begun = time.monotonic()
        ended = runner.run(run_all(options.tasks, options.seed))
        left = {name for name, _ in descriptors()} - {name for name, _ in before}
    assert not left, f"descriptors are left: {sorted(left)}"
    assert children() == [], f"processes are left: {children()}"
    print(json.dumps({"seed": options.seed, "seconds": round(time.monotonic() - begun), **ended}), file=sys.stdout)


if __name__ == "__main__":
    main()
