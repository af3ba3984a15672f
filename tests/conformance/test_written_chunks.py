"""What callers give write(): memory of odd kinds, and more chunks than one system call takes."""

from __future__ import annotations

import ctypes
import socket
from typing import Any

import pytest
from conformance.peers import Recorder, connected, off_loop, pattern, read_exactly, read_to_end

KIB = 1024
MORE_THAN_ONE_CALL_TAKES = 70  # chunks


def view_without_owner(memory: ctypes.Array[ctypes.c_char]) -> memoryview:
    """As extension modules make them: no object stands behind the memory."""
    make: Any = ctypes.pythonapi.PyMemoryView_FromMemory
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
    readable = 0x100
    view: memoryview = make(ctypes.addressof(memory), len(memory), readable)
    return view


async def received(transport: Any, protocol: Recorder, peer: socket.socket, size: int) -> bytes:
    data = await off_loop(read_exactly, peer, size)
    transport.abort()
    await protocol.until_lost()
    peer.close()
    return data


@pytest.mark.parametrize("size", [100, 8 * KIB])
def test_a_subclass_of_bytes_that_is_its_own_bytes(run: Any, size: int) -> None:
    class Own(bytes):
        def __bytes__(self) -> bytes:
            return self

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.write(Own(pattern(size)))
        transport.writelines([Own(b"and"), Own(b" more")])
        assert await received(transport, protocol, peer, size + 8) == pattern(size) + b"and more"

    run(main())


@pytest.mark.parametrize("size", [100, 8 * KIB])
def test_a_view_of_memory_that_no_object_owns(run: Any, size: int) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        memory = ctypes.create_string_buffer(pattern(size), size)
        transport.write(view_without_owner(memory))
        assert await received(transport, protocol, peer, size) == pattern(size)

    run(main())


@pytest.mark.parametrize("size", [100, 8 * KIB])
def test_a_view_that_was_released_is_refused(run: Any, size: int) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        view = memoryview(pattern(size))
        view.release()
        try:
            with pytest.raises(ValueError, match="released"):
                transport.write(view)
        finally:
            transport.abort()
            peer.close()

    run(main())


@pytest.mark.parametrize("how", ["write", "writelines"])
def test_abort_sends_every_chunk_that_the_kernel_has_room_for(run: Any, how: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        chunks = [b"%09d\n" % number for number in range(MORE_THAN_ONE_CALL_TAKES)]
        if how == "write":
            for chunk in chunks:
                transport.write(chunk)
        else:
            transport.writelines(chunks)
        transport.abort()
        assert await off_loop(read_to_end, peer) == b"".join(chunks)
        await protocol.until_lost()
        peer.close()

    run(main())


def test_chunks_that_the_kernel_has_room_for_do_not_pause(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        transport.set_write_buffer_limits(high=1)
        transport.writelines([b"x" * 100] * MORE_THAN_ONE_CALL_TAKES)
        assert transport.get_write_buffer_size() == 0
        assert protocol.count("pause_writing") == 0
        await received(transport, protocol, peer, 100 * MORE_THAN_ONE_CALL_TAKES)

    run(main())


def test_write_buffer_limits_that_are_no_whole_numbers(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol)
        for arguments, expected in (
            ({"high": 0.5 * KIB}, (128, 512)),
            ({"high": 10.9, "low": 2.5}, (2, 10)),
            ({"low": 1.5}, (1, 6)),
            ({"high": float("inf"), "low": 0.0}, (0, None)),
        ):
            transport.set_write_buffer_limits(**arguments)
            low, high = transport.get_write_buffer_limits()
            assert int(low) == expected[0]  # std keeps the fraction
            assert high > 1 << 60 if expected[1] is None else int(high) == expected[1]
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(float("nan"))
        transport.write(b"x")
        await received(transport, protocol, peer, 1)

    run(main())
