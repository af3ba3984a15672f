"""How a loop keeps its attributes: without a dictionary of its own until a user sets one, so that calls are found fast."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import hoop

COMPILED = ("call_soon", "call_soon_threadsafe", "call_later", "call_at", "time", "create_future", "get_debug", "add_reader")


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
