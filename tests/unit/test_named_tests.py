"""Pages of docs/ that name the tests of what they promise name tests that are there.

`file.py` and `file.py: test_name`, in the last column of a table; a * stands for any characters.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
NAMED = re.compile(r"`(?:([\w/]+\.py)(?:: *)?)?(test_[\w*]+)?`")
TEST = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)

# The pages, and what their paths begin with.
PAGES = {"asyncio_fixes.md": "conformance", "architecture.md": "", "metrics.md": ""}


def tables_of(text: str) -> list[list[str]]:
    """The cells of each row of a table whose last column is headed "test"."""
    rows: list[list[str]] = []
    is_inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]] if line.startswith("|") else []
        if cells and cells[-1] == "test":
            is_inside = True
        elif not cells:
            is_inside = False
        elif is_inside and not set(cells[-1]) <= set("-: "):
            rows.append(cells)
    return rows


def file_of(name: str, folder: str) -> Path | None:
    found = [path for path in (TESTS / folder / name, TESTS / name) if path.is_file()] or sorted(TESTS.rglob(name))
    return found[0] if found else None


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_that_a_page_names_are_there(page: str) -> None:
    rows = tables_of((ROOT / "docs" / page).read_text())
    missing: list[str] = []
    for *subject, tests in rows:
        file: Path | None = None
        for name, pattern in NAMED.findall(tests):
            if name:
                file = file_of(name, PAGES[page])
            if file is None:
                missing.append(f"{subject[0]}: no file {name}")
            elif pattern and not fnmatch.filter(TEST.findall(file.read_text()), pattern):
                missing.append(f"{subject[0]}: no test {pattern} in {file.name}")
    assert rows and missing == []


def test_a_test_that_is_not_there_is_found() -> None:
    rows = tables_of("| a | test |\n|---|---|\n| b | `test_docs.py: test_no_*` |\n\n| c | `x.py` |\n")
    assert rows == [["b", "`test_docs.py: test_no_*`"]]
    assert NAMED.findall(rows[0][1]) == [("test_docs.py", "test_no_*")]
    assert NAMED.findall("`unit/test_docs.py`, `test_page`") == [("unit/test_docs.py", ""), ("", "test_page")]
