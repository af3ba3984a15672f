"""Small files out of the page cache, on the loop's own thread: which it reads so, which never, and that it cannot wait.

What the kernel keeps in its caches is its own business, so a hit is asked for again until there is one; what must not
be a hit is tested strictly.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop import fs
from hoop.files import file_jobs
from hoop.stats import CachedReadStats
from unit.mounts import mounted

TRIES = 200
MOST_BYTES = 65536  # csrc/fs_cached.h

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can read the page cache without waiting")


async def next_turn() -> None:
    await asyncio.sleep(0)


async def stats_of(read: Callable[[], Awaitable[Any]]) -> tuple[CachedReadStats, CachedReadStats]:
    before = fs.cached_read_stats()
    await read()
    return before, fs.cached_read_stats()


async def was_hit(path: Any, expected: bytes) -> bool:
    """Read path; whether that went without a thread."""

    async def read() -> None:
        assert await fs.read_file(path) == expected

    await next_turn()  # each with a turn of its own
    before, after = await stats_of(read)
    assert after.hits - before.hits + sum(after.misses.values()) - sum(before.misses.values()) == 1
    return after.hits > before.hits


async def can_hit(path: Path, expected: bytes) -> bool:
    """Whether path can be read without a thread here; the first read tells the loop about its device."""
    for _ in range(TRIES):
        if await was_hit(path, expected):
            return True
    return False


async def require_hits(path: Path, expected: bytes) -> None:
    if not await can_hit(path, expected):
        pytest.skip(f"cached reads are not possible here: {fs.cached_read_stats()}")


async def never_hits(path: Any, expected: bytes) -> None:
    for _ in range(5):
        assert not await was_hit(path, expected)


def reason_counts(before: CachedReadStats, after: CachedReadStats) -> dict[str, int]:
    return {name: count - before.misses[name] for name, count in after.misses.items() if count != before.misses[name]}


# ---- what is read so -------------------------------------------------------------------------------------------------


@needs_linux
def test_a_small_cached_file(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        for content in (b"x" * 4096, b"", b"y", b"z" * MOST_BYTES):
            path.write_bytes(content)
            await require_hits(path, content)
        for kind in (str, os.fsencode, Path):
            assert await fs.read_file(kind(path)) == content
        assert await fs.read_file(path, encoding="ascii") == content.decode()
        (tmp_path / "link").symlink_to("file")
        assert await can_hit(tmp_path / "link", content)

    hoop.run(main())


@needs_linux
def test_opening_a_small_cached_file_needs_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\r\ntwo\r\n")

    async def opens_here(loop: Any, mode: str, **arguments: Any) -> bool:
        """Open, look and close; whether the pool had nothing to do with it."""
        await next_turn()
        jobs, hits = loop.pool.stats().done, fs.cached_read_stats().hits
        file = await fs.open(path, mode, **arguments)
        expected = open(path, mode, **arguments)
        assert repr(file._file) == repr(expected)
        assert fcntl.fcntl(file.fileno(), fcntl.F_GETFL) == fcntl.fcntl(expected.fileno(), fcntl.F_GETFL)
        assert not os.get_inheritable(file.fileno())
        is_hit = fs.cached_read_stats().hits > hits
        assert is_hit == (loop.pool.stats().done == jobs)
        assert await file.read() == expected.read()
        expected.close()
        await file.close()
        assert loop.pool.stats().done - jobs <= (1 if is_hit else 3)
        return is_hit

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        kinds: list[tuple[str, dict[str, Any]]] = [
            *(("rb", {}), ("r", {"newline": ""}), ("rt", {"encoding": "ascii"}), ("br", {"buffering": 0}))
        ]
        for mode, arguments in kinds:
            for _ in range(TRIES):
                if await opens_here(loop, mode, **arguments):
                    break
            else:
                pytest.skip(f"cached reads are not possible here: {fs.cached_read_stats()}")
        for mode in ("r+b", "ab", "wb"):
            assert not await writes_here(loop, path, mode)

    async def writes_here(loop: Any, path: Path, mode: str) -> bool:
        hits = fs.cached_read_stats().hits
        async with fs.open(path, mode):
            return fs.cached_read_stats().hits > hits

    hoop.run(main())


@needs_linux
def test_reading_all_of_an_opened_file_needs_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = b"one\ntwo\n" * 100
    path.write_bytes(content)

    async def reads_here(loop: Any, buffering: int) -> bool:
        await next_turn()
        jobs = loop.pool.stats().done
        async with fs.open(path, "rb", buffering) as file:
            assert await file.read() == content
            was_here: bool = loop.pool.stats().done == jobs
            assert await file.tell() == len(content)
            assert await file.read() == b""
            with path.open("ab") as other:
                other.write(b"more")
            assert await file.read() == b"more"
            assert await file.seek(4) == 4
            assert await file.readline() == b"two\n"
        os.truncate(path, len(content))
        return was_here

    async def touched() -> None:
        """Who has moved it is believed."""
        async with fs.open(path, "rb") as file:
            assert await file.read(4) == b"one\n"
            assert await file.read() == content[4:]
        async with fs.open(path, "rb") as file:
            os.lseek(file.fileno(), 4, os.SEEK_SET)
            assert await file.read() == content[4:]
        async with fs.open(path, "rb") as file:
            file.raw.seek(4)
            assert await file.read() == content[4:]
        async with fs.open(path, "rb") as file:
            first, rest = asyncio.ensure_future(file.readline()), asyncio.ensure_future(file.read())
            assert (await first, await rest) == (b"one\n", content[4:])
        file = await fs.open(path, "rb")
        with path.open("ab") as other:
            other.write(b"more")  # after it was opened
        assert await file.read() == content + b"more"
        await file.close()
        os.truncate(path, len(content))
        with pytest.raises(ValueError, match="closed"):
            await file.read()

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for _ in range(5):
            await next_turn()
            await touched()
        for buffering in (-1, 0):
            for _ in range(TRIES):
                if await reads_here(loop, buffering):
                    break
            else:
                pytest.skip(f"cached reads are not possible here: {fs.cached_read_stats()}")

    hoop.run(main())


@needs_linux
def test_what_a_cached_file_cannot_be_opened_with_leaks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    wrong: list[dict[str, Any]] = [{"buffering": 0}, {"newline": "x"}, {"encoding": "nonesuch"}, {"errors": b"x"}]

    async def main() -> None:
        await require_hits(path, b"x" * 100)
        open_before = len(os.listdir("/proc/self/fd"))
        for arguments in wrong * 5:
            await next_turn()
            with pytest.raises((ValueError, LookupError, TypeError)):
                await fs.open(path, "r", **arguments)
        for name in ("no\0path", tmp_path / "missing", tmp_path):
            with pytest.raises((ValueError, OSError)):
                await fs.open(name)
        assert len(os.listdir("/proc/self/fd")) == open_before

    hoop.run(main())


@needs_linux
def test_a_hit_needs_no_thread_and_no_turn(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(b"x" * 100)
        await require_hits(path, b"x" * 100)
        loop: Any = asyncio.get_running_loop()
        for _ in range(TRIES):
            await next_turn()
            submitted, turns = loop.pool.stats().done, loop.metrics().turns
            hits = fs.cached_read_stats().hits
            await fs.read_file(path)
            if fs.cached_read_stats().hits > hits:
                assert (loop.pool.stats().done, loop.metrics().turns) == (submitted, turns)
                return
        pytest.fail("no hit in many tries")

    hoop.run(main())


@needs_linux
def test_what_another_process_writes_is_seen(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        for number in range(50):
            content = b"%d" % number * (number + 1)
            path.write_bytes(content)
            assert await fs.read_file(path) == content
        path.unlink()
        with pytest.raises(FileNotFoundError) as caught:
            await fs.read_file(path)
        assert caught.value.filename == str(path)

    hoop.run(main())


# ---- what never is ---------------------------------------------------------------------------------------------------


@needs_linux
def test_a_fifo_never_blocks_the_loop(tmp_path: Path) -> None:
    """Whoever opens a FIFO waits for the other side. Here that is the loop itself, so it must go on turning."""

    async def main() -> None:
        regular, fifo = tmp_path / "file", tmp_path / "fifo"
        regular.write_bytes(b"x")
        await can_hit(regular, b"x")  # the device is known as local
        os.mkfifo(fifo)
        for number in range(5):
            reading = asyncio.ensure_future(fs.read_file(fifo))
            await next_turn()
            assert not reading.done()
            await fs.write_file(fifo, b"%d" % number)
            assert await reading == b"%d" % number
        assert fs.cached_read_stats().misses["type"] + fs.cached_read_stats().misses["off"] >= 5

    hoop.run(main())


@needs_linux
def test_a_name_that_becomes_a_fifo(tmp_path: Path) -> None:
    """Between lookup and open, as often as it goes: what is opened is what was looked at."""

    async def main() -> None:
        path, regular, fifo = tmp_path / "file", tmp_path / "regular", tmp_path / "fifo"
        regular.write_bytes(b"x" * 100)
        os.mkfifo(fifo)
        await can_hit(regular, b"x" * 100)
        os.link(regular, path)
        stop = threading.Event()

        def exchange() -> None:
            while not stop.is_set():
                for source in (fifo, regular):
                    os.link(source, tmp_path / "next")
                    os.replace(tmp_path / "next", path)

        exchanging = asyncio.get_running_loop().run_in_executor(None, exchange)
        # its other side, so that no thread of the pool waits in open(2); those in read(2) see the end when it closes
        feeding = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        try:
            for _ in range(2000):
                found = file_jobs.read_file(path)
                if isinstance(found, bytes):
                    assert found == b"x" * 100
                else:
                    found.cancel()
                    await next_turn()
        finally:
            stop.set()
            await exchanging
            os.close(feeding)

    hoop.run(main())


@needs_linux
def test_what_is_not_regular_or_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_bytes(b"x")
        await can_hit(tmp_path / "file", b"x")
        for path, error in ((tmp_path, IsADirectoryError), (tmp_path / "nothing", FileNotFoundError)):
            hits = fs.cached_read_stats().hits
            with pytest.raises(error) as caught:
                await fs.read_file(path)
            assert caught.value.filename == str(path)
            assert fs.cached_read_stats().hits == hits
        await never_hits("/dev/null", b"")

    hoop.run(main())


@needs_linux
def test_a_file_of_proc(tmp_path: Path) -> None:
    async def main() -> None:
        if not os.path.exists("/proc/version"):
            pytest.skip("no /proc here")
        with open("/proc/version", "rb") as file:
            await never_hits("/proc/version", file.read())
        before, after = await stats_of(lambda: fs.read_file("/proc/version"))
        assert set(reason_counts(before, after)) <= {"foreign_device", "lookup", "off", "unknown_device"}

    hoop.run(main())


@needs_linux
def test_a_file_larger_than_the_bound(tmp_path: Path) -> None:
    async def main() -> None:
        small, large = tmp_path / "small", tmp_path / "large"
        small.write_bytes(b"x")
        large.write_bytes(b"y" * (MOST_BYTES + 1))
        await require_hits(small, b"x")
        await never_hits(large, b"y" * (MOST_BYTES + 1))
        assert fs.cached_read_stats().misses["large"] > 0

    hoop.run(main())


@needs_linux
def test_a_turn_has_its_limits(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(b"x" * 100)
        await require_hits(path, b"x" * 100)
        await next_turn()
        before = fs.cached_read_stats()
        # they all begin in one turn
        assert set(await asyncio.gather(*(fs.read_file(path) for _ in range(200)))) == {b"x" * 100}
        after = fs.cached_read_stats()
        assert after.hits - before.hits <= 64
        assert reason_counts(before, after)["turn"] >= 200 - 64
        path.write_bytes(b"y" * 50_000)
        await next_turn()
        before = fs.cached_read_stats()
        await asyncio.gather(*(fs.read_file(path) for _ in range(30)))
        assert (fs.cached_read_stats().hits - before.hits) * 50_000 <= 524_288

    hoop.run(main())


@needs_linux
def test_a_loop_that_only_reads_still_lets_others_run(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(b"x")
        await require_hits(path, b"x")
        ran: list[int] = []
        asyncio.get_running_loop().call_soon(ran.append, 1)
        count = 0
        while not ran:
            await fs.read_file(path)
            count += 1
            assert count < 1000

    hoop.run(main())


def forget(path: Path) -> None:
    """Have the kernel drop what it has cached of a file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@needs_linux
def test_a_file_that_is_not_cached(tmp_path: Path) -> None:
    """Then nothing, or not all of it, can be read without waiting, and the pool reads it."""

    async def main() -> None:
        path = tmp_path / "file"
        content = os.urandom(60_000)
        path.write_bytes(content)
        await require_hits(path, content)
        for _ in range(TRIES):
            forget(path)
            await next_turn()
            before, after = await stats_of(lambda: fs.read_file(path))
            if "contents" in reason_counts(before, after):
                break
        else:
            pytest.skip("this file system keeps its files cached")
        forget(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[0] == content[0]  # the first page is there, the last perhaps not
        assert await fs.read_file(path) == content

    hoop.run(main())


# ---- file systems ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(["-t", "tmpfs", "-o", "size=1m", "hoop-test"], tmp_path / "tmpfs")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "from below").write_bytes(b"below")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    yield from mounted(["-t", "overlay", "overlay", "-o", options], tmp_path / "overlay")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """An ext4 in a file."""
    make = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if make is None:
        pytest.skip("no mkfs.ext4 here")
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, 4 << 20)
    subprocess.run([make, "-q", str(path)], check=True, timeout=20, capture_output=True)
    yield from mounted(["-o", "loop", str(path)], tmp_path / "mounted")


@needs_linux
def test_tmpfs_may_not_be_able_but_is_right(tmpfs: Path) -> None:
    async def main() -> None:
        (tmpfs / "file").write_bytes(b"x" * 4096)
        for _ in range(10):
            await was_hit(tmpfs / "file", b"x" * 4096)
        stats = fs.cached_read_stats()
        # a file system without RWF_NOWAIT is tried once, then left to the pool
        assert stats.hits > 0 or stats.misses["contents"] <= 1

    hoop.run(main())


@needs_linux
def test_overlay_files(overlay: Path) -> None:
    async def main() -> None:
        (overlay / "new").write_bytes(b"new")
        for _ in range(10):
            await was_hit(overlay / "from below", b"below")
            await was_hit(overlay / "new", b"new")

    hoop.run(main())


@needs_linux
def test_a_file_system_in_a_file(image: Path) -> None:
    async def main() -> None:
        (image / "file").write_bytes(b"x" * 4096)
        await require_hits(image / "file", b"x" * 4096)

    hoop.run(main())


@needs_linux
def test_a_mount_makes_devices_unknown_again(tmp_path: Path) -> None:
    """The device number of an unmounted tmpfs is the next one's, which may be of another kind."""

    async def main() -> None:
        (tmp_path / "file").write_bytes(b"x")
        await require_hits(tmp_path / "file", b"x")
        mounting = mounted(["-t", "tmpfs", "hoop-test"], tmp_path / "tmpfs")
        next(mounting)
        try:
            await next_turn()
            before, after = await stats_of(lambda: fs.read_file(tmp_path / "file"))
            assert reason_counts(before, after) == {"unknown_device": 1}
            assert await can_hit(tmp_path / "file", b"x")
        finally:
            mounting.close()

    hoop.run(main())


# ---- off -------------------------------------------------------------------------------------------------------------


def read_repeatedly(loop: hoop.Loop, path: Path) -> CachedReadStats:
    async def main() -> CachedReadStats:
        for _ in range(5):
            await never_hits(path, b"x")
        return fs.cached_read_stats()

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    stats = read_repeatedly(hoop.Loop(cached_reads=False), tmp_path / "file")
    assert not stats.enabled
    assert stats.misses["off"] == 25
    monkeypatch.setenv("HOOP_CACHED_READS", "0")
    assert not read_repeatedly(hoop.Loop(), tmp_path / "file").enabled


def test_closing_gives_its_descriptors_back(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to count descriptors")
    (tmp_path / "file").write_bytes(b"x")

    async def main() -> None:
        await can_hit(tmp_path / "file", b"x")

    hoop.run(main())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        hoop.run(main())
    assert len(os.listdir("/proc/self/fd")) == before


REFUSING = """
import asyncio, ctypes, errno, sys, hoop
from hoop import fs
from hoop.files import file_jobs

# seccomp(2) by prctl(2): the calls named answer EPERM or ENOSYS, as sandboxes have it; all else goes on
class Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.POINTER(Step))]

def refuse(number, error):
    steps = (Step * 4)(
        Step(0x20, 0, 0, 0),                      # the number of the call
        Step(0x15, 0, 1, number),
        Step(0x06, 0, 0, 0x00050000 | error),     # SECCOMP_RET_ERRNO
        Step(0x06, 0, 0, 0x7fff0000),             # SECCOMP_RET_ALLOW
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.byref(Program(4, steps)), 0, 0) != 0:
        print("cannot", ctypes.get_errno()); sys.exit(0)

async def main():
    path = sys.argv[1]
    for _ in range(3):
        assert await fs.read_file(path) == b"x" * 100
    refuse(int(sys.argv[2]), int(sys.argv[3]))
    for _ in range(5):
        await asyncio.sleep(0)
        assert await fs.read_file(path) == b"x" * 100
    stats = fs.cached_read_stats()
    print(stats.enabled, stats.refusal, stats.misses["off"])
hoop.run(main())
"""


@needs_linux
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86-64")
@pytest.mark.parametrize("error", [1, 38], ids=["EPERM", "ENOSYS"])
@pytest.mark.parametrize(("call", "number"), [("openat2", 437), ("statx", 332), ("preadv2", 327)])
def test_a_refusal_is_found_out_once(tmp_path: Path, call: str, number: int, error: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    command = [sys.executable, "-c", REFUSING, str(path), str(number), str(error)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.split(maxsplit=1)
    if said[0] == "cannot":
        pytest.skip(f"no seccomp here: {done.stdout}")
    if said[0] == "True":
        pytest.skip(f"this file was never cached: {done.stdout}")
    enabled, refusal = done.stdout.split(" ", 1)
    assert enabled == "False"
    assert refusal.startswith(f"{call}: {os.strerror(error)}")
    assert int(done.stdout.split()[-1]) >= 4  # from then on it is not even tried
