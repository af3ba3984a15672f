"""docs/coming_from_node.md: each row of its tables runs as it stands."""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import shlex
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop.command.main import make_parser

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming_from_node.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)
IN_PROCESSES = "Processes"


def rows_of(section: str) -> list[tuple[str, list[str]]]:
    """Node's cell, and the pieces of code in hoop's."""
    return [(node, re.findall(r"`([^`]+)`", own)) for node, own in ROW.findall(SECTIONS[section]) if node[:4] != "Node"]


def work() -> int:
    return sum(range(10))


def runnable(pieces: list[str]) -> str:
    """The pieces one below the other; names of packages and settings that stand beside code are none of it."""
    code = [piece for piece in pieces if re.search(r"[(=]|\w, \w|\.\w+\.", piece) and not piece.startswith("HOOP_")]
    return "\n".join(piece for piece in code if not piece.endswith("="))


@asynccontextmanager
async def surroundings() -> AsyncIterator[dict[str, Any]]:
    """What the page says there is."""
    loop: Any = asyncio.get_running_loop()
    server = loop.listen_tcp(lambda socket: setattr(socket, "on_data", lambda socket, data: socket.write(data)))
    port = server.address[1]
    connected = loop.create_future()
    socket = loop.connect_tcp("127.0.0.1", port, connected.set_result)
    await connected
    names = {module.__name__: module for module in (asyncio, contextvars, hoop, os, signal, ssl)}
    async with hoop.WorkerPool("thread", max_workers=1) as pool:
        yield dict(names, loop=loop, port=port, socket=socket, pool=pool, work=work, f=lambda *arguments: None)
    socket.destroy()
    server.close()


async def run_row(code: str) -> None:
    lines = "".join(f"    {line}\n" for line in code.split("\n"))
    async with surroundings() as names:
        exec(compile(f"async def row():\n{lines}", "row", "exec"), names)
        await names["row"]()
        names["loop"].set_exception_handler(None)


async def run_rows(rows: list[tuple[str, list[str]]]) -> None:
    for node, pieces in rows:
        Path("notes.txt").write_text("one\ntwo\n")
        code = runnable(pieces)
        assert code, f"{node}: nothing to run"
        try:
            await run_row(code)
        except BaseException as error:
            error.add_note(f"the row of {node}")
            raise


@pytest.mark.once
@pytest.mark.parametrize("section", [section for section in SECTIONS if section != IN_PROCESSES])
def test_rows(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = rows_of(section)
    assert len(rows) > 10, "where is the table?"
    hoop.run(run_rows(rows))


def test_rows_of_processes_name_what_there_is() -> None:
    """They need processes, which tests/cluster has; here their names are looked up, and commands parsed."""
    parser = make_parser()
    rows = rows_of(IN_PROCESSES)
    assert len(rows) >= 7
    for node, pieces in rows:
        for piece in pieces:
            words = shlex.split(piece)
            if words[0] == "hoop":
                parser.parse_args([*words[1:], "app:app"] if words[1:] == ["serve"] else words[1:])
                continue
            found = re.match(r"hoop((?:\.\w+)+)", piece)
            assert found, (node, piece)
            owner: Any = hoop
            for name in found[1].split(".")[1:]:
                if name == "worker":  # there is none in this process
                    from hoop.cluster.worker_process import Worker as owner
                else:
                    assert hasattr(owner, name) or name in getattr(owner, "__annotations__", {}), (node, piece)
                    owner = getattr(owner, name, None)


def test_a_row_that_does_not_work_is_told() -> None:
    with pytest.raises(AttributeError):
        hoop.run(run_row("loop.no_such_method(f)"))
