"""The file objects of hoop.fs.open() against io.open(): after any operations in any mode, both have given the same
results, raised the same errors and left the same bytes."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import hoop
from hoop import fs
from hoop.files import lines_ahead as hoop_lines
from hypothesis import example, given, settings
from hypothesis import strategies as st

Operation = tuple[str, tuple[Any, ...]]

PIECES = ["a", "line\n", "\r", "\r\n", "\n", "z\u00fc", "\u20ac\U0001f600", "x" * 30, "last"]
SIZES = st.sampled_from([-1, 0, 1, 2, 5, 40, 9000, 100_000])
POSITIONS = st.integers(min_value=0, max_value=300)

texts = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
lines_wanted = st.integers(min_value=1, max_value=6)

COMMON: list[st.SearchStrategy[Operation]] = [
    st.tuples(st.just("read"), st.tuples(SIZES)),
    st.tuples(st.just("read"), st.just(())),
    st.tuples(st.just("readline"), st.just(())),
    st.tuples(st.just("readline"), st.tuples(SIZES)),
    st.tuples(st.just("readlines"), st.tuples(SIZES)),
    st.tuples(st.just("take lines"), st.tuples(lines_wanted)),
    st.tuples(st.just("take lines"), st.tuples(lines_wanted)),
    st.tuples(st.just("tell"), st.just(())),
    st.tuples(st.just("seek told"), st.tuples(st.integers(min_value=0, max_value=5))),
    st.tuples(st.just("seek"), st.sampled_from([(0,), (0, 0), (0, 2), (-1,), (0, 1)])),
    st.tuples(st.just("truncate"), st.just(())),
    st.tuples(st.just("flush"), st.just(())),
]


@st.composite
def operations(draw: st.DrawFn, is_text: bool) -> list[Operation]:
    data = texts if is_text else texts.map(str.encode)
    choices = [
        *COMMON,
        st.tuples(st.just("write"), st.tuples(data)),
        st.tuples(st.just("writelines"), st.tuples(st.lists(data, max_size=3))),
        st.tuples(st.just("truncate"), st.tuples(POSITIONS)),
    ]
    if not is_text:
        choices += [
            st.tuples(st.just("seek"), st.tuples(POSITIONS)),
            st.tuples(st.just("seek"), st.tuples(st.integers(-20, 20), st.sampled_from([1, 2]))),
            st.tuples(st.just("readinto"), st.tuples(st.integers(0, 100))),
            st.tuples(st.just("read1"), st.tuples(st.integers(0, 100))),
        ]
    return draw(st.lists(st.one_of(choices), max_size=14))


class Outcomes:
    """What a sequence of operations has given; the positions that were told may be sought later."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.told = [0]

    def note(self, result: Any) -> None:
        self.seen.append(result)

    def arguments(self, name: str, arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        if name == "seek told":
            return "seek", (self.told[arguments[0] % len(self.told)],)
        if name == "readinto":
            return name, (bytearray(arguments[0]),)
        return name, arguments

    def finish(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name == "tell":
            self.told.append(result)
        self.note((result, bytes(arguments[0])) if name == "readinto" else result)

    def fail(self, error: Exception) -> None:
        self.note((type(error), "" if isinstance(error, AttributeError) else str(error)))


def with_io(path: Path, how: dict[str, Any], steps: list[Operation]) -> list[Any]:
    outcomes = Outcomes()
    file: Any = open(path, **how)
    for step in steps:
        name, arguments = outcomes.arguments(*step)
        try:
            if name == "take lines":
                # not next(file), after which text files do not tell() any more
                outcomes.note([line for line in (file.readline() for _ in range(arguments[0])) if line])
            elif name == "read1":
                data = file.read1(*arguments)
                while more := file.read1(arguments[0] - len(data)):
                    data += more
                outcomes.note(data)
            elif name == "readlines":
                outcomes.note(hoop_lines.read_lines(file, *arguments))  # as next() is what it uses
            else:
                outcomes.finish(name, arguments, getattr(file, name)(*arguments))
        except (OSError, ValueError, AttributeError) as error:
            outcomes.fail(error)
    file.close()
    return outcomes.seen


async def with_hoop(path: Path, how: dict[str, Any], steps: list[Operation]) -> list[Any]:
    outcomes = Outcomes()
    file: Any = await fs.open(path, **how)
    for step in steps:
        name, arguments = outcomes.arguments(*step)
        try:
            if name == "take lines":
                outcomes.note([line async for line in limited(file, arguments[0])])
            elif name == "read1":  # how much one call gives depends on what is in the buffer, which differs after lines
                data = await file.read1(*arguments)
                while more := await file.read1(arguments[0] - len(data)):
                    data += more
                outcomes.note(data)
            else:
                outcomes.finish(name, arguments, await getattr(file, name)(*arguments))
        except (OSError, ValueError, AttributeError) as error:
            outcomes.fail(error)
    await file.close()
    return outcomes.seen


async def limited(file: Any, count: int) -> Any:
    async for line in file:
        yield line
        count -= 1
        if count == 0:
            return


def check_alike(content: bytes, how: dict[str, Any], steps: list[Operation], lines_ahead: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("plain", "ours")]
        for path in paths:
            path.write_bytes(content)
        expected = with_io(paths[0], how, steps)
        ahead = mock.patch.object(hoop_lines, "LINES_AHEAD", lines_ahead)
        with ahead, asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
            got = runner.run(asyncio.wait_for(with_hoop(paths[1], how, steps), 20))
        assert got == expected
        assert paths[1].read_bytes() == paths[0].read_bytes()


MODES = st.sampled_from(["r", "r", "r", "r+", "w", "w+", "a", "a+"])
CONTENTS = st.tuples(texts, st.sampled_from([1, 3, 500])).map(lambda pair: pair[0] * pair[1])
AHEAD = st.sampled_from([1, 40, 1000, 65536])


@settings(max_examples=100, deadline=None)
@given(
    content=CONTENTS,
    mode=MODES,
    newline=st.sampled_from([None, "", "\n", "\r", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-16", "latin-1"]),
    steps=operations(is_text=True),
    ahead=AHEAD,
)
def test_text(content: str, mode: str, newline: Any, encoding: str, steps: list[Operation], ahead: int) -> None:
    how = {"mode": mode, "newline": newline, "encoding": encoding, "errors": "replace"}
    check_alike(content.encode(encoding, "replace"), how, steps, ahead)


@settings(max_examples=100, deadline=None)
@given(
    content=CONTENTS,
    mode=MODES,
    buffering=st.sampled_from([-1, -1, 0, 16]),
    steps=operations(is_text=False),
    ahead=AHEAD,
)
@example("aaaaline\n" * 3, "r", 16, [("take lines", (1,)), ("read1", (8,)), ("tell", ())], 40)
def test_bytes(content: str, mode: str, buffering: int, steps: list[Operation], ahead: int) -> None:
    check_alike(content.encode(), {"mode": mode + "b", "buffering": buffering}, steps, ahead)
