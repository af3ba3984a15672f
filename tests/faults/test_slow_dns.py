"""Name servers that do not answer must not hold up files, hashes and Python jobs (trap 39: node#8436, libuv#28)."""

from __future__ import annotations

from pathlib import Path

import pytest
from preloaded import built_shim, run_under

SHIM = Path(__file__).with_name("slow_getaddrinfo.c")
LOOKUPS = 8

PROGRAM = '''
import asyncio
import hashlib
import os
import socket
import sys

import hoop

SIZE, LOOKUPS = int(sys.argv[1]), int(sys.argv[2])
LIMIT = max(1, SIZE // 2)
OWN_FILE = __file__


async def readable(loop, fd):
    ready = loop.create_future()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    await ready
    loop.remove_reader(fd)
    return os.read(fd, 100)


async def main():
    loop = asyncio.get_running_loop()
    begun, begun_end = os.pipe()
    go, go_end = os.pipe()
    os.environ.update(SLOW_BEGUN_FD=str(begun_end), SLOW_GO_FD=str(go))
    lookups = [asyncio.create_task(hoop.dns.lookup(f"slow-{number}.invalid", 80)) for number in range(LOOKUPS)]
    running = 0
    while running < LIMIT:
        running += len(await readable(loop, begun))

    for _ in range(20):  # more than there are threads, while the servers keep silent
        assert await hoop.crypto.pbkdf2_hmac("sha256", b"p", b"s", 10) == hashlib.pbkdf2_hmac("sha256", b"p", b"s", 10)
        with open(OWN_FILE, "rb") as file:
            assert await hoop.crypto.file_digest("sha256", OWN_FILE) == hashlib.file_digest(file, "sha256").digest()
    assert await asyncio.gather(*(loop.pool.run(abs, -number) for number in range(20))) == list(range(20))
    assert await loop.run_in_executor(None, abs, -1) == 1
    assert await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    stats = loop.pool.stats()
    assert (stats.dns_running, stats.dns_queued) == (LIMIT, LOOKUPS - LIMIT), stats
    assert not any(lookup.done() for lookup in lookups)

    lookups[-1].cancel()  # it is still queued, so it never reaches a server
    while loop.pool.stats().dns_queued == LOOKUPS - LIMIT:
        await asyncio.sleep(0)
    os.write(go_end, b"g" * LOOKUPS)
    ends = await asyncio.gather(*lookups, return_exceptions=True)
    assert type(ends.pop()) is asyncio.CancelledError
    assert [(type(end), end.errno) for end in ends] == [(socket.gaierror, socket.EAI_AGAIN)] * (LOOKUPS - 1)
    while running < LOOKUPS - 1:
        running += len(await readable(loop, begun))
    assert running == LOOKUPS - 1
    print("proceeded")


with asyncio.Runner(loop_factory=lambda: hoop.Loop(pool_size=SIZE)) as runner:
    runner.run(main())
'''


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_shim(SHIM, tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_trap_39_slow_dns_holds_half_of_the_threads_and_no_more(shim: Path, tmp_path: Path, size: int) -> None:
    assert run_under(shim, PROGRAM, tmp_path, str(size), str(LOOKUPS)) == (0, "proceeded\n")
