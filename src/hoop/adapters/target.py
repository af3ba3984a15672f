"""What is to be served: an import string becomes an object, and the object says which server it is for.

A target that cannot be had is a TargetError: one line for people, and the traceback of the application where it has
raised. Nothing here starts a loop or opens a socket.
"""

from __future__ import annotations

import asyncio
import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVERS = ("uvicorn", "hypercorn", "aiohttp", "protocol", "main")
ASGI_3_ARGUMENTS = 3  # scope, receive, send
PACKAGE = Path(__file__).parents[1]
MACHINERY = (str(PACKAGE / "adapters"), str(PACKAGE / "cluster"), importlib.__file__, "<frozen importlib")


class TargetError(Exception):
    """The target cannot be served. str() is one line; detail is the application's traceback, where it has raised."""

    def __init__(self, text: str, detail: str | None = None) -> None:
        super().__init__(text)
        self.detail = detail


def find(target: str | Callable[..., Any], app_dir: str | None = None) -> Any:
    """The object that the target names; what is no text is taken as it is.

    app_dir: a folder that modules are looked for in before all others; None: where Python looks anyway.
    """
    if not isinstance(target, str):
        return target
    module_name, attributes = split(target)
    if app_dir is not None and (folder := str(Path(app_dir).resolve())) not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the master may have looked into a folder before the module was written
    return attribute_of(load(module_name, target), attributes, target)


def split(target: str) -> tuple[str, list[str]]:
    """TargetError, with what to write instead, for what is no MODULE:ATTRIBUTE."""
    module, colon, attributes = target.partition(":")
    if "/" in module or module.endswith(".py"):
        name = module.removesuffix(".py").strip("./").replace("/", ".") or "app"
        raise TargetError(f"target {target!r} is a path: write a module's name, as in {name}:{attributes or 'app'}")
    if not colon or not attributes:
        raise TargetError(f"target {target!r} names no attribute: write MODULE:ATTRIBUTE, as in {module or 'app'}:app")
    names = attributes.split(".")
    for name in (*module.split("."), *names):
        if not name.isidentifier():
            raise TargetError(f"target {target!r} is no MODULE:ATTRIBUTE: {name!r} is no name")
    return module, names


def load(name: str, target: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            folder = Path(sys.path[0]).resolve() if sys.path else Path.cwd()
            raise TargetError(f"target {target!r}: no module named {error.name!r} (looked in {folder} first)") from None
        raise failed_import(name, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit()
        raise failed_import(name, error) from error


def failed_import(name: str, error: BaseException) -> TargetError:
    return TargetError(f"importing {name!r} failed: {in_a_line(error)}", application_traceback(error))


def attribute_of(module: Any, names: list[str], target: str) -> Any:
    found = module
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError:
            near = difflib.get_close_matches(name, [one for one in dir(found) if one[0] != "_"], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            owner = f"module {module.__name__!r}" if found is module else f"{found!r}"
            raise TargetError(f"target {target!r}: {owner} has no attribute {name!r}{hint}") from None
    return found


async def application_of(found: Any, *, factory: bool = False) -> Any:
    """What find() has found, or with factory=True what it returns when it is called; a coroutine is awaited."""
    if not factory:
        return found
    if not callable(found):
        raise TargetError(f"{found!r} cannot be called, so it is no factory")
    try:
        made = found()
        return await made if inspect.isawaitable(made) else made
    except Exception as error:
        raise TargetError(f"the factory failed: {in_a_line(error)}", application_traceback(error)) from error


def server_for(application: Any) -> str:
    """The server that "auto" means for it. TargetError if it fits none."""
    if is_aiohttp(application):
        return "aiohttp"
    if is_protocol_factory(application):
        return "protocol"
    if not callable(application):
        raise TargetError(f"{application!r} is no application: {KINDS}")
    needed, most = positional_arguments(application)
    if needed <= ASGI_3_ARGUMENTS <= most:
        return "uvicorn"
    if inspect.iscoroutinefunction(application) and needed <= 1:
        return "main"
    if needed <= 1 <= most and not inspect.iscoroutinefunction(application):
        return "uvicorn"  # ASGI 2: application(scope) returns a coroutine function
    if needed == 0:
        return "protocol"
    raise TargetError(f"{application!r} takes {needed} arguments: {KINDS}")


KINDS = (
    "an ASGI application, an aiohttp.web.Application, an asyncio.Protocol class (or what makes one), and an async "
    "function that serves are known"
)


def is_aiohttp(application: Any) -> bool:
    """Without importing aiohttp: an application of it exists only if that is done."""
    web = sys.modules.get("aiohttp.web")
    return web is not None and isinstance(application, web.Application)


def is_protocol_factory(application: Any) -> bool:
    return isinstance(application, type) and issubclass(application, asyncio.BaseProtocol)


def is_asgi_2(application: Any) -> bool:
    """Whether it is called with the scope alone, and returns what is called with receive and send."""
    _, most = positional_arguments(application)
    return most < ASGI_3_ARGUMENTS


def positional_arguments(function: Any) -> tuple[int, int]:
    """How many it needs, and how many it takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ASGI_3_ARGUMENTS, ASGI_3_ARGUMENTS  # in C, and silent about it: most likely an application
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [one for one in parameters if one.kind in kinds]
    needed = sum(1 for one in named if one.default is inspect.Parameter.empty)
    is_open = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    return needed, ASGI_3_ARGUMENTS + len(named) if is_open else len(named)


def in_a_line(error: BaseException) -> str:
    """An exception and where it was raised: the innermost line of the application's own code."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    frames = application_frames(traceback.extract_tb(error.__traceback__))
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text


def application_frames(frames: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """A stack without what stands above an application: hoop's part of a worker, and the import machinery."""
    return [one for one in frames if not one.filename.startswith(MACHINERY)]


def application_traceback(error: BaseException) -> str:
    """As Python prints it, without the frames that say nothing of the application."""
    told = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = told
    while part is not None:
        part.stack = traceback.StackSummary.from_list(application_frames(part.stack))
        part = part.__cause__ or part.__context__
    return "".join(told.format())
