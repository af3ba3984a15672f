"""The loops that the benchmark compares: it says which are missing, and how to get them."""

from __future__ import annotations

import sys

import pytest
from bench import loops, run


def test_how_to_get_a_loop_is_what_the_extra_says() -> None:
    requirement, marker = loops.requirement_of("zloop")
    assert requirement.startswith("zloop>=") and "python_version >= '3.12'" in marker
    told = loops.how_to_get(loops.LOOPS["zloop"])
    assert told == f"not installed; it comes with `pip install '{requirement}'` where {marker}"
    assert "'aiofastnet>=" in loops.how_to_get(loops.LOOPS["aiofastnet"])


def test_every_peer_is_in_the_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.loops"])
    loops.main()
    said = capsys.readouterr().out.split()
    assert len(said) == len(loops.loops_here()) - 2  # hoop and the standard library's
    assert all(">=" in requirement for requirement in said)


@pytest.mark.parametrize(("version", "is_asked_for"), [((3, 13), False), ((3, 14), True), ((3, 15), True)])
def test_a_loop_for_newer_pythons_is_no_lack_of_an_older_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], is_asked_for: bool
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "argv", ["bench.loops"])
    loops.main()
    assert ("zuvloop>=" in capsys.readouterr().out) == is_asked_for


def test_what_is_missing_is_told_by_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.loops", "--missing"])
    monkeypatch.setattr(loops.LoopKind, "is_installed", lambda kind: kind.name not in ("blazio", "aiofastnet"))
    loops.main()
    said = capsys.readouterr().out.split()
    assert [requirement.partition(">=")[0] for requirement in said] == ["blazio", "aiofastnet"]


def test_the_heading_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops.LoopKind, "is_installed", lambda kind: kind.name in ("hoop", "asyncio"))
    found = run.start(run.parse_arguments(["--loops", "asyncio,rloop"]))
    lines = [line for line in run.heading(found) if line.startswith("rloop: ")]
    assert len(lines) == 1 and "pip install 'rloop>=" in lines[0]
