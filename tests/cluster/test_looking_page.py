"""docs/looking_inside.md: each command of its console blocks is typed here, in its order, and ends as it does there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster
from free_ports import free_port
from hoop.command.main import main, make_parser
from test_serving_page import BLOCK, serve

PAGE = Path(__file__).resolve().parents[2] / "docs" / "looking_inside.md"
APP = re.compile(r"^```python no-run\n# app\.py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[list[str], str]]:
    """The words of each, and what the page shows that it prints."""
    for block in BLOCK.findall(PAGE.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield line.split(), output


def test_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runtime").mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    (found,) = APP.findall(PAGE.read_text())
    said = 'print("up", flush=True)\n    await server'  # its loop answers by then
    (tmp_path / "app.py").write_text(found.replace("9000", "0").replace("await server", said))
    clusters: list[Cluster] = []
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for words, output in commands():
            match words:
                case ["hoop", "serve", *_]:
                    clusters.append(serve(tmp_path, words[1:], free_port()))
                    clusters[0].expect("serving on")
                case ["HOOP_INSPECT=1", "python", file]:
                    clusters[0].wait()
                    monkeypatch.setenv("HOOP_INSPECT", "1")
                    processes.append(subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE))
                    assert processes[0].stdout is not None and processes[0].stdout.readline() == b"up\n"
                    monkeypatch.delenv("HOOP_INSPECT")
                case ["hoop", "top"]:
                    make_parser().parse_args(words[1:])  # test_top.py has a terminal for it
                case ["hoop", *rest]:
                    status = main(rest)
                    printed = capsys.readouterr()
                    assert (status == 1) is ("1 error" in output), (words, printed)
                    assert_alike(output, printed.out)
                case _:
                    raise AssertionError(f"this test does not know how to type {words}")
    finally:
        for cluster in clusters:
            cluster.close()
        for process in processes:
            process.kill()
            process.communicate()


FIRST_WORDS = re.compile(
    r"^(?:ok|error) +[a-z]+:|^(?:master|process|ended|Task-1: main|\d tasks?|PID +STATE)", re.MULTILINE
)


def assert_alike(shown: str, printed: str) -> None:
    """What begins the lines of the page begins lines of the output, too; figures and warnings are another machine's."""
    assert first_words(shown) <= first_words(printed), (shown, printed)


def first_words(text: str) -> set[str]:
    """The columns are as wide as their numbers: blanks do not count."""
    return {" ".join(found.split()) for found in FIRST_WORDS.findall(text)}


def test_every_hoop_command_in_the_text_is_one() -> None:
    found = re.findall(r"`(?:python -m )?hoop ((?:serve|ctl|top|doctor)[^`]*)`", PAGE.read_text())
    assert len(found) > 4
    for words in found:
        line = words.split()
        if line == ["serve"]:
            line.append("app:app")
        make_parser().parse_args(line)
