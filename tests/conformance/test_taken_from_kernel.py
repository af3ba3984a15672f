"""What a loop has taken from the kernel is shown, or left there for the next (the table in docs/architecture.md).

bun#33669: after close() in a handler the rest of a batch of recvmmsg(2) was shown, or gone, while a successor had the
socket.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import pytest
from conformance.datagrams import DatagramRecorder, endpoint, raw_udp
from conformance.peers import LOCALHOST, SETTLING_TURNS, BufferedRecorder, Recorder, read_to_end, soon, turns
from conformance.tls_peers import NAME, client_context, server_context

COUNT = 12
MUCH = 300 * 1024


def udp_socket() -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((LOCALHOST, 0))
    sock.setblocking(False)
    return sock


def close(transport: Any) -> None:
    transport.close()


def abort(transport: Any) -> None:
    transport.abort()


def pause_then_close(transport: Any) -> None:
    transport.pause_reading()
    asyncio.get_running_loop().call_soon(transport.close)


@pytest.mark.parametrize("give_up", [close, abort, pause_then_close])
@pytest.mark.parametrize("origin", ["handed in", "given out"])
def test_datagrams_that_were_not_shown_are_the_successors(run: Any, loop_name: str, give_up: Any, origin: str) -> None:
    if give_up is pause_then_close and loop_name == "asyncio":
        pytest.skip("asyncio's datagram transports cannot pause")

    async def main() -> None:
        successors: list[socket.socket] = []

        def first(protocol: DatagramRecorder, data: bytes, address: Any) -> None:
            if len(protocol.datagrams) == 3:
                give_up(protocol.transport)

        protocol = DatagramRecorder(datagram_received=first)
        if origin == "handed in":
            sock = udp_socket()
            successors.append(sock.dup())
            transport, _ = await endpoint(protocol, sock=sock)
        else:
            transport, _ = await endpoint(protocol, local_addr=(LOCALHOST, 0))
            successors.append(transport.get_extra_info("socket").dup())
        address = transport.get_extra_info("sockname")
        with raw_udp() as peer:
            for number in range(COUNT):
                peer.sendto(bytes([number]), address)
            await soon(protocol.until(lambda: ("connection_lost", None) in protocol.calls))
        heir, heirs = await endpoint(sock=successors[0])
        await soon(heirs.until_received(COUNT - 3))
        assert protocol.payloads == [bytes([number]) for number in range(3)]
        assert heirs.payloads == [bytes([number]) for number in range(3, COUNT)]
        heir.close()

    run(main())


def test_an_endpoints_datagrams_are_the_next_protocols(run: Any) -> None:
    async def main() -> None:
        second = DatagramRecorder()
        first = DatagramRecorder(datagram_received=lambda one, *_: one.transport.set_protocol(second))
        transport, _ = await endpoint(first, local_addr=(LOCALHOST, 0))
        with raw_udp() as peer:
            for number in range(COUNT):
                peer.sendto(bytes([number]), transport.get_extra_info("sockname"))
            await soon(second.until_received(COUNT - 1))
        assert first.payloads + second.payloads == [bytes([number]) for number in range(COUNT)]
        transport.close()

    run(main())


@pytest.mark.parametrize("give_up", [close, abort])
def test_bytes_that_were_not_shown_stay_in_the_socket(run: Any, give_up: Any) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        heir = ours.dup()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        protocol = Recorder(data_received=lambda one, data: give_up(one.transport))
        await loop.create_connection(lambda: protocol, sock=ours)
        sender = threading.Thread(target=lambda: (peer.sendall(pattern_of(MUCH)), peer.close()))
        sender.start()
        await soon(protocol.until(lambda: ("connection_lost", None) in protocol.calls))
        heir.setblocking(True)
        rest = await loop.run_in_executor(None, read_to_end, heir)
        sender.join()
        heir.close()
        assert sum(call[0] == "data_received" for call in protocol.calls) == 1
        assert bytes(protocol.data) + rest == pattern_of(MUCH)

    run(main())


def pattern_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251)


def test_bytes_of_a_pipe_that_were_not_shown_stay_in_it(run: Any) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        heir = os.dup(reading)
        loop = asyncio.get_running_loop()
        protocol = Recorder(data_received=lambda one, data: one.transport.close())
        await loop.connect_read_pipe(lambda: protocol, open(reading, "rb", 0))
        sender = threading.Thread(target=lambda: (write_all(writing, pattern_of(MUCH)), os.close(writing)))
        sender.start()
        await soon(protocol.until(lambda: ("connection_lost", None) in protocol.calls))
        os.set_blocking(heir, True)
        with open(heir, "rb", 0) as file:
            rest = await loop.run_in_executor(None, file.readall)
        sender.join()
        assert bytes(protocol.data) + (rest or b"") == pattern_of(MUCH)

    run(main())


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_bytes_go_to_the_protocol_that_is_there_when_they_are_shown(run: Any, tls: bool) -> None:
    async def main() -> None:
        second = Recorder()
        first = Recorder(data_received=lambda one, data: one.transport.set_protocol(second))
        await exchange(first, tls, second, 5)
        assert first.data + second.data == b"".join(PIECES)
        assert len(first.data) > 0

    run(main())


PIECES = [bytes([number]) * 120_000 for number in range(5)]  # more than one read takes


async def exchange(first: Any, tls: bool, last: Any, count: int) -> Any:
    """A client sends all pieces, each a record of TLS; until last has what first has not. The server's transport."""
    loop = asyncio.get_running_loop()
    options = {"ssl": server_context()} if tls else {}
    server = await loop.create_server(lambda: first, LOCALHOST, 0, **options)
    address = server.sockets[0].getsockname()
    client_options: dict[str, Any] = {"ssl": client_context(), "server_hostname": NAME} if tls else {}
    transport, _ = await loop.create_connection(Recorder, *address, **client_options)
    for piece in PIECES[:count]:
        transport.write(piece)
    total = sum(map(len, PIECES[:count]))
    if last is not first:
        await soon(last.until(lambda: len(first.data) + len(last.data) == total))
    else:
        await soon(first.until(lambda: len(first.data) > 0))
    server.close()
    return transport


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_paused_in_data_received_nothing_is_shown_and_nothing_lost(run: Any, tls: bool) -> None:
    async def main() -> None:
        protocol = Recorder(data_received=lambda one, data: one.transport.pause_reading())
        await exchange(protocol, tls, protocol, 5)
        shown = len(protocol.data)
        while shown < sum(map(len, PIECES)):
            await turns(SETTLING_TURNS)
            assert len(protocol.data) == shown
            protocol.transport.resume_reading()
            await soon(protocol.until(lambda: len(protocol.data) > shown))
            shown = len(protocol.data)
        assert protocol.data == b"".join(PIECES)

    run(main())


def test_connections_that_a_closing_server_has_not_served_are_its_successors(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = socket.create_server((LOCALHOST, 0), backlog=50)
        heir = sock.dup()
        served: list[Any] = []
        all_served = loop.create_future()
        servers: list[Any] = []

        class Serving(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                served.append(transport)
                if len(served) == 2:
                    servers[0].close()
                if len(served) == COUNT:
                    all_served.set_result(None)

        servers.append(await loop.create_server(Serving, sock=sock))
        clients = [socket.create_connection(heir.getsockname()) for _ in range(COUNT)]
        while servers[0].is_serving():
            await asyncio.sleep(0)
        servers.append(await loop.create_server(Serving, sock=heir))
        await soon(all_served)
        servers[1].close()
        for transport in served:
            transport.abort()
        for client in clients:
            client.close()

    run(main())


@pytest.mark.parametrize("end", ["writer closes", "peer resets"])
def test_a_reader_still_has_what_it_received(run: Any, end: str) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        peer.sendall(b"line\nrest")
        assert await soon(reader.readline()) == b"line\n"
        if end == "writer closes":
            writer.close()
            peer.close()
        else:
            peer.close()
            while not reader.at_eof() and not reader._eof:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
        assert await soon(reader.read()) == b"rest"
        writer.close()

    run(main())


def test_what_threads_have_finished_while_the_loop_stood_still_comes_when_it_runs(loop: Any) -> None:
    finished = threading.Event()
    future = loop.run_in_executor(None, lambda: (finished.set(), 42)[1])
    assert finished.wait(20)
    assert loop.run_until_complete(future) == 42
    loop.run_until_complete(loop.shutdown_default_executor())


@pytest.mark.each_tls_engine
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["plain", "TLS", "TLS, a small buffer"])
def test_an_interrupt_in_data_received_loses_nothing(loop: Any, loop_name: str, kind: str, interrupt: Any) -> None:
    """What came in the same read, and is decrypted or to be decrypted, must not wait for the peer's next bytes."""
    tls = kind != "plain"
    if tls and loop_name == "asyncio":
        pytest.skip("asyncio's ssl protocol shows the rest only when the peer sends again")
    raised: list[bool] = []
    data = PIECES[0][:30_000]  # so little that one read has it all

    def once(protocol: Any, _: Any) -> None:
        if not raised:
            raised.append(True)
            raise interrupt

    protocol: Any = Recorder(data_received=once)
    if kind == "TLS, a small buffer":
        protocol = BufferedRecorder(1000, buffer_updated=once)

    async def connect() -> Any:
        options = {"ssl": server_context()} if tls else {}
        server = await loop.create_server(lambda: protocol, LOCALHOST, 0, **options)
        client_options: dict[str, Any] = {"ssl": client_context(), "server_hostname": NAME} if tls else {}
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(Recorder, *address, **client_options)
        await soon(protocol.until(lambda: protocol.transport is not None))
        server.close()
        return transport

    transport = loop.run_until_complete(connect())
    transport.write(data)
    with pytest.raises(interrupt):
        loop.run_until_complete(soon(protocol.until(lambda: ("never",) in protocol.calls)))
    loop.run_until_complete(soon(protocol.until(lambda: protocol.data == data)))
    transport.close()
    loop.run_until_complete(soon(protocol.until(lambda: ("connection_lost", None) in protocol.calls)))
    assert protocol.data == data
