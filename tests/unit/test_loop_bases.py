"""hoop.Loop is put together from bases: no name means two things, and what state a base has it declares once."""

from __future__ import annotations

from collections import defaultdict
from types import MethodDescriptorType

import hoop
import pytest
from hoop.loop import slots_of_bases
from hoop.loop_methods.base_loop import BaseLoop

# What Python gives each class for itself.
OF_EVERY_CLASS = {"__module__", "__doc__", "__annotations__", "__dict__", "__weakref__", "__parameters__"}
OF_EVERY_CLASS |= {"__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"}
OF_EVERY_CLASS |= {"__annotations_cache__", "__annotate_func__"}

BASES = [base for base in hoop.Loop.__mro__ if base.__module__.startswith("hoop.loop")]
MIXINS = [base for base in BASES if base not in (hoop.Loop, BaseLoop)]


def test_bases_are_found() -> None:
    assert {"Loop", "BaseLoop", "Signals", "Executors", "Problems"} <= {base.__name__ for base in BASES}


def test_each_name_is_defined_once() -> None:
    owners = defaultdict(list)
    for base in BASES:
        for name in vars(base).keys() - OF_EVERY_CLASS:
            if base is hoop.Loop and type(vars(base)[name]) is MethodDescriptorType:
                continue  # own_methods() has taken it over from BaseLoop
            owners[name].append(base.__name__)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}


@pytest.mark.parametrize("base", MIXINS, ids=lambda base: base.__name__)
def test_a_class_has_the_name_of_its_file(base: type) -> None:
    assert base.__module__.rpartition(".")[2].replace("_", "") == base.__name__.lower()


def test_each_attribute_is_declared_once_and_set() -> None:
    declared = [name for base in MIXINS for name in base.__annotations__]
    assert sorted(declared) == sorted(slots_of_bases)
    assert len(set(declared)) == len(declared)
    loop = hoop.Loop()
    try:
        assert [name for name in declared if not hasattr(loop, name)] == []
    finally:
        loop.close()
