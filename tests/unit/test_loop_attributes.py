"""How a loop keeps its attributes: no dictionary of its own until a user sets one, so that calls are found fast."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from typing import Any

import hoop
import pytest

COMPILED = ("call_soon", "call_soon_threadsafe", "call_later", "call_at", "time", "create_future", "get_debug")


@pytest.fixture
def loop() -> Iterator[hoop.Loop]:
    made = hoop.Loop()
    yield made
    made.close()


def test_a_loop_that_has_run_has_no_attributes_in_a_dictionary(loop: hoop.Loop) -> None:
    loop.run_until_complete(asyncio.sleep(0))
    assert vars(loop) == {}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_methods_are_those_of_the_class_itself(name: str) -> None:
    assert getattr(hoop.Loop, name).__objclass__ is hoop.Loop


def test_methods_of_the_classes_in_between_stay_theirs() -> None:
    assert hoop.Loop.run_in_executor is not asyncio.AbstractEventLoop.run_in_executor
    assert "run_in_executor" not in vars(hoop.Loop)


def test_an_attribute_of_the_instance_takes_the_place_of_a_method(loop: hoop.Loop) -> None:
    seen: list[Any] = []
    patched: Any = loop
    patched.call_soon = lambda *arguments, context=None: seen.append(arguments)
    future = loop.create_future()
    future.add_done_callback(seen.append)
    future.set_result(None)
    assert seen == [(seen.append, future)]
    del patched.call_soon
    loop.call_soon(seen.clear)
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == []


def test_a_derived_class_overrides_and_extends() -> None:
    class Counting(hoop.Loop):
        soon = 0

        def call_soon(self, *arguments: Any, **keywords: Any) -> Any:
            self.soon += 1
            return super().call_soon(*arguments, **keywords)

    loop = Counting()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert loop.soon >= 2
    finally:
        loop.close()


def test_create_task_refuses_what_asyncio_refuses(loop: hoop.Loop) -> None:
    async def nothing() -> None:
        return None

    made: Any = loop.create_task
    coroutine = nothing()
    with pytest.raises(TypeError):
        made(coroutine, loop=loop)
    with pytest.raises(TypeError):
        made(coroutine, colour="red")
    with pytest.raises(TypeError):
        made(coroutine, "name")
    with pytest.raises(TypeError):
        made()
    with pytest.raises(TypeError, match="a coroutine was expected"):
        made(1)
    loop.run_until_complete(coroutine)


def test_create_task_takes_its_keywords_however_they_are_spelled(loop: hoop.Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(variable.set, "theirs")

    async def look() -> str:
        return variable.get("ours")

    assert loop.run_until_complete(loop.create_task(look())) == "ours"
    task = loop.create_task(look(), name="one", context=context)
    assert (loop.run_until_complete(task), task.get_name()) == ("theirs", "one")
    made_at_run_time = {b"name".decode(): "two", b"context".decode(): context}
    task = loop.create_task(look(), **made_at_run_time)
    assert (loop.run_until_complete(task), task.get_name()) == ("theirs", "two")
    task = loop.create_task(coro=look())
    assert loop.run_until_complete(task) == "ours"


def test_a_loop_of_ones_own_in_debug_mode_ends_the_traceback_of_a_task_where_it_was_made() -> None:
    class Debugged(hoop.Loop):
        def get_debug(self) -> bool:
            return True

    async def nothing() -> None:
        return None

    loop = Debugged()
    try:
        task: Any = loop.create_task(nothing())
        assert task._source_traceback[-1].line == "task: Any = loop.create_task(nothing())"
        loop.run_until_complete(task)
    finally:
        loop.close()
