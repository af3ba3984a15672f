"""Servers behind balancers: hoop.ProxyProtocol, trap by trap (P1 to P12), on every kind of server.

The traps are those that others fell into with the PROXY protocol. What the parser must refuse is in
tests/c/test_proxy_header.c; here is what a server makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from pathlib import Path
from typing import Any

import hoop
import pytest
from conformance.peers import DEADLINE_S, LOCALHOST, listening, off_loop, read_exactly, soon, turns
from conformance.tls_peers import client_context, wrap_client, wrap_server
from hoop.proxy_protocol import encode
from limited import Clock, peers, run_with_clock, serving
from proxied import (
    DESTINATION,
    HEADERS,
    SOURCE,
    arrive,
    counts,
    every_header,
    every_kind,
    every_plain_kind,
    info,
    is_closed,
    proxied,
    until_active,
)

# ---- what a header does ----------------------------------------------------------------------------------------------


@every_kind
@every_header
def test_the_connection_is_the_client_s(kind: str, header: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            peer, connection = await arrive(served, header)
            with peers(peer):
                assert info(connection, "peername") == SOURCE
                assert info(connection, "sockname") == DESTINATION
                sock = info(connection, "socket")
                assert (sock.getpeername(), sock.getsockname()) == (SOURCE, DESTINATION)
                with sock.dup() as bare:
                    assert bare.getsockname() == peer.getpeername()
                assert info(connection, "proxy_peername") == ("" if "unix" in kind else peer.getsockname())
                shown = info(connection, "proxy_protocol")
                assert (shown.raw, shown.source, shown.destination) == (header, SOURCE, DESTINATION)
                peer.sendall(b"hello?")
                assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                assert connection.data == b"hello?"
                assert counts(served) == (0, 0, 0)
                assert served.stats().accepted == 1

    run_with_clock(main)


def test_ipv6_and_unix_sources() -> None:
    async def main(clock: Clock) -> None:
        async with proxied() as served:
            for source, shown in ((("2001:db8::1", 5), ("2001:db8::1", 5, 0, 0)), ("/run/client", "/run/client")):
                peer, connection = await arrive(served, encode(source, source))
                with peers(peer):
                    assert info(connection, "peername") == info(connection, "sockname") == shown

    run_with_clock(main)


def test_a_stream_server_and_asyncio_s_own() -> None:
    setting = hoop.ProxyProtocol(trusted=[LOCALHOST])
    seen = []

    async def serve(reader: Any, writer: Any) -> None:
        seen.append((writer.get_extra_info("peername"), await reader.readline()))
        writer.close()

    async def main() -> None:
        for start in (hoop.start_server, asyncio.start_server):
            async with await start(serve, LOCALHOST, 0, proxy_protocol=setting) as server:
                address = server.sockets[0].getsockname()
                reader, writer = await hoop.open_connection(*address, proxy_header=HEADERS["v1"])
                writer.write(b"line\n")
                assert await soon(reader.read()) == b""
                writer.close()

    hoop.run(main())
    assert seen == [(SOURCE, b"line\n")] * 2


# ---- the traps -------------------------------------------------------------------------------------------------------


@every_plain_kind
@pytest.mark.parametrize(
    "header",
    [
        encode(command="LOCAL"),
        HEADERS["v2"][:12] + b"\x20" + HEADERS["v2"][13:],  # LOCAL with a block of addresses, as AWS sends it
        encode(version=1),
        b"PROXY UNKNOWN 1 2 three\r\n",
    ],
)
def test_p1_local_and_unknown_keep_the_real_address(kind: str, header: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            peer, connection = await arrive(served, header + b"data")
            with peers(peer):
                real = ("", peer.getpeername()) if "unix" in kind else (peer.getsockname(), peer.getpeername())
                assert (info(connection, "peername"), info(connection, "sockname")) == real
                assert info(connection, "proxy_protocol").source is None
                await soon(served.until(lambda: connection.data == b"data"))

    run_with_clock(main)


def test_p2_unspecified_keeps_the_real_address_and_what_is_unknown_is_closed() -> None:
    def changed(at: int, byte: int) -> bytes:
        return HEADERS["v2"][:at] + bytes([byte]) + HEADERS["v2"][at + 1 :]

    async def main(clock: Clock) -> None:
        async with proxied() as served:
            for protocol in (0x00, 0x10, 0x12, 0x22):
                peer, connection = await arrive(served, changed(13, protocol))
                with peers(peer):
                    assert info(connection, "peername") == peer.getsockname()
            for bad in (changed(12, 0x31), changed(12, 0x11), changed(12, 0x22), changed(13, 0x41), changed(13, 0x13)):
                with served.connect() as peer:
                    peer.sendall(bad)
                    assert await is_closed(peer)
            assert counts(served) == (0, 5, 0)

    run_with_clock(main)


@every_kind
def test_p3_without_a_header_a_connection_is_closed(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            for _ in range(3):
                with served.connect() as peer:
                    peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    assert await is_closed(peer)
            assert counts(served) == (0, 3, 0)
            assert served.connections == []
            assert served.stats().active == 0

    with caplog.at_level(logging.WARNING, "asyncio"):
        run_with_clock(main)
    (message,) = [record.getMessage() for record in caplog.records if "PROXY" in record.getMessage()]
    assert "no PROXY header, it begins with b'GET / HTTP/1.1" in message


@every_header
def test_p3_without_the_setting_a_header_is_data(header: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with serving("tcp", None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                await off_loop(peer.sendall, header)
                await soon(served.until(lambda: connection.data == header))
                assert info(connection, "proxy_protocol") is None

    run_with_clock(main)


@pytest.mark.parametrize("version", [1, 2])
def test_p3_a_version_that_is_not_allowed_is_closed(version: int) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(versions=[version]) as served:
            with served.connect() as peer:
                peer.sendall(HEADERS["v2" if version == 1 else "v1"])
                assert await is_closed(peer)
            peer, _ = await arrive(served, HEADERS[f"v{version}"])
            peer.close()
            assert counts(served) == (0, 1, 0)

    run_with_clock(main)


@every_plain_kind
@every_header
def test_p4_a_second_header_is_data(kind: str, header: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            other = encode(("192.0.2.66", 1), DESTINATION)
            peer, connection = await arrive(served, header + other)
            with peers(peer):
                peer.sendall(other)
                await soon(served.until(lambda: connection.data == other * 2))
                assert info(connection, "peername") == SOURCE

    run_with_clock(main)


@pytest.mark.parametrize(
    "bad",
    [
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\n",
        b"PROXY TCP4 203.0.113.07 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 65536\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 04711 443\r\n",
        b"PROXY TCP6 203.0.113.7 198.51.100.1 4711 443\r\n",
        b"PROXY UNKNOWN " + bytes(200),
    ],
)
def test_p5_a_line_that_breaks_the_rules_is_closed(bad: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with proxied() as served:
            with served.connect() as peer:
                peer.sendall(bad + b"data\r\n")
                assert await is_closed(peer)
            assert counts(served) == (0, 1, 0)

    run_with_clock(main)


def test_p6_lengths_that_lie_and_wrong_checksums_are_closed() -> None:
    tlvs = HEADERS["v2-tlvs"]
    bad = [
        HEADERS["v2"][:15] + b"\x0b" + HEADERS["v2"][16:],
        HEADERS["v2"][:15] + b"\x0d" + HEADERS["v2"][16:] + b"\x04",
        tlvs[:-1] + bytes([tlvs[-1] ^ 1]),
        tlvs.replace(b"host", b"hosT"),
    ]

    async def main(clock: Clock) -> None:
        async with proxied() as served:
            for header in bad:
                with served.connect() as peer:
                    peer.sendall(header)
                    assert await is_closed(peer)
            assert counts(served) == (0, len(bad), 0)

    run_with_clock(main)


@every_kind
@every_header
def test_p7_byte_by_byte(kind: str, header: bytes) -> None:
    pieces = [header[:16], header[16:]] if len(header) > 1000 else [bytes([byte]) for byte in header]

    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            raw = served.connect()
            for piece in pieces:
                await off_loop(raw.sendall, piece)
                await turns()
            peer = await off_loop(functools.partial(wrap_client, raw)) if served.is_tls else raw
            with peers(peer):
                peer.sendall(b"hello?")
                assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                assert info(served.connections[0], "peername") == SOURCE

    run_with_clock(main)


@every_kind
@pytest.mark.parametrize("begun", [b"", b"P", HEADERS["v2"][:-1], HEADERS["v2-large"][:5000]])
def test_p7_silence_is_closed_in_time_and_counted(kind: str, begun: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind, header_timeout=4) as served:
            with served.connect() as peer:
                peer.sendall(begun)
                await soon(until_active(served))
                await clock.forward(3.9)
                assert served.stats().active == 1
                if begun:
                    peer.sendall(begun[-1:] if len(begun) > 1000 else b"")
                await clock.forward(0.2)
                assert await is_closed(peer)
                assert counts(served) == (0, 0, 1)
                assert served.stats().active == 0

    run_with_clock(main)


@every_plain_kind
@every_header
def test_p8_header_and_data_in_one_segment(kind: str, header: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            for wait in (False, True):  # the listener's own way, and by an Arrival
                data = bytes(range(256)) * 300 + b"?"
                count = len(served.connections)
                with served.connect() as peer:
                    if wait:
                        await soon(until_active(served))
                    await off_loop(peer.sendall, header + data)
                    assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                    assert served.connections[count].data == data

    run_with_clock(main)


@pytest.mark.parametrize("kind", ["tls", "tls-handles"])
@every_header
def test_p8_a_client_hello_right_behind_the_header(kind: str, header: bytes) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            host, port = served.address()
            reader, writer = await asyncio.open_connection(
                host, port, ssl=client_context(), server_hostname="localhost", proxy_header=header
            )
            writer.write(b"hello?")
            assert await soon(reader.readexactly(7)) == b"answer\n"
            assert info(served.connections[0], "peername") == SOURCE
            assert info(served.connections[0], "ssl_object") is not None
            writer.close()

    run_with_clock(main)


def test_p9_a_server_that_speaks_first_waits_for_the_header() -> None:
    made: list[Any] = []

    class Banner(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(transport.get_extra_info("peername"))
            transport.write(b"220 ready\r\n")

    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        server = await loop.create_server(
            Banner, LOCALHOST, 0, proxy_protocol=hoop.ProxyProtocol(trusted=["127.0.0.0/8"])
        )
        with socket.create_connection(server.sockets[0].getsockname(), DEADLINE_S) as peer:
            while server.stats().active == 0:
                await asyncio.sleep(0)
            await turns()
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            assert made == []
            peer.setblocking(True)
            peer.sendall(HEADERS["v1"])
            assert await off_loop(read_exactly, peer, 11) == b"220 ready\r\n"
            assert made == [SOURCE]
        server.close()

    run_with_clock(main)


@every_plain_kind
def test_p10_the_limit_per_host_is_about_clients_and_not_about_the_balancer(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind, hoop.Limits(max_connections_per_host=2)) as served:
            with contextlib.ExitStack() as open_peers:
                for number in range(20):  # all by one balancer
                    header = encode((f"203.0.113.{number // 2}", 1), DESTINATION)
                    open_peers.enter_context((await arrive(served, header))[0])
                for wait in (False, True):
                    peer = open_peers.enter_context(served.connect())
                    if wait:
                        await soon(until_active(served, 21))
                    peer.sendall(encode(("203.0.113.3", 2), DESTINATION))
                    assert await is_closed(peer)
                assert (served.stats().refused_per_host, served.stats().active) == (2, 20)
                served.connections[6].abort()
                await turns()
                open_peers.enter_context((await arrive(served, encode(("203.0.113.3", 3), DESTINATION)))[0])

    run_with_clock(main)


@every_plain_kind
def test_p10_a_connection_without_its_header_has_a_place(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind, hoop.Limits(max_connections=2)) as served:
            first, _ = await arrive(served, HEADERS["v1"])
            with peers(first), served.connect() as waiting:
                await soon(until_active(served, 2))
                with served.connect() as third:
                    third.sendall(HEADERS["v1"])
                    assert await is_closed(third)
                waiting.sendall(HEADERS["v1"])
                await soon(served.until(lambda: len(served.connections) == 2))
                assert served.stats().refused_full == 1

    run_with_clock(main)


def test_p10_a_full_server_that_waits_goes_on_when_a_header_does_not_come() -> None:
    async def main(clock: Clock) -> None:
        async with proxied("tcp", hoop.Limits(max_connections=1, when_full="wait"), header_timeout=4) as served:
            with served.connect() as silent, served.connect() as second:
                await soon(until_active(served))
                second.sendall(HEADERS["v2"])
                await turns()
                assert served.connections == []
                await clock.forward(4.1)
                await soon(served.until(lambda: len(served.connections) == 1))
                assert await is_closed(silent)

    run_with_clock(main)


def test_p11_an_untrusted_source_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.server_defaults.proxy_protocol = hoop.ProxyProtocol(trusted=["192.0.2.0/24"])
        async with serving("tcp", None) as served:
            with served.connect() as peer:
                peer.sendall(HEADERS["v1"])
                assert await is_closed(peer)
            assert counts(served) == (1, 0, 0)
            assert served.connections == []

    run_with_clock(main)
    assert "not one of the trusted networks" in caplog.text


def test_p11_an_untrusted_source_may_be_an_ordinary_client() -> None:
    async def main(clock: Clock) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.server_defaults.proxy_protocol = hoop.ProxyProtocol(trusted=["192.0.2.0/24"], untrusted="ignore")
        async with serving("tcp", None) as served:
            peer, connection = await served.peer()
            with peers(peer):
                peer.sendall(HEADERS["v1"])
                await soon(served.until(lambda: connection.data == HEADERS["v1"]))
                assert info(connection, "peername") == peer.getsockname()

    run_with_clock(main)


def test_p11_a_dual_stack_socket_knows_ipv4_sources() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        made: list[Any] = []
        server = loop.listen_tcp(made.append, None, 0, proxy_protocol=hoop.ProxyProtocol(trusted=["127.0.0.0/8"]))
        reader, writer = await hoop.open_connection(LOCALHOST, server.address[1], proxy_header=HEADERS["v2"])
        while not made:
            await asyncio.sleep(0)
        made[0].destroy()
        assert await soon(reader.read()) == b""
        writer.close()
        server.close()

    hoop.run(main())


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("is_deferring", [False, True])
def test_p12_header_and_first_bytes_leave_in_one_write(is_tls: bool, is_deferring: bool) -> None:
    """What one look at the socket finds is what one send(2) has brought, before TLS."""
    header = HEADERS["v2"]

    def accept(listener: socket.socket) -> bytes:
        raw, _ = listener.accept()
        raw.settimeout(DEADLINE_S)
        first = raw.recv(65536, socket.MSG_PEEK)
        assert raw.recv(len(header)) == header
        with wrap_server(raw) if is_tls else raw as sock:
            assert read_exactly(sock, 5) == b"first"
        return first

    async def main() -> None:
        with listening() as listener:
            accepting = asyncio.ensure_future(off_loop(accept, listener))
            tls: Any = {"ssl": client_context(), "server_hostname": "localhost"} if is_tls else {}
            _, writer = await hoop.open_connection(*listener.getsockname(), proxy_header=header, **tls)
            writer.write(b"first")
            first = await soon(accepting)
            assert first.startswith(header + (b"\x16\x03" if is_tls else b"first"))
            writer.close()

    with asyncio.Runner(loop_factory=lambda: hoop.Loop(defer_writes=is_deferring)) as runner:
        runner.run(main())


def test_p12_a_client_that_waits_has_sent_its_header() -> None:
    """Also where it pauses, ends its direction or closes at once."""
    header = HEADERS["v1"]

    class Client(asyncio.Protocol):
        def __init__(self, act: str) -> None:
            self.act = act

        def connection_made(self, transport: Any) -> None:
            if self.act:
                getattr(transport, self.act)()

    def accept(listener: socket.socket) -> bytes:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(DEADLINE_S)
            return read_exactly(sock, len(header))

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with listening() as listener:
            for act in ("", "pause_reading", "write_eof", "close"):
                accepting = asyncio.ensure_future(off_loop(accept, listener))
                transport, _ = await loop.create_connection(
                    functools.partial(Client, act), *listener.getsockname(), proxy_header=header
                )
                assert await soon(accepting) == header
                transport.close()

    hoop.run(main())


def test_p12_every_way_to_connect_sends_it(tmp_path: Path) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.server_defaults.proxy_protocol = hoop.ProxyProtocol(trusted=[LOCALHOST])
        sources: list[Any] = []
        arrived = asyncio.Event()

        def on_connection(handle: hoop.Socket) -> None:
            transport: Any = handle.transport
            sources.append(transport.get_extra_info("peername"))
            handle.destroy()
            arrived.set()

        servers = [loop.listen_tcp(on_connection), loop.listen_unix(on_connection, tmp_path / "socket")]
        header = HEADERS["v2"]
        host, port = servers[0].address
        path = servers[1].address
        raw = socket.create_connection((host, port))
        ways = [
            lambda: loop.create_connection(asyncio.Protocol, host, port, proxy_header=header),
            lambda: loop.create_connection(asyncio.Protocol, sock=raw, proxy_header=header),
            lambda: loop.create_unix_connection(asyncio.Protocol, path, proxy_header=header),
            lambda: hoop.open_unix_connection(path, proxy_header=header),
            lambda: loop.connect_tcp(host, port, proxy_header=header),
            lambda: loop.connect_unix(path, proxy_header=header),
        ]
        for way in ways:
            arrived.clear()
            made = way()
            if not isinstance(made, hoop.Socket):
                made = (await made)[-1]
            await soon(arrived.wait())
            if isinstance(made, hoop.StreamWriter):
                made.close()
        assert sources == [SOURCE] * len(ways)
        for server in servers:
            server.close()

    hoop.run(main())


@pytest.mark.parametrize("header", [b"", b"PROXY UNKNOWN", b"PROXY UNKNOWN\r\nx", b"GET / HTTP/1.1\r\n"])
def test_p12_what_is_no_header_is_refused(header: bytes) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="header"):
            await loop.create_connection(asyncio.Protocol, LOCALHOST, 1, proxy_header=header)
        with pytest.raises(ValueError, match="header"):
            await loop.create_unix_connection(asyncio.Protocol, "nowhere", proxy_header=header)
        with pytest.raises(TypeError, match="proxy_header must be bytes"):
            loop.connect_tcp(LOCALHOST, 1, proxy_header="PROXY UNKNOWN\r\n")

    hoop.run(main())
