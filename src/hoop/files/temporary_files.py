"""Temporary files and directories: tempfile's, created and removed on the pool's threads."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from types import TracebackType
from typing import IO, Any, AnyStr

from hoop.files.cancellation import run_owned
from hoop.files.file_object import BinaryFile, Opening, TextFile, running_pool


def NamedTemporaryFile(  # tempfile's own name
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: AnyStr | None = None,
    prefix: AnyStr | None = None,
    dir: Any = None,
    delete: bool = True,
    *,
    errors: str | None = None,
) -> Opening[BinaryFile | TextFile]:
    """Open a new file with a `name`, for this user only, removed when it is closed unless delete is False.

    Use it as hoop.fs.open(). Arguments and errors are those of tempfile.NamedTemporaryFile
    (https://docs.python.org/3/library/tempfile.html); RuntimeError where no hoop loop runs.
    """
    make = functools.partial(
        tempfile.NamedTemporaryFile, mode, buffering, encoding, newline, suffix, prefix, dir, delete, errors=errors
    )
    return Opening(as_file(make))


def TemporaryFile(  # tempfile's own name
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: AnyStr | None = None,
    prefix: AnyStr | None = None,
    dir: Any = None,
    *,
    errors: str | None = None,
) -> Opening[BinaryFile | TextFile]:
    """Open a new file without a name, which no other process can open, and which is gone when it is closed.

    Use it as hoop.fs.open(). Arguments and errors are those of tempfile.TemporaryFile.
    """
    make = functools.partial(
        tempfile.TemporaryFile, mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors
    )
    return Opening(as_file(make))


def as_file(make: Any) -> Any:
    """For the type checker: the wrappers of tempfile serve as file objects."""

    def make_file() -> IO[Any]:
        file: IO[Any] = make()
        return file

    return make_file


class TemporaryDirectory:
    """A new directory for `async with`, which gives its path and in the end removes the directory and its contents.

    Arguments and errors are those of tempfile.TemporaryDirectory (https://docs.python.org/3/library/tempfile.html);
    RuntimeError where no hoop loop runs.
    """

    def __init__(
        self,
        suffix: str | None = None,
        prefix: str | None = None,
        dir: str | None = None,
        ignore_cleanup_errors: bool = False,
    ) -> None:
        self._make = functools.partial(tempfile.TemporaryDirectory, suffix, prefix, dir, ignore_cleanup_errors)
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    async def __aenter__(self) -> str:
        self._directory = await run_owned(running_pool(), self._make, tempfile.TemporaryDirectory.cleanup)
        return self._directory.name

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.cleanup()

    async def cleanup(self) -> None:
        """Remove the directory now, also if the caller is cancelled meanwhile. Idempotent. OSError if that fails."""
        directory, self._directory = self._directory, None
        if directory is not None:
            await asyncio.shield(running_pool().run(directory.cleanup))
