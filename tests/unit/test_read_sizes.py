"""How much one read takes, and what memory it goes to.

A process that moves large messages must reach a state in which the kernel gives it no more memory: each new page is a
page fault, and a block that malloc(3) maps by itself is new each time. Page faults are counted in a fresh process,
whose malloc has not yet seen a large block freed.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

import hoop
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

KIB = 1024
SHARED_BUFFER = 96 * KIB
BULK_FROM = 32 * KIB
BULK_WHILE = 16 * KIB
LARGEST = 256 * KIB

ECHO_SCRIPT = """
import asyncio, json, resource, socket, sys
import hoop

SIZE, KIND = int(sys.argv[1]), sys.argv[2]

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def echo_streams(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    for sock in ours, theirs:
        sock.setblocking(False)
    if KIND == "protocol":
        await loop.connect_accepted_socket(Echo, ours)
    else:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader, echo_streams)
        await loop.connect_accepted_socket(lambda: protocol, ours)
    message, answer = bytes(SIZE), memoryview(bytearray(SIZE))
    async def exchange(count):
        for _ in range(count):
            sending = asyncio.ensure_future(loop.sock_sendall(theirs, message))
            received = 0
            while received < SIZE:
                received += await loop.sock_recv_into(theirs, answer[received:])
            await sending
    await exchange(30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    await exchange(100)
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100))
    theirs.close()

hoop.run(main())
"""

counts_faults = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc"
    or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))  # objects come from mimalloc there
    or "LD_PRELOAD" in os.environ,  # a sanitizer has an allocator of its own
    reason="about glibc's malloc",
)


def faults_a_message(size: int, kind: str, **environment: str) -> float:
    """Page faults for each echoed message, after a warm-up, in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", ECHO_SCRIPT, str(size), kind],
        env=kept | environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return float(json.loads(done.stdout))


@counts_faults
@pytest.mark.parametrize("kind", ["protocol", "streams"])
@pytest.mark.parametrize("size", [40 * KIB, 64 * KIB, 100 * KIB, 256 * KIB])
def test_messages_of_a_fresh_process_need_no_new_memory(size: int, kind: str) -> None:
    """One message of 64 KiB would take 16 pages."""
    assert faults_a_message(size, kind) < 2


@counts_faults
@pytest.mark.parametrize("size", [40 * KIB, 64 * KIB, 100 * KIB])
def test_no_read_is_mapped_that_malloc_need_not_map(size: int) -> None:
    """With limits that never change, as those of musl: only a message that itself is above them may be mapped."""
    fixed = {"MALLOC_MMAP_THRESHOLD_": str(128 * KIB), "MALLOC_TRIM_THRESHOLD_": str(128 * KIB)}
    assert faults_a_message(size, "protocol", **fixed) < 2


class Reader(asyncio.Protocol):
    """Notes the sizes of what it receives and ends the run after each."""

    def __init__(self, loop: hoop.Loop) -> None:
        self.loop = loop
        self.received: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.loop.stop()


class Model:
    """What one read takes of what is there."""

    def __init__(self) -> None:
        self.is_bulk = False

    def read(self, pending: int) -> int:
        if self.is_bulk and pending >= BULK_WHILE:
            return min(pending, LARGEST)
        size = min(pending, SHARED_BUFFER)
        self.is_bulk = size >= BULK_FROM
        return size


@pytest.fixture(scope="module")
def loop() -> Iterator[hoop.Loop]:
    loop = hoop.Loop()
    yield loop
    loop.close()


NEAR_LIMITS = st.sampled_from([BULK_WHILE, BULK_FROM, SHARED_BUFFER]).flatmap(lambda at: st.integers(at - 2, at + 2))
SENT = st.one_of(st.just(0), st.integers(1, 2000), NEAR_LIMITS, st.integers(1, 150 * KIB))


@settings(max_examples=60, deadline=None)
@given(sent=st.lists(SENT, min_size=1, max_size=12))
def test_a_read_takes_what_the_model_says(loop: hoop.Loop, sent: list[int]) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    protocol = Reader(loop)
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(lambda: protocol, ours))
    model = Model()
    pending = 0
    stream = os.urandom(64) * (sum(sent) // 64 + 1)
    issued = 0
    for size in sent:
        if size > 0:
            try:
                moved = theirs.send(stream[issued : issued + size])
            except BlockingIOError:
                moved = 0
            issued += moved
            pending += moved
        if pending > 0:
            expected = model.read(pending)
            loop.run_forever()
            assert len(protocol.received[-1]) == expected
            pending -= expected
    while pending > 0:
        expected = model.read(pending)
        loop.run_forever()
        assert len(protocol.received[-1]) == expected
        pending -= expected
    assert b"".join(protocol.received) == stream[:issued]
    transport.abort()
    theirs.close()
    loop.run_until_complete(asyncio.sleep(0))


def test_the_end_comes_after_a_bulk_transfer(loop: hoop.Loop) -> None:
    """Then the kernel says that nothing is there."""
    ended = loop.create_future()

    class Ending(Reader):
        def eof_received(self) -> None:
            ended.set_result(len(self.received))

    ours, theirs = socket.socketpair()
    protocol = Ending(loop)
    loop.run_until_complete(loop.connect_accepted_socket(lambda: protocol, ours))
    theirs.send(bytes(BULK_FROM))
    loop.run_forever()
    theirs.close()
    assert loop.run_until_complete(ended) == 1
    loop.run_until_complete(asyncio.sleep(0))
