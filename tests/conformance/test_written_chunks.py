"""What write() is given: more chunks than one system call takes."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from conformance.peers import Recorder, connected, off_loop, read_exactly, read_to_end

MORE_THAN_ONE_CALL_TAKES = 70  # chunks


async def received(transport: Any, protocol: Recorder, peer: socket.socket, size: int) -> bytes:
    data = await off_loop(read_exactly, peer, size)
    transport.abort()
    await protocol.until_lost()
    peer.close()
    return data


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
