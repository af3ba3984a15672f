"""hoop.compress: other programs read what it makes, and it reads what they make, up to a limit."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import importlib.util
import lzma
import random
import sys
import zlib
from collections.abc import Callable
from typing import Any

import hoop
import pytest
from busy_pool import busy_pool
from hoop import compress as module
from hoop.compress import DecompressError, OutputTooLarge, compress, decompress
from hypothesis import given, settings
from hypothesis import strategies as st

HAS_ZSTD = sys.version_info >= (3, 14) and importlib.util.find_spec("_zstd") is not None
FORMATS: list[Any] = ["gzip", "zlib", "deflate", "bz2", "xz", *(["zstd"] if HAS_ZSTD else [])]
SEVERAL: list[Any] = [name for name in FORMATS if name not in ("zlib", "deflate")]
TEXT = b"all work and no play makes a dull day; " * 20_000
NOISE = random.Random(39).randbytes(300_000)


def standard(format: str) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    """What the standard library compresses and decompresses this format with."""
    if format == "zstd":
        from compression import zstd

        return zstd.compress, zstd.decompress
    return {
        "gzip": (gzip.compress, gzip.decompress),
        "zlib": (zlib.compress, zlib.decompress),
        "deflate": (lambda data: zlib.compress(data, wbits=-15), lambda data: zlib.decompress(data, wbits=-15)),
        "bz2": (bz2.compress, bz2.decompress),
        "xz": (lzma.compress, lzma.decompress),
    }[format]


@pytest.mark.parametrize("data", [b"", b"a", TEXT[:1000], TEXT, NOISE], ids=lambda data: str(len(data)))
@pytest.mark.parametrize("format", FORMATS)
def test_others_read_what_it_makes_and_it_reads_what_others_make(format: Any, data: bytes) -> None:
    encode, decode = standard(format)
    assert decode(hoop.run(compress(data, format))) == data
    assert hoop.run(decompress(encode(data), format)) == data


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=3000), repeat=st.integers(1, 40), inline_size=st.integers(-1, 9000))
def test_there_and_back(format: Any, data: bytes, repeat: int, inline_size: int) -> None:
    async def main() -> bytes:
        made = await compress(data * repeat, format, inline_size=inline_size)
        return await decompress(made, format, inline_size=inline_size, max_size=len(data) * repeat)

    assert hoop.run(main()) == data * repeat


@pytest.mark.parametrize("format", SEVERAL)
def test_several_streams_behind_one_another_are_one(format: Any) -> None:
    encode, _ = standard(format)
    parts = [b"first", TEXT, b"", b"last"]
    for inline_size in (-1, 10, 10**6):
        assert hoop.run(decompress(b"".join(map(encode, parts)), format, inline_size=inline_size)) == b"".join(parts)


@pytest.mark.parametrize("format", ["gzip", "xz"])
def test_zero_bytes_may_follow(format: Any) -> None:
    assert hoop.run(decompress(standard(format)[0](b"data") + bytes(8), format)) == b"data"


@pytest.mark.parametrize("inline_size", [-1, 10**7])
@pytest.mark.parametrize("format", FORMATS)
def test_damage_is_told(format: Any, inline_size: int) -> None:
    made = standard(format)[0](NOISE)
    for damaged in (b"", made[:-1], made[: len(made) // 2], b"no " + made, made + b"junk"):
        with pytest.raises(DecompressError, match=format):
            hoop.run(decompress(damaged, format, inline_size=inline_size))


def test_a_wrong_checksum_is_told() -> None:
    made = bytearray(gzip.compress(TEXT))
    made[-5] ^= 1
    with pytest.raises(DecompressError, match="damaged gzip data"):
        hoop.run(decompress(made, "gzip"))


@pytest.mark.parametrize("inline_size", [-1, 10**7])
@pytest.mark.parametrize("format", FORMATS)
def test_the_limit_is_exact(format: Any, inline_size: int) -> None:
    made = standard(format)[0](TEXT)
    assert hoop.run(decompress(made, format, max_size=len(TEXT), inline_size=inline_size)) == TEXT
    with pytest.raises(OutputTooLarge, match=f"max_size={len(TEXT) - 1} "):
        hoop.run(decompress(made, format, max_size=len(TEXT) - 1, inline_size=inline_size))
    assert hoop.run(decompress(standard(format)[0](b""), format, max_size=0, inline_size=inline_size)) == b""


def test_a_bomb_is_given_up_early() -> None:
    """1 GiB of zeros in 1 MiB: had it been made, this would need the memory."""
    bomb = zlib.compressobj()
    zeros = [bomb.compress(bytes(2**20)) + bomb.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    packed = zeros[0] + 1023 * zeros[1]  # what follows a full flush means the same anywhere
    work = module.Decompression(packed, "zlib", 2**20)
    with pytest.raises(OutputTooLarge):
        work.run(None)
    assert len(work.result()) == 2**20 + 1
    with pytest.raises(OutputTooLarge, match="67108864"):
        hoop.run(decompress(packed, "zlib"))


def test_small_data_is_done_at_once_and_large_data_in_the_pool() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        small = TEXT[: module.INLINE_COMPRESS_SIZE]
        assert await decompress(await compress(small)) == small
        assert loop.pool.stats().done == 0
        made = await compress(TEXT[: module.INLINE_COMPRESS_SIZE + 1])
        assert loop.pool.stats().done == 1
        made = gzip.compress(TEXT)
        assert len(made) < module.INLINE_DECOMPRESS_SIZE  # few bytes that become many: begun at once, ended in the pool
        assert await decompress(made) == TEXT
        assert loop.pool.stats().done == 2

    hoop.run(main())


def test_equal_input_gives_equal_output() -> None:
    assert hoop.run(compress(TEXT)) == hoop.run(compress(bytearray(TEXT)))


@pytest.mark.parametrize(
    ("format", "level"),
    [("gzip", 1), ("gzip", 9), ("zlib", 0), ("deflate", -1), ("bz2", 1), ("xz", 0), *([("zstd", 19)] * HAS_ZSTD)],
)
def test_levels(format: Any, level: int) -> None:
    made = hoop.run(compress(TEXT, format, level=level))
    assert standard(format)[1](made) == TEXT
    assert (len(made) > len(TEXT)) == (level == 0 and format == "zlib")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: compress(b"", "nosuch"), ValueError, "'nosuch'.*gzip"),  # type: ignore[arg-type]
        (lambda: decompress(b"", "nosuch"), ValueError, "'nosuch'.*gzip"),  # type: ignore[arg-type]
        (lambda: compress(b"", "gzip", level=10), ValueError, "-1 to 9, not 10"),
        (lambda: compress(b"", "bz2", level=0), ValueError, "1 to 9, not 0"),
        (lambda: compress("text"), TypeError, "str"),  # type: ignore[arg-type]
        (lambda: compress(5), TypeError, "int"),  # type: ignore[arg-type]
        (lambda: decompress(b"", max_size=-1), ValueError, "-1"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        hoop.run(call())


@pytest.mark.skipif(HAS_ZSTD, reason="this Python has zstd")
def test_zstd_is_refused_where_python_lacks_it() -> None:
    for call in (compress, decompress):
        with pytest.raises(NotImplementedError, match=r"compression\.zstd \(Python 3\.14 has it\)"):
            hoop.run(call(b"", "zstd"))


def test_another_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"hoop\.compress needs a running hoop loop"):
        asyncio.run(compress(b""))


def test_a_buffer_changed_after_the_call_changes_nothing() -> None:
    async def main() -> None:
        async with busy_pool() as release:
            plain, packed = bytearray(TEXT), bytearray(gzip.compress(NOISE))
            tasks = [asyncio.create_task(call) for call in (compress(plain), decompress(packed))]
            await asyncio.sleep(0)
            plain.clear()
            packed[:] = bytes(len(packed))
            release()
            assert gzip.decompress(await tasks[0]) == TEXT
            assert await tasks[1] == NOISE

    hoop.run(main())


def test_a_cancelled_decompression_ends_early() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with busy_pool():
            task = asyncio.create_task(decompress(gzip.compress(NOISE)))
            await asyncio.sleep(0)
            assert loop.pool.stats().queued == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert loop.pool.stats().queued == 0

    hoop.run(main())
    work = module.Decompression(gzip.compress(NOISE), "gzip", None)
    assert not work.run(10)
    work.is_cancelled = True
    assert not work.run(None)
    assert len(work.result()) == 10
