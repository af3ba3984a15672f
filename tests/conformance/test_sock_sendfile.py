"""loop.sock_sendfile (trap 26): files over bare sockets, by the kernel or by read and send; cancelling (trap 25)."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from conformance.peers import (
    MOST_IDLE_TURNS,
    idle_turns,
    off_loop,
    pattern,
    read_exactly,
    read_to_end,
    read_until_gone,
    reset,
    soon,
    tcp_pair,
    turns,
)

SIZE = 3_000_000
DATA = pattern(SIZE)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Our end, non-blocking, and the peer's, blocking with a timeout; small buffers between them."""
    ours, peer = tcp_pair(send_buffer=8192, receive_buffer=8192)
    with ours, peer:
        yield ours, peer


@pytest.fixture(params=["by the kernel", "by reading"])
def file(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A file with a descriptor, and one without."""
    if request.param == "by reading":
        yield io.BytesIO(DATA)
        return
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()
        file.seek(0)
        yield file


async def sent(sock: socket.socket, file: Any, *arguments: Any, **options: Any) -> int:
    return await soon(asyncio.get_running_loop().sock_sendfile(sock, file, *arguments, **options))


def test_trap_26_a_whole_file_by_sock_sendfile(run: Any, pair: Pair, file: Any) -> None:
    async def main() -> None:
        ours, peer = pair
        receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
        assert await sent(ours, file) == SIZE
        assert file.tell() == SIZE
        ours.shutdown(socket.SHUT_WR)
        assert await receiving == DATA

    run(main())


@pytest.mark.parametrize(
    ("offset", "count", "expected"),
    [(10, 100, 100), (SIZE - 50, 100, 50), (1_000_000, None, SIZE - 1_000_000), (SIZE, None, 0), (SIZE + 5, 3, 0)],
)
def test_parts(run: Any, pair: Pair, file: Any, offset: int, count: int | None, expected: int) -> None:
    async def main() -> None:
        ours, peer = pair
        receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
        assert await sent(ours, file, offset, count) == expected
        if expected:
            assert file.tell() == offset + expected
        ours.shutdown(socket.SHUT_WR)
        assert await receiving == DATA[offset : offset + expected]

    run(main())


def test_fallback_refused(run: Any, pair: Pair) -> None:
    async def main() -> None:
        ours, peer = pair
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await sent(ours, io.BytesIO(DATA), fallback=False)
        await soon(asyncio.get_running_loop().sock_sendall(ours, b"fine"))
        assert await off_loop(read_exactly, peer, 4) == b"fine"

    run(main())


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((-1,), ValueError),
        ((1.5,), TypeError),
        ((0, 0), ValueError),
        ((0, -3), ValueError),
        ((0, "3"), TypeError),
    ],
)
def test_bad_arguments(run: Any, pair: Pair, file: Any, arguments: tuple[Any, ...], kind: type[Exception]) -> None:
    async def main() -> None:
        with pytest.raises(kind, match=str(arguments[-1]).replace(".", r"\.")):
            await sent(pair[0], file, *arguments)

    run(main())


def test_what_cannot_be_sent_or_sent_to(run: Any, pair: Pair, file: Any) -> None:
    async def main() -> None:
        with open(os.devnull) as text, pytest.raises(ValueError, match="binary mode"):
            await sent(pair[0], text)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            with pytest.raises(ValueError, match="SOCK_STREAM"):
                await sent(datagrams, file)
        pair[0].setblocking(True)
        with pytest.raises(ValueError, match="non-blocking"):
            await sent(pair[0], file)

    run(main(), debug=True)


def test_a_peer_that_resets(run: Any, pair: Pair, file: Any) -> None:
    async def main() -> None:
        ours, peer = pair
        sending = asyncio.ensure_future(sent(ours, file))
        await off_loop(read_exactly, peer, 1000)
        reset(peer)
        with pytest.raises(ConnectionError):
            await sending
        assert file.tell() < SIZE
        assert file.tell() >= 1000 or isinstance(file, io.BytesIO)  # where a block counts once all of it was sent

    run(main())


def test_traps_25_and_26_cancelled(run: Any, pair: Pair, file: Any) -> None:
    """Traps 25, 26: nothing stays registered, nothing spins, and the socket can be used again at once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        sending = asyncio.ensure_future(loop.sock_sendfile(ours, file))
        first = await off_loop(read_exactly, peer, 100_000)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(sending)
        await turns(2)
        assert loop.remove_writer(ours) is False
        receiving = asyncio.ensure_future(off_loop(read_until_gone, peer))
        assert await idle_turns(0.05) <= MOST_IDLE_TURNS
        await soon(loop.sock_sendall(ours, b"the end"))
        ours.shutdown(socket.SHUT_WR)
        received = first + await receiving
        assert received.endswith(b"the end") and DATA.startswith(received[: -len(b"the end")])

    run(main())
