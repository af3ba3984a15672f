"""Calls all that a compiled class has on objects whose __init__() never ran; a program of its own, since it may crash.

    python uninitialised.py LOG

The last line of LOG says what was being done. Prints how many classes it has seen, how many of them could be made, and
how many calls it has made.
"""

from __future__ import annotations

import copy
import faulthandler
import gc
import importlib
import inspect
import logging
import operator
import os
import pickle
import pkgutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import hoop

LONGEST_S = 100
NOT_CALLED = {
    "__class__",
    "__getattribute__",
    "__init__",
    "__init_subclass__",
    "__new__",
    "__subclasshook__",
    "__abstractmethods__",
}
OUTER: list[Callable[[Any], Any]] = [
    repr,
    str,
    hash,
    bool,
    len,
    iter,
    next,
    dir,
    gc.get_referents,
    copy.copy,
    copy.deepcopy,
    pickle.dumps,
    sys.getsizeof,
    lambda one: one == one,
    lambda one: one < one,
    lambda one: one >= object(),
    lambda one: operator.attrgetter("__dict__")(one),
]


def compiled_modules() -> Iterator[Any]:
    for info in pkgutil.walk_packages(hoop.__path__, "hoop."):
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:  # adapters need what they adapt; they are not compiled
            assert error.name is not None and error.name.partition(".")[0] != "hoop", error
            continue
        if not (module.__file__ or "").endswith(".py"):
            yield module


def classes() -> list[type]:
    """What the modules have, and what derives from it in Python: the loop, and whatever else inherits."""
    found: dict[str, type] = {}
    for module in compiled_modules():
        for one in vars(module).values():
            if isinstance(one, type) and one.__module__ == module.__name__:
                found[f"{one.__module__}.{one.__qualname__}"] = one
    found["hoop.loop.Loop"] = hoop.Loop
    found["hoop.loop_methods.socket_handles.SocketServer"] = hoop.SocketServer
    return [found[name] for name in sorted(found)]


class Log:
    """Where we are, for whoever finds us dead."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.calls = 0

    def step(self, text: str) -> None:
        self.calls += 1
        os.write(self.fd, text.encode() + b"\n")


def attempt(log: Log, what: str, action: Callable[..., Any], *arguments: Any) -> None:
    log.step(what)
    try:
        result = action(*arguments)
        if inspect.isawaitable(result) and hasattr(result, "close"):
            try:
                result.send(None)
            finally:
                result.close()
    except BaseException as error:
        if isinstance(error, SystemError):
            raise  # an exception that C code has mishandled


def shapes(one: Any) -> list[tuple[Any, ...]]:
    loop = hoop.Loop.__new__(hoop.Loop)
    return [
        (),
        (None,),
        (one,),
        (loop,),
        (b"bytes",),
        (1.5,),
        ("text",),
        (int,),
        (ValueError(),),
        (None, None),
        (one, one),
        (loop, None),
        (b"bytes", ("127.0.0.1", 1)),
        (None, None, None),
        (loop, one, one),
        (None, None, None, None),
        (loop, one, None, loop, one),
        (loop, one, one, one, one, one),
    ]


def makers(kind: type) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Ways to an object without __init__()."""
    yield "__new__", lambda: kind.__new__(kind)
    try:
        forgetful = type(f"Forgetful{kind.__name__}", (kind,), {"__init__": lambda self, *_, **__: None})
    except TypeError:
        return  # final
    yield "a subclass", lambda: forgetful()


def try_object(log: Log, name: str, make: Callable[[], Any]) -> bool:
    try:
        sample = make()
    except TypeError:
        return False
    for action in OUTER:
        attempt(log, f"{name}: {action!r}", action, make())
    for attribute in dir(sample):
        if attribute in NOT_CALLED:
            continue
        attempt(log, f"{name}.{attribute}: get", lambda attribute=attribute: getattr(make(), attribute))
        for value in (None, 0, b"", object(), sample, print):
            attempt(
                log, f"{name}.{attribute} = {type(value).__name__}", lambda a=attribute, v=value: setattr(make(), a, v)
            )
        attempt(log, f"{name}.{attribute}: delete", lambda attribute=attribute: delattr(make(), attribute))
        for arguments in shapes(make()):
            step = f"{name}.{attribute}(of {len(arguments)}: {', '.join(type(a).__name__ for a in arguments)})"
            attempt(log, step, lambda a=attribute, v=arguments: getattr(make(), a)(*v))
            attempt(log, f"{step}, on one object", lambda a=attribute, v=arguments: getattr(sample, a)(*v))
    log.step(f"{name}: freeing")
    del sample
    gc.collect()
    return True


def try_functions(log: Log) -> None:
    """What else takes objects of hoop's: constructors and functions of the modules, given unmade ones and nonsense."""
    unmade: list[Any] = [None, object(), b"bytes", "text", print]
    for kind in classes():
        try:
            unmade.append(kind.__new__(kind))
        except TypeError:
            continue
    for module in compiled_modules():
        for name, function in sorted(vars(module).items()):
            if (
                name.startswith("__")
                or not callable(function)
                or getattr(function, "__module__", "") != module.__name__
            ):
                continue
            for count in range(1, 7):
                for one in unmade:
                    what = f"{module.__name__}.{name}({count} x {type(one).__name__})"
                    attempt(log, what, lambda f=function, o=one, n=count: f(*[o] * n))
                    loop = hoop.Loop.__new__(hoop.Loop)
                    attempt(log, f"{what}, a loop first", lambda f=function, o=one, n=count, u=loop: f(u, *[o] * n))


def main(path: str) -> None:
    faulthandler.enable()
    signal.alarm(LONGEST_S)
    warnings.simplefilter("ignore")
    logging.disable()
    sys.unraisablehook = lambda args: None
    log = Log(path)
    made = 0
    kinds = classes()
    for kind in kinds:
        for how, make in makers(kind):
            made += try_object(log, f"{kind.__module__}.{kind.__qualname__} by {how}", make)
    try_functions(log)
    gc.collect()
    print(len(kinds), made, log.calls)


if __name__ == "__main__":
    main(sys.argv[1])
