"""hoop.adapters.target: import strings, what they lead to, and what is said of those that lead nowhere."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop.adapters.target import TargetError, application_of, find, server_for

MODULE = """
class Deep:
    app = "deep application"

async def app(scope, receive, send): ...
def make(): return app
"""
MODULES = {
    "good_target": MODULE,
    "raising_target": "def connect():\n    raise LookupError('no settings')\n\nconnect()\n",
    "wanting_target": "import no_such_package\n",
    "exiting_target": "import sys\nsys.exit('usage')\n",
    "broken_target": "def f(:\n    pass\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    yield str(tmp_path)
    for name in MODULES:
        sys.modules.pop(name, None)


def test_names_lead_to_objects(folder: str) -> None:
    application = find("good_target:app", folder)
    assert server_for(application) == "uvicorn"
    assert find("good_target:Deep.app", folder) == "deep application"
    assert find(application) is application
    assert sys.path.count(folder) == 1


def test_a_module_that_is_written_later_is_found(folder: str) -> None:
    find("good_target:app", folder)
    Path(folder, "broken_target.py").write_text("app = 1")
    assert find("broken_target:app", folder) == 1


WRONG = [
    ("app", "target 'app' names no attribute: write MODULE:ATTRIBUTE, as in app:app"),
    ("", "target '' names no attribute: write MODULE:ATTRIBUTE, as in app:app"),
    ("src/web/app.py:app", "target 'src/web/app.py:app' is a path: write a module's name, as in src.web.app:app"),
    ("./app.py", "target './app.py' is a path: write a module's name, as in app:app"),
    ("a b:app", "target 'a b:app' is no MODULE:ATTRIBUTE: 'a b' is no name"),
    ("app:create()", r"target 'app:create\(\)' is no MODULE:ATTRIBUTE: 'create\(\)' is no name"),
    ("no_such_target:app", r"target 'no_such_target:app': no module named 'no_such_target' \(looked in .* first\)"),
    ("good_target.sub:app", r"importing 'good_target.sub' failed|target 'good_target.sub:app': no module named"),
    ("good_target:ap", "module 'good_target' has no attribute 'ap'; did you mean 'app'"),
    ("good_target:Deep.oops", "<class 'good_target.Deep'> has no attribute 'oops'$"),
]


@pytest.mark.parametrize(("target", "line"), WRONG)
def test_what_leads_nowhere(folder: str, target: str, line: str) -> None:
    with pytest.raises(TargetError, match=line) as raised:
        find(target, folder)
    assert "\n" not in str(raised.value)
    assert raised.value.detail is None


RAISING = [
    ("raising_target", r"failed: LookupError: no settings \(raising_target.py, line 2\)$", "in connect"),
    (
        "wanting_target",
        r"failed: ModuleNotFoundError: No module named 'no_such_package' \(.*line 1\)$",
        "import no_such",
    ),
    ("exiting_target", r"failed: SystemExit: usage \(exiting_target.py, line 2\)$", "sys.exit"),
    ("broken_target", r"importing 'broken_target' failed: SyntaxError: ", "def f(:"),
]


@pytest.mark.parametrize(("module", "line", "where"), RAISING)
def test_module_that_raises(folder: str, module: str, line: str, where: str) -> None:
    with pytest.raises(TargetError, match=line) as raised:
        find(f"{module}:app", folder)
    detail = raised.value.detail
    assert detail is not None and where in detail
    assert "importlib" not in detail and "adapters" not in detail


def test_factories() -> None:
    async def made_later() -> str:
        await asyncio.sleep(0)
        return "made"

    def raising() -> None:
        raise LookupError("no settings")

    assert hoop.run(application_of(lambda: "made", factory=True)) == "made"
    assert hoop.run(application_of(made_later, factory=True)) == "made"
    assert hoop.run(application_of("as it is")) == "as it is"
    with pytest.raises(
        TargetError, match=r"the factory failed: LookupError: no settings \(test_target.py, line"
    ) as raised:
        hoop.run(application_of(raising, factory=True))
    assert raised.value.detail is not None and "in raising" in raised.value.detail
    with pytest.raises(TargetError, match="5 cannot be called, so it is no factory"):
        hoop.run(application_of(5, factory=True))


class Framework:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class OfAsgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


async def application(scope: Any, receive: Any, send: Any) -> None: ...


async def wrapped(*arguments: Any, **keywords: Any) -> None: ...


async def main() -> None: ...


async def main_with_worker(worker: Any) -> None: ...


def asgi_2(scope: Any) -> Any: ...


SERVERS = [
    (application, "uvicorn"),
    (Framework(), "uvicorn"),
    (functools.partial(application), "uvicorn"),
    (wrapped, "uvicorn"),
    (OfAsgi2, "uvicorn"),
    (asgi_2, "uvicorn"),
    (main, "main"),
    (main_with_worker, "main"),
    (asyncio.Protocol, "protocol"),
    (asyncio.BufferedProtocol, "protocol"),
    (lambda: asyncio.Protocol(), "protocol"),
]


@pytest.mark.parametrize(("found", "server"), SERVERS, ids=lambda value: getattr(value, "__name__", None))
def test_auto_sees_the_kind(found: Any, server: str) -> None:
    assert server_for(found) == server


def test_auto_knows_aiohttp() -> None:
    web = pytest.importorskip("aiohttp.web")
    assert server_for(web.Application()) == "aiohttp"


@pytest.mark.parametrize("found", [5, "text", lambda one, two: None, application(1, 2, 3)], ids=repr)
def test_auto_refuses_what_is_none(found: Any) -> None:
    with pytest.raises(
        TargetError, match=r"an ASGI application, an aiohttp\.web.Application, an asyncio.Protocol class"
    ):
        server_for(found)
    if asyncio.iscoroutine(found):
        found.close()
