"""hoop.crypto answers as hashlib, hmac and os do, in the pool or at once, and cancelling it leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoop
import pytest
from busy_pool import busy_pool
from hoop import crypto

DATA = bytes(range(256)) * 1024  # 256 KiB: more than is done at once


def jobs_of(main: Callable[[], Any]) -> tuple[Any, int]:
    """The result of main() on a loop of its own, and how many jobs its pool ran."""

    async def counted() -> tuple[Any, int]:
        loop: Any = asyncio.get_running_loop()
        result = await main()
        return result, loop.pool.stats().done

    return hoop.run(counted())


# Answers.


def test_pbkdf2_hmac() -> None:
    answer, jobs = jobs_of(lambda: crypto.pbkdf2_hmac("sha256", b"password", b"salt", 2, 20))
    assert answer == hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2, 20)
    assert answer.hex() == "ae4d0c95af6b46d32d0adff928f06dd02a303f8e"  # the widely published vector, cut to 20 bytes
    assert jobs == 1


def test_scrypt() -> None:
    answer, jobs = jobs_of(lambda: crypto.scrypt(b"password", salt=b"NaCl", n=1024, r=8, p=16))
    assert answer.hex().startswith("fdbabe1c9d3472007856e7190d01e9fe")  # RFC 7914, section 12
    assert len(answer) == 64
    assert jobs == 1


@pytest.mark.parametrize("size", [0, 1, crypto.INLINE_SIZE, crypto.INLINE_SIZE + 1, len(DATA)])
@pytest.mark.parametrize("name", ["sha256", "md5", "sha3_256", "blake2b"])
def test_digest(name: str, size: int) -> None:
    answer, jobs = jobs_of(lambda: crypto.digest(name, DATA[:size]))
    assert answer == hashlib.new(name, DATA[:size]).digest()
    assert jobs == (size > crypto.INLINE_SIZE)


def test_what_is_done_at_once_can_be_chosen() -> None:
    for inline_size, jobs in ((-1, 1), (len(DATA), 0)):
        for work in (
            lambda size=inline_size: crypto.digest("sha256", b"" if size < 0 else DATA, inline_size=size),
            lambda size=inline_size: crypto.hmac_digest(b"k", b"" if size < 0 else DATA, "sha256", inline_size=size),
            lambda size=inline_size: crypto.random_bytes(0 if size < 0 else 100, inline_size=size),
        ):
            assert jobs_of(work)[1] == jobs


def test_digests_of_a_chosen_length() -> None:
    assert hoop.run(crypto.digest("shake_128", b"abc", length=77)) == hashlib.shake_128(b"abc").digest(77)
    with pytest.raises(TypeError):
        hoop.run(crypto.digest("shake_128", b"abc"))
    with pytest.raises(TypeError):
        hoop.run(crypto.digest("sha256", b"abc", length=5))


def test_hmac() -> None:
    for message in (b"", b"message", DATA):
        assert hoop.run(crypto.hmac_digest(b"key", message, "sha512")) == hmac.digest(b"key", message, "sha512")


def test_small_data_that_takes_long_goes_to_the_pool() -> None:
    key, length = bytes(crypto.INLINE_SIZE + 1), crypto.INLINE_SIZE + 1
    answer, jobs = jobs_of(lambda: crypto.hmac_digest(key, b"message", "sha256"))
    assert (answer, jobs) == (hmac.digest(key, b"message", "sha256"), 1)
    answer, jobs = jobs_of(lambda: crypto.digest("shake_128", b"seed", length=length))
    assert (answer, jobs) == (hashlib.shake_128(b"seed").digest(length), 1)


def test_random_bytes() -> None:
    for size, expected in ((0, 0), (32, 0), (crypto.INLINE_SIZE + 1, 1)):
        made, jobs = jobs_of(lambda size=size: crypto.random_bytes(size))
        assert (len(made), jobs) == (size, expected)
    assert hoop.run(crypto.random_bytes(32)) != hoop.run(crypto.random_bytes(32))


def test_compare_digest_is_the_standard_one() -> None:
    assert crypto.compare_digest is hmac.compare_digest


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: crypto.pbkdf2_hmac("nosuchhash", b"", b"", 1), ValueError, "nosuchhash"),
        (lambda: crypto.pbkdf2_hmac("sha256", b"", b"", 0), ValueError, "iteration"),
        (lambda: crypto.pbkdf2_hmac("sha256", b"", b"", 1, 0), ValueError, "key length"),
        (lambda: crypto.pbkdf2_hmac("sha256", "text", b"", 1), TypeError, "str"),
        (lambda: crypto.pbkdf2_hmac("sha256", 5, b"", 1), TypeError, "int"),
        (lambda: crypto.scrypt(b"", salt=b"", n=1000, r=8, p=1), ValueError, "power of 2"),
        (lambda: crypto.digest("nosuchhash", b""), ValueError, "nosuchhash"),
        (lambda: crypto.digest("sha256", "text"), TypeError, "str"),
        (lambda: crypto.hmac_digest(b"", b"", "nosuchhash"), ValueError, "nosuchhash"),
        (lambda: crypto.random_bytes(-1), ValueError, "negative"),
        (lambda: crypto.file_digest("sha256", "/no/such/file"), FileNotFoundError, "/no/such/file"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        hoop.run(call())


def test_another_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"hoop\.crypto needs a running hoop loop"):
        asyncio.run(crypto.digest("sha256", b""))


# Files.


def test_file_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"short", DATA * 3 + b"tail"):
        path.write_bytes(content)
        assert hoop.run(crypto.file_digest("sha256", path)) == hashlib.sha256(content).digest()
        shaken = hoop.run(crypto.file_digest("shake_256", os.fspath(path), length=9))
        assert shaken == hashlib.shake_256(content).digest(9)


def test_file_digest_of_a_descriptor_leaves_it_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"skipped, and the rest")
    with path.open("rb", buffering=0) as file:
        file.read(9)
        assert hoop.run(crypto.file_digest("sha256", file.fileno())) == hashlib.sha256(b"and the rest").digest()
        assert not file.closed
        os.fstat(file.fileno())


def test_file_digest_of_what_is_not_all_there() -> None:
    """Not the digest of a part."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        os.write(writer, b"part")
        with pytest.raises(BlockingIOError):
            hoop.run(crypto.file_digest("sha256", reader))
    finally:
        os.close(reader)
        os.close(writer)


def test_a_cancelled_file_digest_stops_reading(tmp_path: Path) -> None:
    """A FIFO is a file that says when it is read: the job ends at the next piece after the cancel."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        task = asyncio.create_task(crypto.file_digest("sha256", path))
        writer = await asyncio.to_thread(os.open, path, os.O_WRONLY)  # opens once the job has it open, too
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.pool.stats().running == 1
        os.write(writer, b"one piece")  # the job reads it, and then sees that it is cancelled
        await asyncio.to_thread(wait_until_reader_is_gone, writer)
        os.close(writer)

    hoop.run(main())


def wait_until_reader_is_gone(writer: int) -> None:
    import select

    poll = select.poll()
    poll.register(writer, 0)  # POLLERR is always told: the last reader has closed
    assert poll.poll(20_000)


# Buffers and cancelling.


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "memoryview"])
def test_a_buffer_changed_after_the_call_changes_nothing(kind: Callable[[bytes], Any]) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with busy_pool() as release:
            buffer = kind(DATA)
            calls = [
                crypto.digest("sha256", buffer),
                crypto.hmac_digest(b"key", buffer, "sha256"),
                crypto.pbkdf2_hmac("sha256", buffer, b"salt", 1),
            ]
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.sleep(0)
            assert loop.pool.stats().queued == 3
            buffer[:5] = b"XXXXX"
            if isinstance(buffer, bytearray):
                buffer.clear()
            release()
            assert await tasks[0] == hashlib.sha256(DATA).digest()
            assert await tasks[1] == hmac.digest(b"key", DATA, "sha256")
            assert await tasks[2] == hashlib.pbkdf2_hmac("sha256", DATA, b"salt", 1)

    hoop.run(main())


def test_cancelling_takes_work_out_of_the_queue() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with busy_pool():
            tasks = [asyncio.create_task(crypto.pbkdf2_hmac("sha256", b"p", b"s", 1000)) for _ in range(5)]
            await asyncio.sleep(0)
            assert loop.pool.stats().queued == 5
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            assert loop.pool.stats().queued == 0
            assert loop.pool.stats().cancelled == 5
        assert await crypto.pbkdf2_hmac("sha256", b"p", b"s", 1) == hashlib.pbkdf2_hmac("sha256", b"p", b"s", 1)

    hoop.run(main())


def test_the_answer_of_work_cancelled_while_it_runs_is_dropped() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        begun, released = threading.Event(), threading.Event()

        def work() -> bytes:
            begun.set()
            released.wait()
            return b"answer"

        task = asyncio.ensure_future(loop.pool.run(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        released.set()
        assert await crypto.digest("sha256", DATA) == hashlib.sha256(DATA).digest()

    hoop.run(main())


def test_the_loop_goes_on_while_passwords_are_hashed() -> None:
    async def main() -> int:
        loop: Any = asyncio.get_running_loop()
        done = asyncio.gather(*(crypto.pbkdf2_hmac("sha256", b"p", b"s", 20_000) for _ in range(8)))
        turns = 0
        while not done.done():
            turns += 1
            await asyncio.sleep(0)
        assert len(set(done.result())) == 1
        assert loop.pool.stats().done == 8
        return turns

    assert hoop.run(main()) > 1
