"""The TLS handshake: names, certificates, SNI, ALPN, sessions, and peers that do not play by the rules."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
from conformance.peers import (
    LOCALHOST,
    Clients,
    HandlerLog,
    Recorder,
    accept_one,
    address_of,
    dial,
    echo,
    listening,
    off_loop,
    open_descriptors,
    read_until_gone,
    reset,
    soon,
    tcp_pair,
    turns,
)
from conformance.tls_peers import (
    NAME,
    OTHER_NAME,
    all_closed,
    certificate,
    client_context,
    dial_tls,
    read_tls_exactly,
    say_goodbye,
    server_context,
    tls_client,
    tls_connected,
    tls_server,
    trusting_context,
    untrusted_certificate,
    wrap_client,
    wrap_server,
)

pytestmark = pytest.mark.each_tls_engine

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_trap_18_extra_info_of_a_client(run: Any, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        protocol = Recorder()
        context = client_context(version=version)
        transport, peer = await tls_connected(protocol, context=context)
        assert protocol.names == ["connection_made"]
        assert protocol.transport is transport
        assert isinstance(transport, asyncio.Transport) and "ssl" in transport.__class__.__name__.lower()
        ssl_object = transport.get_extra_info("ssl_object")
        assert isinstance(ssl_object, ssl.SSLObject)
        assert ssl_object.version() == {VERSIONS[0]: "TLSv1.2", VERSIONS[1]: "TLSv1.3"}[version]
        assert ssl_object.server_hostname == NAME
        assert transport.get_extra_info("sslcontext") is context
        assert ("DNS", NAME) in transport.get_extra_info("peercert")["subjectAltName"]
        assert transport.get_extra_info("cipher") == ssl_object.cipher()
        assert transport.get_extra_info("compression", "absent") is None
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("sockname") == peer.getpeername()
        assert transport.get_extra_info("socket").getsockname() == peer.getpeername()
        assert transport.get_extra_info("nothing", 7) == 7
        transport.abort()
        await protocol.until_lost()
        peer.close()

    run(main())


def test_extra_info_of_a_server(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        context = server_context()
        server = await tls_server(clients, context)
        peer = await off_loop(dial_tls, address_of(server))
        transport = (await clients.until_made()).transport
        assert transport.get_extra_info("sslcontext") is context
        assert not transport.get_extra_info("peercert")
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("ssl_object").server_side
        server.close()
        await off_loop(say_goodbye, peer)
        await clients.protocols[0].until_lost()

    run(main())


def test_trap_24_alpn(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        context = server_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        server = await tls_server(clients, context)
        ours = client_context()
        ours.set_alpn_protocols(["http/1.1"])
        protocol = Recorder()
        transport = await tls_client(protocol, server, ours)
        assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        serving = await clients.until_made()
        assert serving.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await all_closed(transport, server, protocol, serving)

    run(main())


def test_sni_callback_switches_the_context(run: Any) -> None:
    """Traps 24, 49."""

    async def main() -> None:
        clients = Clients()
        default, other = server_context(), server_context(certificate(OTHER_NAME))
        names = []

        def choose(ssl_object: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
            assert isinstance(ssl_object, ssl.SSLObject) and context is default
            names.append(name)
            if name == OTHER_NAME:
                ssl_object.context = other

        default.sni_callback = choose  # type: ignore[assignment]
        server = await tls_server(clients, default)
        for count, name in enumerate((NAME, OTHER_NAME), 1):
            peer = await off_loop(dial_tls, address_of(server), client_context(), name)
            assert ("DNS", name) in peer.getpeercert()["subjectAltName"]  # type: ignore[index]
            protocol = await clients.until_made(count)
            assert protocol.transport.get_extra_info("ssl_object").context is (default if name == NAME else other)
            await off_loop(say_goodbye, peer)
            await protocol.until_lost()
        assert names == [NAME, OTHER_NAME]
        server.close()

    run(main())


def test_trap_49_sni_callback_that_refuses(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        context = server_context()
        context.sni_callback = lambda *arguments: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME  # type: ignore[assignment]
        server = await tls_server(clients, context)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await off_loop(dial_tls, address_of(server))
        await turns()
        assert [protocol.names for protocol in clients.protocols] == [[]]
        server.close()

    run(main())


def test_trap_49_message_callback(run: Any) -> None:
    async def main() -> None:
        messages: list[tuple[str, str]] = []

        def note(connection: Any, direction: str, version: Any, kind: Any, message: Any, data: bytes) -> None:
            assert isinstance(connection, ssl.SSLObject)
            messages.append((direction, getattr(message, "name", str(message))))

        context = client_context()
        context._msg_callback = note  # type: ignore[attr-defined]
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, context=context)
        assert ("write", "CLIENT_HELLO") in messages and ("read", "SERVER_HELLO") in messages
        transport.close()
        await off_loop(say_goodbye, peer)
        await protocol.until_lost()

    run(main())


def test_trap_49_key_log(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        context = client_context()
        context.keylog_filename = str(tmp_path / "keys")
        protocol = Recorder()
        transport, peer = await tls_connected(protocol, context=context)
        assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys").read_text()
        transport.abort()
        await protocol.until_lost()
        peer.close()

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_trap_24_client_certificate(run: Any, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        clients = Clients(data_received=echo)
        server = await tls_server(clients, server_context(asks_client=True))
        protocol = Recorder()
        context = client_context(certificate("client.example"), version=version)
        transport = await tls_client(protocol, server, context)
        transport.write(b"it is me")
        assert await protocol.until_received(8) == b"it is me"
        (serving,) = clients.protocols
        cert = serving.transport.get_extra_info("peercert")
        assert ("DNS", "client.example") in cert["subjectAltName"]
        await all_closed(transport, server, protocol, serving)

    run(main())


def test_trap_24_client_certificate_missing(run: Any) -> None:
    """TLS 1.2, where the client learns of it in the handshake."""

    async def main() -> None:
        clients = Clients()
        log = HandlerLog(asyncio.get_running_loop())
        server = await tls_server(clients, server_context(asks_client=True))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await soon(
                asyncio.get_running_loop().create_connection(
                    Recorder, *address_of(server), ssl=client_context(version=VERSIONS[0]), server_hostname=NAME
                )
            )
        await turns()
        assert [protocol.names for protocol in clients.protocols] == [[]]
        assert log == []
        server.close()

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_trap_24_session_resumption(run: Any, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        clients = Clients(data_received=echo)
        server = await tls_server(clients)
        context = client_context(version=version)

        def visit(session: Any) -> tuple[bool | None, Any]:
            with dial_tls(address_of(server), context, session=session) as peer:
                peer.sendall(b"x")
                assert read_tls_exactly(peer, 1) == b"x"  # by now the ticket has come, too
                return peer.session_reused, peer.session

        reused, session = await off_loop(visit, None)
        assert not reused
        reused, _ = await off_loop(visit, session)
        assert reused
        for protocol in clients.protocols:
            await protocol.until_lost()
        server.close()

    run(main())


# server_hostname


def test_server_hostname_rules(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = tcp_pair()
        with pytest.raises(ValueError, match="You must set server_hostname when using ssl without a host"):
            await loop.create_connection(Recorder, sock=ours, ssl=client_context())
        with pytest.raises(ValueError, match="server_hostname is only meaningful with ssl"):
            await loop.create_connection(Recorder, sock=ours, server_hostname=NAME)
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match=f"{name} is only meaningful with ssl"):
                await loop.create_connection(Recorder, sock=ours, **{name: 1})
            with pytest.raises(ValueError, match=f"{name} is only meaningful with ssl"):
                await loop.create_server(Recorder, LOCALHOST, 0, **{name: 1})
        with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
            await loop.create_server(Recorder, LOCALHOST, 0, ssl=True)  # type: ignore[arg-type]
        ours.close()
        peer.close()

    run(main())


@pytest.mark.parametrize("host", ["localhost", b"localhost"])
def test_the_host_is_the_name_to_check(run: Any, host: Any) -> None:
    async def main() -> None:
        server = await tls_server(Clients())
        port = address_of(server)[1]
        transport, protocol = await soon(
            asyncio.get_running_loop().create_connection(
                Recorder, host, port, family=socket.AF_INET, ssl=client_context()
            )
        )
        assert transport.get_extra_info("ssl_object").server_hostname == "localhost"
        transport.close()
        await protocol.until_lost()
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            await soon(asyncio.get_running_loop().create_connection(Recorder, LOCALHOST, port, ssl=client_context()))
        server.close()

    run(main())


def test_an_empty_server_hostname_checks_nothing(run: Any) -> None:
    async def main() -> None:
        server = await tls_server(Clients())
        context = client_context()
        context.check_hostname = False
        transport, protocol = await soon(
            asyncio.get_running_loop().create_connection(Recorder, *address_of(server), ssl=context, server_hostname="")
        )
        assert transport.get_extra_info("ssl_object").server_hostname is None
        transport.close()
        await protocol.until_lost()
        server.close()

    run(main())


@pytest.mark.parametrize("problem", ["unknown authority", "wrong host", "default context"])
def test_trap_24_bad_certificate(run: Any, problem: str) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        leaf = untrusted_certificate() if problem == "unknown authority" else certificate()
        made: list[Recorder] = []

        def factory() -> Recorder:
            made.append(Recorder())
            return made[-1]

        with listening() as listener:
            connecting = asyncio.ensure_future(
                asyncio.get_running_loop().create_connection(
                    factory,
                    *listener.getsockname(),
                    ssl=True if problem == "default context" else client_context(),
                    server_hostname=OTHER_NAME if problem == "wrong host" else NAME,
                )
            )
            peer = await accept_one(listener)
            handshake = asyncio.ensure_future(off_loop(wrap_server, peer, server_context(leaf)))
            with pytest.raises(ssl.SSLCertVerificationError):
                await soon(connecting)
            # the server hears of it while it answers or later
            with pytest.raises((ssl.SSLError, ConnectionError)):
                secure = await handshake
                await off_loop(secure.recv, 1)
        await turns()
        assert [protocol.names for protocol in made] == [[]]
        assert log == []

    run(main())


# Bad peers


def test_trap_24_plain_http_to_a_tls_port(run: Any) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        clients = Clients()
        server = await tls_server(clients)
        peer = await off_loop(dial, address_of(server))
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await off_loop(read_until_gone, peer)  # nothing, or an alert
        assert not answer.startswith(b"HTTP")
        await turns()
        assert [protocol.names for protocol in clients.protocols] == [[]]
        assert log == []
        peer.close()
        secure = await off_loop(dial_tls, address_of(server))  # the server goes on
        secure.close()
        server.close()

    run(main())


def test_trap_24_truncated_record(run: Any) -> None:
    """The peer goes away in the middle of a record: what came before is delivered, the rest is not."""

    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        await off_loop(peer.sendall, b"whole")
        await protocol.until_received(5)
        raw = socket.socket(fileno=peer.detach())
        raw.sendall(b"\x17\x03\x03\x00\x40half of it")
        raw.close()
        await protocol.until_lost()
        assert bytes(protocol.data) == b"whole"
        assert transport.is_closing()

    run(main())


DAMAGE = {
    "wrong tag": b"\x17\x03\x03" + struct.pack(">H", 64) + bytes(64),
    "too long": b"\x17\x03\x03\xff\xff",
    "no TLS": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("is_behind_another", [False, True], ids=["alone", "behind a good one"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_trap_24_damaged_record(run: Any, damage: str, is_behind_another: bool) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport, peer = await tls_connected(protocol)
        transport.pause_reading()  # so that all comes at once
        if is_behind_another:
            await off_loop(peer.sendall, b"whole")
        raw = socket.socket(fileno=peer.detach())
        raw.sendall(DAMAGE[damage])
        transport.resume_reading()
        error = await protocol.until_lost()
        assert isinstance(error, ssl.SSLError)
        assert transport.is_closing()
        names = ["data_received"] if is_behind_another else []
        assert protocol.names == ["connection_made", *names, "connection_lost"]
        assert bytes(protocol.data) == (b"whole" if is_behind_another else b"")
        raw.close()

    run(main())


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_peer_leaves_during_the_handshake(run: Any, how: str) -> None:
    async def main() -> None:
        with listening() as listener:
            connecting = asyncio.ensure_future(
                asyncio.get_running_loop().create_connection(
                    Recorder, *listener.getsockname(), ssl=client_context(), server_hostname=NAME
                )
            )
            peer = await accept_one(listener)
            await off_loop(peer.recv, 65536)
            if how == "closes":
                peer.close()
            else:
                reset(peer)
            with pytest.raises(ConnectionResetError):
                await soon(connecting)

    run(main())


def test_handshake_timeout_of_a_client(run: Any) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())
        with listening() as listener:
            with pytest.raises(ConnectionAbortedError, match=r"SSL handshake is taking longer than 0\.05 seconds"):
                await soon(
                    asyncio.get_running_loop().create_connection(
                        Recorder,
                        *listener.getsockname(),
                        ssl=client_context(),
                        server_hostname=NAME,
                        ssl_handshake_timeout=0.05,
                    )
                )
        assert log == []

    run(main())


def test_client_that_says_nothing(run: Any) -> None:
    """Its connection ends after ssl_handshake_timeout, and its protocol was never connected."""

    async def main() -> None:
        clients = Clients()
        server = await tls_server(clients, ssl_handshake_timeout=0.05)
        peer = await off_loop(dial, address_of(server))
        assert await off_loop(read_until_gone, peer) == b""
        assert [protocol.names for protocol in clients.protocols] == [[]]
        peer.close()
        server.close()
        await soon(server.wait_closed())

    run(main())


def test_failed_handshakes_leak_nothing(run: Any) -> None:
    async def main() -> None:
        clients = Clients()
        server = await tls_server(clients)
        before: set[int] | None = None
        for attempt in range(12):
            peer = await off_loop(dial, address_of(server))
            if attempt % 3 == 0:
                peer.sendall(b"nonsense, and enough of it to be judged")
                await off_loop(read_until_gone, peer)
            elif attempt % 3 == 1:
                reset(peer)
            peer.close()
            secure = await off_loop(dial_tls, address_of(server))  # by then the former ones have been looked at
            await off_loop(say_goodbye, secure)
            await turns()
            gc.collect()
            if attempt == 2:
                before = open_descriptors()
        assert before is not None and len(open_descriptors()) <= len(before)
        server.close()
        await soon(server.wait_closed())

    run(main())


def test_cancelled_connection(run: Any) -> None:
    async def main() -> None:
        with listening() as listener:
            connecting = asyncio.ensure_future(
                asyncio.get_running_loop().create_connection(
                    Recorder, *listener.getsockname(), ssl=client_context(), server_hostname=NAME
                )
            )
            peer = await accept_one(listener)
            await off_loop(peer.recv, 1)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await off_loop(read_until_gone, peer)
            peer.close()

    run(main())


def test_connect_accepted_socket(run: Any) -> None:
    async def main() -> None:
        ours, peer = tcp_pair()
        protocol = Recorder(data_received=echo)
        handshake = asyncio.ensure_future(off_loop(wrap_client, peer))
        await soon(asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours, ssl=server_context()))
        secure = await soon(handshake)
        await off_loop(secure.sendall, b"abc")
        assert await off_loop(read_tls_exactly, secure, 3) == b"abc"
        await off_loop(say_goodbye, secure)
        assert await protocol.until_lost() is None

    run(main())


def test_connection_made_that_raises(run: Any) -> None:
    async def main() -> None:
        log = HandlerLog(asyncio.get_running_loop())

        def fail(protocol: Recorder, transport: Any) -> None:
            raise LookupError("no room")

        clients = Clients(connection_made=fail)
        server = await tls_server(clients)
        secure = await off_loop(dial_tls, address_of(server), trusting_context())
        context = await log.first()
        assert isinstance(context["exception"], LookupError)
        (protocol,) = clients.protocols
        assert isinstance(await protocol.until_lost(), LookupError)
        assert len(log) == 1
        secure.close()
        server.close()

    run(main())


def test_trap_45_banner_after_the_handshake_waits_for_create_connection(run: Any, loop_name: str) -> None:
    """The server speaks first, in the same flight that ends the handshake."""
    if loop_name == "asyncio":
        pytest.skip("asyncio delivers it in the callback that ends the handshake")

    async def main() -> None:
        clients = Clients(connection_made=lambda protocol, transport: transport.write(b"220 hello"))
        server = await tls_server(clients)
        for _ in range(20):
            protocol = Recorder()
            transport = await tls_client(protocol, server)
            assert not protocol.data
            assert await protocol.until_received(9) == b"220 hello"
            transport.abort()
            await protocol.until_lost()
        server.close()

    run(main())
