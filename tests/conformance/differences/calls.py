"""The calls of the matrix: each parameter of a function left out, or replaced by odd values, one too many, all by name.

The parameters are those of asyncio's own function on the running Python; what fits them is found by their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


class Missing(Exception):
    """The matrix does not know what fits a parameter."""


class Thing:
    """An object of a class that nothing here expects."""


def nothing(*arguments: Any) -> None:
    """A callable that takes whatever it is given."""


async def coroutine_function() -> None:
    """What must not be given where a plain callable is expected."""


# What is given in place of what fits. Each is made anew, since a call may change it.
ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "an object": Thing,
    "a text": lambda: "text",
    "an empty text": lambda: "",
    "bytes": lambda: b"bytes",
    "a bytearray": lambda: bytearray(b"bytearray"),
    "-1": lambda: -1,
    "0": lambda: 0,
    "2**70": lambda: 1 << 70,
    "True": lambda: True,
    "1.5": lambda: 1.5,
    "nan": lambda: float("nan"),
    "a list": list,
    "a tuple": tuple,
    "a dict": dict,
    "a callable": lambda: nothing,
    "a coroutine function": lambda: coroutine_function,
    "a class": lambda: Thing,
}


@dataclass
class Call:
    """One call: positional and keyword arguments as functions that make them, and how the table names it."""

    function: str
    label: str
    positional: list[Callable[[], Any]] = field(default_factory=list)
    keywords: dict[str, Callable[[], Any]] = field(default_factory=dict)
    is_odd: bool = True

    def __str__(self) -> str:
        return f"{self.function}({self.label})"

    def make(self, function: Callable[..., Any]) -> Any:
        return function(*(make() for make in self.positional), **{name: make() for name, make in self.keywords.items()})


def constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def parameters_of(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def calls_of(
    name: str,
    parameters: list[inspect.Parameter],
    fitting: dict[str, Callable[[], Any]],
    unfit: Mapping[str, Collection[str]],
    *,
    only_fitting: bool = False,
) -> Iterator[Call]:
    """Every call of a function with these parameters.

    fitting: makers of what fits, by the parameter's name; those without a default must be there, others are left to
    their default unless they are. unfit: for "parameter" or "function.parameter", the odd values that are not tried
    (they would ask a name server, or wait).
    """
    kinds = inspect.Parameter
    plain = [one for one in parameters if one.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    named = [one for one in parameters if one.kind is kinds.KEYWORD_ONLY]
    has_rest = any(one.kind is kinds.VAR_POSITIONAL for one in parameters)
    has_names = any(one.kind is kinds.VAR_KEYWORD for one in parameters)
    needed = [one.name for one in plain if one.default is one.empty]
    given = [one.name for one in plain if one.name in fitting or one.name in needed]
    while given and given != [one.name for one in plain][: len(given)]:
        given.pop()
    for one in needed:
        if one not in fitting:
            raise Missing(f"{name}({one})")
    positional = [fitting[one] for one in given]
    keywords = {one.name: fitting[one.name] for one in (*plain[len(given) :], *named) if one.name in fitting}
    yield Call(name, "", positional, keywords, is_odd=False)
    if only_fitting:
        return
    by_name = {**dict(zip(given, positional, strict=True)), **keywords}
    if by_name and not has_rest:
        yield Call(name, "all by name", [], by_name)
    for number, one in enumerate(needed):
        yield Call(name, f"without {one}", positional[:number], {})
    if not has_rest:
        filler = [constant(None)] * (len(plain) - len(positional) + 1)
        yield Call(name, "one too many", [*positional, *filler], keywords)
    if not has_names:
        yield Call(name, "unknown keyword", positional, {**keywords, "colour": constant("red")})
    for one in (*plain, *named):
        for label, make in ODD.items():
            if label in unfit.get(one.name, ()) or label in unfit.get(f"{name}.{one.name}", ()):
                continue
            changed, renamed = list(positional), dict(keywords)
            if one.name in given:
                changed[given.index(one.name)] = make
            else:
                renamed[one.name] = make
            yield Call(name, f"{one.name}={label}", changed, renamed)
