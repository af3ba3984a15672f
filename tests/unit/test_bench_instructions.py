"""bench.instructions: which figures it compares, and what it says of growth. Valgrind does the counting."""

import contextlib
import json
import shutil
import sys

import pytest
from bench import instructions
from bench.build import BuildError

pytestmark = pytest.mark.once  # the benchmark, which is not run on every Python

SET = {"python": "3.13.0", "compiler": "cc 12", "openssl": "3.0", "uvicorn": "0.54"}


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """instructions.main() on figures that the test chooses; the file it keeps, and how to run it."""
    file = tmp_path / "instructions.json"
    figures = dict.fromkeys(instructions.COUNTS, 1000)
    monkeypatch.setattr(instructions, "prepare", lambda: None)
    monkeypatch.setattr(instructions, "measured_set", lambda: dict(SET))
    monkeypatch.setattr(instructions, "installed_version", lambda package: "1")
    monkeypatch.setattr(instructions, "current_commit", lambda: "now")
    monkeypatch.setattr(instructions, "instructions_of", lambda name, source=None: figures[name])

    def run(*arguments):
        return instructions.main([*arguments, "--file", str(file)])

    return figures, file, run


@pytest.fixture
def reference(counted, monkeypatch):
    """The same, where another commit can be built: its figures, and how often it was built."""
    figures, _, _ = counted
    theirs = dict.fromkeys(instructions.COUNTS, 1000)
    commits = []

    @contextlib.contextmanager
    def built(commit):
        commits.append(commit)
        yield "their source"

    monkeypatch.setattr(instructions, "built", built)
    monkeypatch.setattr(
        instructions, "instructions_of", lambda name, source=None: (theirs if source else figures)[name]
    )
    return theirs, commits


def test_where_there_is_no_figure_at_all_it_is_recorded_and_the_run_says_so(counted, capsys):
    figures, file, run = counted
    assert run() == 0
    assert "warning: recorded" in capsys.readouterr().out
    assert json.loads(file.read_text()) == [{"set": SET, "commit": "now", "instructions": figures}]


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
    figures["echo"] = 1030
    assert run() == 0


def test_another_set_is_compared_with_the_recorded_commit_built_here(counted, reference, capsys):
    figures, file, run = counted
    theirs, commits = reference
    file.write_text(json.dumps([{"set": SET | {"python": "3.11"}, "commit": "abc-changed", "instructions": figures}]))
    figures["echo"] = 1031
    assert run() == 1
    said = capsys.readouterr().out
    assert commits == ["abc"]
    assert "warning: no figures of this set" in said and "python is 3.13.0, not 3.11" in said
    assert "echo: 1000 -> 1031" in said
    kept = json.loads(file.read_text())
    assert [(entry["set"]["python"], entry["commit"]) for entry in kept] == [("3.11", "abc-changed"), ("3.13.0", "abc")]
    assert kept[1]["instructions"] == theirs  # not what has grown
    assert run() == 1
    assert commits == ["abc"]  # now there are figures


def test_a_library_concerns_only_the_operations_that_use_it(counted, reference, capsys):
    figures, file, run = counted
    file.write_text(json.dumps([{"set": SET | {"uvicorn": "0.53"}, "commit": "abc", "instructions": figures}]))
    figures["call_soon"] = 2000
    assert run() == 1
    said = capsys.readouterr().out
    assert "no figures of this set for uvicorn request: uvicorn is 0.54, not 0.53" in said
    assert "call_soon: 1000 -> 2000" in said
    assert json.loads(file.read_text())[1]["instructions"] == {"uvicorn request": 1000}


def test_a_commit_that_cannot_be_built_is_told_loudly(counted, monkeypatch, capsys):
    figures, file, run = counted
    file.write_text(json.dumps([{"set": SET | {"python": "3.11"}, "commit": "abc", "instructions": figures}]))

    def not_here(*arguments):
        raise BuildError("not in this clone")

    monkeypatch.setattr(instructions, "git", not_here)
    assert run() == 0
    said = capsys.readouterr().out
    assert "warning: WITHOUT A GUARD, since abc is not to be had: not in this clone" in said
    assert run("--against", "abc") == 2


def test_an_operation_whose_package_is_missing_is_told(counted, monkeypatch, capsys):
    _, file, run = counted
    monkeypatch.setattr(instructions, "installed_version", lambda package: "none")
    assert run() == 0
    assert "warning: uvicorn request is not measured: uvicorn and httptools not installed" in capsys.readouterr().out
    assert "uvicorn request" not in json.loads(file.read_text())[0]["instructions"]


def test_recording_anew_replaces_the_figures(counted, monkeypatch):
    figures, file, run = counted
    run()
    figures["echo"] = 5000
    monkeypatch.setattr(instructions, "current_commit", lambda: "later")
    assert run("--record", "--only", "echo") == 0
    first, second = json.loads(file.read_text())
    assert "echo" not in first["instructions"] and first["instructions"]["timer"] == 1000
    assert second == {"set": SET, "commit": "later", "instructions": {"echo": 5000}}
    assert run() == 0


def test_every_operation_has_a_count():
    operations = pytest.importorskip("bench.operations")
    assert list(operations.OPERATIONS) == list(instructions.COUNTS)


def test_the_recorded_figures_are_whole():
    for entry in json.loads(instructions.RECORDED.read_text()):
        assert entry.keys() == {"set", "commit", "instructions"}
        assert entry["instructions"].keys() <= instructions.COUNTS.keys()
        assert all(key in entry["set"] for name in entry["instructions"] for key in instructions.dependencies(name))


@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("valgrind") and shutil.which("make")), reason="needs valgrind"
)
def test_counting_repeats_whatever_the_environment_is(monkeypatch):
    instructions.prepare()
    monkeypatch.setitem(instructions.COUNTS, "call_soon chain", 100)
    monkeypatch.setenv("SOME_VARIABLE", "x" * 1000)
    first = instructions.instructions_of("call_soon chain")
    monkeypatch.setenv("SOME_VARIABLE", "")
    assert 100 < instructions.instructions_of("call_soon chain") == pytest.approx(first, rel=0.02)
