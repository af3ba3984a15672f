"""The count of instructions: what is compared with what, and what it says of growth. What is counted is valgrind's work."""

import json

import pytest

from bench import instructions

SET = {"python": "3.13.0", "compiler": "cc 12"}


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """instructions.main() on figures that the test chooses; the file it keeps, and how to run it."""
    file = tmp_path / "instructions.json"
    figures = dict.fromkeys(instructions.COUNTS, 1000)
    monkeypatch.setattr(instructions, "build_programs", lambda: None)
    monkeypatch.setattr(instructions, "measured_set", lambda: SET)
    monkeypatch.setattr(instructions, "instructions_of", figures.__getitem__)
    monkeypatch.setattr(instructions.os, "sched_setaffinity", lambda pid, cores: None, raising=False)

    def run(*arguments):
        return instructions.main([*arguments, "--file", str(file)])

    return figures, file, run


def test_a_set_without_figures_is_recorded_and_the_run_says_so(counted, capsys):
    figures, file, run = counted
    assert run() == 0
    assert "recorded" in capsys.readouterr().out
    assert json.loads(file.read_text()) == [{"set": SET, "instructions": figures}]


def test_growth_above_the_limit_is_an_error_that_names_the_operation(counted, capsys):
    figures, file, run = counted
    run()
    before = file.read_text()
    figures["echo"] = 1031
    capsys.readouterr()
    assert run() == 1
    assert "echo: 1000 -> 1031, +3.1 %" in capsys.readouterr().out
    assert file.read_text() == before  # a miss does not become the new figure
    assert run("--limit", "4") == 0


def test_growth_below_the_limit_and_other_sets_are_no_error(counted):
    figures, file, run = counted
    file.write_text(json.dumps([{"set": {"python": "3.11"}, "instructions": {"echo": 1}}]))
    assert run() == 0
    figures["echo"] = 1030
    assert run() == 0
    assert [entry["set"] for entry in json.loads(file.read_text())] == [{"python": "3.11"}, SET]


def test_recording_anew_replaces_the_figures(counted):
    figures, file, run = counted
    run()
    figures["echo"] = 5000
    assert run("--record", "--only", "echo") == 0
    kept = json.loads(file.read_text())[0]["instructions"]
    assert kept["echo"] == 5000
    assert kept["timer"] == 1000


def test_every_operation_has_a_count():
    operations = pytest.importorskip("bench.operations")
    assert list(operations.OPERATIONS) == list(instructions.COUNTS)
