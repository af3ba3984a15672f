"""create_datagram_endpoint: addresses, options, sockets handed in. Trap 27 for what is not set silently."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import warnings
from typing import Any

import pytest
from conformance.datagrams import DatagramRecorder, endpoint, raw_udp
from conformance.peers import LOCALHOST, has_ipv6_loopback, off_loop, open_descriptors


def test_bound_endpoint(run: Any, loop_name: str) -> None:
    async def main() -> None:
        transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
        assert protocol.calls == [("connection_made", transport)]
        if loop_name == "hoop" or sys.version_info >= (3, 13):  # std: only since then
            assert isinstance(transport, asyncio.DatagramTransport) and isinstance(transport, asyncio.Transport)
        host, port = transport.get_extra_info("sockname")
        assert host == LOCALHOST and port > 0
        assert transport.get_extra_info("peername", "default") is None
        sock = transport.get_extra_info("socket")
        assert sock.getsockname() == (host, port)
        assert sock.type == socket.SOCK_DGRAM and sock.gettimeout() == 0
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport.get_protocol() is protocol
        assert not transport.is_closing()
        transport.close()
        assert transport.is_closing()
        assert await protocol.until_lost() is None
        assert sock.fileno() == -1

    run(main())


def test_connected_endpoint(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(remote_addr=peer.getsockname())
            assert transport.get_extra_info("peername") == peer.getsockname()
            transport.sendto(b"one")
            transport.sendto(b"two", peer.getsockname())
            assert await off_loop(peer.recv, 10) == b"one"
            data, sender = await off_loop(peer.recvfrom, 10)
            assert (data, sender) == (b"two", transport.get_extra_info("sockname"))
            transport.close()
            await protocol.until_lost()

    run(main())


def test_family_alone_is_enough(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            transport, protocol = await endpoint(family=socket.AF_INET)
            transport.sendto(b"unbound", peer.getsockname())
            assert await off_loop(peer.recv, 10) == b"unbound"
            transport.close()
            await protocol.until_lost()

    run(main())


@pytest.mark.skipif(not has_ipv6_loopback(), reason="no IPv6")
@pytest.mark.parametrize("target", ["tuple of two", "tuple of four"])
def test_ipv6(run: Any, target: str) -> None:
    async def main() -> None:
        transport, protocol = await endpoint(local_addr=("::1", 0))
        other, answering = await endpoint(local_addr=("::1", 0))
        address = transport.get_extra_info("sockname")
        assert len(address) == 4
        other.sendto(b"x", address[:2] if target == "tuple of two" else address)
        await protocol.until_received(1)
        assert protocol.datagrams == [(b"x", other.get_extra_info("sockname"))]
        transport.sendto(b"y", protocol.datagrams[0][1])
        await answering.until_received(1)
        assert answering.datagrams == [(b"y", address)]
        for each, its in ((transport, protocol), (other, answering)):
            each.close()
            await its.until_lost()

    run(main())


def test_socket_handed_in(run: Any) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((LOCALHOST, 0))
        address = sock.getsockname()
        transport, protocol = await endpoint(sock=sock)
        assert transport.get_extra_info("sockname") == address
        with raw_udp() as peer:
            peer.sendto(b"hello", address)
            await protocol.until_received(1)
            assert protocol.datagrams == [(b"hello", peer.getsockname())]
        transport.close()
        await protocol.until_lost()
        assert sock.fileno() == -1

    run(main())


def test_connected_socket_handed_in_sends_to_its_peer(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect(peer.getsockname())
            transport, protocol = await endpoint(sock=sock)
            transport.sendto(b"hello")
            assert await off_loop(peer.recv, 10) == b"hello"
            transport.close()
            await protocol.until_lost()

    run(main())


def test_what_does_not_go_together(run: Any) -> None:
    async def main() -> None:
        gc.collect()  # what earlier tests left behind
        before = open_descriptors()
        with pytest.raises(ValueError, match="unexpected address family"):
            await endpoint()
        with pytest.raises(ValueError, match="can not get address information"):
            await endpoint(local_addr=(LOCALHOST, 0), remote_addr=("::1", 1))
        for wrong in (LOCALHOST, (LOCALHOST,), [LOCALHOST, 0], (LOCALHOST, 0, 0, 0)):
            with pytest.raises(TypeError, match="2-tuple is expected"):
                await endpoint(local_addr=wrong)
        with pytest.raises(TypeError, match="string is expected"):
            await endpoint(family=socket.AF_UNIX, local_addr=b"/nowhere")
        with pytest.raises(TypeError, match="reuse_address"):
            await endpoint(local_addr=(LOCALHOST, 0), reuse_address=True)
        with socket.socket() as stream, pytest.raises(ValueError, match="ocket was expected"):
            await endpoint(sock=stream)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match=r"socket modifier .* \(local_addr=\('127.0.0.1', 0\), flags=1\)"):
                await endpoint(sock=sock, local_addr=(LOCALHOST, 0), flags=1)
            with pytest.raises(ValueError, match="reuse_port=True, allow_broadcast=True"):
                await endpoint(sock=sock, reuse_port=True, allow_broadcast=True)
        assert open_descriptors() == before

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="a kind of socket that only Linux has")
def test_which_types_of_socket_are_datagram_sockets(run: Any) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            if sys.version_info < (3, 13):
                with pytest.raises(ValueError, match="A UDP Socket was expected"):
                    await endpoint(sock=ours)
                return
            transport, protocol = await endpoint(sock=ours)
            theirs.send(b"packet")
            await protocol.until_received(1)
            assert protocol.datagrams[0][0] == b"packet"
            transport.close()
            await protocol.until_lost()

    run(main())


def test_bind_failure_is_told_and_leaves_nothing(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as taken:
            before = open_descriptors()
            with pytest.raises(OSError, match="in use"):
                await endpoint(local_addr=taken.getsockname())
            assert open_descriptors() == before

    run(main())


def test_trap_27_reuse_address_is_not_set_silently(run: Any) -> None:
    async def main() -> None:
        transport, protocol = await endpoint(local_addr=(LOCALHOST, 0))
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        transport.close()
        await protocol.until_lost()

    run(main())


def test_reuse_port(run: Any) -> None:
    async def main() -> None:
        first, its = await endpoint(local_addr=(LOCALHOST, 0), reuse_port=True)
        second, others = await endpoint(local_addr=first.get_extra_info("sockname"), reuse_port=True)
        assert second.get_extra_info("sockname") == first.get_extra_info("sockname")
        for transport, protocol in ((first, its), (second, others)):
            transport.close()
            await protocol.until_lost()

    run(main())


def test_allow_broadcast_leaves_the_socket_unconnected(run: Any) -> None:
    async def main() -> None:
        with raw_udp() as peer, raw_udp() as stranger:
            transport, protocol = await endpoint(
                local_addr=(LOCALHOST, 0), remote_addr=peer.getsockname(), allow_broadcast=True
            )
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) != 0
            assert transport.get_extra_info("peername") is None
            transport.sendto(b"to the peer")
            assert await off_loop(peer.recv, 20) == b"to the peer"
            with pytest.raises(ValueError, match="Invalid address: must be None or"):
                transport.sendto(b"no", stranger.getsockname())
            stranger.sendto(b"from anybody", sock.getsockname())
            await protocol.until_received(1)
            assert protocol.datagrams == [(b"from anybody", stranger.getsockname())]
            transport.close()
            await protocol.until_lost()

    run(main())


def test_host_names_are_resolved(run: Any) -> None:
    async def main() -> None:
        transport, protocol = await endpoint(local_addr=("localhost", 0), family=socket.AF_INET)
        assert transport.get_extra_info("sockname")[0] == LOCALHOST
        transport.close()
        await protocol.until_lost()

    run(main())


def test_factory_and_connection_made_that_raise(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reported: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reported.append(context))

        def refuse(protocol: Any, transport: Any) -> None:
            raise RuntimeError("connection_made")

        protocol = DatagramRecorder(connection_made=refuse)
        transport, _ = await endpoint(protocol, local_addr=(LOCALHOST, 0))
        assert [str(context["exception"]) for context in reported] == ["connection_made"]
        with raw_udp() as peer:
            peer.sendto(b"still there", transport.get_extra_info("sockname"))
            await protocol.until_received(1)
        transport.close()
        await protocol.until_lost()

    run(main())


def test_factory_that_raises_leaves_only_the_socket_handed_in(run: Any) -> None:
    class Refused(Exception):
        pass

    def refuse() -> Any:
        raise Refused

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with raw_udp() as ours:
            before = open_descriptors()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # std leaves its socket to the collector
                for arguments in ({"local_addr": (LOCALHOST, 0)}, {"sock": ours}):
                    with pytest.raises(Refused):
                        await loop.create_datagram_endpoint(refuse, **arguments)
                gc.collect()
            assert open_descriptors() == before
            assert ours.fileno() >= 0

    run(main())


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")  # asyncio leaves it to the collector
def test_factory_that_returns_nothing(run: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = open_descriptors()
        with pytest.raises(AttributeError, match="connection_made"):
            await loop.create_datagram_endpoint(lambda: None, (LOCALHOST, 0))
        gc.collect()
        assert open_descriptors() == before

    run(main())


def test_hoop_closes_its_socket_at_once_when_the_factory_raises(run: Any, loop_name: str) -> None:
    if loop_name != "hoop":
        pytest.skip("std leaves its socket to the collector")
    opened: list[set[int]] = []

    def refuse() -> Any:
        opened.append(open_descriptors())
        raise LookupError

    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(LookupError) as info:
            await asyncio.get_running_loop().create_datagram_endpoint(refuse, (LOCALHOST, 0))
        assert len(opened[0]) == len(before) + 1
        assert info.value is not None and open_descriptors() == before  # although the traceback is held

    run(main())


# UNIX


def test_trap_27_unix_paths(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
        transport, protocol = await endpoint(local_addr=ours, family=socket.AF_UNIX)
        other, others = await endpoint(local_addr=theirs, remote_addr=ours, family=socket.AF_UNIX)
        assert transport.get_extra_info("sockname") == ours
        assert other.get_extra_info("peername") == ours
        other.sendto(b"question")
        await protocol.until_received(1)
        assert protocol.datagrams == [(b"question", theirs)]
        transport.sendto(b"answer", theirs)
        transport.sendto(b"", theirs.encode())
        await others.until_received(1)
        assert others.datagrams[0] == (b"answer", ours)
        for each, its in ((transport, protocol), (other, others)):
            each.close()
            await its.until_lost()

    run(main())


def test_unix_sender_without_a_name(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        transport, protocol = await endpoint(local_addr=path, family=socket.AF_UNIX)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"who?", path)
            await protocol.until_received(1)
        assert protocol.datagrams == [(b"who?", None)]
        transport.close()
        await protocol.until_lost()

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_unix_abstract_names(run: Any) -> None:
    async def main() -> None:
        name = f"\0hoop-test-{os.getpid()}-{id(object())}"
        transport, protocol = await endpoint(local_addr=name, family=socket.AF_UNIX)
        assert transport.get_extra_info("sockname") == name.encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(name + "-peer")
            peer.sendto(b"x", name)
            await protocol.until_received(1)
            assert protocol.datagrams == [(b"x", (name + "-peer").encode())]
            transport.sendto(b"back", protocol.datagrams[0][1])
            assert await off_loop(peer.recv, 10) == b"back"
        transport.close()
        await protocol.until_lost()

    run(main())


def test_unix_stale_socket_is_removed_and_other_files_are_not(run: Any, tmp_path: Any) -> None:
    async def main() -> None:
        path = str(tmp_path / "stale")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as former:
            former.bind(path)
        transport, protocol = await endpoint(local_addr=path, family=socket.AF_UNIX)
        transport.close()
        await protocol.until_lost()
        file = tmp_path / "file"
        file.write_text("keep")
        with pytest.raises(OSError, match="in use"):
            await endpoint(local_addr=str(file), family=socket.AF_UNIX)
        assert file.read_text() == "keep"

    run(main())


def test_unix_peer_without_a_name(run: Any, loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("std takes the nameless peer for none, and ends the endpoint with a TypeError")

    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.settimeout(20)
        transport, protocol = await endpoint(sock=ours)
        transport.sendto(b"hello")
        assert await off_loop(theirs.recv, 10) == b"hello"
        transport.close()
        theirs.close()
        await protocol.until_lost()

    run(main())


def test_large_unix_datagram_is_whole(run: Any) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        transport, protocol = await endpoint(sock=ours)
        data = os.urandom(100_000)
        theirs.send(data)
        await protocol.until_received(1)
        assert protocol.datagrams == [(data, None)]
        transport.close()
        theirs.close()
        await protocol.until_lost()

    run(main())
