"""Servers behind balancers: connections whose header has not come, loop.server_defaults, and settings."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import hoop
import pytest
from conformance.peers import DEADLINE_S, LOCALHOST, off_loop, read_exactly, soon
from limited import Clock, run_with_clock
from proxied import HEADERS, counts, every_plain_kind, is_closed, proxied, until_active

# ---- the life of a connection whose header has not come --------------------------------------------------------------


def test_a_look_whether_the_server_listens_is_no_error() -> None:
    async def main(clock: Clock) -> None:
        async with proxied() as served:
            for way in ("close", "reset", "half"):
                with served.connect() as peer:
                    await soon(until_active(served))
                    if way == "reset":
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    if way == "half":
                        peer.sendall(HEADERS["v2"][:9])
                while served.stats().active:
                    await asyncio.sleep(0)
            assert counts(served) == (0, 1, 0)
            assert served.connections == []

    run_with_clock(main)


@every_plain_kind
@pytest.mark.parametrize("end", ["close_clients", "abort_clients"])
def test_a_server_ends_its_arrivals(kind: str, end: str) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            with served.connect() as peer:
                await soon(until_active(served))
                getattr(served.server, end)()
                assert await is_closed(peer)
                assert served.stats().active == 0

    run_with_clock(main)


@every_plain_kind
def test_a_closed_server_waits_for_arrivals_as_for_connections(kind: str) -> None:
    async def main(clock: Clock) -> None:
        async with proxied(kind) as served:
            with served.connect() as peer:
                await soon(until_active(served))
                served.server.close()
                peer.sendall(HEADERS["v1"] + b"hello?")
                assert await off_loop(read_exactly, peer, 7) == b"answer\n"
                served.connections[0].abort()
                await soon(served.server.wait_closed())

    run_with_clock(main)


def test_a_loop_that_closes_closes_its_arrivals() -> None:
    loop: Any = hoop.Loop()
    server = loop.listen_tcp(print, proxy_protocol=hoop.ProxyProtocol(trusted=[LOCALHOST]))
    with socket.create_connection(server.address, DEADLINE_S) as peer:
        while server.stats().active == 0:
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert peer.recv(1) == b""
    server.close()


def test_run_waits_for_an_arrival() -> None:
    loop: Any = hoop.Loop()
    server = loop.listen_tcp(lambda handle: handle.destroy(), proxy_protocol=hoop.ProxyProtocol(trusted=[LOCALHOST]))
    with socket.create_connection(server.address, DEADLINE_S) as peer:
        while server.stats().active == 0:
            loop.run_until_complete(asyncio.sleep(0))
        server.close()
        loop.set_timeout(lambda: peer.sendall(HEADERS["v1"]), 0)
        loop.run()
        assert peer.recv(1) == b""
    loop.close()


def test_a_factory_that_raises_ends_that_connection_only() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        told: list[Any] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        calls = iter([ZeroDivisionError, None])

        def factory() -> asyncio.Protocol:
            error = next(calls)
            if error is not None:
                raise error
            return asyncio.Protocol()

        setting = hoop.ProxyProtocol(trusted=[LOCALHOST])
        server = await loop.create_server(factory, LOCALHOST, 0, proxy_protocol=setting)
        address = server.sockets[0].getsockname()
        with socket.create_connection(address, DEADLINE_S) as peer:
            peer.sendall(HEADERS["v1"])
            assert await is_closed(peer)
        with socket.create_connection(address, DEADLINE_S) as peer:
            peer.sendall(HEADERS["v1"])
            while server.stats().accepted == 0:
                await asyncio.sleep(0)
        assert [type(error) for error in told] == [ZeroDivisionError]
        server.close()

    hoop.run(main())


# ---- settings --------------------------------------------------------------------------------------------------------


def test_server_defaults() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        defaults = loop.server_defaults
        assert (defaults.limits, defaults.proxy_protocol, defaults.drain) == (None, None, None)
        assert loop.server_defaults is defaults
        with pytest.raises(AttributeError):
            loop.server_defaults = defaults
        with pytest.raises(TypeError, match=r"hoop\.Limits"):
            defaults.limits = 5
        for wrong in (5, True, False, "10.0.0.0/8"):
            with pytest.raises(TypeError, match=r"hoop\.ProxyProtocol"):
                defaults.proxy_protocol = wrong
        with pytest.raises(TypeError, match=r"hoop\.Drain"):
            defaults.drain = 5
        defaults.limits = hoop.Limits(max_connections=1)
        defaults.proxy_protocol = hoop.ProxyProtocol(trusted=["192.0.2.0/24"])
        assert "max_connections=1" in repr(defaults)
        default = await loop.create_server(asyncio.Protocol, LOCALHOST, 0)
        own = await loop.create_server(asyncio.Protocol, LOCALHOST, 0, limits=hoop.Limits(), proxy_protocol=False)
        for server, accepted in ((default, 0), (own, 2)):
            sockets = [socket.create_connection(server.sockets[0].getsockname(), DEADLINE_S) for _ in range(2)]
            while server.stats().accepted + server.stats().refused_untrusted < 2:
                await asyncio.sleep(0)
            assert server.stats().accepted == accepted
            for sock in sockets:
                sock.close()
            server.close()

    hoop.run(main())


def test_what_a_unix_socket_takes(tmp_path: Path) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        limits = hoop.Limits(max_connections_per_host=1)
        with pytest.raises(ValueError, match="max_connections_per_host is for TCP"):
            await loop.create_unix_server(asyncio.Protocol, tmp_path / "1", limits=limits)
        setting = hoop.ProxyProtocol()
        server = await loop.create_unix_server(asyncio.Protocol, tmp_path / "2", limits=limits, proxy_protocol=setting)
        server.close()
        limits = hoop.Limits(max_connections_per_host=1, keepalive_idle=1)
        with pytest.raises(ValueError, match="keepalive_idle is for TCP"):
            await loop.create_unix_server(asyncio.Protocol, tmp_path / "3", limits=limits, proxy_protocol=setting)

    hoop.run(main())


@pytest.mark.parametrize("wrong", [5, True, "10.0.0.0/8", ["10.0.0.0/8"]])
def test_a_server_takes_only_a_proxy_protocol(wrong: Any, tmp_path: Path) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for start in (
            lambda: loop.create_server(asyncio.Protocol, LOCALHOST, 0, proxy_protocol=wrong),
            lambda: loop.create_unix_server(asyncio.Protocol, tmp_path / "socket", proxy_protocol=wrong),
            lambda: loop.listen_tcp(print, proxy_protocol=wrong),
            lambda: loop.listen_unix(print, tmp_path / "other", proxy_protocol=wrong),
        ):
            with pytest.raises(TypeError, match=r"hoop\.ProxyProtocol"):
                await start()

    hoop.run(main())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"trusted": "10.0.0.0/8"}, TypeError, "list of networks"),
        ({"trusted": ["10.0.0.0/33"]}, ValueError, "33 bits"),
        ({"trusted": ["10.0.0.1/8"]}, ValueError, "bits set"),
        ({"trusted": ["10.0.0/8"]}, ValueError, "networks like"),
        ({"trusted": ["10.0.0.0/"]}, ValueError, "networks like"),
        ({"trusted": ["balancer.example"]}, ValueError, "networks like"),
        ({"trusted": ["fe80::1%eth0"]}, ValueError, "networks like"),
        ({"trusted": 5}, TypeError, "not iterable"),
        ({"versions": ()}, ValueError, "1, 2 or both"),
        ({"versions": (3,)}, ValueError, "1, 2 or both"),
        ({"header_timeout": 0}, ValueError, "more than 0"),
        ({"header_timeout": None}, TypeError, "number of seconds"),
        ({"header_timeout": "3"}, TypeError, "number of seconds"),
        ({"untrusted": "accept"}, ValueError, "'refuse' or 'ignore'"),
    ],
)
def test_settings_that_make_no_sense(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        hoop.ProxyProtocol(**options)


def test_networks() -> None:
    import ipaddress

    setting = hoop.ProxyProtocol(
        trusted=[ipaddress.ip_network("10.0.0.0/8"), "192.0.2.1", "::/0", "::ffff:192.0.2.0/120"]
    )
    assert setting.trusted == ("10.0.0.0/8", "192.0.2.1", "::/0", "::ffff:192.0.2.0/120")
    assert setting.networks() == [
        (bytes([10, 0, 0, 0]), 8),
        (bytes([192, 0, 2, 1]), 32),
        (bytes(16), 0),
        (bytes([192, 0, 2, 0]), 24),
    ]
    assert setting == hoop.ProxyProtocol(trusted=setting.trusted)
