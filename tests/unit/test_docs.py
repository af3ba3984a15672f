"""The pages of docs/ say what is so: their Python is run, page by page.

A fenced block of a page that begins with ```python is run after the blocks before it, in one namespace and in an empty
folder. One with prompts (>>>) must print what it shows; one without must not raise. ```python no-run is for what cannot
be run here. Commands of hoop that a page names, in its text or in blocks of shell, are given to the parser.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import traceback
from pathlib import Path

import pytest
from hoop.command.main import make_parser

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python *\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks_of(text: str) -> list[tuple[int, str]]:
    """The blocks that are run, each with the number of the line before its first."""
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in BLOCK.finditer(text)]


def run_page(name: str, text: str) -> None:
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for line, block in blocks_of(text):
        if ">>> " in block:
            test = doctest.DocTestParser().get_doctest(block, namespace, name, name, line)
            test.globs = namespace  # not a copy: later blocks see what this one defines
            report = io.StringIO()
            result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.write, clear_globs=False)
            assert result.failed == 0, report.getvalue()
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * line + block, name, "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    assert text.count("\n```") % 2 == 0, "a fence is left open"
    run_page(page.name, text)


# The checks above are worth something only if they see what they look for.

PAGE = """
```python
x = 2
```

```python
>>> x * 3
{answer}
>>> y = x
```

```python no-run
raise SystemExit
```

```sh
rm -r /
```

```python
assert y == 2
{last}
```
"""


def test_blocks_run_in_order() -> None:
    run_page("example.md", PAGE.format(answer=6, last=""))


def test_a_wrong_answer_is_told() -> None:
    with pytest.raises(AssertionError, match=r"line 7, in example.md(?s:.*)Expected:\s+7\s+Got:\s+6"):
        run_page("example.md", PAGE.format(answer=7, last=""))


def test_an_exception_names_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        run_page("example.md", PAGE.format(answer=6, last="1 / 0"))
    last = traceback.extract_tb(raised.tb)[-1]
    assert (last.filename, last.lineno) == ("example.md", 22)


# Commands.

COMMAND = re.compile(r"`(?:python -m )?hoop ((?:serve|ctl|top|doctor) [^`]+)`")
SHELL = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*hoop ([a-z]+(?!:)\b.*?)(?: +#.*)?$", re.MULTILINE)
EXAMPLES = {"N": "2", "PATH": "/x", "TARGET": "app:app", "SIZE": "64M", "SECONDS": "60", "SHARE": "0.1"}


def test_commands_are_understood() -> None:
    """`hoop serve ...` and its kin: the parser takes them, or says on standard error what it has not understood."""
    found = []
    for page in PAGES:
        text = page.read_text()
        found += COMMAND.findall(text) + [line for block in SHELL.findall(text) for line in TYPED.findall(block)]
    assert len(found) > 20, "where are they?"
    for line in found:
        words = [EXAMPLES.get(word, word) for word in shlex.split(line)]
        if words[-1] == "--help":
            continue
        if words[0] == "serve" and words[1].startswith("-"):
            words.insert(1, "app:app")
        make_parser().parse_args(words)
