"""Disks that are full or broken, calls that move less than they were asked to, files that vanish, loops that close."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop import fs
from preloaded import preloading
from unit.mounts import mounted

# ---- a full disk -----------------------------------------------------------------------------------------------------

DISK = 256 * 1024  # bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs with room for DISK bytes; skipped where the machine does not permit one."""
    yield from mounted(["-t", "tmpfs", "-o", f"size={DISK}", "hoop-test"], tmp_path / "disk")


def check_full(caught: pytest.ExceptionInfo[OSError], path: Path) -> None:
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)


def test_a_full_disk_is_an_error_and_no_silence(small_disk: Path) -> None:
    async def main() -> None:
        path = small_disk / "file"
        with pytest.raises(OSError) as caught:
            await fs.write_file(path, b"x" * (2 * DISK))
        check_full(caught, path)
        assert path.stat().st_size <= DISK
        await fs.write_file(path, b"old")
        with pytest.raises(OSError) as caught:
            await fs.append_file(path, b"x" * (2 * DISK))
        check_full(caught, path)

    hoop.run(main())


def test_an_atomic_write_to_a_full_disk_changes_nothing(small_disk: Path) -> None:
    async def main() -> None:
        path = small_disk / "file"
        await fs.write_file(path, b"old", fsync=True)
        with pytest.raises(OSError) as caught:
            await fs.write_file(path, b"x" * (2 * DISK), atomic=True)
        check_full(caught, path)
        assert path.read_bytes() == b"old"
        assert os.listdir(small_disk) == ["file"]

    hoop.run(main())


def test_a_copy_to_a_full_disk_leaves_no_new_file(small_disk: Path, tmp_path: Path) -> None:
    async def main() -> None:
        source = tmp_path / "source"
        source.write_bytes(b"x" * (2 * DISK))
        with pytest.raises(OSError) as caught:
            await fs.copy_file(source, small_disk / "copy")
        assert caught.value.errno == errno.ENOSPC
        assert os.listdir(small_disk) == []

    hoop.run(main())


def test_a_file_object_tells_that_the_disk_is_full(small_disk: Path) -> None:
    async def main() -> None:
        f = await fs.open(small_disk / "file", "wb", buffering=4 * DISK)
        await f.write(b"x" * (2 * DISK))  # stays in the buffer
        with pytest.raises(OSError) as caught:
            await f.flush()
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError) as caught:
            async with f:
                pass
        assert caught.value.errno == errno.ENOSPC
        assert f.closed

    hoop.run(main())


def test_dev_full_through_every_way_of_writing() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")

    async def main() -> None:
        fd = os.open("/dev/full", os.O_WRONLY)
        try:
            writes = [fs.write_file("/dev/full", b"x"), fs.append_file("/dev/full", b"x"), fs.pwrite(fd, b"x", 0)]
            for write in writes:
                with pytest.raises(OSError) as caught:
                    await write
                assert caught.value.errno == errno.ENOSPC
        finally:
            os.close(fd)
        with pytest.raises(OSError) as caught:
            await fs.copy_file(__file__, "/dev/full")
        assert caught.value.errno == errno.ENOSPC
        assert os.path.exists("/dev/full")

    hoop.run(main())


# ---- system calls that fail or move little, by a library in front of the C library -----------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/types.h>

/* What a file suffers from stands in its name. */
static int suffers(int fd, const char *fault)
{
    char link[64], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return strstr(path, fault) != NULL;
}

static __thread int calls;

static int interrupted(int fd)
{
    if (!suffers(fd, "interrupted") || ++calls % 2 == 0)
        return 0;
    errno = EINTR;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t broken(void)
{
    errno = EIO;
    return -1;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    if (suffers(fd, "broken-read"))
        return broken();
    return interrupted(fd) ? -1 : REAL(read)(fd, buffer, suffers(fd, "short") && size > 7 ? 7 : size);
}

ssize_t write(int fd, const void *buffer, size_t size)
{
    if (suffers(fd, "broken-write"))
        return broken();
    if (suffers(fd, "later") && ++calls > 3)
        return broken();
    int is_short = suffers(fd, "short") || suffers(fd, "later");
    return interrupted(fd) ? -1 : REAL(write)(fd, buffer, is_short && size > 7 ? 7 : size);
}

ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset)
{
    if (suffers(fd, "broken-read"))
        return broken();
    return interrupted(fd) ? -1 : REAL(pread64)(fd, buffer, suffers(fd, "short") && size > 7 ? 7 : size, offset);
}

ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t offset)
{
    if (suffers(fd, "broken-write"))
        return broken();
    return interrupted(fd) ? -1 : REAL(pwrite64)(fd, buffer, suffers(fd, "short") && size > 7 ? 7 : size, offset);
}

int fsync(int fd)
{
    return suffers(fd, "broken-sync") ? (int)broken() : REAL(fsync)(fd);
}

int close(int fd)
{
    int is_broken = suffers(fd, "broken-close");
    int result = REAL(close)(fd);
    return is_broken ? (int)broken() : result;
}

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags)
{
    errno = ENOSYS;
    return -1;
}
"""

PROGRAM = """
import asyncio, errno, os, sys
import hoop
from hoop import fs

DATA = b"0123456789" * 50

async def fails(awaitable, number, filename):
    try:
        await awaitable
    except OSError as error:
        assert error.errno == number, error
        assert error.filename == filename, error
    else:
        raise AssertionError("no error")

async def main():
    os.chdir(sys.argv[1])
    for name in ("interrupted", "short", "short-interrupted"):
        assert await fs.write_file(name, DATA, fsync=True) == len(DATA)
        assert await fs.append_file(name, DATA) == len(DATA)
        assert await fs.read_file(name) == DATA * 2
        assert await fs.copy_file(name, name + "-copy") == 2 * len(DATA)
        assert await fs.read_file(name + "-copy") == DATA * 2
        fd = os.open(name, os.O_RDWR)
        assert await fs.pread(fd, 300, 10) == (DATA * 2)[10:310]
        assert await fs.pwrite(fd, b"x" * 100, 5) == 100
        assert await fs.pread(fd, 200, 0) == DATA[:5] + b"x" * 100 + DATA[105:200]
        os.close(fd)
        async with fs.open(name, "rb") as f:
            assert len(await f.read()) == 2 * len(DATA)
        async with fs.open(name, "wb") as f:
            assert await f.write(DATA) == len(DATA)
        assert await fs.read_file(name) == DATA

    for name in ("broken-read", "broken-write", "broken-sync", "broken-close", "later"):
        os.mknod(name)  # an open() would have to close it
    await fails(fs.write_file("broken-write", DATA), errno.EIO, "broken-write")
    await fails(fs.write_file("later", DATA), errno.EIO, "later")
    assert os.stat("later").st_size < len(DATA)
    await fails(fs.write_file("broken-sync", DATA, fsync=True), errno.EIO, "broken-sync")
    assert await fs.write_file("broken-sync", DATA) == len(DATA)
    await fails(fs.write_file("broken-close", DATA), errno.EIO, "broken-close")
    await fails(fs.copy_file("short", "broken-close"), errno.EIO, "broken-close")
    os.mkdir("folder-broken-write")
    open("folder-broken-write/file", "wb").close()
    await fails(fs.write_file("folder-broken-write/file", DATA, atomic=True), errno.EIO, "folder-broken-write/file")
    assert os.listdir("folder-broken-write") == ["file"]

    os.truncate("broken-read", 5)
    await fails(fs.read_file("broken-read"), errno.EIO, "broken-read")
    os.truncate("broken-read", 1_000_000)
    await fails(fs.read_file("broken-read"), errno.EIO, "broken-read")
    fd = os.open("broken-read", os.O_RDONLY)
    await fails(fs.pread(fd, 10, 0), errno.EIO, None)
    os.close(fd)
    f = await fs.open("broken-read")
    await fails(f.readline(), errno.EIO, None)
    await fails(f.read(), errno.EIO, None)
    await f.close()
    print("all as it should be")

loop = hoop.Loop(cached_reads=False)
loop.run_until_complete(asyncio.wait_for(main(), 60))
loop.close()
"""


def test_calls_that_fail_or_move_little(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    source, library, folder = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "files"
    source.write_text(SHIM)
    folder.mkdir()
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    environment = {**os.environ, "LD_PRELOAD": preloading(library)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (0, "all as it should be\n")


# ---- files that vanish -----------------------------------------------------------------------------------------------


def test_files_that_come_and_go_while_they_are_listed(tmp_path: Path) -> None:
    async def main() -> None:
        stop = threading.Event()

        def come_and_go() -> int:
            number = 0
            while not stop.is_set():
                number += 1
                folder = tmp_path / f"folder {number % 3}"
                folder.mkdir()
                (folder / "file").touch()
                (tmp_path / "link").symlink_to(folder / "file")
                (folder / "file").unlink()
                (tmp_path / "link").unlink()
                folder.rmdir()
            return number

        (tmp_path / "stays").touch()
        coming = asyncio.get_running_loop().run_in_executor(None, come_and_go)
        errors: list[OSError] = []
        try:
            for _ in range(300):
                entries = {entry.name: entry for entry in await fs.scandir(tmp_path)}
                assert entries["stays"].is_file()
                for name, entry in entries.items():
                    assert not (name.startswith("folder") and entry.is_file())
                    try:
                        await entry.stat()
                    except FileNotFoundError as error:
                        assert error.filename == str(tmp_path / name)
                found = [item async for item in fs.walk(tmp_path, onerror=errors.append)]
                assert "stays" in found[0][2]
        finally:
            stop.set()
        assert await coming > 0
        assert {type(error) for error in errors} <= {FileNotFoundError}

    hoop.run(main())


# ---- loops that close ------------------------------------------------------------------------------------------------


def test_a_loop_that_closes_finishes_what_runs_and_drops_what_waits(tmp_path: Path) -> None:
    """Trap 41: each file has all of its bytes or does not exist, since its job ran or did not."""
    data = os.urandom(300_000)
    loop = hoop.Loop(pool_size=2)

    async def begin() -> list[asyncio.Task[Any]]:
        tasks = [asyncio.ensure_future(fs.write_file(tmp_path / str(number), data)) for number in range(50)]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(begin())
    loop.close()
    written = list(tmp_path.iterdir())
    for path in written:
        assert path.read_bytes() == data
    assert len(written) <= 50
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # the loop is gone: they never end
    del tasks
