"""loop.sendfile: files over transports. Traps 11 and 26 of the list of other loops' mistakes are named where tested."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from conformance.tls_peers import anonymous_tls
from peers import (
    MOST_IDLE_TURNS,
    BufferedRecorder,
    Clients,
    Recorder,
    address_of,
    closed,
    connected,
    idle_turns,
    off_loop,
    pattern,
    read_exactly,
    read_to_end,
    reset,
    soon,
    turns,
)

SIZE = 3_000_000
DATA = pattern(SIZE)


@pytest.fixture
def file() -> Iterator[Any]:
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()
        file.seek(0)
        yield file


async def sent(transport: Any, file: Any, *arguments: Any, **options: Any) -> int:
    return await soon(asyncio.get_running_loop().sendfile(transport, file, *arguments, **options))


def test_trap_26_a_whole_file(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder())
        with peer:
            receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
            assert await sent(transport, file) == SIZE
            assert file.tell() == SIZE
            transport.close()
            assert await receiving == DATA

    run(main())


def test_over_a_unix_socket(run: Any, file: Any) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_unix_connection(Recorder, sock=ours)
        with peer:
            receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
            assert await sent(transport, file, fallback=False) == SIZE
            transport.close()
            assert await receiving == DATA

    run(main())


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 10), (5, None), (1000, 2_000_000), (SIZE - 5, 100), (SIZE, None), (SIZE + 9, 5)]
)
@pytest.mark.parametrize("is_in_memory", [False, True], ids=["kernel", "fallback"])
def test_parts(run: Any, file: Any, offset: int, count: int | None, is_in_memory: bool) -> None:
    async def main() -> None:
        source = io.BytesIO(DATA) if is_in_memory else file
        expected = DATA[offset:] if count is None else DATA[offset : offset + count]
        transport, peer = await connected(Recorder())
        with peer:
            receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
            assert await sent(transport, source, offset, count) == len(expected)
            if expected or not isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
                assert source.tell() == offset + len(expected)  # std: only the newest releases, if nothing was sent
            transport.close()
            assert await receiving == expected

    run(main())


def test_trap_11_between_writes(run: Any, file: Any) -> None:
    """What was written before goes first, and what is written afterwards follows."""

    async def main() -> None:
        transport, peer = await connected(Recorder(), send_buffer=8192, receive_buffer=8192)
        with peer:
            receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
            head = pattern(500_000, seed=1)
            transport.write(head)
            assert await sent(transport, file, 100, 1_000_000) == 1_000_000
            transport.write(b"the end")
            transport.close()
            assert await receiving == head + DATA[100:1_000_100] + b"the end"

    run(main())


def test_files_in_a_row(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder())
        with peer:
            receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
            for number in range(50):
                transport.write(b"%d:" % number)
                assert await sent(transport, file, number, 1) == 1
            transport.close()
            expected = b"".join(b"%d:" % number + DATA[number : number + 1] for number in range(50))
            assert await receiving == expected

    run(main())


@pytest.mark.parametrize("count", [100_000, None])
def test_what_the_kernel_takes_at_once_takes_no_turn(run: Any, file: Any, loop_name: str, count: int | None) -> None:
    if loop_name == "asyncio":
        pytest.skip("asyncio looks in a second turn whether all is sent")

    async def main() -> None:
        transport, peer = await connected(Recorder(), send_buffer=400_000, receive_buffer=400_000)
        with peer:
            transport.write(b"head")
            sending = asyncio.get_running_loop().sendfile(transport, file, SIZE - 100_000, count)
            with pytest.raises(StopIteration) as ending:
                sending.send(None)
            assert ending.value.value == 100_000
            transport.close()
            assert await off_loop(read_to_end, peer) == b"head" + DATA[SIZE - 100_000 :]

    run(main())


def test_a_file_that_grows_meanwhile(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder(), send_buffer=8192, receive_buffer=8192)
        with peer:
            sending = asyncio.ensure_future(sent(transport, file))
            await turns()
            os.pwrite(file.fileno(), b"more", SIZE)
            assert not sending.done()
            assert await off_loop(read_exactly, peer, SIZE + 4) == DATA + b"more"
            assert await sending == SIZE + 4
            transport.close()

    run(main())


def test_nobody_writes_meanwhile(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder(), send_buffer=8192, receive_buffer=8192)
        with peer:
            sending = asyncio.ensure_future(sent(transport, file))
            await turns()
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(b"in between")
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.writelines([b"in", b"between"])
            with pytest.raises((RuntimeError, KeyError)):  # std: KeyError
                await sent(transport, file)
            assert await off_loop(read_exactly, peer, SIZE) == DATA
            assert await sending == SIZE
            transport.write(b"again")
            assert await off_loop(read_exactly, peer, 5) == b"again"
            transport.close()

    run(main())


def test_reading_is_paused_meanwhile(run: Any, file: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=8192, receive_buffer=8192)
        with peer:
            sending = asyncio.ensure_future(sent(transport, file))
            await turns()
            assert not transport.is_reading()
            peer.sendall(b"wait")
            await turns()
            assert protocol.data == b""
            await off_loop(read_exactly, peer, SIZE)
            await sending
            assert transport.is_reading()
            await protocol.until_received(4)
            transport.close()

    run(main())


def test_reading_that_was_paused_stays_so(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(BufferedRecorder())
        with peer:
            transport.pause_reading()
            await sent(transport, file, 0, 10)
            assert not transport.is_reading()
            transport.close()

    run(main())


def test_a_slow_receiver_does_not_spin_the_loop(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder(), send_buffer=8192, receive_buffer=8192)
        with peer:
            sending = asyncio.ensure_future(sent(transport, file))
            await turns()
            assert await idle_turns() <= MOST_IDLE_TURNS
            assert await off_loop(read_exactly, peer, SIZE) == DATA
            assert await sending == SIZE
            transport.close()

    run(main())


def test_eof_written_afterwards(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder(eof_received=lambda protocol: True))
        with peer:
            receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
            await sent(transport, file)
            transport.write_eof()
            assert await receiving == DATA
            transport.close()

    run(main())


# Errors


def test_a_peer_that_resets(run: Any, file: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=8192, receive_buffer=8192)
        sending = asyncio.ensure_future(sent(transport, file))
        await off_loop(read_exactly, peer, 1000)
        reset(peer)
        with pytest.raises(ConnectionError):
            await sending
        assert 0 < file.tell() < SIZE
        await protocol.until_lost()

    run(main())


def test_closed_while_sending(run: Any, file: Any, loop_name: str) -> None:
    async def main() -> None:
        for end in ("close", "abort"):
            protocol = Recorder()
            transport, peer = await connected(protocol, send_buffer=8192, receive_buffer=8192)
            with peer:
                sending = asyncio.ensure_future(sent(transport, file))
                await off_loop(read_exactly, peer, 1000)
                getattr(transport, end)()
                with pytest.raises(ConnectionError):
                    await sending
                assert await protocol.until_lost() is None
                assert protocol.count("connection_lost") == 1

    if loop_name == "asyncio":
        pytest.xfail("std: the call never returns")
    run(main())


def test_cancelled_while_sending(run: Any, file: Any, loop_name: str) -> None:
    """The connection goes on: how much was sent, the file's position tells."""

    async def main() -> None:
        transport, peer = await connected(Recorder(), send_buffer=8192, receive_buffer=8192)
        with peer:
            sending = asyncio.ensure_future(sent(transport, file))
            head = await off_loop(read_exactly, peer, 1000)
            await turns()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await turns()
            total = file.tell()
            assert 1000 <= total < SIZE
            transport.write(b"tail")
            transport.close()
            assert head + await off_loop(read_to_end, peer) == DATA[:total] + b"tail"

    if loop_name == "asyncio":
        pytest.xfail("std: the file's position is lost")
    run(main())


def test_a_closing_transport(run: Any, file: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder())
        transport.close()
        with peer, pytest.raises(RuntimeError, match="Transport is closing"):
            await sent(transport, file)

    run(main())


def test_a_transport_that_cannot(run: Any, file: Any) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        with open(reading, "rb", 0):
            transport, protocol = await asyncio.get_running_loop().connect_write_pipe(Recorder, open(writing, "wb", 0))
            with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
                await sent(transport, file)
            transport.close()
            await protocol.until_lost()

    run(main())


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [((-1,), ValueError), (("0",), TypeError), ((0, 0), ValueError), ((0, -5), ValueError), ((0, "1"), TypeError)],
)
def test_bad_arguments(run: Any, file: Any, arguments: tuple[Any, ...], kind: type[Exception]) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder())
        with peer:
            with pytest.raises(kind):
                await sent(transport, file, *arguments)
            transport.write(b"fine")
            assert await off_loop(read_exactly, peer, 4) == b"fine"
            transport.close()

    run(main())


def test_a_text_file(run: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder())
        with peer, tempfile.TemporaryFile("w+") as text, pytest.raises(ValueError, match="binary mode"):
            try:
                await sent(transport, text)
            finally:
                transport.close()

    run(main())


# Without the kernel's help


def test_fallback_refused(run: Any) -> None:
    async def main() -> None:
        transport, peer = await connected(Recorder())
        with peer:
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await sent(transport, io.BytesIO(DATA), fallback=False)
            transport.write(b"fine")
            assert await off_loop(read_exactly, peer, 4) == b"fine"
            transport.close()

    run(main())


def test_fallback_to_a_slow_receiver(run: Any, loop_name: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=8192, receive_buffer=8192)
        with peer:
            sending = asyncio.ensure_future(sent(transport, io.BytesIO(DATA)))
            await turns()
            assert transport.get_protocol() is not protocol
            assert transport.get_write_buffer_size() < 400_000
            receiving = asyncio.ensure_future(off_loop(read_to_end, peer))
            assert await sending == SIZE
            assert transport.get_protocol() is protocol
            transport.close()
            assert await receiving == DATA
            await protocol.until_lost()

    if loop_name == "asyncio" and sys.version_info >= (3, 12):
        pytest.xfail("std: reads the next block into the buffer that the transport still sends from")
    run(main())


def test_fallback_and_a_peer_that_resets(run: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await connected(protocol, send_buffer=8192, receive_buffer=8192)
        sending = asyncio.ensure_future(sent(transport, io.BytesIO(DATA * 3)))
        await off_loop(read_exactly, peer, 1000)
        reset(peer)
        with pytest.raises(ConnectionError):
            await sending
        await protocol.until_lost()

    run(main())


@pytest.mark.each_tls_engine
def test_over_tls(run: Any, file: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = Clients()
        server = await loop.create_server(clients, "127.0.0.1", 0, ssl=anonymous_tls(ssl.PROTOCOL_TLS_SERVER))
        host, port = address_of(server)
        transport, protocol = await loop.create_connection(
            Recorder, host, port, ssl=anonymous_tls(ssl.PROTOCOL_TLS_CLIENT)
        )
        with pytest.raises(RuntimeError, match="fallback is disabled"):
            await sent(transport, file, fallback=False)
        transport.write(b"before")
        assert await sent(transport, file) == SIZE
        transport.write(b"after")
        accepted = await clients.until_made()
        assert await accepted.until_received(SIZE + 11) == b"before" + DATA + b"after"
        transport.close()
        await protocol.until_lost()
        await accepted.until_lost()
        server.close()
        await closed(server)

    run(main())
