"""docs/apps.md has a row for every application that is tested."""

from __future__ import annotations

from pathlib import Path

from matrix import HERE, NO_ROW, PAGE, ROWS


def test_every_application_has_a_row() -> None:
    tested = {path.stem for path in Path(HERE).glob("test_*.py")} - NO_ROW
    assert tested == set(ROWS)
    assert [name for name in tested if f"| `{name}` |" not in PAGE.read_text()] == []
