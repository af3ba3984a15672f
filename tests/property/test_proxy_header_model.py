"""Headers of the PROXY protocol, well formed and spoiled, against a reference in Python: the verdicts are the same.

The model, in three sentences: a header is accepted, refused or not complete; more bytes never change an acceptance or a
refusal; and what is accepted says the same to both. (P5, P6)
"""

from __future__ import annotations

import struct
from typing import Any

import proxy_reference as reference
import pytest
from hoop.proxy_protocol import ProxySsl, encode, parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

hosts4 = st.ip_addresses(v=4).map(str)
hosts6 = st.ip_addresses(v=6).map(str)
ports = st.integers(0, 65535)
paths = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=108)
pairs = st.one_of(
    st.tuples(st.tuples(hosts4, ports), st.tuples(hosts4, ports)),
    st.tuples(st.tuples(hosts6, ports), st.tuples(hosts6, ports)),
)
names = st.none() | st.text(max_size=20).filter(lambda text: text.isascii())
ssls = st.builds(
    ProxySsl, st.booleans(), st.booleans(), st.booleans(), st.booleans(), names, names, names, names, names, st.just(())
)
extras = st.lists(st.tuples(st.integers(0xE0, 0xF7), st.binary(max_size=30)), max_size=3)
more = st.fixed_dictionaries(
    {},
    optional={
        "authority": names,
        "alpn": names,
        "unique_id": st.binary(max_size=128),
        "netns": names,
        "ssl": ssls,
        "tlvs": extras,
        "checksum": st.booleans(),
    },
)
binaries = st.one_of(
    st.tuples(pairs | st.tuples(paths, paths), more).map(lambda made: encode(*made[0], **made[1])),
    st.builds(
        lambda command, protocol, block: (
            reference.MAGIC + bytes([command, protocol]) + struct.pack(">H", len(block)) + block
        ),
        st.sampled_from([0x20, 0x21, 0x21, 0x22, 0x11]),
        st.sampled_from([0x00, 0x11, 0x12, 0x21, 0x31, 0x41, 0x13]),
        st.binary(max_size=300),
    ),
)
WORDS = (
    "PROXY TCP4 TCP6 UNKNOWN 1.2.3.4 01.2.3.4 ::1 ::ffff:1.2.3.4 fe80::1%1 1::2::3 0 00 80 65535 65536 -1 +1".split()
)
words = st.lists(
    st.sampled_from([*WORDS, "", "x" * 90]),
    max_size=8,
).map(lambda parts: " ".join(["PROXY", *parts]).encode())
lines = st.one_of(
    pairs.map(lambda pair: encode(*pair, version=1)),
    st.tuples(words, st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n", b"", b" \r\n"])).map(b"".join),
)


@st.composite
def spoiled(draw: Any) -> bytes:
    data = bytearray(draw(st.one_of(lines, binaries)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["set", "cut", "insert", "append"])):
            case "set" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = draw(st.binary(max_size=3))
            case "append":
                data += draw(st.binary(max_size=20))
    return bytes(data)


def verdict(data: bytes) -> Any:
    try:
        header = parse(data)
    except ValueError:
        return reference.REFUSED
    if header is None:
        return None
    return reference.Said(len(header.raw), header.command, header.source, header.destination, header.tlvs)


@given(data=spoiled())
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.once
def test_verdicts_are_those_of_the_reference(data: bytes) -> None:
    assert verdict(data) == reference.read(data)


@given(data=spoiled())
@settings(max_examples=300, deadline=None)
def test_more_bytes_change_no_verdict(data: bytes) -> None:
    told = None
    for size in range(len(data) + 1):
        now = verdict(data[:size])
        assert told is None or now == told
        told = now


@given(pair=pairs | st.tuples(paths, paths), options=more)
@settings(max_examples=300, deadline=None)
def test_what_was_encoded_comes_back(pair: Any, options: dict[str, Any]) -> None:
    header = parse(encode(*pair, **options))
    assert header is not None
    ends = [end[:2] if isinstance(end, tuple) else end for end in (header.source, header.destination)]
    expected = [reference.read(encode(*pair)).source, reference.read(encode(*pair)).destination]  # type: ignore[union-attr]
    assert ends == [end[:2] if isinstance(end, tuple) else end for end in expected]
    for name in ("authority", "alpn", "unique_id", "netns"):
        assert getattr(header, name) == options.get(name)
    ssl = options.get("ssl")
    if ssl is None:
        assert header.ssl is None
    else:
        shows = ssl.has_certificate or ssl.is_resumed_with_certificate
        assert header.ssl == ssl._replace(is_verified=ssl.is_verified and shows, tlvs=header.ssl.tlvs)
    for extra in options.get("tlvs", ()):
        assert extra in header.tlvs
