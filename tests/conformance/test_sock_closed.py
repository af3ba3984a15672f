"""A socket that its owner closes while a sock_* operation waits on it.

asyncio waits for ever: the kernel drops a closed descriptor from its set without a word. uvloop and hoop keep the
descriptor, as makefile() does, until the operation is done; close() takes effect then. uvloop's tests of the same
names.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers import DEADLINE_S, LOCALHOST, off_loop, open_descriptors, soon, tcp_pair, turns


@pytest.fixture
def keeping(loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio waits for ever")


@pytest.fixture
def leaving(loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio's reader stays, and takes what arrives for nobody")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = tcp_pair()
    with ours, peer:
        yield ours, peer


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("name", ["sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"])
def test_socket_recv_and_close(run: Any, pair: tuple[socket.socket, socket.socket], name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        fd = ours.fileno()
        room = bytearray(10)
        waiting = asyncio.ensure_future(getattr(loop, name)(ours, room if "into" in name else 10))
        await turns()
        ours.close()
        assert is_open(fd)
        await turns()
        assert not waiting.done()
        peer.send(b"hello")
        result = await soon(waiting)
        assert ours.fileno() == -1 and not is_open(fd)
        count = result[0] if isinstance(result, tuple) else result
        assert (bytes(room[:count]) if "into" in name else count) == b"hello"
        assert await off_loop(peer.recv, 1) == b""

    run(main())


@pytest.mark.usefixtures("keeping")
def test_the_end_of_the_peer_ends_it_too(run: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    async def main() -> None:
        ours, peer = pair
        waiting = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(ours, 10))
        await turns()
        ours.close()
        peer.close()
        assert await soon(waiting) == b""
        assert ours.fileno() == -1

    run(main())


@pytest.mark.usefixtures("keeping")
def test_two_operations_on_a_closed_socket(run: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """The descriptor lives until the last of them is done."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        waiting = [asyncio.ensure_future(loop.sock_recv(ours, 1)) for _ in range(2)]
        await turns()
        ours.close()
        peer.send(b"a")
        assert await soon(waiting[0]) == b"a"
        assert ours.fileno() >= 0
        peer.send(b"b")
        assert await soon(waiting[1]) == b"b"
        assert ours.fileno() == -1

    run(main())


@pytest.mark.usefixtures("keeping")
def test_socket_send_and_close(run: Any) -> None:
    """What waits for room is sent whole."""

    async def main() -> None:
        ours, peer = tcp_pair(send_buffer=8192, receive_buffer=8192)
        size = 1024 * 1024
        with ours, peer:
            waiting = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(ours, b"x" * size))
            await turns()
            ours.close()

            def read() -> int:
                total = 0
                while data := peer.recv(65536):
                    total += len(data)
                return total

            assert await off_loop(read) == size
            await soon(waiting)

    run(main())


@pytest.mark.usefixtures("keeping")
def test_socket_sendto_and_close(run: Any) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        peer.settimeout(DEADLINE_S)
        with ours, peer:
            sent = 0
            try:
                while True:
                    ours.send(b"x")
                    sent += 1
            except BlockingIOError:
                pass
            path = ours.getpeername() or None
            assert path is None
            call = asyncio.get_running_loop().sock_sendall(ours, b"y")
            waiting = asyncio.ensure_future(call)
            await turns()
            ours.close()
            for _ in range(sent):
                assert peer.recv(1) == b"x"
            await soon(waiting)
            assert peer.recv(1) == b"y"

    run(main())


@pytest.mark.usefixtures("keeping")
def test_socket_accept_and_close(run: Any) -> None:
    async def main() -> None:
        with socket.create_server((LOCALHOST, 0)) as listener:
            listener.setblocking(False)
            address = listener.getsockname()
            waiting = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(listener))
            await turns()
            listener.close()
            with socket.create_connection(address, timeout=DEADLINE_S) as client:
                sock, peer = await soon(waiting)
                with sock:
                    assert peer == client.getsockname()
            assert listener.fileno() == -1

    run(main())


@pytest.mark.usefixtures("keeping")
def test_socket_connect_and_close(run: Any) -> None:
    async def main() -> None:
        with socket.create_server((LOCALHOST, 0)) as listener, socket.socket() as ours:
            ours.setblocking(False)
            waiting = asyncio.ensure_future(asyncio.get_running_loop().sock_connect(ours, listener.getsockname()))
            asyncio.get_running_loop().call_soon(ours.close)
            await soon(waiting)
            await turns()
            assert ours.fileno() == -1

    run(main())


def cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()


@pytest.mark.parametrize("close_first", [True, False], ids=["close, cancel", "cancel, close"])
def test_who_cancels_the_operation_lets_go_of_the_socket(
    run: Any, pair: tuple[socket.socket, socket.socket], close_first: bool
) -> None:
    """On every loop: after both there is no descriptor, and the peer has seen the end."""

    async def main() -> None:
        ours, peer = pair
        fd = ours.fileno()
        waiting = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(ours, 10))
        await turns()
        steps: list[Callable[[], Any]] = [ours.close, waiting.cancel]
        for step in steps if close_first else reversed(steps):
            step()
            await turns()
        assert waiting.cancelled()
        assert ours.fileno() == -1 and not is_open(fd)
        assert peer.recv(1) == b""

    run(main())


@pytest.mark.usefixtures("keeping")
def test_a_detached_socket_is_its_new_owner_s(run: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """detach() hands the descriptor to somebody else, at once: the operation takes nothing from it."""

    async def main() -> None:
        ours, peer = pair
        waiting = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(ours, 10))
        await turns()
        with socket.socket(fileno=ours.detach()) as heir:
            peer.send(b"hello")
            with pytest.raises(OSError, match="Bad file descriptor"):
                await soon(waiting)
            assert heir.recv(10) == b"hello"

    run(main())


def test_a_loop_that_is_closed_while_an_operation_waits(loop: asyncio.AbstractEventLoop) -> None:
    """uvloop's test_socket_close_loop_and_close: the loop holds nothing open once it is closed."""
    ours, peer = tcp_pair()
    with peer:
        task = loop.create_task(loop.sock_recv(ours, 10))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        ours.close()
        assert ours.fileno() == -1
        assert peer.recv(1) == b""
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_loop_that_is_closed_meanwhile(loop: asyncio.AbstractEventLoop, loop_name: str) -> None:
    """Nothing is left open once the loop and its tasks are gone."""
    import gc

    before = open_descriptors()
    ours, peer = tcp_pair()
    with peer:
        task = loop.create_task(loop.sock_recv(ours, 10))
        loop.call_soon(loop.stop)
        loop.run_forever()
        ours.close()
        task.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert task.cancelled()
        del task
    loop.close()
    gc.collect()
    assert ours.fileno() == -1
    assert open_descriptors() <= before


@pytest.mark.usefixtures("leaving")
@pytest.mark.parametrize("name", ["sock_recv", "sock_recvfrom"])
@pytest.mark.parametrize("way", ["close", "throw"])
def test_a_coroutine_that_is_given_up_takes_nothing(
    run: Any, pair: tuple[socket.socket, socket.socket], name: str, way: str
) -> None:
    """Neither the descriptor nor what arrives later: the next one to ask gets it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = pair
        coroutine = getattr(loop, name)(ours, 10)
        coroutine.send(None)
        if way == "close":
            coroutine.close()
        else:
            with pytest.raises(LookupError):
                coroutine.throw(LookupError())
        peer.send(b"hello")
        await turns()
        assert await soon(loop.sock_recv(ours, 10)) == b"hello"
        ours.close()
        assert ours.fileno() == -1

    run(main())
