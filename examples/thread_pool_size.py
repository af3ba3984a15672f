"""The pool for passwords and files has four threads; set its size before the program starts, and see what it does.

    python examples/thread_pool_size.py
    HOOP_THREADPOOL_SIZE=1 python examples/thread_pool_size.py

Eight key derivations (PBKDF2) and eight files at a time: as many run together as the pool has threads, and the loop
goes on counting the whole time, because none of it runs on its own thread.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import hoop

TASKS = 8
ROUNDS = 200_000


async def derive(number, started):
    await hoop.crypto.pbkdf2_hmac("sha512", b"password", b"salt%d" % number, ROUNDS)
    print(f"key {number} after {(time.monotonic() - started) * 1000:.0f} ms", flush=True)


async def write_and_read(folder, number):
    path = Path(folder, f"file{number}")
    await hoop.fs.write_file(path, b"x" * 1_000_000)
    return len(await hoop.fs.read_file(path))


async def main():
    loop = asyncio.get_running_loop()
    ticks = 0

    def tick():
        nonlocal ticks
        ticks += 1

    ticking = loop.set_interval(tick, 0.005)
    started = time.monotonic()
    await asyncio.gather(*(derive(number, started) for number in range(TASKS)))
    with tempfile.TemporaryDirectory() as folder:
        sizes = await asyncio.gather(*(write_and_read(folder, number) for number in range(TASKS)))
    ticking.close()
    pool = loop.metrics().pool
    print(f"{sum(sizes):,} bytes, by {pool.threads} threads of at most {pool.size}; the loop ticked {ticks} times")


if __name__ == "__main__":
    hoop.run(main())
