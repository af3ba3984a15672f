"""Compression and decompression in the loop's pool, by the standard library's zlib, bz2, lzma and compression.zstd.

Formats: "gzip" (RFC 1952), "zlib" (RFC 1950), "deflate" (RFC 1951, bare), "bz2", "xz", and, from Python 3.14, "zstd"
(RFC 8878). NotImplementedError for a format whose module this Python lacks, ValueError for an unknown one. As in
hoop.crypto, buffers other than bytes are copied first (TypeError for an object without a buffer), and a function needs
a running hoop loop (RuntimeError elsewhere).
"""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from hoop.jobs import offload

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "INLINE_COMPRESS_SIZE",
    "INLINE_DECOMPRESS_SIZE",
    "MAX_SIZE",
    "DecompressError",
    "Format",
    "OutputTooLarge",
    "compress",
    "decompress",
]

Format = Literal["gzip", "zlib", "deflate", "bz2", "xz", "zstd"]

# We do this much on the loop's thread, because a hop to a thread and back (10 to 100 µs, by whether the threads share a
# core) costs as much: input of so many bytes to compress, output of so many to decompress. Each is about 15 µs of gzip.
INLINE_COMPRESS_SIZE = 2_048
INLINE_DECOMPRESS_SIZE = 8_192
ALWAYS_IN_POOL = ("xz",)  # its encoder takes milliseconds to set up
MAX_SIZE = 64 * 1_048_576  # bytes, the default limit of decompress()
PIECE = 262_144  # bytes of output of one step; we look at the limit and for cancellation after each
INPUT_PIECE = 65_536  # bytes of input of one step

WINDOW_BITS = {"gzip": 31, "zlib": 15, "deflate": -15}
MODULES = {"bz2": "bz2", "xz": "lzma", "zstd": "compression.zstd"}
LEVELS = {"gzip": (-1, 9), "zlib": (-1, 9), "deflate": (-1, 9), "bz2": (1, 9), "xz": (0, 9)}  # zstd checks its own
PADDED = ("gzip", "xz")  # zero bytes may follow
SINGLE = ("zlib", "deflate")  # one stream; of the others, several may follow one another

_run = functools.partial(offload.run, "hoop.compress")


class DecompressError(ValueError):
    """The data is not what its format says: damaged, cut short, or followed by something else."""


class OutputTooLarge(DecompressError):
    """The data would decompress to more than max_size bytes."""


async def compress(
    data: ReadableBuffer, format: Format = "gzip", *, level: int | None = None, inline_size: int = INLINE_COMPRESS_SIZE
) -> bytes:
    """Compress data. level: None is the format's own default; else -1 to 9 (gzip, zlib, deflate), 1 to 9 (bz2), 0 to 9
    (xz), or the levels of compression.zstd; ValueError beyond.

    inline_size: up to so many bytes are compressed on the loop's thread, except for xz. gzip's header carries no time,
    so equal input gives equal output.
    """
    encode = encoder(format, level)
    content = offload.immutable_bytes(data)
    is_small = len(content) <= inline_size and format not in ALWAYS_IN_POOL
    return await _run(is_small, encode, content)


async def decompress(
    data: ReadableBuffer,
    format: Format = "gzip",
    *,
    max_size: int | None = MAX_SIZE,
    inline_size: int = INLINE_DECOMPRESS_SIZE,
) -> bytes:
    """Decompress data. Several streams behind one another (not of zlib and deflate) give one result.

    max_size: OutputTooLarge, a DecompressError, as soon as the output exceeds so many bytes (default 64 MiB; None: no
    limit), ValueError for a negative number. DecompressError, a ValueError, for data that is damaged, too short or too
    long. inline_size: the loop's thread makes up to so many bytes of output, the pool the rest. Once cancelled, it ends
    within 256 KiB of output.
    """
    if max_size is not None and max_size < 0:
        raise ValueError(f"max_size must be 0 or more, or None, not {max_size!r}")
    work = Decompression(offload.immutable_bytes(data), format, max_size)
    if len(work.data) <= inline_size and await _run(True, work.run, inline_size):
        return work.result()
    try:
        await _run(False, work.run, None)
    finally:
        work.is_cancelled = True
    return work.result()


def module_of(format: str) -> ModuleType:
    """The module for one of MODULES. NotImplementedError if this Python lacks it."""
    name = MODULES[format]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        since = " (Python 3.14 has it)" if format == "zstd" else ""
        raise NotImplementedError(f"{format} needs the module {name}{since}, which this Python lacks") from error


def check_format(format: str) -> None:
    if format not in WINDOW_BITS and format not in MODULES:
        raise ValueError(f"unknown format {format!r}; known are {', '.join(get_args(Format))}")


def encoder(format: str, level: int | None) -> Callable[[bytes], bytes]:
    check_format(format)
    lowest, highest = LEVELS.get(format, (None, None))
    if level is not None and lowest is not None and highest is not None and not lowest <= level <= highest:
        raise ValueError(f"the level of {format} is {lowest} to {highest}, not {level!r}")
    if format in WINDOW_BITS:
        return functools.partial(zlib.compress, level=-1 if level is None else level, wbits=WINDOW_BITS[format])
    module = module_of(format)
    if level is None:
        return module.compress  # type: ignore[no-any-return]
    keyword = {"bz2": "compresslevel", "xz": "preset", "zstd": "level"}[format]
    return functools.partial(module.compress, **{keyword: level})


class ZlibStream:
    """zlib's decompressor with the interface of the others."""

    def __init__(self, window_bits: int) -> None:
        self._engine = zlib.decompressobj(window_bits)
        self.needs_input: bool = True

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        tail = self._engine.unconsumed_tail
        output = self._engine.decompress(tail + data if tail else data, max_length)
        self.needs_input = not self._engine.unconsumed_tail and len(output) < max_length
        return output


def decoder(format: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """A function that makes a decompressor for one stream, and the errors of that decompressor."""
    check_format(format)
    if format in WINDOW_BITS:
        return functools.partial(ZlibStream, WINDOW_BITS[format]), (zlib.error,)
    module = module_of(format)
    if format == "bz2":
        return module.BZ2Decompressor, (OSError, ValueError)
    if format == "xz":
        return functools.partial(module.LZMADecompressor, module.FORMAT_XZ), (module.LZMAError,)
    return module.ZstdDecompressor, (module.ZstdError,)


class Decompression:
    """One decompress(): may begin on the loop's thread and go on in a thread of the pool.

    The loop's thread sets is_cancelled.
    """

    def __init__(self, data: bytes, format: str, max_size: int | None) -> None:
        self.data = data
        self.format = format
        self.max_size = max_size
        self.is_cancelled = False
        self._make, self._errors = decoder(format)
        self._stream = self._make()
        self._position = 0  # in data: the streams have taken everything before it
        self._is_done = False
        self._output: list[bytes] = []
        self._size = 0

    def result(self) -> bytes:
        return b"".join(self._output)

    def run(self, budget: int | None) -> bool:
        """Go on until all is done (True), or the output reaches budget bytes (False; None: no budget)."""
        while not self._is_done:
            if self.is_cancelled or (budget is not None and self._size >= budget):
                return False
            self._step(PIECE if budget is None else budget - self._size)
        return True

    def _step(self, room: int) -> None:
        """Make at most room bytes more, and at most one beyond the limit."""
        if self.max_size is not None:
            room = min(room, self.max_size - self._size + 1)
        piece = b""
        if self._stream.needs_input:
            piece = self.data[self._position : self._position + INPUT_PIECE]
            if not piece:
                raise DecompressError(f"{self.format} data ends early, after {len(self.data)} bytes")
            self._position += len(piece)
        try:
            output = self._stream.decompress(piece, room)
        except self._errors as error:
            raise DecompressError(f"damaged {self.format} data: {error}") from error
        self._output.append(output)
        self._size += len(output)
        if self.max_size is not None and self._size > self.max_size:
            raise OutputTooLarge(f"the {self.format} data holds more than max_size={self.max_size} bytes")
        if self._stream.eof:
            self._end_stream()

    def _end_stream(self) -> None:
        """Go on with the next stream if there is more data."""
        self._position -= len(self._stream.unused_data)
        if self.format in PADDED:
            while self.data[self._position : self._position + 1] == b"\0":
                self._position += 1
        left = len(self.data) - self._position
        if left and self.format in SINGLE:
            raise DecompressError(f"{left} bytes follow the end of the {self.format} data")
        if left:
            self._stream = self._make()
        self._is_done = left == 0
