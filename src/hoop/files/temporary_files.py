"""Temporary files and directories: tempfile's, made and removed on the pool's threads."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from types import TracebackType
from typing import IO, Any, AnyStr

from hoop.files.file_object import BinaryFile, Opening, TextFile, made_on, running_pool


def NamedTemporaryFile(  # noqa: N802  (tempfile's own name)
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
    """A new file with a `name`, for this user only, removed when it is closed unless delete is False.

    Use it as hoop.fs.open(). Arguments and errors are those of tempfile.NamedTemporaryFile
    (https://docs.python.org/3/library/tempfile.html).
    """
    make = functools.partial(
        tempfile.NamedTemporaryFile, mode, buffering, encoding, newline, suffix, prefix, dir, delete, errors=errors
    )
    return Opening(as_file(make))


def TemporaryFile(  # noqa: N802  (tempfile's own name)
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
    """The same without a name: nobody else can open it, and nothing is left of it when it is closed."""
    make = functools.partial(
        tempfile.TemporaryFile, mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors
    )
    return Opening(as_file(make))


def as_file(make: Any) -> Any:
    """For the type checker: what tempfile gives serves as a file object."""

    def made() -> IO[Any]:
        file: IO[Any] = make()
        return file

    return made


class TemporaryDirectory:
    """A new directory for `async with`, which gives its path and in the end removes it with all that is in it.

    Arguments and errors are those of tempfile.TemporaryDirectory (https://docs.python.org/3/library/tempfile.html).
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
        self._directory = await made_on(running_pool(), self._make, tempfile.TemporaryDirectory.cleanup)
        return self._directory.name

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.cleanup()

    async def cleanup(self) -> None:
        """Remove it now, also if the caller is cancelled meanwhile. Idempotent."""
        directory, self._directory = self._directory, None
        if directory is not None:
            await asyncio.shield(running_pool().run(directory.cleanup))
