"""The matrix: each call of each subject in each state, made on asyncio and on hoop, and what came of it on both.

In the folder tests, print those of the cases whose names have all the words that differ:

    python -m conformance.differences.matrix [words...]
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hoop
from conformance.differences.calls import Call, calls_of, parameters_of
from conformance.differences.loops import LOOP
from conformance.differences.outcomes import shown, shown_error, without_objects
from conformance.differences.subjects import SUBJECTS, Subject, here
from conformance.differences.surroundings import Surroundings, in_thread, settled
from loop_factories import loop_factory_named

WHAT_IT_IS = "what it is"  # the label of a case that calls nothing
WAIT_S = 20.0  # what has not ended by then waits for ever


@dataclass
class Case:
    """One call in one state. `place`: "loop" (inside a callback), "outside" (the loop is stopped), "closed" (the loop
    is), "thread" (another one, in debug mode)."""

    subject: Subject
    state: str
    place: str
    call: Call

    def __str__(self) -> str:
        places = {"loop": "", "outside": ", loop stopped", "closed": ", loop closed", "thread": ", other thread"}
        where = places[self.place]
        return f"{self.subject.name} {self.state}{where}: {self.call}"


def public_names(model: type) -> list[str]:
    return [name for name in dir(model) if not name.startswith("_")]


def calls_for(subject: Subject, *, only_fitting: bool) -> Iterator[Call]:
    for name in public_names(subject.model):
        method = getattr(subject.model, name)
        if not callable(method) or name in subject.skipped:
            continue
        parameters = parameters_of(method)[subject.is_class :]
        yield from calls_of(name, parameters, subject.fitting.get(name, {}), subject.unfit, only_fitting=only_fitting)
    for name, label, positional, keywords in subject.more:
        if hasattr(subject.model, name):
            yield Call(name, label, positional, keywords)


def cases() -> Iterator[Case]:
    """All of them, in a fixed order."""
    for subject in (*SUBJECTS, LOOP):
        first = next(iter(subject.states))
        for name in public_names(subject.model):
            yield Case(subject, first, "loop", Call(name, WHAT_IT_IS))
        for state in subject.states:
            for call in calls_for(subject, only_fitting=state not in subject.odd_in):
                yield Case(subject, state, "loop", call)
        for place in PLACES.get(subject.name, ("outside", "thread")):
            for call in calls_for(subject, only_fitting=True):
                if not call.label and call.function not in NOT_ELSEWHERE:
                    yield Case(subject, first, place, call)


PLACES: dict[str, tuple[str, ...]] = {"loop": ("outside", "thread", "closed"), "module": ()}
# These would run the loop for ever, or leave a child that nobody waits for.
NOT_ELSEWHERE = ("run_forever", "run_until_complete", "subprocess_exec", "subprocess_shell", "communicate")


class Log(logging.Handler):
    """The first line of what asyncio's logger was told."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not text.startswith("Executing "):  # slow callbacks in debug mode: the machine's business
            self.lines.append(f"{record.levelname.lower()}: {without_objects(text).splitlines()[0]}")


def perform(loop_name: str, case: Case) -> str:
    """What the call leads to on that loop."""
    loop = loop_factory_named(loop_name)()
    around = Surroundings(loop)
    # When a child's news come is the kernel's business.
    around.is_noting = case.subject.is_noting and not case.call.function.startswith("subprocess_")
    around.streams = asyncio if loop_name == "asyncio" else hoop
    here.around = around
    logs: list[str] = []
    handler = Log(logs)
    logger = logging.getLogger("asyncio")
    outcome: list[str] = []
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            {"loop": inside, "outside": outside, "closed": on_closed, "thread": from_thread}[case.place](
                loop, around, case, logs, outcome
            )
            finish(loop, around)
    except Exception as error:  # the loop itself fell over something, and cannot be run again
        outcome.append(f"ends the loop with {shown_error(error)}")
        around.close()
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
    return "; ".join(outcome)


def run(loop: Any, coroutine: Any) -> Any:
    """run_until_complete, however often the loop is stopped."""
    task = asyncio.Task(coroutine, loop=loop)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except RuntimeError as error:
            if "stopped before" not in str(error):
                raise
    return task.result()


def finish(loop: Any, around: Surroundings) -> None:
    if not loop.is_closed():
        loop.set_task_factory(None)
        loop.set_debug(False)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        run(loop, settled(2))
    around.close()
    if not loop.is_closed():
        run(loop, settled(3))
        loop.close()


async def prepared(around: Surroundings, case: Case, logs: list[str]) -> Any:
    thing = await case.subject.states[case.state](around)
    if case.state == next(iter(case.subject.states)):
        await settled()
    for noted in (around.events, around.reports, logs):
        noted.clear()
    return thing


def noted_after(around: Surroundings, logs: list[str]) -> list[str]:
    """What else came of it; a line that came again and again stands once."""
    if not around.is_noting:
        return []
    events = [f"then {event}" for event in around.events]
    return list(
        dict.fromkeys([*events, *(f"reports {told}" for told in around.reports), *(f"logs {line}" for line in logs)])
    )


def inside(loop: Any, around: Surroundings, case: Case, logs: list[str], outcome: list[str]) -> None:
    async def main() -> None:
        thing = await prepared(around, case, logs)
        outcome.append(await called(thing, case.call))
        await settled()
        outcome.extend(noted_after(around, logs))

    run(loop, main())


def outside(loop: Any, around: Surroundings, case: Case, logs: list[str], outcome: list[str]) -> None:
    thing = run(loop, prepared(around, case, logs))
    outcome.append(called_alone(thing, case.call))
    if not loop.is_closed():
        run(loop, settled())
    outcome.extend(noted_after(around, logs))


def on_closed(loop: Any, around: Surroundings, case: Case, logs: list[str], outcome: list[str]) -> None:
    thing = run(loop, prepared(around, case, logs))
    around.close()
    loop.close()
    logs.clear()
    outcome.append(called_alone(thing, case.call))
    outcome.extend(noted_after(around, logs))


def from_thread(loop: Any, around: Surroundings, case: Case, logs: list[str], outcome: list[str]) -> None:
    async def main() -> None:
        thing = await prepared(around, case, logs)
        loop.set_debug(True)
        outcome.append(in_thread(lambda: called_alone(thing, case.call)))
        await settled()
        loop.set_debug(False)
        outcome.extend(noted_after(around, logs))

    run(loop, main())


def what_it_is(thing: Any, name: str) -> str:
    found = getattr(thing, name)
    if inspect.iscoroutinefunction(found):
        return "a coroutine function"
    return "a method" if callable(found) else f"an attribute, {shown(found)}"


async def called(thing: Any, call: Call) -> str:
    """The result, awaited if it can be."""
    try:
        if call.label == WHAT_IT_IS:
            return what_it_is(thing, call.function)
        result = call.make(getattr(thing, call.function))
        if not inspect.isawaitable(result) or call.function == "create_future":
            return f"returns {shown(result)}"
        task = asyncio.ensure_future(result)
        done, _ = await asyncio.wait({task}, timeout=WAIT_S)
        if not done:
            return "waits"
        kind = f"{shown(result)} of " if isinstance(result, asyncio.Future) else ""
        return f"returns {kind}{shown(task.result())}"
    except asyncio.CancelledError:
        return "is cancelled"
    except (Exception, SystemExit) as error:
        return f"raises {shown_error(error)}"


def called_alone(thing: Any, call: Call) -> str:
    """The result where nothing can be awaited; of a coroutine what its first step does."""
    try:
        result = call.make(getattr(thing, call.function))
        if not hasattr(result, "send"):
            return f"returns {shown(result)}"
        try:
            result.send(None)
        except StopIteration as end:
            return f"returns {shown(end.value)}"
        result.close()
        return "waits"
    except (Exception, SystemExit) as error:
        return f"raises {shown_error(error)}"


def both(case: Case) -> tuple[str, str]:
    """What it leads to on asyncio and on hoop."""
    return perform("asyncio", case), perform("hoop", case)


def compare(*words: str) -> Iterator[tuple[Case, str, str]]:
    """(case, asyncio's outcome, hoop's) for all cases whose names have all the words."""
    for case in cases():
        if all(word in str(case) for word in words):
            yield case, *both(case)


if __name__ == "__main__":
    count = different = 0
    for case, theirs, ours in compare(*sys.argv[1:]):
        count += 1
        if theirs != ours:
            different += 1
            print(f"{case}\n    asyncio  {theirs}\n    hoop     {ours}", flush=True)
    print(f"{count} calls, {different} differ")
