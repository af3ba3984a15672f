"""What the callbacks of a phase write to several connections may leave by one system call (docs/writes.md): each peer
gets all of its own and nothing else, and each protocol hears of its own errors, as where each write is sent by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.peers import (
    Recorder,
    connected,
    is_io_uring,
    off_loop,
    pattern,
    read_exactly,
    read_to_end,
    reset,
    turns,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEVERAL = 8
IO_URING_SETUP = 425  # of linux/io_uring.h, as are the flags: what hoop asks for
SUBMIT_ALL, NO_SQARRAY = 1 << 7, 1 << 16

# Small ones, which are joined; single large ones; more than a socket's buffers take.
SIZES = st.sampled_from([1, 700, 1500, 5000, 40_000, 70_000, 500_000])
WRITES = st.lists(st.tuples(st.integers(0, 11), st.lists(SIZES, min_size=1, max_size=3)), max_size=30)


@pytest.fixture(params=["default", "0"])
def io_uring(request, monkeypatch, loop_name) -> str:
    """Both ways of hoop."""
    if loop_name == "asyncio" and request.param == "0":
        pytest.skip("asyncio has one way")
    monkeypatch.delenv("HOOP_IO_URING", raising=False)
    if request.param != "default":
        monkeypatch.setenv("HOOP_IO_URING", request.param)
    return request.param


@contextlib.asynccontextmanager
async def connections(count: int, **hooks: Callable[..., Any]) -> AsyncIterator[list[tuple[Any, socket.socket]]]:
    pairs = [await connected(Recorder(**hooks)) for _ in range(count)]
    try:
        yield pairs
    finally:
        for transport, peer in pairs:
            if not transport.is_closing():
                transport.abort()
            peer.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=WRITES, in_one_callback=st.booleans())
def test_each_peer_gets_its_own_bytes_in_order(
    run: Any, io_uring: str, writes: list[tuple[int, list[int]]], in_one_callback: bool
) -> None:
    def write(transport: Any, chunks: list[bytes]) -> None:
        for chunk in chunks:
            transport.write(chunk)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with connections(12) as pairs:
            protocols = [transport.get_protocol() for transport, _ in pairs]
            expected = [b""] * len(pairs)
            for number, (which, sizes) in enumerate(writes):
                chunks = [pattern(size, seed=number + place) for place, size in enumerate(sizes)]
                expected[which] += b"".join(chunks)
                if in_one_callback:
                    write(pairs[which][0], chunks)
                else:
                    loop.call_soon(write, pairs[which][0], chunks)
            await turns(1)
            for transport, _ in pairs:
                transport.close()
            assert [await off_loop(read_to_end, peer) for _, peer in pairs] == expected
            for protocol in protocols:
                assert await protocol.until_lost() is None

    run(main())


@pytest.mark.parametrize("failing", [0, 3, SEVERAL - 1])
def test_each_protocol_hears_of_its_own_error(run, io_uring, failing):
    async def main() -> None:
        async with connections(SEVERAL) as pairs:
            lost = pairs[failing][0].get_protocol()
            pairs[failing][0].pause_reading()  # which would hear of it first
            reset(pairs[failing][1])
            for number, (transport, _) in enumerate(pairs):
                transport.write(b"%d" % number)
            await turns(1)
            assert isinstance(await lost.until_lost(), ConnectionResetError)
            for number, (transport, peer) in enumerate(pairs):
                if number != failing:
                    assert await off_loop(read_exactly, peer, 1) == b"%d" % number
                    assert not transport.is_closing()
                    assert transport.get_protocol().count("connection_lost") == 0

    run(main())


def fill(transport: Any) -> int:
    """Have the kernel take no more of this connection, past the transport."""
    sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    filled = 0
    with sock, contextlib.suppress(BlockingIOError):
        while True:
            filled += sock.send(bytes(1 << 20))
    return filled


@pytest.mark.parametrize("full", [0, SEVERAL - 1])
def test_a_protocol_that_is_paused_meanwhile_may_use_the_others(run, io_uring, full):
    """pause_writing() comes while what others have written is sent: nothing of it is sent twice, or lost."""

    async def main() -> None:
        async with connections(SEVERAL) as pairs:
            transport, peer = pairs[full]
            writing, closing, aborting = [other for other, _ in pairs[1:4]]

            def use_others(_protocol: Recorder) -> None:
                writing.write(b" and more")
                closing.close()
                aborting.abort()

            transport.get_protocol().hooks["pause_writing"] = use_others
            transport.set_write_buffer_limits(high=20_000)
            filled = fill(transport)
            for number, (other, _) in enumerate(pairs):
                if other is not transport:
                    other.write(b"%d" % number)
                elif number == 0:
                    other.write(bytes(15_000))
            transport.write(bytes(25_000))
            assert transport.get_protocol().count("pause_writing") == 1
            held = 25_000 + (15_000 if full == 0 else 0)
            found = [await off_loop(read_to_end, pairs[number][1]) for number in (2, 3)]
            assert found == [b"2", b"3"]
            assert await off_loop(read_exactly, pairs[1][1], 10) == b"1 and more"
            transport.close()
            assert len(await off_loop(read_to_end, peer)) == filled + held

    run(main())


def rings() -> int:
    """How many of this process's descriptors are io_urings."""
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            count += is_io_uring(str(path))
    return count


def kernel_has_it() -> bool:
    """Whether this kernel, and whoever has put this process into a sandbox, lets it have one."""
    parameters = (ctypes.c_uint32 * 30)(0, 0, SUBMIT_ALL | NO_SQARRAY)
    descriptor = ctypes.CDLL(None).syscall(IO_URING_SETUP, 64, parameters)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


class TestSwitches:
    """hoop's own."""

    def rings_while(self, writers: int, **options: Any) -> tuple[int, int]:
        """The io_urings after so many connections were written to in a phase, and those after the loop's end."""
        import hoop

        async def main() -> int:
            async with connections(writers) as pairs:
                for transport, _ in pairs:
                    transport.write(b"x")
                await turns(1)
                for _, peer in pairs:
                    assert await off_loop(read_exactly, peer, 1) == b"x"
                return rings() - before

        before = rings()
        with asyncio.Runner(loop_factory=lambda: hoop.Loop(**options)) as runner:
            meanwhile = runner.run(main())
        return meanwhile, rings() - before

    @pytest.fixture(autouse=True)
    def only_where_it_is(self):
        if not Path("/proc/self/fd").exists() or not kernel_has_it():
            pytest.skip("no io_uring here")

    def test_one_for_a_loop_that_sends_to_several_at_once(self, monkeypatch):
        monkeypatch.delenv("HOOP_IO_URING", raising=False)
        assert self.rings_while(SEVERAL) == (1, 0)
        assert self.rings_while(1) == (0, 0)

    def test_the_keyword_forbids_it(self):
        assert self.rings_while(SEVERAL, io_uring=False) == (0, 0)

    def test_the_environment_forbids_it(self, monkeypatch):
        monkeypatch.setenv("HOOP_IO_URING", "0")
        assert self.rings_while(SEVERAL) == (0, 0)
        assert self.rings_while(SEVERAL, io_uring=True) == (1, 0)
