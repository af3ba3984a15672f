"""Files that are opened, read and written through the pool: the results of hoop.fs.open() and of temporary files.

Behind each stands a file object of the standard library, used on the pool's threads only, so that every mode, encoding
and kind of newline is right. This module adds:

- Operations on one file run one after another, in the order of their calls. `_turn` orders them on the loop; `_lock`
  holds the next one back while an operation still runs whose caller was cancelled.
- Lines of a file that is only read are fetched many at a time (hoop.files.lines_ahead). An operation other than reading
  the next line first puts back the lines that no caller has taken, and so finds the file where it should be.
- An operation that is cancelled before it begins has no effect. One that runs goes on to its end, and its result is
  dropped.
- The loop's thread does what waits for nothing: it opens, for reading, a small file that read_file() would read there
  (csrc/fs_cached.h), then reads all of its bytes if that is the first operation, and closes a file on this machine that
  was only read.
"""

from __future__ import annotations

import asyncio
import functools
import io
import os
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, AnyStr, Generic, Literal, Self, TypeVar, TypeVarTuple, overload

from hoop.core.running import running_loop
from hoop.files import file_jobs
from hoop.files.cancellation import Step, run_owned
from hoop.files.lines_ahead import LinesAhead, read_lines
from hoop.jobs.pool import Pool, loop_pool

if TYPE_CHECKING:
    from _typeshed import (
        FileDescriptorOrPath,
        OpenBinaryMode,
        OpenTextMode,
        ReadableBuffer,
        WriteableBuffer,
    )

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def running_pool() -> Pool:
    """The pool of the running loop; RuntimeError if none runs, or one that is not hoop's."""
    return loop_pool(running_loop("hoop.fs"))


class File(Generic[AnyStr]):
    """A file whose operations are coroutines, with the names and meanings of the io module (and of aiofiles)."""

    def __init__(self, file: Any, pool: Pool, *, is_cached: bool = False) -> None:
        """On a thread of the pool, since it asks the kernel about the file; of a cached file, on the loop's."""
        self._file = file
        self._pool = pool
        self._turn = asyncio.Lock()
        self._called = 0  # operations called and not ended
        self._lock = threading.Lock()
        self._ahead: LinesAhead[AnyStr] | None = None
        self._device: tuple[int, bool] | None = None
        self._is_local = is_cached  # and only read
        self._is_untouched = is_cached  # and stands at its start
        if file.readable() and not file.writable() and file.seekable():
            self._ahead = LinesAhead(getattr(file, "file", file))
            if not is_cached:
                self._device = file_jobs.device_of(file.fileno())
                self._is_local = self._device is not None and self._device[1]

    async def _run(self, method: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run method(*args) in its turn, after lines that no caller has taken were put back."""
        return await self._in_turn(self._put_back_first, method, args)

    async def _in_turn(self, method: Callable[[*Ts], T], *args: *Ts) -> T:
        self._called += 1
        self._is_untouched = False
        try:
            async with self._turn:
                step = Step(self._lock, method, args)
                try:
                    return await self._pool.run(step)
                except asyncio.CancelledError:
                    step.is_abandoned = True
                    raise
        finally:
            self._called -= 1

    def _put_back_first(self, method: Callable[..., T], args: tuple[Any, ...]) -> T:
        """On a thread of the pool."""
        if self._ahead is not None:
            self._ahead.put_back()
        return method(*args)

    # ---- lines -------------------------------------------------------------------------------------------------------

    def _line_at_hand(self) -> AnyStr | None:
        """A line fetched before, if it is this caller's turn."""
        if not self._ahead or self._called > 0 or not self._lock.acquire(blocking=False):
            return None
        try:
            return self._ahead.take() if self._ahead else None
        finally:
            self._lock.release()

    async def _next_line(self) -> AnyStr:
        line = self._line_at_hand()
        if line is not None:
            return line
        if self._ahead is None:
            read: AnyStr = await self._run(self._file.readline)
            return read
        ahead = self._ahead
        line = await self._in_turn(ahead.fill)
        return ahead.take() if line is None else line

    async def readline(self, size: int | None = -1, /) -> AnyStr:
        """The next line with its line end, at most size bytes or characters; empty at the end of the file."""
        if size is None or size < 0:
            return await self._next_line()
        line: AnyStr = await self._run(self._file.readline, size)
        return line

    async def readlines(self, hint: int | None = -1, /) -> list[AnyStr]:
        """The lines up to the end of the file, or up to the line with which they exceed hint bytes or characters."""
        return await self._run(read_lines, self._file, hint)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyStr:
        line = self._line_at_hand()
        if line is None:
            line = await self._next_line()
        if not line:
            raise StopAsyncIteration
        return line

    # ---- reading and writing -----------------------------------------------------------------------------------------

    async def read(self, size: int | None = -1, /) -> AnyStr:
        """Up to size bytes or characters, the rest if size is None or negative; empty at the end of the file."""
        data: AnyStr = await self._run(self._file.read, size)
        return data

    async def _write(self, data: Any) -> int:
        count: int = await self._run(self._file.write, data)
        return count

    async def _writelines(self, lines: list[Any]) -> None:
        await self._run(self._file.writelines, lines)

    async def flush(self) -> None:
        """Hand the buffer to the kernel, OSError if that fails. (hoop.fs.fsync(f.fileno()) waits for the disk.)"""
        await self._run(self._file.flush)

    # ---- position and size -------------------------------------------------------------------------------------------

    async def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to offset from the start (0), from here (1) or from the end (2): the new position."""
        position: int = await self._run(self._file.seek, offset, whence)
        return position

    async def tell(self) -> int:
        """The position, for seek(): in bytes; of a text file, a number without meaning."""
        position: int = await self._run(self._file.tell)
        return position

    async def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file to size bytes (None: to the position): the new size. The position stays."""
        length: int = await self._run(self._file.truncate, size)
        return length

    # ---- answered without a thread -----------------------------------------------------------------------------------

    async def readable(self) -> bool:
        """Whether the file can be read."""
        return bool(self._file.readable())

    async def writable(self) -> bool:
        """Whether the file can be written."""
        return bool(self._file.writable())

    async def seekable(self) -> bool:
        """Whether the file has a position."""
        return bool(self._file.seekable())

    async def isatty(self) -> bool:
        """Whether the file is a terminal."""
        return bool(self._file.isatty())

    def fileno(self) -> int:
        """The number of the descriptor. ValueError if the file is closed."""
        self._is_untouched = False  # the caller may move it
        return int(self._file.fileno())

    @property
    def closed(self) -> bool:
        """Whether close() has run."""
        return bool(self._file.closed)

    @property
    def name(self) -> Any:
        """The first argument of open(): a path or the number of a descriptor; of a temporary file, its path."""
        return self._file.name

    @property
    def mode(self) -> str:
        """The mode, as the file object of the standard library gives it."""
        return str(self._file.mode)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._file!r}>"

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write the buffer and close the file, after the operations called before. Idempotent.

        The file is closed also if the caller is cancelled meanwhile. OSError if the last bytes cannot be written.
        """
        if self._file.closed or self._close_here():
            return
        closing = Step(self._lock, self._close_now, ())
        self._called += 1
        try:
            async with self._turn:
                await self._pool.run(closing)
        except asyncio.CancelledError:
            if not closing.has_begun:  # it was taken back, or is about to begin: then the second time does nothing
                self._pool.run(closing)  # the lock keeps it behind the operation that runs
            raise
        finally:
            self._called -= 1

    def _close_here(self) -> bool:
        """Close at once, if that neither writes nor waits: a local file, only read, that stays after the close."""
        if not self._is_local or self._called > 0 or not self._lock.acquire(blocking=False):
            return False
        try:
            if not has_a_name(self._file.fileno()):
                return False
            self._close_now()
            return True
        finally:
            self._lock.release()

    def _close_now(self) -> None:
        self._ahead = None
        self._is_untouched = False
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class TextFile(File[str]):
    """A file of text, as io.TextIOWrapper."""

    async def write(self, text: str, /) -> int:
        """Write all of text: the number of characters. OSError, UnicodeEncodeError as io.TextIOWrapper.write."""
        return await self._write(text)

    async def writelines(self, lines: Iterable[str], /) -> None:
        """Write each of the lines; no line ends are added."""
        await self._writelines(list(lines))

    @property
    def encoding(self) -> str:
        """The encoding of the file's bytes."""
        return str(self._file.encoding)

    @property
    def errors(self) -> str | None:
        """How bytes or characters are treated that the encoding lacks."""
        errors: str | None = self._file.errors
        return errors

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The kinds of line ends seen so far, where they are translated."""
        newlines: str | tuple[str, ...] | None = self._file.newlines
        return newlines

    @property
    def line_buffering(self) -> bool:
        """Whether each line end flushes."""
        return bool(self._file.line_buffering)

    @property
    def buffer(self) -> Any:
        """The binary file object of the standard library underneath; its methods block."""
        return self._file.buffer

    def detach(self) -> Any:
        """Flush, which blocks, and return the file object underneath; this file is of no use from then on."""
        return self._file.detach()


class RawFile(File[bytes]):
    """A file of bytes without a buffer, as io.FileIO: write() and read() may move fewer bytes than requested."""

    async def write(self, data: ReadableBuffer, /) -> int:
        """Write data: the number of bytes written. Buffers other than bytes are copied first."""
        return await self._write(unchanging(data))

    async def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Write each of the lines; no line ends are added."""
        await self._writelines([unchanging(line) for line in lines])

    async def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into a writable buffer, which the caller must not use meanwhile: the number of bytes, 0 at the end."""
        count: int = await self._run(self._file.readinto, buffer)
        return count

    async def read(self, size: int | None = -1, /) -> bytes:
        """Up to size bytes, the rest if size is None or negative; empty at the end of the file."""
        data = self._read_here() if self._is_untouched and (size is None or size == -1) else None
        return await super().read(size) if data is None else data

    def _read_here(self) -> bytes | None:
        """All bytes, if the file stands at its start and its contents are in memory."""
        if self._called > 0 or not self._lock.acquire(blocking=False):
            return None
        try:
            self._is_untouched = False
            data = file_jobs.read_cached(self._file.fileno())
            if data is not None:
                self._file.seek(len(data))
            return data
        finally:
            self._lock.release()

    async def readall(self) -> bytes:
        """The rest of the file."""
        return await self.read()


class BinaryFile(RawFile):
    """A buffered file of bytes, as io.BufferedReader, BufferedWriter or BufferedRandom: reads and writes are whole."""

    async def read1(self, size: int = -1, /) -> bytes:
        """Up to size bytes with at most one read of the raw file, none if the buffer has bytes."""
        data: bytes = await self._run(self._file.read1, size)
        return data

    async def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """read1() into a writable buffer, which the caller must not use meanwhile: the number of bytes."""
        count: int = await self._run(self._file.readinto1, buffer)
        return count

    async def peek(self, size: int = 0, /) -> bytes:
        """The bytes in the buffer, after one read if it is empty. The position stays. size hardly matters."""
        data: bytes = await self._run(self._file.peek, size)
        return data

    @property
    def raw(self) -> Any:
        """The io.FileIO underneath; its methods block."""
        self._is_untouched = False
        return self._file.raw

    def detach(self) -> Any:
        """Flush, which blocks, and return the file object underneath; this file is of no use from then on."""
        self._is_untouched = False
        return self._file.detach()


def has_a_name(fd: int) -> bool:
    """Whether closing the file leaves it in place. Deleting a large one may take long."""
    try:
        return os.fstat(fd).st_nlink > 0
    except OSError:  # its user has closed the descriptor: a thread will say so
        return False


def unchanging(data: Any) -> bytes:
    """Bytes that stay as they are until a thread has written them. TypeError for an object without a buffer."""
    return data if isinstance(data, bytes) else memoryview(data).tobytes()


def file_around(file: Any, pool: Pool, *, is_cached: bool = False) -> Any:
    """The file object around a file of the standard library, or around tempfile's wrapper of one."""
    inner = getattr(file, "file", file)
    if isinstance(inner, io.TextIOBase):
        return TextFile(file, pool, is_cached=is_cached)
    kind = RawFile if isinstance(inner, io.RawIOBase) else BinaryFile
    return kind(file, pool, is_cached=is_cached)


# ---- opening ---------------------------------------------------------------------------------------------------------


F = TypeVar("F", bound=File[Any])


class Opening(Awaitable[F], AbstractAsyncContextManager[F, None]):
    """The result of open(): `await` it for the file, or use it in `async with`, which closes the file."""

    def __init__(self, make: Callable[[], IO[Any]], make_here: Callable[[], IO[Any] | None] | None = None) -> None:
        """make() runs on a thread of the pool, unless make_here(), on the loop's thread, has given a file."""
        self._make = make
        self._make_here = make_here
        self._opened: F | None = None

    async def _open(self) -> F:
        pool = running_pool()
        file = None if self._make_here is None else self._make_here()
        opened: F
        if file is not None:
            opened = file_around(file, pool, is_cached=True)
            return opened
        mount_changes = file_jobs.mount_changes()
        opened = await run_owned(pool, lambda: file_around(self._make(), pool), close_unwanted)
        if opened._device is not None:
            file_jobs.learn(*opened._device, mount_changes)
        return opened

    def __await__(self) -> Generator[Any, Any, F]:
        return self._open().__await__()

    async def __aenter__(self) -> F:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()


def close_unwanted(file: File[Any]) -> None:
    """Close a file that no caller has had: its buffer is empty."""
    file._close_now()


Opener = Callable[[str, int], int]


@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenTextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[TextFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: Literal[0],
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[RawFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: OpenBinaryMode,
    buffering: Literal[-1, 1] = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[BinaryFile]: ...
@overload
def open(
    file: FileDescriptorOrPath,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[Any]: ...
def open(
    file: FileDescriptorOrPath,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[Any]:
    """Open a file on the pool: `f = await open(path)`, or `async with open(path) as f`.

    Arguments and errors are those of the built-in open() (https://docs.python.org/3/library/functions.html#open);
    RuntimeError where no hoop loop runs. The file is a TextFile, a BinaryFile or, for buffering=0, a RawFile, whose
    methods are coroutines.
    """

    def make(opener: Opener | None = opener) -> IO[Any]:
        # The builtin, which this module's own open() hides.
        return io.open(file, mode, buffering, encoding, errors, newline, closefd, opener)  # noqa: UP020

    may_be_cached = mode in ("r", "rb", "rt", "br", "tr") and closefd and opener is None
    if may_be_cached and isinstance(file, (str, bytes, os.PathLike)):
        file = os.fspath(file)
        return Opening(make, functools.partial(make_cached, file, make))
    return Opening(make)


def make_cached(path: str | bytes, make: Callable[[Opener], IO[Any]]) -> IO[Any] | None:
    """On the loop's thread: make() around a descriptor from the cache; None if the cache has none."""
    try:
        fd = file_jobs.open_cached(path)
    except ValueError:  # an impossible name: a thread will say so
        return None
    if fd < 0:
        return None
    is_taken = False

    def take(path: str, flags: int) -> int:
        nonlocal is_taken
        is_taken = True
        return fd

    try:
        return make(take)
    finally:
        if not is_taken:  # make() has failed before it called its opener
            os.close(fd)
