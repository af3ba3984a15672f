"""getaddrinfo and getnameinfo answer exactly as the socket module does, shortcuts for literals included (trap 44).

Only literals, local names and AI_NUMERICHOST are used: no test here depends on a name server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DEADLINE_S = 60.0
SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

LITERALS: list[Any] = [
    "127.0.0.1", b"127.0.0.1", "0.0.0.0", "255.255.255.255", "127.1", "1.2.3", "0x7f.1", "0177.0.0.1", "1", "0",
    "2130706433", "::1", b"::1", "::", "::ffff:1.2.3.4", "fe80::1", "2001:DB8::1", "fe80::1%lo", "ff02::1%lo",
    "fe80::1%1", None,
]  # fmt: skip
NOT_LITERALS: list[Any] = [
    "", b"", "256.1.1.1", "1.2.3.4.5", "1.2.3.", "127.0.0.1 ", " 127.0.0.1", "[::1]", "::1%", "fe80::1%nosuchzone",
    ":::", "0x", "localhost", "example.invalid", "1.2.3.4%lo", "12345678901", "08.1.1.1",
    "a" * 64, "x" * 300, "1.2.3.4/8",
]  # fmt: skip
PORTS: list[Any] = [0, 80, 65535, None, "0", "80", b"80", "http", b"http", "", " 80", "080"]
ODD_PORTS: list[Any] = [65536, -1, 2**31, 2**63, 2**70, "65536", "-1", "nosuchservice", 1.5, [], object, "8\0", b"\xff"]

Outcome = tuple[Any, ...]


def outcome_of(call: Callable[[], Any]) -> Outcome:
    """The result, or the type of the exception with its number."""
    try:
        return ("result", call())
    except (Exception, asyncio.CancelledError) as error:
        return ("error", type(error), getattr(error, "errno", None))


def compare(loop: asyncio.AbstractEventLoop, host: Any, port: Any, **keywords: int) -> None:
    expected = outcome_of(lambda: socket.getaddrinfo(host, port, **keywords))
    got = outcome_of(lambda: loop.run_until_complete(loop.getaddrinfo(host, port, **keywords)))
    assert got == expected, (host, port, keywords)
    if got[0] == "result":
        for mine, theirs in zip(got[1], expected[1], strict=True):
            assert [type(item) for item in mine] == [type(item) for item in theirs], (host, port, keywords)


# getaddrinfo.


@pytest.mark.parametrize("host", LITERALS, ids=repr)
def test_trap_44_literals_over_families_types_and_protocols(loop, host):
    for family in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
        for kind in (0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            for protocol in (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                compare(loop, host, 80, family=family, type=kind, proto=protocol)


@pytest.mark.parametrize("host", LITERALS, ids=repr)
def test_trap_44_literals_over_ports(loop, host):
    for port in PORTS + ODD_PORTS:
        compare(loop, host, port, type=socket.SOCK_STREAM)
        compare(loop, host, port)


@pytest.mark.parametrize("host", LITERALS, ids=repr)
def test_trap_44_literals_over_flags(loop, host):
    for flags in (
        socket.AI_PASSIVE,
        socket.AI_NUMERICHOST,
        socket.AI_NUMERICSERV,
        socket.AI_CANONNAME,
        socket.AI_ADDRCONFIG,
        socket.AI_V4MAPPED,
        socket.AI_V4MAPPED | socket.AI_ALL,
        socket.AI_PASSIVE | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    ):
        for family in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
            for port in (80, "http", None):
                compare(loop, host, port, family=family, type=socket.SOCK_STREAM, flags=flags)


@pytest.mark.parametrize("host", NOT_LITERALS, ids=lambda host: repr(host)[:20])
def test_trap_44_what_is_not_a_literal_is_refused_by_numerichost(loop, host):
    for family in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
        compare(loop, host, 80, family=family, flags=socket.AI_NUMERICHOST)
        compare(loop, host, None, family=family, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize("host", [1, 1.5, [], object(), bytearray(b"::1"), "a\0b", b"a\0b", "\udc80"], ids=repr)
def test_wrong_hosts_fail_alike(loop, host):
    compare(loop, host, 80, flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize(
    "keywords",
    [
        {"family": 99},
        {"family": -1},
        {"family": socket.AF_UNIX},
        {"type": 99},
        {"type": -1},
        {"proto": 99},
        {"proto": socket.IPPROTO_ICMP},
        {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP},
        {"type": socket.SOCK_DGRAM, "proto": socket.IPPROTO_TCP},
        {"type": socket.SOCK_RAW, "proto": socket.IPPROTO_ICMP},
        {"type": socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)},
        {"flags": -1},
        {"flags": 1 << 30},
        {"flags": socket.AI_ALL},
    ],
    ids=repr,
)
def test_trap_44_bogus_numbers_fail_alike(loop, keywords):
    for host in ("127.0.0.1", "::1"):
        for port in (80, "http", None):
            compare(loop, host, port, **keywords)


def test_both_unspecified(loop):
    compare(loop, None, None)
    compare(loop, None, 0)
    compare(loop, "", 0)


def test_localhost(loop):
    compare(loop, "localhost", 80)
    compare(loop, b"localhost", "http", type=socket.SOCK_STREAM)


@pytest.mark.parametrize(
    "host", ["bücher.example", "ﬁ.example", "xn--bcher-kva.example", "a..b", ".a", "a.", "-", "é" * 64]
)
def test_names_are_encoded_as_the_socket_module_does(loop, host):
    compare(loop, host, 80, flags=socket.AI_NUMERICHOST)


def test_canonical_names(loop):
    compare(loop, "localhost", 80, flags=socket.AI_CANONNAME)
    compare(loop, "127.0.0.1", 80, flags=socket.AI_CANONNAME)


def test_options_are_keywords_only(loop):
    with pytest.raises(TypeError):
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET))
    with pytest.raises(TypeError):
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1"))


def test_getaddrinfo_is_awaitable_many_times_at_once(run):
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        hosts = ["127.0.0.1", "::1", "localhost", "127.1"] * 25
        return await asyncio.gather(*(loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM) for host in hosts))

    results = run(main())
    assert len(results) == 100
    for start in range(4):
        assert all(result == results[start] for result in results[start::4])


def test_a_cancelled_lookup_does_no_harm(run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        contexts: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda handler_loop, context: contexts.append(context))
        tasks = [asyncio.ensure_future(loop.getaddrinfo("localhost", 80)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await loop.getaddrinfo("127.0.0.1", 80)
        assert contexts == []

    run(main())


def test_a_lookup_in_a_loop_of_another_thread(loop_factory):
    results: list[Any] = []

    def in_thread() -> None:
        loop = loop_factory()
        try:
            results.append(loop.run_until_complete(loop.getaddrinfo("localhost", 80)))
        finally:
            loop.close()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(DEADLINE_S)
    assert results == [socket.getaddrinfo("localhost", 80)]


# getnameinfo.


NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def compare_names(loop: asyncio.AbstractEventLoop, address: Any, flags: Any) -> None:
    expected = outcome_of(lambda: socket.getnameinfo(address, flags))
    got = outcome_of(lambda: loop.run_until_complete(loop.getnameinfo(address, flags)))
    assert got == expected, (address, flags)


@pytest.mark.parametrize(
    "address",
    [
        ("127.0.0.1", 80), ("127.0.0.1", 0), ("127.1", 80), ("0.0.0.0", 65535), ("::1", 80), ("::1", 80, 0, 0),
        ("fe80::1", 80, 0, 1), ("fe80::1%lo", 80), ("::ffff:1.2.3.4", 443, 7, 0), ("127.0.0.1", 1),
    ],
    ids=repr,
)  # fmt: skip
def test_getnameinfo_of_literals(loop, address):
    for flags in (NUMERIC, socket.NI_NUMERICHOST, NUMERIC | socket.NI_DGRAM, NUMERIC | socket.NI_NOFQDN):
        compare_names(loop, address, flags)


@pytest.mark.parametrize(
    "address",
    [
        None, 1, "127.0.0.1", [], (), ("127.0.0.1",), ("127.0.0.1", "http"), ("127.0.0.1", None), (None, 80),
        (b"127.0.0.1", 80), ["127.0.0.1", 80], ("127.0.0.1", 65536), ("127.0.0.1", -1), ("127.0.0.1", 80, 0, 0, 0),
        ("127.0.0.1", 80, 1, 1),
        ("::1", 80, 2**20, 0), ("::1", 80, -1, 0), ("::1", 80, 0, 2**40), ("a\0b", 80),
    ],
    ids=repr,
)  # fmt: skip
def test_getnameinfo_of_wrong_addresses(loop, address):
    compare_names(loop, address, NUMERIC)


def test_getnameinfo_flags(loop):
    for flags in (None, "1", 1.5):
        compare_names(loop, ("127.0.0.1", 80), flags)
    # The flags have a default, and the name of an address of this machine needs no server.
    assert loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), flags=NUMERIC)) == ("127.0.0.1", "80")


# Properties.


small = st.integers(0, 300)
parts = st.one_of(small.map(str), st.integers(0, 2**33).map(str), small.map(hex), small.map("0{:o}".format))
dotted = st.lists(parts, min_size=1, max_size=5).map(".".join)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
ipv6_long = st.ip_addresses(v=6).map(lambda address: address.exploded.upper())
zones = st.sampled_from(["", "%", "%lo", "%1", "%2", "%0", "%99", "%nosuch", "%lo%lo", "%-1", "%4294967296"])
zoned = st.tuples(st.one_of(ipv6, st.just("fe80::1"), st.just("ff02::2"), ipv4), zones).map("".join)
mapped = ipv4.map(lambda address: "::ffff:" + address)
noise = st.text(alphabet="0123456789abcdefx:.%[] -\0é", max_size=24)
hosts = st.one_of(
    ipv4, ipv6, ipv6_long, zoned, mapped, dotted, noise, st.text(max_size=12), st.none(),
    st.one_of(ipv4, ipv6, dotted).map(str.encode), st.binary(max_size=12),
)  # fmt: skip
ports = st.one_of(
    st.none(), st.integers(0, 65535), st.integers(), st.integers(-10, 70000).map(str),
    st.sampled_from(["http", "https", "ntp", ""]), st.integers(0, 65535).map(lambda port: str(port).encode()),
    st.text(alphabet="0123456789 +-x\0", max_size=6),
)  # fmt: skip
options = st.fixed_dictionaries(
    {
        "family": st.sampled_from([socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6]),
        "type": st.sampled_from([0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW]),
        "proto": st.sampled_from([0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP]),
    }
)
FLAGS = ["AI_PASSIVE", "AI_NUMERICSERV", "AI_CANONNAME", "AI_ADDRCONFIG", "AI_V4MAPPED", "AI_ALL"]
extra_flags = st.sets(st.sampled_from([getattr(socket, name) for name in FLAGS if hasattr(socket, name)])).map(sum)


@SETTINGS
@given(host=hosts, port=ports, keywords=options, flags=extra_flags)
def test_trap_44_any_host_with_numerichost_answers_as_libc(loop, host, port, keywords, flags):
    compare(loop, host, port, flags=flags | socket.AI_NUMERICHOST, **keywords)


@SETTINGS
@given(
    address=st.one_of(ipv4, ipv6, mapped, ipv6_long, ipv4.map(str.encode)), port=ports, keywords=options,
    flags=extra_flags,
)  # fmt: skip
def test_trap_44_any_literal_answers_as_libc(loop, address, port, keywords, flags):
    """Without AI_NUMERICHOST, where a shortcut is tempting: a literal never reaches a name server."""
    compare(loop, address, port, flags=flags, **keywords)


@SETTINGS
@given(address=st.ip_addresses(), port=st.integers(-2, 65540), scope=st.integers(0, 3))
def test_any_literal_has_the_same_name(loop, address, port, scope):
    own = (str(address), port) if isinstance(address, ipaddress.IPv4Address) else (str(address), port, 0, scope)
    compare_names(loop, own, NUMERIC)
