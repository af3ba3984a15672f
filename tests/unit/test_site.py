"""The documentation site: its navigation is whole, and what looks at the finished pages sees what it looks for.

scripts/site.sh builds it, with warnings as errors; here is what needs none of its tools.
"""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "site"

pytestmark = pytest.mark.once  # what is looked at is the same on every Python


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of scripts/site."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


def test_each_page_of_docs_has_a_section() -> None:
    sections = tomllib.loads((SCRIPTS / "pages.toml").read_text())["sections"]
    listed = [page for section in sections for page in section["pages"]]
    assert len(listed) == len(set(listed))
    made = {"index", "reference/index"}  # the site's own start, and what reference.py writes
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | made == {
        page for page in listed if not page.endswith(".md")
    } | {"index"}
    assert [page for page in listed if page.endswith(".md") and not (ROOT / page).is_file()] == []


HEAD = '<html><head><link rel="stylesheet" href="style.css"></head><body>'


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="other.html#there">fine</a><a href="https://example.org/x">fine</a><a href="#top" id="top">', None),
        ('<a href="gone.html">', "a link to gone.html, which there is not"),
        ('<a href="other.html#gone">', "a link to other.html#gone, and nothing there has that name"),
        ('<a href="htps:/example.org">', "htps:/example.org is no address of a page"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js from another host"),
        ('<img src="//example.org/x.png">', "loads //example.org/x.png from another host"),
        ('<img src="gone.png">', "loads gone.png, which there is not"),
        ('<link rel="preconnect" href="https://fonts.example">', "loads https://fonts.example from another host"),
    ],
)
def test_what_is_wrong_with_a_finished_page_is_found(load: Any, tmp_path: Path, body: str, problem: str | None) -> None:
    (tmp_path / "style.css").write_text("a { color: red }")
    (tmp_path / "other.html").write_text(HEAD + '<p id="there">')
    (tmp_path / "index.html").write_text(HEAD + body)
    found = load("finished").problems_of(tmp_path)
    assert found == ([] if problem is None else [f"index.html: {problem}"])


def test_a_sheet_that_loads_from_elsewhere_is_found(load: Any, tmp_path: Path) -> None:
    (tmp_path / "style.css").write_text("@font-face { src: url(https://example.org/font.woff2) }")
    assert load("finished").problems_of(tmp_path) == ["style.css: loads something from another host"]


def test_docstrings_keep_their_form(load: Any) -> None:
    docs = load("docstrings").Docstrings({"hoop.Loop", "hoop.Loop.set_timeout", "hoop.run"})
    text = """Does *it*, as hoop.run() does (docs/timers.md).

    size: how many; max_age: not a parameter. when: the time
        that it takes.

    - one
      and on
    - two

        code = 1
    """
    made = docs.render("\n".join(line.removeprefix("    ") for line in text.split("\n")), ["size", "when"])
    assert made.split("\n\n") == [
        r"Does \*it\*, as :py:obj:`hoop.run() <hoop.run>` does (:doc:`timers </timers>`).",
        "- **size**: how many; ``max_age``: not a parameter.\n- **when**: the time that it takes.",
        "- one and on\n- two",
        ".. code-block:: python\n\n    code = 1\n".rstrip("\n").partition("\n\n")[0],
        "    code = 1\n",
    ]
    assert docs.summary("Calls `f` later. Then more.\n\nAnd more.") == "Calls ``f`` later."


def test_signatures_come_from_stubs_and_sources(load: Any) -> None:
    sources = load("sources")
    timer = {member.name: member for member in sources.members_of("hoop.core.timer", "Timer")}
    assert timer["refresh"].signatures == ["refresh() -> Self"] and timer["delay"].kind == "py:property"
    assert "close" in timer, "of its base, which the stub names"
    loop = {member.name for member in sources.members_of("hoop.loop", "Loop")}
    assert {"set_timeout", "listen_tcp", "create_server", "metrics"} <= loop
    assert not [name for name in loop if name.startswith("_")]
