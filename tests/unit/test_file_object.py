"""The file objects of hoop.fs.open(), and what they add to those of the io module. What they do with data is compared
with io.open in tests/property/test_file_model.py."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop import fs
from hoop.files import cancellation, file_jobs


@pytest.fixture
def loop_name() -> str:
    return "hoop"


@pytest.fixture(params=["hoop", "aiofiles"])
def opener(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The same body with aiofiles, where it is installed: whoever knows the one knows the other."""
    if request.param == "hoop":
        return fs.open
    aiofiles: Any = pytest.importorskip("aiofiles")
    return aiofiles.open  # type: ignore[no-any-return]


def jobs_done() -> int:
    """How many jobs the running loop's pool has ended."""
    done: int = asyncio.get_running_loop().pool.stats().done  # type: ignore[attr-defined]
    return done


# ---- as aiofiles -----------------------------------------------------------------------------------------------------


def test_text(run: Any, opener: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        async with opener(path, "w", encoding="utf-8", newline="\n") as f:
            assert await f.write("z\u00fc\n") == 3
            await f.writelines(["two\n", "three"])
            await f.flush()
            assert path.read_bytes() == "z\u00fc\ntwo\nthree".encode()
            assert await f.writable() and await f.seekable()
            assert not await f.readable() and not await f.isatty()
            assert (f.encoding, f.errors, f.newlines, f.line_buffering, f.mode) == ("utf-8", "strict", None, False, "w")
            assert f.name == str(path)
            assert isinstance(f.buffer, io.BufferedWriter)
            assert not f.closed
        assert f.closed
        f = await opener(path, encoding="utf-8")
        assert [line async for line in f] == ["z\u00fc\n", "two\n", "three"]
        assert await f.seek(0) == 0
        assert await f.readline() == "z\u00fc\n"
        assert await f.tell() == 4
        assert await f.readline(2) == "tw"
        assert await f.readlines() == ["o\n", "three"]
        assert await f.read() == ""
        await f.seek(0)
        assert await f.read(3) == "z\u00fc\n"
        assert await f.readline() == "two\n"
        assert await f.read() == "three"
        with pytest.raises(io.UnsupportedOperation):
            await f.write("x")
        await f.close()
        await f.close()
        with pytest.raises(ValueError, match="closed file"):
            await f.read()
        with pytest.raises(ValueError, match="closed file"):
            await f.readline()

    run(main())


def test_bytes(run: Any, opener: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        async with opener(path, "wb+") as f:
            assert await f.write(b"one\ntwo\nthree") == 13
            assert await f.seek(-5, os.SEEK_END) == 8
            assert await f.read() == b"three"
            assert await f.truncate(9) == 9
            assert await f.tell() == 13
            await f.seek(0)
            assert await f.readlines() == [b"one\n", b"two\n", b"t"]
            assert f.mode == ("wb+" if sys.version_info >= (3, 15) else "rb+")  # as what open() gives
        async with opener(path, "rb") as f:
            buffer = bytearray(2)
            assert await f.peek(1) == b"one\ntwo\nt"
            assert await f.readinto(buffer) == 2
            assert await f.readline() == b"e\n"
            assert await f.read1(2) == b"tw"
            assert isinstance(f.raw, io.FileIO)
            assert f.fileno() == f.raw.fileno()
        f = await opener(path, "rb")
        with f.detach() as raw:
            assert isinstance(raw, io.FileIO)
        async with opener(path, "ab") as f:
            await f.writelines([b"1", bytearray(b"2"), memoryview(b"3")])
        async with opener(path, "rb", buffering=0) as f:
            assert await f.readall() == b"one\ntwo\nt123"
            assert await f.seek(4) == 4
            assert await f.read(2) == b"tw"
            assert await f.readinto(buffer) == 2
            assert bytes(buffer) == b"o\n"

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"file": "nothing"}, FileNotFoundError),
        ({"file": "."}, IsADirectoryError),
        ({"file": "x\0"}, ValueError),
        ({"file": "file", "mode": "q"}, ValueError),
        ({"file": "file", "mode": "rb", "encoding": "utf-8"}, ValueError),
        ({"file": "file", "encoding": "no such"}, LookupError),
        ({"file": "file", "mode": "x"}, FileExistsError),
        ({"file": 10_000}, OSError),
        ({"file": None}, TypeError),
    ],
)
def test_what_cannot_be_opened(run: Any, opener: Any, tmp_path: Path, arguments: Any, error: Any) -> None:
    async def main() -> None:
        (tmp_path / "file").touch()
        given = dict(arguments)
        if isinstance(given["file"], str):
            given["file"] = f"{tmp_path}/{given['file']}"
        with pytest.raises(error) as ours:
            await opener(**given)
        with pytest.raises(error):
            async with opener(**given):
                pass
        with pytest.raises(error) as theirs:
            open(**given).close()
        assert ours.value.args == theirs.value.args
        assert getattr(ours.value, "filename", None) == getattr(theirs.value, "filename", None)

    run(main())


def test_temporary_files(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with fs.NamedTemporaryFile("w+", dir=tmp_path, suffix=".x", encoding="utf-8") as text:
            assert isinstance(text, fs.TextFile)
            assert text.name.startswith(str(tmp_path)) and text.name.endswith(".x")
            await text.write("a\nb\n")
            await text.seek(0)
            assert [line async for line in text] == ["a\n", "b\n"]
            assert os.path.exists(text.name)
        assert os.listdir(tmp_path) == []
        kept = await fs.NamedTemporaryFile(dir=tmp_path, delete=False)
        await kept.close()
        assert os.listdir(tmp_path) == [os.path.basename(kept.name)]
        os.remove(kept.name)
        async with fs.TemporaryFile(dir=tmp_path) as nameless:
            assert isinstance(nameless, fs.BinaryFile)
            assert await nameless.write(b"x") == 1
            assert os.listdir(tmp_path) == []
        with pytest.raises(FileNotFoundError):
            await fs.NamedTemporaryFile(dir=tmp_path / "nothing")
        async with fs.TemporaryDirectory(dir=str(tmp_path), prefix="p") as folder:
            assert os.path.basename(folder).startswith("p")
            await fs.makedirs(f"{folder}/a/b")
            await fs.write_file(f"{folder}/a/file", b"x")
        assert os.listdir(tmp_path) == []
        directory = fs.TemporaryDirectory(dir=str(tmp_path))
        with contextlib.suppress(ZeroDivisionError):
            async with directory:
                raise ZeroDivisionError
        await directory.cleanup()
        assert os.listdir(tmp_path) == []

    run(main())


def test_readlines(run: Any, opener: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(b"one\ntwo\nthree\n")
        for mode in ("r", "rb"):
            for hint in (-1, 0, 1, 4, 5, 8, 100):
                async with opener(path, mode) as f:
                    with path.open(mode) as plain:
                        assert await f.readlines(hint) == plain.readlines(hint)
                        assert await f.read() == plain.read()
        async with fs.open(path) as f:
            assert await f.readlines(1) == ["one\n"]
            assert await f.tell() == 4  # io refuses: "telling position disabled by next() call"

    run(main())


# ---- lines ahead -----------------------------------------------------------------------------------------------------


def test_many_lines_are_one_hop(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_text("".join(f"{number}\n" for number in range(5000)))
        for mode in ("r", "rb"):
            async with fs.open(path, mode) as f:
                before = jobs_done()
                assert [int(line) async for line in f] == list(range(5000))
                assert jobs_done() - before <= 2

    run(main())


def test_lines_of_a_pipe_come_when_they_are_there(run: Any) -> None:
    """Nothing is fetched ahead of what cannot seek: the second line is not written before the first was read."""

    async def main() -> None:
        read_end, write_end = os.pipe()
        async with fs.open(read_end, "rb") as f, fs.open(write_end, "wb", buffering=0) as other:
            for text in (b"one\n", b"two\n"):
                await other.write(text)
                assert await f.readline() == text

    run(main())


def test_lines_before_a_bad_one_are_given(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(b"good line\n" * 5000 + b"\xff\n" + b"good line\n" * 5000)

        def read(lines: Any) -> int:
            count = 0
            with pytest.raises(UnicodeDecodeError):
                while lines.readline():
                    count += 1
            return count

        with path.open(encoding="utf-8") as plain:
            expected = read(plain)
        async with fs.open(path, encoding="utf-8") as f:
            count = 0
            with pytest.raises(UnicodeDecodeError):
                while await f.readline():
                    count += 1
        assert count == expected > 1000

    run(main())


# ---- one after another, and cancelled --------------------------------------------------------------------------------


def test_operations_run_in_the_order_of_their_calls(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with fs.open(tmp_path / "file", "wb", buffering=0) as f:
            await asyncio.gather(*(f.write(b"%d " % number) for number in range(200)))
        assert (tmp_path / "file").read_bytes() == b"".join(b"%d " % number for number in range(200))

    run(main())


def test_a_line_at_hand_waits_for_what_was_called_before(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_text("one\ntwo\nthree\n")
        async with fs.open(path) as f:
            assert await f.readline() == "one\n"
            calls = [f.readline(), f.seek(0), f.readline(), f.readline(), f.tell(), f.readline(), f.readline()]
            assert await asyncio.gather(*calls) == ["two\n", 0, "one\n", "two\n", 8, "three\n", ""]

    run(main())


def test_a_cancelled_readline_loses_no_line(tmp_path: Path) -> None:
    """Trap 40: cancelled while queued, while running, and with the result on its way."""

    async def main() -> None:
        path = tmp_path / "file"
        path.write_text("".join(f"{number}\n" for number in range(100)))
        for turns in range(12):
            async with fs.open(path) as f:
                reading = asyncio.ensure_future(f.readline())
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                lines = [] if await cancelled(reading) else [reading.result()]
                lines += [line async for line in f]
                assert lines == [f"{number}\n" for number in range(100)]

    hoop.run(main())


async def cancelled(task: asyncio.Task[Any]) -> bool:
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def test_a_running_write_that_is_cancelled_comes_before_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        release, began = threading.Event(), threading.Event()

        class Slow(io.FileIO):
            def write(self, data: Any, /) -> int:
                began.set()
                assert release.wait(20)
                return super().write(data)

        pool = asyncio.get_running_loop().pool  # type: ignore[attr-defined]
        f = fs.RawFile(Slow(tmp_path / "file", "w"), pool)
        writing = asyncio.ensure_future(f.write(b"first "))
        while not began.is_set():
            await asyncio.sleep(0)
        writing.cancel()
        assert await cancelled(writing)
        second = asyncio.ensure_future(f.write(b"second"))
        closing = asyncio.ensure_future(f.close())
        release.set()
        await second
        await closing
        assert (tmp_path / "file").read_bytes() == b"first second"

    hoop.run(main())


def test_closing_happens_also_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        pool = asyncio.get_running_loop().pool  # type: ignore[attr-defined]
        for turns in range(6):
            f = await fs.open(tmp_path / "file", "w")
            await f.write("x" * turns)
            closing = asyncio.ensure_future(f.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            started = turns > 0
            await cancelled(closing)
            if not started:
                await f.close()
            while not f.closed:
                await pool.run(int)
            assert (tmp_path / "file").read_text() == "x" * turns

    hoop.run(main())


async def jobs_of_closing(f: Any) -> int:
    before = jobs_done()
    await f.close()
    assert f.closed
    await f.close()
    await asyncio.get_running_loop().pool.run(int)  # type: ignore[attr-defined]  # all before it have been counted
    return jobs_done() - before - 1


def test_a_local_file_that_was_only_read_is_closed_without_a_hop(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")

    async def main() -> None:
        for mode in ("r", "rb"):
            f = await fs.open(path, mode)
            fd = f.fileno()
            is_local = file_jobs.device_of(fd)[1]  # type: ignore[index]
            assert await f.readline()  # some lines are at hand
            assert await jobs_of_closing(f) == (0 if is_local else 1)
            with pytest.raises(OSError):
                os.fstat(fd)
            with pytest.raises(ValueError, match="closed"):
                await f.read()

    hoop.run(main())


def test_closing_that_may_take_time_is_a_threads(tmp_path: Path) -> None:
    """What was written, what is deleted by it, what is no file, and what another operation still uses."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")

    async def main() -> None:
        assert await jobs_of_closing(await fs.open(path, "r+b")) == 1
        assert await jobs_of_closing(await fs.open("/dev/null", "rb")) == 1
        busy = await fs.open(path, "rb")
        reading = asyncio.ensure_future(busy.read())
        await asyncio.sleep(0)
        await busy.close()
        assert await reading == b"one\ntwo\n"
        deleted = await fs.open(path, "rb")
        path.unlink()
        assert await jobs_of_closing(deleted) == 1

    hoop.run(main())


def test_a_descriptor_that_somebody_else_has_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    async def main() -> None:
        f = await fs.open(tmp_path / "file", "rb")
        os.close(f.fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            await f.close()
        assert f.closed

    hoop.run(main())


def test_a_file_that_nobody_waits_for_any_more_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def main() -> None:
        for turns in range(8):
            opening = asyncio.ensure_future(opened())
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            if not await cancelled(opening):
                await opening.result().close()
        pool = asyncio.get_running_loop().pool  # type: ignore[attr-defined]
        while pool.stats().running or pool.stats().queued:
            await pool.run(int)

    async def opened() -> Any:
        return await fs.open(tmp_path / "file")

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        hoop.run(main())
        gc.collect()


def test_what_tempfile_makes_for_a_cancelled_caller_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        release, made = threading.Event(), threading.Event()

        def make() -> str:
            made.set()
            assert release.wait(20)
            return "made"

        discarded: list[str] = []
        pool = asyncio.get_running_loop().pool  # type: ignore[attr-defined]
        making = asyncio.ensure_future(cancellation.run_owned(pool, make, discarded.append))
        while not made.is_set():
            await asyncio.sleep(0)
        making.cancel()
        assert await cancelled(making)
        assert discarded == []
        release.set()
        while not discarded:
            await pool.run(int)
        assert discarded == ["made"]

    hoop.run(main())


def test_an_unclosed_file_warns_as_io_does(tmp_path: Path) -> None:
    async def main() -> None:
        f = await fs.open(tmp_path / "file", "w")
        await f.write("kept")
        with pytest.warns(ResourceWarning, match="unclosed file"):
            del f
            gc.collect()

    hoop.run(main())
    assert (tmp_path / "file").read_text() == "kept"
