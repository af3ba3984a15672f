"""Asynchronous generators: the loop closes those that are left suspended, however they were left (trap 36)."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
from collections.abc import AsyncGenerator
from typing import Any

import pytest

DEADLINE_S = 60.0


class Trace:
    """A generator function whose clean-up awaits, and a record of what happened to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.threads: list[int] = []

    async def generate(self, name: str = "generator") -> AsyncGenerator[int, None]:
        try:
            for number in range(3):
                yield number
        finally:
            await asyncio.sleep(0)
            self.events.append(f"{name} closed")
            self.threads.append(threading.get_ident())


async def start(generator: AsyncGenerator[int, None]) -> None:
    assert await generator.__anext__() == 0


async def settle() -> None:
    """Long enough for a scheduled aclose() to run through: it takes a fixed, small number of turns."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_trap_36_shutdown_asyncgens_closes_suspended_generators(loop):
    trace = Trace()
    generators = [trace.generate(f"generator {number}") for number in range(5)]

    async def main() -> None:
        for generator in generators:
            await start(generator)
        assert trace.events == []
        await loop.shutdown_asyncgens()

    loop.run_until_complete(main())
    assert sorted(trace.events) == [f"generator {number} closed" for number in range(5)]


def test_shutdown_asyncgens_without_any(loop):
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_asyncgens())


def test_finished_and_unstarted_generators_are_left_alone(loop):
    trace = Trace()

    async def main() -> None:
        assert [number async for number in trace.generate("finished")] == [0, 1, 2]
        unstarted = trace.generate("unstarted")
        await loop.shutdown_asyncgens()
        del unstarted

    loop.run_until_complete(main())
    assert trace.events == ["finished closed"]


def test_an_error_while_closing_is_reported(loop):
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))

    async def fails() -> AsyncGenerator[int, None]:
        try:
            yield 0
        finally:
            raise ZeroDivisionError

    generator = fails()

    async def main() -> None:
        await start(generator)
        await loop.shutdown_asyncgens()

    loop.run_until_complete(main())
    [context] = contexts
    assert set(context) == {"message", "exception", "asyncgen"}
    assert context["asyncgen"] is generator
    assert type(context["exception"]) is ZeroDivisionError
    assert context["message"].startswith("an error occurred during closing of asynchronous generator")


def test_a_generator_started_after_shutdown_is_warned_about(loop):
    trace = Trace()

    async def main() -> None:
        await loop.shutdown_asyncgens()
        generator = trace.generate()
        with pytest.warns(ResourceWarning, match="scheduled after.*shutdown_asyncgens"):
            await start(generator)
        await generator.aclose()

    loop.run_until_complete(main())
    assert trace.events == ["generator closed"]


def test_an_abandoned_generator_is_closed_by_the_loop(loop):
    trace = Trace()

    async def main() -> None:
        generator = trace.generate()
        await start(generator)
        del generator
        gc.collect()
        await settle()
        assert trace.events == ["generator closed"]

    loop.run_until_complete(main())


def test_a_generator_left_by_break_is_closed_by_the_loop(loop):
    trace = Trace()

    async def main() -> None:
        async for number in trace.generate():
            if number == 1:
                break
        gc.collect()
        await settle()
        assert trace.events == ["generator closed"]

    loop.run_until_complete(main())


def test_a_generator_abandoned_in_another_thread_is_closed_in_the_loop(loop):
    trace = Trace()
    box: list[Any] = []

    async def main() -> None:
        box.append(trace.generate())
        await start(box[0])
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join(DEADLINE_S)
        gc.collect()
        await settle()

    loop.run_until_complete(main())
    assert trace.events == ["generator closed"]
    assert trace.threads == [threading.get_ident()]


def test_a_generator_abandoned_between_runs_is_closed_in_the_next(loop):
    trace = Trace()
    box: list[Any] = [trace.generate()]
    loop.run_until_complete(start(box[0]))
    box.clear()
    gc.collect()
    assert trace.events == []
    loop.run_until_complete(settle())
    assert trace.events == ["generator closed"]


def test_a_generator_abandoned_after_close_does_no_harm(loop):
    trace = Trace()
    box: list[Any] = [trace.generate()]
    loop.run_until_complete(start(box[0]))
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        box.clear()
        gc.collect()
    assert trace.events == []


def test_runner_closes_what_is_left(loop_factory):
    trace = Trace()
    generator = trace.generate()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(start(generator))
        assert trace.events == []
    assert trace.events == ["generator closed"]


def test_the_interpreters_hooks_are_the_loops_only_while_it_runs(loop):
    async def main() -> Any:
        return sys.get_asyncgen_hooks()

    before = sys.get_asyncgen_hooks()
    during = loop.run_until_complete(main())
    assert during.firstiter is not None and during.finalizer is not None
    assert sys.get_asyncgen_hooks() == before


def test_hooks_of_the_user_are_put_back(loop):
    def firstiter(generator: object) -> None:
        """Not called: the loop's own hook is in place."""

    def finalizer(generator: object) -> None:
        """Not called."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=firstiter, finalizer=finalizer)
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert tuple(sys.get_asyncgen_hooks()) == (firstiter, finalizer)
        loop.call_soon(interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert tuple(sys.get_asyncgen_hooks()) == (firstiter, finalizer)
    finally:
        sys.set_asyncgen_hooks(*before)


def test_many_generators_abandoned_at_once(loop):
    trace = Trace()

    async def main() -> None:
        generators = [trace.generate() for _ in range(300)]
        for generator in generators:
            await start(generator)
        del generator, generators
        gc.collect()
        await settle()

    loop.run_until_complete(main())
    assert trace.events == ["generator closed"] * 300
