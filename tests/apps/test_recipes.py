"""docs/recipes.md as its reader uses it: the files and the command of each section, in an empty folder, in a process.

In a section a block that begins with a comment like `# name.py` is that file, and the block of shell is the command.
Ports are replaced by 0, so that the kernel chooses.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import hoop
import pytest
from server_process import STARTING_S, ServerProcess, wait_for_listener

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```python no-run\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```sh\npython (.*)\n```$", re.MULTILINE)
SECTIONS = dict(SECTION.findall(PAGE.read_text()))

PROGRAMS = {"asyncio": 2, "anyio": 1}  # how often each says where it runs
SERVERS = ("uvicorn", "gunicorn", "hypercorn", "aiohttp")
PYTESTS = ("pytest with anyio", "pytest-asyncio", "pytest-asyncio, older versions")
ADDRESS = r"(http://127\.0\.0\.1:([1-9]\d*))"


def prepare(title: str, folder: Path) -> list[str]:
    """Write the section's files, and give its command."""
    files = dict(FILE.findall(SECTIONS[title]))
    (command,) = COMMAND.findall(SECTIONS[title])
    for name, text in files.items():
        (folder / name).write_text(text.replace("8000", "0"))
    return [sys.executable, *shlex.split(command.replace("8000", "0"))]


def environment() -> dict[str, str]:
    """Ours, with hoop where it is imported from here, and without options of the pytest that runs this."""
    package = str(Path(hoop.__file__).resolve().parents[1])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTHONPATH": package, "PYTHONUNBUFFERED": "1"}


def output_of(title: str, folder: Path) -> str:
    options = {"cwd": folder, "env": environment(), "text": True, "timeout": 60}
    done = subprocess.run(
        prepare(title, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_recipe_is_tested() -> None:
    assert list(SECTIONS) == ["asyncio", *SERVERS, "anyio", *PYTESTS, "unittest"]


@pytest.mark.parametrize("title", PROGRAMS)
def test_program(title: str, tmp_path: Path) -> None:
    assert output_of(title, tmp_path).split("\n")[:-1] == ["running on hoop.loop"] * PROGRAMS[title]


@pytest.mark.parametrize("title", SERVERS)
def test_server(title: str, tmp_path: Path) -> None:
    with ServerProcess(prepare(title, tmp_path), cwd=tmp_path, env=environment()) as server:
        (address,) = server.wait_for(ADDRESS)
        wait_for_listener(int(address[2]))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address[1], timeout=STARTING_S) as answer:
            assert answer.read() == b"served by hoop.loop"


@pytest.mark.parametrize("title", PYTESTS)
def test_pytest(title: str, tmp_path: Path) -> None:
    if "older" in title and sys.version_info >= (3, 14):
        pytest.skip("pytest-asyncio's policies are deprecated here, as Python's are")
    assert "1 passed" in output_of(title, tmp_path)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="IsolatedAsyncioTestCase.loop_factory is new in Python 3.13")
def test_unittest(tmp_path: Path) -> None:
    assert re.search(r"Ran 1 test .*\n\nOK", output_of("unittest", tmp_path))
