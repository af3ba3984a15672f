"""docs/serving.md and getting_started.md: each command of their console blocks is typed here, in its order, and ends as
it does there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import PATIENCE_S, Cluster
from free_ports import free_port
from hoop.command.main import make_parser

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "serving.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
APP = re.compile(r"^```python no-run\n# app\.py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRONG = re.compile(r"\berror: ")


def commands(page: Path) -> Iterator[tuple[list[str], bool]]:
    """The words of each, and whether it fails."""
    for block in BLOCK.findall(page.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield line.split(), WRONG.search(output) is not None


def serve(folder: Path, words: list[str], port: int) -> Cluster:
    words = [*words, "--bind", f"127.0.0.1:{port}"]
    return Cluster(f"import sys\nfrom hoop.command.main import main\nsys.exit(main({words!r}))", folder)


@pytest.mark.parametrize("page", [PAGE, DOCS / "getting_started.md"], ids=lambda page: page.stem)
def test_commands_of_the_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "runtime").mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (found,) = APP.findall(page.read_text())
    app = tmp_path / "app.py"
    app.write_text(found)
    port = free_port()
    running: list[Cluster] = []
    try:
        for words, fails in commands(page):
            match words:
                case ["hoop", "serve", *_]:
                    started = serve(tmp_path, words[1:], free_port() if fails else port)
                    running.append(started)
                    if fails:
                        assert started.wait() != 0
                    else:
                        started.expect("serving on")
                case ["hoop", "ctl", *_]:
                    app.write_text("import missing\n" if fails else found)
                    command = [sys.executable, "-m", *words]
                    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False)
                    assert (done.returncode != 0) is fails, (words, done)
                case ["curl", "-s", url]:
                    with urllib.request.urlopen(url.replace(":8000", f":{port}"), timeout=PATIENCE_S) as answer:
                        assert answer.status == 200
                case _:
                    raise AssertionError(f"this test does not know how to type {words}")
    finally:
        for cluster in running:
            cluster.close()


def test_every_hoop_command_of_the_page_is_one() -> None:
    """Also those that stand in its text."""
    text = PAGE.read_text()
    found = re.findall(r"`(?:python -m )?hoop ((?:serve|ctl) [^`]+)`", text)
    assert len(found) > 3
    for words in found:
        if "TARGET" in words or "..." in words:
            continue
        line = words.replace(" N", " 2").replace("PATH", "/x").split()
        if line[0] == "serve" and line[1].startswith("--"):
            line.insert(1, "app:app")
        if line[-1] == "--help":
            continue
        make_parser().parse_args(line)
