"""Which hosts are numeric: one judge, for getaddrinfo, for connecting and for sendto()."""

from __future__ import annotations

import asyncio
import socket

import hoop
import pytest
from hoop.names.address_info import literal_family

NUMERIC = {
    "127.0.0.1": socket.AF_INET,
    "255.255.255.255": socket.AF_INET,
    "::": socket.AF_INET6,
    "::1": socket.AF_INET6,
    "fe80::1": socket.AF_INET6,
    "::ffff:1.2.3.4": socket.AF_INET6,
    "2001:DB8:0:0:8:800:200C:417A": socket.AF_INET6,
}
NOT_NUMERIC = "localhost 127.1 1.2.3.4.5 256.0.0.1 0x7f.0.0.1 fe80::1%lo ::1%0 1::2::3".split()
UNLIKE_NUMBERS: list[object] = ["", " ::1", "::1 ", "127.0.0.1\0", "\0", "127.0.0.\N{FULLWIDTH DIGIT ONE}", "\udc80"]
NO_HOSTS: list[object] = [b"\xff", b"::1\0", None, 1, memoryview(b"::1")]


@pytest.mark.parametrize("host", NUMERIC)
def test_numeric_hosts(host: str) -> None:
    for form in (host, host.encode(), bytearray(host.encode())):
        assert literal_family(form) is NUMERIC[host]


@pytest.mark.parametrize("host", [*NOT_NUMERIC, *UNLIKE_NUMBERS, *NO_HOSTS], ids=repr)
def test_other_hosts(host: object) -> None:
    assert literal_family(host) is None


def test_leading_zeros_are_as_libc_has_them() -> None:
    for host in ("127.0.0.01", "010.0.0.1"):
        try:
            socket.inet_pton(socket.AF_INET, host)
        except OSError:
            assert literal_family(host) is None
        else:
            assert literal_family(host) is socket.AF_INET


@pytest.mark.parametrize("host", NUMERIC)
def test_getaddrinfo_answers_numeric_hosts_as_libc_does(host: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.getaddrinfo(host, 80) == socket.getaddrinfo(host, 80)

    hoop.run(main())
