"""Files without blocking the loop, by the names of os, io, tempfile and Node's fs.

Each operation is one job of the loop's pool: one hop to a thread opens, measures, reads and closes a file. A small
file that the page cache holds needs no thread at all (Linux; docs/files.md says when).

A path is a str, bytes or an object with __fspath__. Every function raises the subclasses of OSError that os raises,
with filename set, ValueError for a path with a NUL in it, and RuntimeError where no hoop loop runs.

Cancelling takes a job out of the queue. A job that a thread has begun runs to its end, and its result is dropped.
"""

from __future__ import annotations

import errno
import math
import operator
import os
import shutil
import stat as stat_module
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, AnyStr, overload

from hoop.files import file_jobs
from hoop.files.file_jobs import DirEntry
from hoop.files.file_object import BinaryFile, File, Opening, RawFile, TextFile, open, running_pool
from hoop.files.temporary_files import NamedTemporaryFile, TemporaryDirectory, TemporaryFile
from hoop.stats import CachedReadStats

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    _Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    _FdOrPath = int | _Path

__all__ = [
    "BinaryFile",
    "DirEntry",
    "File",
    "NamedTemporaryFile",
    "Opening",
    "RawFile",
    "TemporaryDirectory",
    "TemporaryFile",
    "TextFile",
    "access",
    "append_file",
    "cached_read_stats",
    "chmod",
    "chown",
    "copy_file",
    "exists",
    "fsync",
    "isdir",
    "isfile",
    "link",
    "listdir",
    "lstat",
    "makedirs",
    "mkdir",
    "open",
    "pread",
    "pwrite",
    "read_file",
    "readlink",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "rmtree",
    "scandir",
    "stat",
    "symlink",
    "truncate",
    "unlink",
    "utime",
    "walk",
    "write_file",
]

NS_PER_SECOND = 1_000_000_000


# ---- contents --------------------------------------------------------------------------------------------------------


@overload
async def read_file(path: _Path, *, encoding: None = None, errors: str = "strict") -> bytes: ...
@overload
async def read_file(path: _Path, *, encoding: str, errors: str = "strict") -> str: ...
async def read_file(path: _Path, *, encoding: str | None = None, errors: str = "strict") -> bytes | str:
    """Read all of a file: its bytes, or with an encoding its text, with the line ends as they are.

    UnicodeDecodeError for bytes that the encoding lacks, unless errors says otherwise. A FIFO or a device holds a
    thread until the other side closes it. (Node: fs.readFile.)
    """
    started = file_jobs.read_file(path)
    found = started if isinstance(started, bytes) else await started
    data = found if isinstance(found, bytes) else await file_jobs.read_opened(found)
    return data if encoding is None else data.decode(encoding, errors)


async def write_file(
    path: _Path,
    data: str | ReadableBuffer,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    mode: int = 0o666,
    exclusive: bool = False,
    atomic: bool = False,
    fsync: bool = False,
) -> int:
    """Replace the contents of a file by data, a str in the encoding given: the number of bytes, which is all of them.

    mode: the permission bits of a new file, less the umask. exclusive: FileExistsError if the file exists.
    atomic: write a new file in the same directory and rename it over the old one, whose permission bits it takes. A
    reader meanwhile, and any reader after a full disk or the end of the process, finds the old contents or all of the
    new; after a crash of the machine or a loss of power, only with fsync as well. A symbolic link is replaced, not
    followed. fsync: return when the bytes, with atomic also the name, are on the disk (fsync(2)). (Node: fs.writeFile.)
    """
    return await file_jobs.write_file(path, as_bytes(data, encoding, errors), mode, False, exclusive, atomic, fsync)


async def append_file(
    path: _Path,
    data: str | ReadableBuffer,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    mode: int = 0o666,
    fsync: bool = False,
) -> int:
    """Add data to the end of a file, creating it if it is missing: the number of bytes.

    Arguments as for write_file. (O_APPEND of open(2).)
    """
    return await file_jobs.write_file(path, as_bytes(data, encoding, errors), mode, True, False, False, fsync)


def as_bytes(data: str | ReadableBuffer, encoding: str, errors: str) -> ReadableBuffer:
    """The bytes to write."""
    return data.encode(encoding, errors) if isinstance(data, str) else data


async def pread(fd: int, n: int, offset: int) -> bytes:
    """Read n bytes at offset, fewer only at the end of the file. Neither uses nor moves the descriptor's position.

    ValueError if n or offset is negative. (pread(2).)
    """
    return await file_jobs.pread(fd, n, offset)


async def pwrite(fd: int, data: ReadableBuffer, offset: int) -> int:
    """Write all of data at offset: the number of bytes. Neither uses nor moves the descriptor's position.

    ValueError if offset is negative. (pwrite(2).)
    """
    return await file_jobs.pwrite(fd, data, offset)


async def truncate(path: _FdOrPath, length: int) -> None:
    """Cut or lengthen a file, given by path or descriptor, to length bytes. (truncate(2).)"""
    await file_jobs.truncate(path, length)


async def fsync(fd: int) -> None:
    """Wait until what was written to descriptor fd is on the disk. (fsync(2); on macOS F_FULLFSYNC.)"""
    await file_jobs.fsync(fd)


async def copy_file(src: _Path, dst: _Path, *, exclusive: bool = False) -> int:
    """Copy contents and permission bits: the number of bytes. The kernel does it where it can (copy_file_range(2)).

    exclusive: FileExistsError if dst exists. shutil.SameFileError if both are one file. A copy that fails removes the
    dst that it has created. (Node: fs.copyFile.)
    """
    try:
        return await file_jobs.copy_file(src, dst, exclusive)
    except OSError as error:
        if error.errno == errno.EINVAL and error.filename2 is not None:  # csrc/fs_contents.h: nothing else is both
            raise shutil.SameFileError(f"{src!r} and {dst!r} are the same file") from None
        raise


# ---- status and attributes -------------------------------------------------------------------------------------------


async def stat(path: _FdOrPath, *, follow_symlinks: bool = True) -> os.stat_result:
    """The status of a file, given by path or descriptor, as os.stat. (stat(2), lstat(2), fstat(2).)"""
    return await file_jobs.stat(path, follow_symlinks)


async def lstat(path: _Path) -> os.stat_result:
    """The status of a file, of a symbolic link its own, as os.lstat. (lstat(2).)"""
    return await file_jobs.stat(path, False)


async def access(path: _Path, mode: int, *, effective_ids: bool = False, follow_symlinks: bool = True) -> bool:
    """Whether the user may do mode (os.R_OK, os.W_OK, os.X_OK; os.F_OK: it exists); False for any error.

    effective_ids: ask for the effective user and group, not the real ones. (faccessat(2).)
    """
    return await file_jobs.access(path, mode, effective_ids, follow_symlinks)


async def exists(path: _FdOrPath) -> bool:
    """Whether there is such a file, as os.path.exists: False also for a broken link, or without permission to look."""
    return await file_type(path) is not None


async def isfile(path: _FdOrPath) -> bool:
    """Whether it is a regular file or leads to one, as os.path.isfile."""
    return await file_type(path) == stat_module.S_IFREG


async def isdir(path: _FdOrPath) -> bool:
    """Whether it is a directory or leads to one, as os.path.isdir."""
    return await file_type(path) == stat_module.S_IFDIR


async def file_type(path: _FdOrPath) -> int | None:
    """The S_IFMT bits; None if the file cannot be seen."""
    try:
        status = await file_jobs.stat(path, True)
    except (OSError, ValueError):  # as os.path: an impossible name is a missing file
        return None
    return stat_module.S_IFMT(status.st_mode)


async def chmod(path: _FdOrPath, mode: int) -> None:
    """Set the permission bits of a file, given by path or descriptor. (chmod(2).)"""
    await file_jobs.chmod(path, mode)


async def chown(path: _FdOrPath, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
    """Set owner and group of a file, given by path or descriptor; -1 leaves one as it is. (chown(2).)"""
    await file_jobs.chown(path, uid, gid, follow_symlinks)


async def utime(
    path: _FdOrPath,
    times: tuple[float, float] | None = None,
    *,
    ns: tuple[int, int] | None = None,
    follow_symlinks: bool = True,
) -> None:
    """Set the times of access and modification of a file, given by path or descriptor; now, if neither is given.

    times: seconds since the epoch; ns: nanoseconds. ValueError if both are given, or for seconds that are not finite;
    TypeError for anything but a pair of numbers. (utimensat(2).)
    """
    if times is not None and ns is not None:
        raise ValueError(f"utime() takes times or ns, not both: {times!r}, {ns!r}")
    for given in (times, ns):
        if given is not None and not (isinstance(given, tuple) and len(given) == 2):
            raise TypeError(f"utime() takes a tuple of two times, not {given!r}")
    if times is not None:
        ns = nanoseconds(times[0]), nanoseconds(times[1])
    accessed, modified = (None, None) if ns is None else (operator.index(ns[0]), operator.index(ns[1]))
    await file_jobs.utime(path, accessed, modified, follow_symlinks)


def nanoseconds(seconds: float) -> int:
    """Nanoseconds, rounded down, as os.utime rounds."""
    if isinstance(seconds, int):
        return seconds * NS_PER_SECOND
    if not math.isfinite(seconds):
        raise ValueError(f"a time must be a finite number of seconds, not {seconds!r}")
    fraction, whole = math.modf(seconds)
    return int(whole) * NS_PER_SECOND + math.floor(fraction * NS_PER_SECOND)


# ---- names -----------------------------------------------------------------------------------------------------------


@overload
async def listdir(path: str | os.PathLike[str] = ".") -> list[str]: ...
@overload
async def listdir(path: bytes | os.PathLike[bytes]) -> list[bytes]: ...
async def listdir(path: _Path = ".") -> Any:
    """The names in a directory except "." and "..", in no order; bytes if path is bytes. (readdir(3).)"""
    return await file_jobs.listdir(path)


@overload
async def scandir(path: str | os.PathLike[str] = ".") -> list[DirEntry[str]]: ...
@overload
async def scandir(path: bytes | os.PathLike[bytes]) -> list[DirEntry[bytes]]: ...
async def scandir(path: _Path = ".") -> Any:
    """The entries of a directory, as os.scandir, with their types: is_dir(), is_file(), is_symlink() do not block.

    (readdir(3), fstatat(2).)
    """
    return await file_jobs.scandir(path)


async def walk(
    top: AnyStr | os.PathLike[AnyStr],
    topdown: bool = True,
    onerror: Callable[[OSError], object] | None = None,
    followlinks: bool = False,
) -> AsyncGenerator[tuple[AnyStr, list[AnyStr], list[AnyStr]], None]:
    """Walk a tree of directories, as os.walk: (path, names of directories, other names) of each, one hop for each.

    topdown: a directory comes before its contents, and the caller may change the list of directories to choose which
    to visit. onerror(error) is called for a directory that cannot be read; without it the directory is skipped.
    """
    pending: list[Any] = [os.fspath(top)]
    while pending:
        folder = pending.pop()
        if isinstance(folder, tuple):
            yield folder
            continue
        try:
            entries: list[DirEntry[AnyStr]] = await file_jobs.scandir(folder)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            continue
        links = {entry.name: entry.is_symlink() for entry in entries if entry.is_dir()}
        folders = list(links)
        others = [entry.name for entry in entries if entry.name not in links]
        if topdown:
            yield folder, folders, others
        else:
            pending.append((folder, folders, others))
        for name in reversed(folders):
            path = os.path.join(folder, name)
            if followlinks or not (links[name] if name in links else await is_link(path)):
                pending.append(path)


async def is_link(path: _Path) -> bool:
    """Whether a name that the caller of walk() has inserted is a symbolic link."""
    try:
        return stat_module.S_ISLNK((await lstat(path)).st_mode)
    except OSError:
        return False


async def mkdir(path: _Path, mode: int = 0o777) -> None:
    """Make a directory with the permission bits mode, less the umask. FileExistsError if path exists. (mkdir(2).)"""
    await file_jobs.mkdir(path, mode)


async def makedirs(path: _Path, mode: int = 0o777, exist_ok: bool = False) -> None:
    """Make a directory and its missing parents, the parents with the mode 0o777, less the umask. As os.makedirs.

    FileExistsError if the directory exists, unless exist_ok.
    """
    await file_jobs.makedirs(path, mode, exist_ok)


async def rmdir(path: _Path) -> None:
    """Remove an empty directory. (rmdir(2).)"""
    await file_jobs.rmdir(path)


async def rmtree(path: _Path, ignore_errors: bool = False) -> None:
    """Remove a directory and its contents: shutil.rmtree on a thread of the pool. ignore_errors: raise none, go on."""
    await running_pool().run(shutil.rmtree, path, ignore_errors)


async def remove(path: _Path) -> None:
    """Remove a file. (unlink(2).)"""
    await file_jobs.remove(path)


unlink = remove


async def rename(src: _Path, dst: _Path) -> None:
    """Rename a file atomically, replacing the file that has the name dst. (rename(2).)"""
    await file_jobs.rename(src, dst)


replace = rename


async def link(src: _Path, dst: _Path) -> None:
    """Give a file a second name, dst; a symbolic link itself, not its target.

    As os.link(follow_symlinks=False), and linkat(2) without AT_SYMLINK_FOLLOW. From Python 3.14 on os.link() follows.
    """
    await file_jobs.link(src, dst)


async def symlink(src: _Path, dst: _Path) -> None:
    """Make dst a symbolic link to src. (symlink(2).)"""
    await file_jobs.symlink(src, dst)


@overload
async def readlink(path: str | os.PathLike[str]) -> str: ...
@overload
async def readlink(path: bytes | os.PathLike[bytes]) -> bytes: ...
async def readlink(path: _Path) -> Any:
    """The target of a symbolic link; bytes if path is bytes. OSError (EINVAL) if it is no link. (readlink(2).)"""
    return await file_jobs.readlink(path)


# ---- the cached fast path --------------------------------------------------------------------------------------------


def cached_read_stats() -> CachedReadStats:
    """How often read_file(), open() and read() of an opened file needed no thread, and why others did.

    RuntimeError where no hoop loop runs.
    """
    return file_jobs.cached_read_stats()
