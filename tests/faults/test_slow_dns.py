"""Name servers that do not answer must not hold up files, hashes and Python jobs (trap 39: node#8436, libuv#28), nor
the names that need none of them or were answered a moment ago (node#8436)."""

from __future__ import annotations

from pathlib import Path

import pytest
from preloaded import built_shim, run_under

SHIM = Path(__file__).with_name("slow_getaddrinfo.c")
LOOKUPS = 8

PROGRAM = """
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
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_shim(SHIM, tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_trap_39_slow_dns_holds_half_of_the_threads_and_no_more(shim: Path, tmp_path: Path, size: int) -> None:
    assert run_under(shim, PROGRAM, tmp_path, str(size), str(LOOKUPS)) == (0, "proceeded\n")


NAMES = '''
import asyncio
import os
import socket
import sys

import hoop

SIZE, LOOKUPS, HOSTS = int(sys.argv[1]), 8, sys.argv[2]
LIMIT = max(1, SIZE // 2)


async def begin(loop, fd, count):
    """Until libc has been asked about so many names more that it does not answer."""
    while count > 0:
        ready = loop.create_future()
        loop.add_reader(fd, ready.set_result, None)
        await ready
        loop.remove_reader(fd)
        count -= len(os.read(fd, count))


async def ask_all(loop, names):
    for _ in range(5):
        found = await asyncio.gather(*(loop.getaddrinfo(name, 80, type=socket.SOCK_STREAM) for name in names))
        assert all(found), found


async def main():
    loop = asyncio.get_running_loop()
    begun, begun_end = os.pipe()
    go, go_end = os.pipe()
    os.environ.update(SLOW_BEGUN_FD=str(begun_end), SLOW_GO_FD=str(go), HOSTS_FILE=HOSTS)
    with open(HOSTS, "w") as file:
        file.write("192.0.2.7 listed.test\\n192.0.2.8 slow-listed.test\\n")

    await ask_all(loop, ["answered-1.test", "answered-2.test"])
    await loop.getaddrinfo("fades-1.test", 80)  # only once: it will not answer again
    lookups = [asyncio.create_task(loop.getaddrinfo(f"slow-{number}.test", 80)) for number in range(LOOKUPS)]
    await begin(loop, begun, LIMIT)

    local = ["localhost", "any.localhost", socket.gethostname(), "listed.test", "127.1", None]
    await ask_all(loop, local)
    await ask_all(loop, ["answered-1.test", "answered-2.test"])
    assert await loop.getnameinfo(("192.0.2.7", 80), socket.NI_NUMERICHOST) == ("192.0.2.7", "http")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "localhost", 0)
    reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
    assert await reader.read() == b""
    writer.close()
    server.close()

    faded = asyncio.create_task(loop.getaddrinfo("fades-1.test", 80))  # where names are that were answered
    await begin(loop, begun, 1)
    await ask_all(loop, local)
    assert loop.pool.stats().dns_running == LIMIT + 1
    assert loop.pool.stats().dns_queued == LOOKUPS - LIMIT
    assert loop.pool.stats().threads <= SIZE + 2
    assert not any(lookup.done() for lookup in lookups)
    if SIZE > 1:
        assert await loop.pool.run(abs, -1) == 1

    os.write(go_end, b"g" * (LOOKUPS + 1))
    ends = await asyncio.gather(*lookups, faded, return_exceptions=True)
    assert [(type(end), end.errno) for end in ends] == [(socket.gaierror, socket.EAI_AGAIN)] * (LOOKUPS + 1)
    await begin(loop, begun, LOOKUPS - LIMIT)

    # What is said to be local, but is not answered, is not let in there again.
    silent = asyncio.create_task(loop.getaddrinfo("slow-listed.test", 80))
    await begin(loop, begun, 1)
    os.write(go_end, b"g")
    assert (await asyncio.gather(silent, return_exceptions=True))[0].errno == socket.EAI_AGAIN
    again = [asyncio.create_task(loop.getaddrinfo("slow-listed.test", 80)) for _ in range(LIMIT + 1)]
    await begin(loop, begun, LIMIT)
    await ask_all(loop, local)
    assert loop.pool.stats().dns_running == LIMIT
    os.write(go_end, b"g" * (LIMIT + 1))
    await asyncio.gather(*again, return_exceptions=True)
    print("proceeded")


with asyncio.Runner(loop_factory=lambda: hoop.Loop(pool_size=SIZE)) as runner:
    runner.run(main())
'''


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_trap_39_names_that_are_answered_do_not_wait_for_those_that_are_not(
    shim: Path, tmp_path: Path, size: int
) -> None:
    """node#8436: three names without an answer held up `localhost`."""
    assert run_under(shim, NAMES, tmp_path, str(size), str(tmp_path / "hosts")) == (0, "proceeded\n")
