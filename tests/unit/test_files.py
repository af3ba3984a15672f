"""What hoop.fs does beyond os (test_files_as_os.py), and what cancelling does."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop import fs


@pytest.fixture
def loop_name() -> str:
    return "hoop"


def test_text_is_read_and_written_as_it_is(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        assert await fs.write_file(path, "z\u00fc\r\nx\n") == 7
        assert await fs.read_file(path, encoding="utf-8") == "z\u00fc\r\nx\n"
        assert await fs.append_file(path, "\u00e4", encoding="latin-1") == 1
        with pytest.raises(UnicodeDecodeError):
            await fs.read_file(path, encoding="utf-8")
        assert await fs.read_file(path, encoding="utf-8", errors="replace") == "z\u00fc\r\nx\n\ufffd"
        with pytest.raises(UnicodeEncodeError):
            await fs.write_file(path, "\u20ac", encoding="ascii")
        assert await fs.write_file(path, "\u20ac", encoding="ascii", errors="ignore") == 0

    run(main())


def test_what_cannot_be_written_leaves_the_file_alone(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_text("old")
        for data in (5, None, ["x"]):
            with pytest.raises(TypeError):
                await fs.write_file(tmp_path / "file", data)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await fs.append_file(tmp_path / "file", data)  # type: ignore[arg-type]
        assert (tmp_path / "file").read_text() == "old"

    run(main())


def test_what_can_change_is_copied_when_the_write_begins(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        data = bytearray(b"first" * 100_000)
        writing = asyncio.ensure_future(fs.write_file(tmp_path / "file", data))
        await asyncio.sleep(0)
        data[:] = b"later" * 100_000
        await writing
        assert (tmp_path / "file").read_bytes() == b"first" * 100_000

    run(main())


def test_an_atomic_write_replaces_whole_files(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_text("old")
        path.chmod(0o604)
        opened = path.open("rb")
        assert await fs.write_file(path, b"new text", atomic=True, fsync=True) == 8
        with opened:
            assert opened.read() == b"old"
        assert path.read_bytes() == b"new text"
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
        with pytest.raises(FileExistsError) as caught:
            await fs.write_file(path, b"other", atomic=True, exclusive=True)
        assert caught.value.filename == str(path)
        with pytest.raises(FileExistsError):
            await fs.write_file(path, b"other", exclusive=True)
        with pytest.raises(IsADirectoryError):
            await fs.write_file(tmp_path, b"other", atomic=True)
        assert path.read_bytes() == b"new text"
        assert os.listdir(tmp_path) == ["file"]
        assert await fs.write_file(tmp_path / "new", b"x", exclusive=True, atomic=True, mode=0o600) == 1
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
        await fs.write_file("relative", b"x", atomic=True)

    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        run(main())
    finally:
        os.chdir(here)
    assert (tmp_path / "relative").read_bytes() == b"x"


def test_copies(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        data = os.urandom(1_000_003)
        source.write_bytes(data)
        source.chmod(0o741)
        assert await fs.copy_file(source, target) == len(data)
        assert target.read_bytes() == data
        assert stat.S_IMODE(target.stat().st_mode) == 0o741
        target.write_bytes(data * 2)
        assert await fs.copy_file(os.fsencode(source), target) == len(data)
        assert target.read_bytes() == data
        with pytest.raises(FileExistsError) as caught:
            await fs.copy_file(source, target, exclusive=True)
        assert caught.value.filename == str(target)
        (tmp_path / "link").symlink_to("source")
        for same in (source, tmp_path / "link"):
            with pytest.raises(shutil.SameFileError):
                await fs.copy_file(source, same)
        assert source.read_bytes() == data
        with pytest.raises(FileNotFoundError) as missing:
            await fs.copy_file(tmp_path / "x", target)
        assert missing.value.filename == str(tmp_path / "x")
        with pytest.raises(IsADirectoryError):
            await fs.copy_file(tmp_path, target)
        if os.path.exists("/proc/self/mounts"):  # a file that claims to be empty
            assert await fs.copy_file("/proc/self/mounts", target) == len(target.read_bytes()) > 0

    run(main())


def test_walking(run: Any, tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a/1", "a/b/2", "3", "e/4"):
        (tmp_path / name).touch()
    (tmp_path / "e" / "up").symlink_to("..")
    (tmp_path / "to a").symlink_to("a")

    def shape(found: list[Any]) -> list[Any]:
        return [(path, sorted(folders), sorted(others)) for path, folders, others in found]

    async def collect(top: Any, **options: Any) -> list[Any]:
        return [item async for item in fs.walk(top, **options)]

    async def main() -> None:
        for top in (str(tmp_path), os.fsencode(tmp_path), tmp_path):
            for topdown in (True, False):
                assert shape(await collect(top, topdown=topdown)) == shape(list(os.walk(top, topdown=topdown)))
        top = str(tmp_path / "to a")
        assert shape(await collect(top, followlinks=True)) == shape(list(os.walk(top, followlinks=True)))
        assert await collect(tmp_path / "nothing") == []
        errors: list[OSError] = []
        assert await collect(tmp_path / "nothing", onerror=errors.append) == []
        assert [error.filename for error in errors] == [str(tmp_path / "nothing")]
        visited = []
        async for path, folders, _ in fs.walk(str(tmp_path)):
            visited.append(os.path.relpath(path, tmp_path))
            folders[:] = [name for name in folders if name != "b"]
            if path == str(tmp_path):
                folders.append("not there")
        assert sorted(visited) == [".", "a", "a/d", "e"]

    run(main())


def test_entries_can_be_asked_later(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_text("123")
        (tmp_path / "link").symlink_to("file")
        entries = {entry.name: entry for entry in await fs.scandir(tmp_path)}
        assert (await entries["link"].stat()).st_size == 3
        assert stat.S_ISLNK((await entries["link"].stat(follow_symlinks=False)).st_mode)
        (tmp_path / "file").unlink()
        assert entries["file"].is_file()
        with pytest.raises(FileNotFoundError) as caught:
            await entries["file"].stat()
        assert caught.value.filename == str(tmp_path / "file")

    run(main())


def test_trees_are_removed(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "file").touch()
        await fs.rmtree(tmp_path / "a")
        assert not (tmp_path / "a").exists()
        with pytest.raises(FileNotFoundError):
            await fs.rmtree(tmp_path / "a")
        await fs.rmtree(tmp_path / "a", ignore_errors=True)

    run(main())


def test_another_loop_or_none_is_refused() -> None:
    async def on_asyncio() -> None:
        for start in (fs.read_file, fs.stat, fs.listdir, fs.rmtree):
            with pytest.raises(RuntimeError, match="running hoop loop"):
                await start("/")
        with pytest.raises(RuntimeError, match="running hoop loop"):
            await fs.open("/")

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(on_asyncio())
    with pytest.raises(RuntimeError):
        fs.cached_read_stats()


# ---- cancelling ------------------------------------------------------------------------------------------------------


def busy(pool: hoop.Pool, release: threading.Event) -> list[asyncio.Future[bool]]:
    """Every thread of the pool waits for release."""
    return [pool.run(release.wait, 20) for _ in range(pool.size)]


def test_a_queued_write_that_is_cancelled_does_not_happen(tmp_path: Path) -> None:
    """Trap 40."""

    async def main() -> None:
        release = threading.Event()
        loop = asyncio.get_running_loop()
        holding = busy(loop.pool, release)  # type: ignore[attr-defined]
        writing = asyncio.ensure_future(fs.write_file(tmp_path / "file", b"x"))
        appending = asyncio.ensure_future(fs.append_file(tmp_path / "other", b"x"))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        release.set()  # not before: a thread could take the job before the task has heard of its cancellation
        await asyncio.gather(*holding)
        assert await appending == 1
        assert os.listdir(tmp_path) == ["other"]

    hoop.run(main())


def test_a_running_write_that_is_cancelled_ends_and_is_complete(tmp_path: Path) -> None:
    """Trap 40. Opening a FIFO for writing waits for a reader, so the test says when the write goes on."""

    async def main() -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        data = os.urandom(200_000)
        writing = asyncio.ensure_future(fs.write_file(path, data))
        pool = asyncio.get_running_loop().pool  # type: ignore[attr-defined]
        while pool.stats().running == 0:
            await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await fs.read_file(path) == data

    hoop.run(main())


def test_a_large_read_that_is_cancelled_closes_its_file(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "large"
        path.write_bytes(b"x" * 1_000_000)
        before = set(os.listdir("/proc/self/fd"))
        for _ in range(50):
            reading = asyncio.ensure_future(fs.read_file(path))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        pool = asyncio.get_running_loop().pool  # type: ignore[attr-defined]
        await asyncio.gather(*(pool.run(int) for _ in range(pool.size)))
        while pool.stats().running:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(set(os.listdir("/proc/self/fd")) - before) <= 2  # the loop's own, opened for the first cached read

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to count descriptors")
    hoop.run(main())


def test_a_number_that_is_no_descriptor(run: Any) -> None:
    async def main() -> None:
        for start in (fs.stat, fs.exists, lambda fd: fs.pread(fd, 1, 0), fs.fsync, lambda fd: fs.chmod(fd, 0o600)):
            if start is fs.exists:
                assert not await fs.exists(-1)
                continue
            with pytest.raises(OSError) as caught:
                await start(-1)
            assert caught.value.errno == errno.EBADF
        for wrong in ((-1, 0), (1, -1)):
            with pytest.raises(ValueError, match="-1"):
                await fs.pread(0, *wrong)

    run(main())


def test_many_at_once(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        names = [tmp_path / str(number) for number in range(200)]
        await asyncio.gather(*(fs.write_file(name, name.name) for name in names))
        texts = await asyncio.gather(*(fs.read_file(name, encoding="ascii") for name in names))
        assert texts == [name.name for name in names]
        assert sorted(await fs.listdir(tmp_path)) == sorted(texts)
        await asyncio.gather(*(fs.remove(name) for name in names))
        assert await fs.listdir(tmp_path) == []

    run(main())
