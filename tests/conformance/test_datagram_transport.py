"""Datagrams in and out: trap 27, order, errors that the endpoint survives, watermarks, close and abort."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import socket
import sys
import weakref
from typing import Any

import pytest
from conformance.datagrams import DatagramRecorder, endpoint, raw_udp
from conformance.peers import LOCALHOST, MOST_IDLE_TURNS, HandlerLog, context_keys, idle_turns, off_loop, pattern, turns


def closed_port() -> tuple[str, int]:
    with raw_udp() as sock:
        return sock.getsockname()


async def ended(transport: Any, protocol: DatagramRecorder) -> None:
    transport.close()
    await protocol.until_lost()
    assert protocol.names[0] == "connection_made" and protocol.names[-1] == "connection_lost"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_data_and_exact_bytes(run: Any, kind: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
            for size in (1, 1472, 1473, 9000, 65507):
                data = pattern(size, seed=size)
                transport.sendto(kind(data), peer.getsockname())
                received, sender = await off_loop(peer.recvfrom, 70000)
                assert received == data
                peer.sendto(data, sender)
                await protocol.until(lambda data=data: protocol.payloads[-1:] == [data])
                assert type(protocol.payloads[-1]) is bytes
            await ended(transport, protocol)

    run(main())


def test_wrong_kinds_of_data(run: Any) -> None:
    async def main() -> None:
        transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
        for wrong in ("text", 5, None, [b"x"]):
            with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
                transport.sendto(wrong, (LOCALHOST, 9))
        assert not transport.is_closing()
        await ended(transport, protocol)

    run(main())


def test_trap_27_empty_datagrams_are_received(run: Any) -> None:
    async def main() -> None:
        transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
        with raw_udp() as peer:
            for data in (b"", b"x", b""):
                peer.sendto(data, transport.get_extra_info("sockname"))
            await protocol.until_received(3)
            assert protocol.datagrams == [(data, peer.getsockname()) for data in (b"", b"x", b"")]
        await ended(transport, protocol)

    run(main())


def test_trap_27_empty_datagrams_are_sent(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio" and sys.version_info < (3, 13):
        pytest.skip("std drops them before 3.13")

    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
            transport.sendto(b"", peer.getsockname())
            transport.sendto(b"after", peer.getsockname())
            assert await off_loop(peer.recv, 10) == b""
            assert await off_loop(peer.recv, 10) == b"after"
            await ended(transport, protocol)

    run(main())


def test_trap_27_bursts_arrive_in_order_with_their_senders(run: Any) -> None:
    async def main() -> None:
        transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
        address = transport.get_extra_info("sockname")
        peers = [raw_udp() for _ in range(40)]  # more than any cache of addresses holds
        expected = []
        for number in range(100):
            peer = peers[number * 7 % len(peers)]
            peer.sendto(b"%d" % number, address)
            expected.append((b"%d" % number, peer.getsockname()))
        await protocol.until_received(len(expected))
        assert protocol.datagrams == expected
        for data, sender in expected:
            transport.sendto(b"re " + data, sender)
        for number in range(100):
            assert await off_loop(peers[number * 7 % len(peers)].recv, 20) == b"re %d" % number
        for peer in peers:
            peer.close()
        await ended(transport, protocol)

    run(main())


def test_target_can_be_a_name_or_a_short_form(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            port = peer.getsockname()[1]
            transport, protocol = await endpoint(local_addr=(LOCALHOST, 0), family=socket.AF_INET)
            for host in ("localhost", "127.1", LOCALHOST):
                transport.sendto(host.encode(), (host, port))
                assert await off_loop(peer.recv, 20) == host.encode()
            assert protocol.names == ["connection_made"]
            await ended(transport, protocol)

    run(main())


@pytest.mark.parametrize("address", [("256.0.0.1.nowhere.invalid", 5), None, "text", (LOCALHOST,), (LOCALHOST, "80")])
def test_impossible_targets(run: Any, address: Any) -> None:
    """An OSError is told and survived; an address of a wrong type ends the endpoint."""

    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
        transport.sendto(b"x", address)
        if isinstance(address, tuple) and address[0] != LOCALHOST:
            assert protocol.count("error_received") == 1 and log == []
            await ended(transport, protocol)
        else:
            assert isinstance(await protocol.until_lost(), TypeError)
            assert context_keys(log[0]) == {"message", "exception", "transport", "protocol"}
            assert log[0]["message"] == "Fatal write error on datagram transport"

    run(main())


def test_trap_27_a_failed_send_is_told_and_survived(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
            transport.sendto(bytes(70000), peer.getsockname())  # no datagram is that long
            (call,) = protocol.calls[1:]
            assert call[0] == "error_received" and isinstance(call[1], OSError)
            transport.sendto(b"next", peer.getsockname())
            assert await off_loop(peer.recv, 10) == b"next"
            await ended(transport, protocol)

    run(main())


def test_trap_27_icmp_refusal_is_told_and_survived(run: Any) -> None:
    async def main() -> None:
        address = closed_port()
        transport, protocol = await endpoint(remote_addr=address)
        transport.sendto(b"anybody?")
        await protocol.until_called("error_received")
        assert isinstance(protocol.calls[1][1], ConnectionRefusedError)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            late.settimeout(20)
            late.bind(address)
            transport.sendto(b"now?")
            _, sender = await off_loop(late.recvfrom, 10)
            late.sendto(b"yes", sender)
            await protocol.until_received(1)
            assert protocol.datagrams == [(b"yes", address)]
        await ended(transport, protocol)

    run(main())


def test_another_address_on_a_connected_endpoint(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(remote_addr=peer.getsockname())
            with pytest.raises(ValueError, match=r"Invalid address: must be None or \('127.0.0.1', "):
                transport.sendto(b"x", (LOCALHOST, 9))
            assert not transport.is_closing()
            await ended(transport, protocol)

    run(main())


def test_exceptions_in_callbacks_are_reported_and_survived(run: Any) -> None:
    async def main() -> None:
        def fail(protocol: Any, *_: Any) -> None:
            raise ZeroDivisionError

        log = HandlerLog(asyncio.get_running_loop())
        transport, protocol = await endpoint(DatagramRecorder(datagram_received=fail), local_addr=(LOCALHOST, 0))
        with raw_udp() as peer:
            for number in range(3):
                peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
            await protocol.until_received(3)
        await turns()
        assert protocol.payloads == [b"0", b"1", b"2"]
        assert [context_keys(context) for context in log] == [{"message", "exception", "handle"}] * 3
        await ended(transport, protocol)

    run(main())


def test_callbacks_run_in_the_context_of_the_endpoint(run: Any, loop_name: str) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        seen = []
        variable.set("maker")
        hooks = {
            name: (lambda *_, name=name: seen.append((name, variable.get())))
            for name in ("connection_made", "datagram_received", "connection_lost")
        }
        transport, protocol = await endpoint(DatagramRecorder(**hooks), local_addr=(LOCALHOST, 0))
        variable.set("later")
        with raw_udp() as peer:
            peer.sendto(b"x", transport.get_extra_info("sockname"))
            await protocol.until_received(1)
        await ended(transport, protocol)
        assert seen[:2] == [("connection_made", "maker"), ("datagram_received", "maker")]
        if loop_name == "hoop":  # std: connection_lost runs in the context of whoever called close()
            assert seen[2:] == [("connection_lost", "maker")]

    run(main())


# Watermarks


async def fill(transport: Any, size: int = 1000, *, beyond: int = 0) -> list[bytes]:
    """Send until more than `beyond` bytes are refused."""
    sent = []
    while transport.get_write_buffer_size() <= beyond:
        sent.append(pattern(size, seed=len(sent)))
        transport.sendto(sent[-1])
    return sent


def connected_unix(tmp_path: Any) -> tuple[str, socket.socket]:
    """A path and the blocking raw socket bound to it: with UNIX sockets the sender has to wait for the receiver."""
    path = str(tmp_path / "peer")
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.bind(path)
    peer.settimeout(20)
    return path, peer


def test_trap_27_what_the_kernel_refuses_is_sent_later_in_order(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path, peer = connected_unix(tmp_path)
        transport, protocol = await endpoint(remote_addr=path, family=socket.AF_UNIX)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        sent = await fill(transport)
        assert protocol.names == ["connection_made"]
        sent += await fill(transport, beyond=70_000)
        assert protocol.names == ["connection_made", "pause_writing"]
        received = await off_loop(lambda: [peer.recv(2000) for _ in sent])
        assert received == sent
        await protocol.until_called("resume_writing")
        assert protocol.names == ["connection_made", "pause_writing", "resume_writing"]
        await ended(transport, protocol)
        peer.close()

    run(main())


def test_data_that_waits_is_a_copy(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path, peer = connected_unix(tmp_path)
        transport, protocol = await endpoint(remote_addr=path, family=socket.AF_UNIX)
        sent = await fill(transport)
        data = bytearray(b"before")
        transport.sendto(data)
        data[:] = b"after!"
        received = await off_loop(lambda: [peer.recv(2000) for _ in range(len(sent) + 1)])
        assert received[-1] == b"before"
        await ended(transport, protocol)
        peer.close()

    run(main())


def test_close_delivers_what_waits(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path, peer = connected_unix(tmp_path)
        transport, protocol = await endpoint(remote_addr=path, family=socket.AF_UNIX)
        sent = await fill(transport, beyond=20_000)
        transport.close()
        await turns()
        assert protocol.names == ["connection_made"]
        received = await off_loop(lambda: [peer.recv(2000) for _ in sent])
        assert received == sent
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_abort_drops_what_waits(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path, peer = connected_unix(tmp_path)
        transport, protocol = await endpoint(remote_addr=path, family=socket.AF_UNIX)
        await fill(transport, beyond=20_000)
        transport.abort()
        assert await protocol.until_lost() is None
        assert protocol.names == ["connection_made", "connection_lost"]
        peer.close()

    run(main())


def test_peer_that_goes_while_datagrams_wait(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path, peer = connected_unix(tmp_path)
        transport, protocol = await endpoint(remote_addr=path, family=socket.AF_UNIX)
        await fill(transport, beyond=3000)
        peer.close()
        await protocol.until_called("error_received", times=3)  # one for each that waited, and more than 3000 bytes did
        assert not transport.is_closing()
        await ended(transport, protocol)

    run(main())


def test_a_full_receiver_costs_no_processor_time(run: Any, loop_name: str, tmp_path: Any) -> None:
    if loop_name == "asyncio":
        pytest.skip("std asks again and again, since the unconnected socket itself is writable")

    async def main() -> None:
        path, peer = connected_unix(tmp_path)
        transport, protocol = await endpoint(family=socket.AF_UNIX)
        sent = 0
        while transport.get_write_buffer_size() == 0:
            transport.sendto(b"%d" % sent, path)
            sent += 1
        assert await idle_turns() <= MOST_IDLE_TURNS
        received = await off_loop(lambda: [peer.recv(2000) for _ in range(sent)])
        assert received == [b"%d" % number for number in range(sent)]
        await ended(transport, protocol)
        peer.close()

    run(main())


# Pausing, closing


@pytest.mark.usefixtures("can_pause_anywhere")
def test_trap_27_nothing_is_dropped_while_reading_is_paused(run: Any) -> None:
    async def main() -> None:
        def pause(protocol: DatagramRecorder, *_: Any) -> None:
            if len(protocol.datagrams) == 2:
                protocol.transport.pause_reading()

        transport, protocol = await endpoint(DatagramRecorder(datagram_received=pause), local_addr=(LOCALHOST, 0))
        expected = [b"%d" % number for number in range(30)]
        with raw_udp() as peer:
            for data in expected[:20]:
                peer.sendto(data, transport.get_extra_info("sockname"))
            await protocol.until_received(2)
            await turns()
            assert protocol.payloads == expected[:2] and not transport.is_reading()
            for data in expected[20:]:
                peer.sendto(data, transport.get_extra_info("sockname"))
            transport.resume_reading()
            await protocol.until_received(len(expected))
        assert protocol.payloads == expected
        await ended(transport, protocol)

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_nothing_is_received_after_the_end(run: Any, end: str) -> None:
    async def main() -> None:
        def finish(protocol: DatagramRecorder, *_: Any) -> None:
            getattr(protocol.transport, end)()

        transport, protocol = await endpoint(DatagramRecorder(datagram_received=finish), local_addr=(LOCALHOST, 0))
        with raw_udp() as peer:
            for number in range(5):
                peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
            await protocol.until_lost()
        await turns()
        assert protocol.names == ["connection_made", "datagram_received", "connection_lost"]
        assert protocol.payloads == [b"0"]

    run(main())


def test_trap_27_sendto_after_close_is_dropped_with_a_warning(run: Any, caplog: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(remote_addr=peer.getsockname())
            await ended(transport, protocol)
            with caplog.at_level(logging.WARNING, "asyncio"):
                for _ in range(4):
                    transport.sendto(b"late")
                assert caplog.records == []
                for _ in range(4):
                    transport.sendto(b"late")
            assert {record.message for record in caplog.records} == {"socket.send() raised exception."}
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(10)

    run(main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_trap_27_an_endpoint_without_an_address_sends_until_connection_lost(run: Any, end: str) -> None:
    async def main() -> None:
        def answer(protocol: DatagramRecorder, data: bytes, addr: Any) -> None:
            getattr(protocol.transport, end)()
            protocol.transport.sendto(b"goodbye", addr)
            protocol.transport.sendto(bytes(70_000), addr)

        transport, protocol = await endpoint(DatagramRecorder(datagram_received=answer), local_addr=(LOCALHOST, 0))
        with raw_udp() as peer:
            peer.sendto(b"hello", transport.get_extra_info("sockname"))
            assert await protocol.until_lost() is None
            assert await off_loop(peer.recv, 100) == b"goodbye"
        assert protocol.names == ["connection_made", "datagram_received", "error_received", "connection_lost"]

    run(main())


def test_trap_27_what_is_sent_while_close_waits_for_room_is_sent_too(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path, peer = connected_unix(tmp_path)
        transport, protocol = await endpoint(remote_addr=path, family=socket.AF_UNIX)
        sent = 0
        while transport.get_write_buffer_size() == 0:
            transport.sendto(b"%d" % sent)
            sent += 1
        transport.close()
        transport.sendto(b"%d" % sent)
        assert protocol.count("connection_lost") == 0
        received = await off_loop(lambda: [peer.recv(2000) for _ in range(sent + 1)])
        assert received == [b"%d" % number for number in range(sent + 1)]
        assert await protocol.until_lost() is None
        peer.close()

    run(main())


def test_collected_endpoint_warns_and_closes(loop_factory: Any) -> None:
    loop = loop_factory()
    protocol = asyncio.DatagramProtocol
    transport, _ = loop.run_until_complete(loop.create_datagram_endpoint(protocol, local_addr=(LOCALHOST, 0)))
    address = transport.get_extra_info("sockname")
    reference = weakref.ref(transport)
    loop.close()
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, _, loop
        gc.collect()
    assert reference() is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(address)  # the port is free again


def test_trap_30_keyboard_interrupt_leaves_the_loop_and_loses_nothing(loop: Any) -> None:
    async def make() -> Any:
        def interrupt(protocol: DatagramRecorder, *_: Any) -> None:
            if len(protocol.datagrams) == 2:
                raise KeyboardInterrupt

        return await endpoint(DatagramRecorder(datagram_received=interrupt), local_addr=(LOCALHOST, 0))

    transport, protocol = loop.run_until_complete(make())
    with raw_udp() as peer:
        for number in range(6):
            peer.sendto(b"%d" % number, transport.get_extra_info("sockname"))
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(protocol.until_received(6))
    assert protocol.payloads == [b"%d" % number for number in range(6)]
    loop.run_until_complete(ended(transport, protocol))
