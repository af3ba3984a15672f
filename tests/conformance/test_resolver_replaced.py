"""Lookups ask a replacement of socket.getaddrinfo (mocks of test suites, gevent), and raise the same audit events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.7", 80))]
HOSTS = ["example.invalid", "127.0.0.1", "::1", b"localhost", None]


@pytest.mark.parametrize("host", HOSTS, ids=repr)
@pytest.mark.parametrize("target", ["socket.getaddrinfo", "_socket.getaddrinfo"])
def test_a_replaced_getaddrinfo_is_called_literals_included(loop, target, host):
    with mock.patch(target, return_value=ANSWER) as replaced:
        answer = loop.run_until_complete(loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    assert answer == ANSWER
    replaced.assert_called_once_with(host, 80, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)


def test_errors_of_a_replaced_getaddrinfo_arrive(loop):
    with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(socket.EAI_AGAIN, "later")):
        with pytest.raises(socket.gaierror, match="later"):
            loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80)) == socket.getaddrinfo("127.0.0.1", 80)


def test_a_replaced_getnameinfo_is_called(loop):
    with mock.patch("socket.getnameinfo", return_value=("name", "service")) as replaced:
        assert loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), 3)) == ("name", "service")
    replaced.assert_called_once_with(("127.0.0.1", 80), 3)


def test_connections_go_where_a_replaced_getaddrinfo_says(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)
        with mock.patch("socket.getaddrinfo", return_value=[info]):
            transport, _ = await loop.create_connection(asyncio.Protocol, "example.invalid", 1)
        assert transport.get_extra_info("peername") == address
        transport.close()
        server.close()
        await server.wait_closed()

    run(main())


# Audit events. A hook stays for the life of the process, so there is one, and it looks at who listens.

heard: list[tuple[Any, ...]] | None = None


def hook(event: str, args: tuple[Any, ...]) -> None:
    if heard is not None and event in ("socket.getaddrinfo", "socket.getnameinfo"):
        heard.append((event, *args))


@contextlib.contextmanager
def listening() -> Iterator[list[tuple[Any, ...]]]:
    global heard
    if not getattr(sys, "_hoop_test_hook", False):
        sys.addaudithook(hook)
        sys._hoop_test_hook = True  # type: ignore[attr-defined]
    heard = events = []
    try:
        yield events
    finally:
        heard = None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.1", "localhost", b"127.0.0.1"], ids=repr)
@pytest.mark.parametrize("port", [80, "80", None], ids=repr)
def test_lookups_raise_the_audit_event(loop, host, port):
    loop.run_until_complete(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # what hoop asks of libc but once
    with listening() as events:
        loop.run_until_complete(
            loop.getaddrinfo(host, port, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        )
    assert events == [("socket.getaddrinfo", host, port, socket.AF_UNSPEC, int(socket.SOCK_STREAM), socket.IPPROTO_TCP)]


def test_getnameinfo_raises_the_audit_event(loop):
    with listening() as events:
        loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST))
    assert events == [("socket.getnameinfo", ("127.0.0.1", 80))]
