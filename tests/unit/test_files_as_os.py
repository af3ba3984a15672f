"""hoop.fs against os: each body runs with the blocking functions and with hoop's, in folders that are alike, and must
see the same results, errors, names in errors, and files."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop import fs

Body = Callable[["Operations", Path], Any]


class Operations:
    """The functions under test, and attempt(), which makes an outcome of a call that can be compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptor = -1  # a number that may differ

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def attempt(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return "gave", self.neutral(self.call(name, *args, **kwargs))
        except OSError as error:
            return "raised", type(error), error.errno, self.neutral(error.filename), self.neutral(error.filename2)
        except (TypeError, ValueError, OverflowError) as error:
            return "raised", type(error)

    def neutral(self, value: Any) -> Any:
        """Without the name of the folder, which is another for each."""
        if isinstance(value, str):
            return value.replace(str(self.folder), "FOLDER")
        if isinstance(value, bytes):
            return value.replace(os.fsencode(self.folder), b"FOLDER")
        if isinstance(value, int) and value > 2:
            return "a descriptor" if value == self.descriptor else value
        return value


class Plain(Operations):
    """What Python has, blocking."""

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        own = getattr(self, f"_{name}", None)
        return own(*args, **kwargs) if own is not None else getattr(os, name)(*args, **kwargs)

    def _read_file(self, path: Any) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def _write_file(self, path: Any, data: bytes, mode: str = "wb") -> int:
        with open(path, mode) as file:
            return file.write(data)

    def _append_file(self, path: Any, data: bytes) -> int:
        return self._write_file(path, data, "ab")

    def _listdir(self, path: Any) -> list[Any]:
        return sorted(os.listdir(path))

    def _scandir(self, path: Any) -> list[Any]:
        return described(list(os.scandir(path)))

    def _link(self, src: Any, dst: Any) -> None:
        # os.link() without follow_symlinks names the link on Linux up to Python 3.13, and what it leads to from 3.14
        # on.
        os.link(src, dst, follow_symlinks=False)

    def _pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def _exists(self, path: Any) -> bool:
        return os.path.exists(path)

    def _isdir(self, path: Any) -> bool:
        return os.path.isdir(path)

    def _isfile(self, path: Any) -> bool:
        return os.path.isfile(path)


class Ours(Operations):
    """hoop.fs, an operation at a time."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        super().__init__(folder)
        self.runner = runner

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            result = await asyncio.wait_for(getattr(fs, name)(*args, **kwargs), 20)
            if name == "listdir":
                return sorted(result)
            return described(result) if name == "scandir" else result

        return self.runner.run(run())


def described(entries: list[Any]) -> list[Any]:
    """What a directory's entries say of themselves."""
    return sorted(
        (
            *(entry.name, os.path.basename(entry.path), os.path.basename(os.fspath(entry))),
            *(entry.is_dir(), entry.is_file(), entry.is_symlink()),
            *(entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)),
            entry.inode() == os.lstat(entry.path).st_ino,
            repr(entry),
        )
        for entry in entries
    )


def check_alike(body: Body, tmp_path: Path) -> None:
    """Run body with both; outcome and files must be the same."""
    outcomes = []
    with asyncio.Runner(loop_factory=hoop.new_event_loop) as runner:
        for number, kind in enumerate((Plain, Ours)):
            folder = tmp_path / str(number)
            folder.mkdir()
            operations = Plain(folder) if kind is Plain else Ours(folder, runner)
            outcomes.append((body(operations, folder), tree(folder)))
    (results, files), (our_results, our_files) = outcomes
    assert len(results) == len(our_results)
    for number, (result, ours) in enumerate(zip(results, our_results, strict=True)):
        assert (number, result) == (number, ours)
    assert files == our_files


def tree(folder: Path) -> list[Any]:
    """Every file below folder: its name, kind, mode and contents."""
    found = []
    # Not rglob(): a link whose target is too long a name ends it on the first releases of Python 3.11.
    names = [Path(where, name) for where, folders, files in os.walk(folder) for name in folders + files]
    for path in sorted(names):
        status = path.lstat()
        contents: Any = None
        if path.is_symlink():
            contents = os.readlink(path).replace(str(folder), "FOLDER")
        elif path.is_file():
            contents = path.read_bytes()
        found.append((str(path.relative_to(folder)), status.st_mode, status.st_nlink, contents))
    return found


BODIES: dict[str, Body] = {}
NO_TEXT = os.fsdecode(b"\xff\xfe") if sys.platform == "linux" else "text"  # Linux takes any bytes as a name


def body(function: Body) -> Body:
    """Make it a test."""
    BODIES[function.__name__] = function
    return function


@body
def reading(operations: Operations, folder: Path) -> Any:
    for size in (0, 1, 4096, 262144, 262145, 1_000_000):
        (folder / str(size)).write_bytes((b"%d " % size * size)[:size])
        data = operations.call("read_file", folder / str(size))
        assert data == (folder / str(size)).read_bytes()
    (folder / "locked").write_bytes(b"")
    (folder / "locked").chmod(0)
    return [operations.attempt("read_file", folder / name) for name in ("nothing", ".", "1/x", "locked")] + [
        operations.call("read_file", "/proc/self/mounts") == Path("/proc/self/mounts").read_bytes()
        if os.path.exists("/proc/self/mounts")
        else True
    ]


@body
def writing(operations: Operations, folder: Path) -> Any:
    (folder / "there").write_bytes(b"a longer text than what comes")
    return [
        operations.attempt("write_file", folder / "new", b"some bytes"),
        operations.attempt("write_file", folder / "there", b"new"),
        operations.attempt("write_file", folder / "from bytearray", bytearray(b"abc")),
        operations.attempt("write_file", folder / "from view", memoryview(b"abcdef")[::2].tobytes()),
        operations.attempt("write_file", folder / "empty", b""),
        operations.attempt("write_file", folder / "large", b"x" * 3_000_000),
        operations.attempt("write_file", folder, b"new"),
        operations.attempt("write_file", folder / "nothing" / "x", b"new"),
    ]


@body
def appending(operations: Operations, folder: Path) -> Any:
    return [operations.attempt("append_file", folder / "file", text) for text in (b"", b"one", b"two")]


@body
def offsets(operations: Operations, folder: Path) -> Any:
    path = folder / "file"
    path.write_bytes(bytes(range(256)) * 16)
    fd = os.open(path, os.O_RDWR)
    try:
        seen = [
            operations.attempt("pread", fd, 10, 0),
            operations.attempt("pread", fd, 10, 4090),
            operations.attempt("pread", fd, 10, 5000),
            operations.attempt("pread", fd, 0, 0),
            operations.attempt("pread", fd, 100_000, 0),
            operations.attempt("pwrite", fd, b"hello", 4094),
            operations.attempt("pwrite", fd, b"", 3),
            operations.attempt("pread", fd, 10, 4090),
            os.lseek(fd, 0, os.SEEK_CUR),
            operations.attempt("pwrite", fd, "text", 0),
            operations.attempt("fsync", fd),
        ]
    finally:
        os.close(fd)
    for size in (0, 1):
        seen += [operations.attempt("pread", fd, size, 0), operations.attempt("pwrite", fd, b"x" * size, 0)]
    return seen


def facts(result: Any) -> Any:
    """Everything that a stat_result says, but for what differs from file to file."""
    if result[0] != "gave":
        return result
    own = {"st_ino", "st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns"}
    return {name: getattr(result[1], name) for name in dir(result[1]) if name.startswith("st_") and name not in own} | {
        "times": [round(getattr(result[1], f"st_{which}time")) for which in "am"]
    }


@body
def statuses(operations: Operations, folder: Path) -> Any:
    (folder / "file").write_bytes(b"12345")
    os.utime(folder / "file", ns=(1_234_567_890_123_456_789, 987_654_321_000_000_001))
    (folder / "link").symlink_to("file")
    (folder / "broken").symlink_to("nothing")
    os.mkfifo(folder / "fifo")
    got = operations.call("stat", folder / "file")
    real = os.stat(folder / "file")
    assert got == real and type(got) is os.stat_result
    assert [getattr(got, name) for name in dir(real) if name.startswith("st_")] == [
        getattr(real, name) for name in dir(real) if name.startswith("st_")
    ]
    operations.descriptor = fd = os.open(folder / "file", os.O_RDONLY)
    try:
        by_fd = facts(operations.attempt("stat", fd))
    finally:
        os.close(fd)
    return [
        by_fd,
        *(
            facts(operations.attempt("stat", folder / name))
            for name in ("file", "link", "broken", "fifo", "x", "file/x")
        ),
        *(facts(operations.attempt("lstat", folder / name)) for name in ("file", "broken", "x")),
        facts(operations.attempt("stat", folder / "broken", follow_symlinks=False)),
        facts(operations.attempt("stat", "/dev/null")),
        operations.attempt("stat", fd),
        operations.attempt("stat", 2**40),
    ]


@body
def accesses(operations: Operations, folder: Path) -> Any:
    (folder / "file").touch(0o400)
    (folder / "broken").symlink_to("nothing")
    names = ("file", "broken", "nothing", ".")
    modes = (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK)
    return [operations.attempt("access", folder / name, mode) for name in names for mode in modes] + [
        operations.attempt("access", folder / "broken", os.F_OK, follow_symlinks=False),
        operations.attempt("access", folder / "file", os.R_OK, effective_ids=True),
    ]


@body
def listing(operations: Operations, folder: Path) -> Any:
    for number in range(50):
        (folder / f"file {number}").touch()
    (folder / "folder").mkdir()
    (folder / "to folder").symlink_to("folder")
    (folder / "to nothing").symlink_to("nothing")
    (folder / "n\u00e4me \U0001f600").touch()
    (folder / NO_TEXT).touch()
    os.mkfifo(folder / "fifo")
    return [
        operations.attempt("listdir", folder),
        operations.attempt("listdir", os.fsencode(folder)),
        operations.attempt("scandir", folder),
        operations.attempt("scandir", f"{folder}/"),
        operations.attempt("scandir", os.fsencode(folder)),
        operations.attempt("listdir", folder / "folder"),
        operations.attempt("scandir", folder / "folder"),
        operations.attempt("listdir", folder / "nothing"),
        operations.attempt("scandir", folder / "file 1"),
    ]


@body
def making(operations: Operations, folder: Path) -> Any:
    (folder / "file").touch()
    return [
        operations.attempt("mkdir", folder / "a"),
        operations.attempt("mkdir", folder / "a"),
        operations.attempt("mkdir", folder / "b", 0o700),
        operations.attempt("mkdir", folder / "x" / "y"),
        operations.attempt("makedirs", folder / "c" / "d" / "e", 0o750),
        operations.attempt("makedirs", folder / "c" / "d" / "e"),
        operations.attempt("makedirs", folder / "c" / "d" / "e", exist_ok=True),
        operations.attempt("makedirs", f"{folder}/f//g/", exist_ok=True),
        operations.attempt("makedirs", f"{folder}/h/i/."),
        operations.attempt("makedirs", os.fsencode(folder / "file" / "x" / "y")),
        operations.attempt("makedirs", folder / "file" / "x" / "y"),
        operations.attempt("makedirs", folder / "file", exist_ok=True),
        operations.attempt("makedirs", ""),
        operations.attempt("makedirs", "/", exist_ok=True),
    ]


@body
def removing(operations: Operations, folder: Path) -> Any:
    (folder / "file").touch()
    (folder / "full" / "folder").mkdir(parents=True)
    (folder / "empty").mkdir()
    return [
        operations.attempt("remove", folder / "file"),
        operations.attempt("remove", folder / "file"),
        operations.attempt("unlink", folder / "file"),
        operations.attempt("remove", folder / "empty"),
        operations.attempt("rmdir", folder / "empty"),
        operations.attempt("rmdir", folder / "empty"),
        operations.attempt("rmdir", folder / "full"),
    ]


@body
def renaming(operations: Operations, folder: Path) -> Any:
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")
    (folder / "folder").mkdir()
    return [
        operations.attempt("rename", folder / "one", folder / "three"),
        operations.attempt("replace", folder / "two", folder / "three"),
        operations.attempt("rename", folder / "two", os.fsencode(folder / "four")),
        operations.attempt("rename", folder / "three", folder / "folder"),
        operations.attempt("rename", folder / "three", folder / "x" / "y"),
    ]


@body
def linking(operations: Operations, folder: Path) -> Any:
    (folder / "file").write_text("1")
    (folder / "to file").symlink_to("file")
    return [
        operations.attempt("link", folder / "file", folder / "hard"),
        operations.attempt("link", folder / "file", folder / "hard"),
        operations.attempt("link", folder / "to file", folder / "hard to file"),
        operations.attempt("symlink", "file", folder / "soft"),
        operations.attempt("symlink", folder / "x", folder / "soft"),
        operations.attempt("symlink", "y" * 1000, folder / "long"),
        operations.attempt("readlink", folder / "soft"),
        operations.attempt("readlink", os.fsencode(folder / "soft")),
        operations.attempt("readlink", folder / "long"),
        operations.attempt("readlink", folder / "file"),
        operations.attempt("readlink", folder / "nothing"),
    ]


@body
def changing(operations: Operations, folder: Path) -> Any:
    path = folder / "file"
    path.touch()
    (folder / "link").symlink_to("file")
    seen = [
        operations.attempt("chmod", path, 0o640),
        operations.attempt("chmod", folder / "x", 0o640),
        operations.attempt("chown", path, -1, -1),
        operations.attempt("chown", path, os.getuid(), os.getgid(), follow_symlinks=False),
        operations.attempt("chown", folder / "x", -1, -1),
        operations.attempt("chown", path, -2, -1),
        operations.attempt("chown", path, 2**32, -1),
    ]
    times: list[dict[str, Any]] = [
        {"ns": (1, 10**18 + 1)},
        {"ns": (-1, -(10**9) - 1)},
        {"times": (1.5, 1_000_000_000.123456789)},
        {"times": (-1.25, 3)},
        {"times": (5, 6), "ns": (1, 2)},
        {"times": (float("nan"), 1)},
        {"times": (1, 2, 3)},
        {"times": (1,)},
        {"times": ()},
        {"times": {}},
        {"times": ("1", "2")},
        {"ns": (1, 2, 3)},
        {"ns": [1, 2]},
        {"ns": (1.5, 2.5)},
    ]
    for arguments in times:
        seen.append(operations.attempt("utime", path, **arguments))
        status = path.stat()
        seen.append((status.st_atime_ns, status.st_mtime_ns))
    seen.append(operations.attempt("utime", folder / "link", ns=(7, 8), follow_symlinks=False))
    seen.append(((folder / "link").lstat().st_mtime_ns, path.stat().st_mtime_ns))
    seen.append(operations.attempt("utime", path))
    seen.append(path.stat().st_mtime_ns > 10**18)
    fd = os.open(path, os.O_RDWR)
    try:
        seen.append(operations.attempt("chmod", fd, 0o600))
        seen.append(operations.attempt("chown", fd, -1, -1))
        seen.append(operations.attempt("utime", fd, ns=(3, 4)))
    finally:
        os.close(fd)
    return [*seen, path.stat().st_mtime_ns]


@body
def truncating(operations: Operations, folder: Path) -> Any:
    path = folder / "file"
    path.write_bytes(b"0123456789")
    seen = [
        operations.attempt("truncate", path, 4),
        operations.attempt("truncate", path, 8),
        operations.attempt("truncate", path, -1),
        operations.attempt("truncate", folder / "x", 1),
    ]
    fd = os.open(path, os.O_RDWR)
    try:
        seen.append(operations.attempt("truncate", fd, 6))
    finally:
        os.close(fd)
    return seen


@body
def kinds_of_paths(operations: Operations, folder: Path) -> Any:
    class Bytes:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __fspath__(self) -> bytes:
            return os.fsencode(self.path)

    path = folder / f"name {NO_TEXT}"
    operations.call("write_file", path, b"x")
    here = os.getcwd()
    os.chdir(folder)
    try:
        relative = [operations.attempt("listdir", "."), operations.attempt("read_file", path.name)]
    finally:
        os.chdir(here)
    return [
        *relative,
        *(operations.attempt("read_file", kind(path)) for kind in (str, os.fsencode, Path, Bytes)),
        *(operations.attempt("stat", kind(folder / "x")) for kind in (str, os.fsencode, Path, Bytes)),
        operations.attempt("listdir", Bytes(folder)),
    ]


@body
def bad_paths(operations: Operations, folder: Path) -> Any:
    bad: list[Any] = ["", "a\0b", b"a\0b", None, 1.5, object(), "x" * 5000, "x" * 300, "\ud800\0"]
    one = ("read_file", "remove", "rmdir", "mkdir", "listdir", "readlink", "scandir")
    seen = [operations.attempt(name, path) for name in one for path in bad if (name, path) not in LISTS_HERE]
    seen += [operations.attempt("stat", path) for path in bad]
    seen += [operations.attempt("rename", path, folder / "x") for path in bad]
    (folder / "file").touch()
    return seen + [operations.attempt("rename", folder / "file", path) for path in bad if path != ""]


LISTS_HERE = {("listdir", None), ("scandir", None)}  # os takes None for the working directory


@body
def existing(operations: Operations, folder: Path) -> Any:
    (folder / "file").touch()
    (folder / "link").symlink_to(".")
    (folder / "broken").symlink_to("nothing")
    names = ("file", "link", "broken", "nothing", "file/x", "a\0b")
    return [operations.attempt(name, f"{folder}/{path}") for name in ("exists", "isfile", "isdir") for path in names]


@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES)
def test_as_os_does(case: Body, tmp_path: Path) -> None:
    check_alike(case, tmp_path)
