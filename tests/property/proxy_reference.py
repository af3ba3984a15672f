"""The PROXY protocol once more, in Python: written from its specification, slow and plain, to compare hoop's C with.

read(data) is None while the end of the header is still to come, "refused" if none begins like this, or what it says.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, NamedTuple

LINE = re.compile(rb"PROXY (?:(TCP4|TCP6) ([^ \r\n]+) ([^ \r\n]+) ([0-9]+) ([0-9]+)|UNKNOWN(?: [^\r\n]*)?)\r\n")
MAGIC = bytes.fromhex("0d0a0d0a000d0a515549540a")
REFUSED = "refused"


class Said(NamedTuple):
    size: int
    command: str
    source: Any
    destination: Any
    tlvs: tuple[tuple[int, bytes], ...]


def read(data: bytes) -> Said | str | None:
    if data[:6] == b"PROXY "[: len(data)]:
        return read_line(data)
    if data[:12] == MAGIC[: len(data)]:
        return read_binary(data)
    return REFUSED


# ---- version 1


def read_line(data: bytes) -> Said | str | None:
    end = data.find(b"\n")
    if end < 0 or end >= 107:
        return None if len(data) < 107 and end < 0 else REFUSED
    found = LINE.fullmatch(data[: end + 1])
    if found is None:
        return REFUSED
    kind, *words = found.groups()
    if kind is None:
        return Said(end + 1, "PROXY", None, None, ())
    try:
        hosts = [address(kind, word.decode("ascii")) for word in words[:2]]
        ports = [port(word) for word in words[2:]]
    except ValueError:
        return REFUSED
    source, destination = (shown(host, number) for host, number in zip(hosts, ports, strict=True))
    return Said(end + 1, "PROXY", source, destination, ())


def address(kind: bytes, text: str) -> Any:
    if "%" in text:
        raise ValueError("a zone")
    return ipaddress.IPv4Address(text) if kind == b"TCP4" else ipaddress.IPv6Address(text)


def port(digits: bytes) -> int:
    if str(int(digits)).encode() != digits or int(digits) > 65535:
        raise ValueError("no port")
    return int(digits)


def shown(host: Any, number: int) -> tuple[Any, ...]:
    if host.version == 4:
        return str(host), number
    mapped = host.ipv4_mapped
    text = f"::ffff:{mapped}" if mapped else str(host)
    if not mapped and int(host) < 2**32 and int(host) >= 2**16:  # as inet_ntop(3) shows "IPv4-compatible" ones
        text = f"::{ipaddress.IPv4Address(int(host))}"
    return text, number, 0, 0


# ---- version 2


def read_binary(data: bytes) -> Said | str | None:
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        return REFUSED
    if len(data) < 16:
        return None
    size = 16 + int.from_bytes(data[14:16], "big")
    if len(data) < size:
        return None
    header, block = data[:size], data[16:size]
    if header[12] == 0x20:
        return Said(size, "LOCAL", None, None, ())
    family, transport = divmod(header[13], 16)
    if family > 3 or transport > 2:
        return REFUSED
    if family == 0 or transport != 1:
        return Said(size, "PROXY", None, None, ())
    width = {1: 12, 2: 36, 3: 216}[family]
    if len(block) < width:
        return REFUSED
    source, destination = endpoints(family, block[:width])
    try:
        tlvs = vectors(block[width:])
        for kind, value in tlvs:
            if kind == 0x20:
                if len(value) < 5:
                    return REFUSED
                vectors(value[5:])
    except ValueError:
        return REFUSED
    if not is_sum_right(header, 16 + width, tlvs):
        return REFUSED
    return Said(size, "PROXY", source, destination, tlvs)


def endpoints(family: int, block: bytes) -> tuple[Any, Any]:
    if family == 3:
        return name(block[:108]), name(block[108:])
    width = 4 if family == 1 else 16
    kind: Any = ipaddress.IPv4Address if family == 1 else ipaddress.IPv6Address
    ports = block[2 * width :]
    return (
        shown(kind(block[:width]), int.from_bytes(ports[:2], "big")),
        shown(kind(block[width : 2 * width]), int.from_bytes(ports[2:], "big")),
    )


def name(field: bytes) -> str | bytes:
    if field[:1] == b"\0":
        return field.rstrip(b"\0") or ""
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def vectors(rest: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    while rest:
        size = int.from_bytes(rest[1:3], "big")
        if len(rest) < 3 + size:
            raise ValueError("beyond the end")
        found.append((rest[0], rest[3 : 3 + size]))
        rest = rest[3 + size :]
    return tuple(found)


def is_sum_right(header: bytes, at: int, tlvs: tuple[tuple[int, bytes], ...]) -> bool:
    sums = []
    for kind, value in tlvs:
        if kind == 0x03:
            sums.append((at + 3, value))
        at += 3 + len(value)
    if not sums:
        return True
    ((place, value),) = sums if len(sums) == 1 else ((0, b""),)
    return len(value) == 4 and value == castagnoli(header[:place] + bytes(4) + header[place + 4 :]).to_bytes(4, "big")


def castagnoli(data: bytes) -> int:
    """CRC32c bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF
