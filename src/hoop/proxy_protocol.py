"""The PROXY protocol: whose connection it is that a balancer passes on.

A server behind HAProxy, nginx, an AWS load balancer or the like sees the balancer's address on every connection. With
the PROXY protocol the balancer begins each connection with a header that has the client's: hoop.ProxyProtocol has a
server expect it, encode() makes one. See docs/proxy_protocol.md, and HAProxy's proxy-protocol.txt for the protocol.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import struct
from collections.abc import Iterable
from typing import Any, Literal

from hoop.core.checks import check_seconds
from hoop.net.proxy_header import ProxyHeader, crc32c, parse
from hoop.net.proxy_ssl import ProxySsl

__all__ = ["ProxyHeader", "ProxyProtocol", "ProxySsl", "encode", "parse"]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_VALUE = 0xFFFF
LONGEST_UNIQUE_ID = 128
UNIX_PATH = 108
MAPPED = bytes(10) + b"\xff\xff"  # an IPv6 address that begins so is an IPv4 one

ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL, NETNS = 0x01, 0x02, 0x03, 0x05, 0x20, 0x30
SSL_VERSION, SSL_COMMON_NAME, SSL_CIPHER, SSL_SIGNATURE_ALGORITHM, SSL_KEY_ALGORITHM = range(0x21, 0x26)
CHECKSUM_SIZE = 4
PROTOCOLS: dict[int, int] = {socket.AF_INET: 0x11, socket.AF_INET6: 0x21, socket.AF_UNIX: 0x31}  # of streams


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyProtocol:
    """What a server expects of balancers: for create_server(proxy_protocol=...), start_server, listen_tcp and their
    UNIX counterparts, and for loop.server_defaults.

    Every connection must begin with a header. There is no guessing: one that begins otherwise is closed, and without
    this setting a header is data like any other.

    trusted: whose word counts, as networks ("10.0.0.0/8", "fd00::/8") or addresses ("192.0.2.7"; objects of ipaddress
        too). Connections over a UNIX socket always count.
    versions: which versions may come; 1 is a line of text, 2 is binary.
    header_timeout: seconds until a connection without a whole header is closed. A lost packet costs one to three.
    untrusted: "refuse" closes connections from elsewhere as they come; "ignore" takes them as a server without PROXY
        protocol would, so a header from there is data.

    Server.stats() counts what was closed. TypeError or ValueError, which name the value, for what is no sensible one.
    """

    trusted: Iterable[Any] = ()
    versions: Iterable[int] = (1, 2)
    header_timeout: float = 3.0
    untrusted: Literal["refuse", "ignore"] = "refuse"

    def __post_init__(self) -> None:
        if isinstance(self.trusted, (str, bytes)):
            raise TypeError(f"trusted must be a list of networks, not {self.trusted!r}")
        object.__setattr__(self, "trusted", tuple(str(network) for network in self.trusted))
        object.__setattr__(self, "versions", tuple(self.versions))
        self.networks()
        if not self.versions or not set(self.versions) <= {1, 2}:
            raise ValueError(f"versions must be 1, 2 or both, not {self.versions!r}")
        if self.header_timeout is None:
            raise TypeError("header_timeout must be a number of seconds, not None")
        check_seconds("header_timeout", self.header_timeout)
        if self.untrusted not in ("refuse", "ignore"):
            raise ValueError(f"untrusted must be 'refuse' or 'ignore', not {self.untrusted!r}")

    def networks(self) -> list[tuple[bytes, int]]:
        """The trusted networks: the bytes of the address, and how many bits of it count."""
        return [network_of(text) for text in self.trusted]


def network_of(text: str) -> tuple[bytes, int]:
    """ValueError unless it is a network or an address. An IPv4-mapped network is one of IPv4."""
    address, slash, length = text.partition("/")
    try:
        host = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        bits = int(length) if slash else 8 * len(host)
    except (OSError, ValueError):
        raise ValueError(f"trusted must have networks like '10.0.0.0/8', not {text!r}") from None
    if not 0 <= bits <= 8 * len(host):
        raise ValueError(f"no network has {bits} bits: {text!r}")
    if int.from_bytes(host, "big") & ((1 << (8 * len(host) - bits)) - 1):
        raise ValueError(f"{text!r} has bits set behind the first {bits}")
    return (host[12:], bits - 96) if host.startswith(MAPPED) and bits >= 96 else (host, bits)


# ---- making headers -------------------------------------------------------------------------------------------------


def encode(
    source: Any = None,
    destination: Any = None,
    *,
    version: Literal[1, 2] = 2,
    command: Literal["PROXY", "LOCAL"] = "PROXY",
    authority: str | None = None,
    alpn: str | None = None,
    unique_id: bytes | None = None,
    netns: str | None = None,
    ssl: ProxySsl | None = None,
    tlvs: Iterable[tuple[int, bytes]] = (),
    checksum: bool = False,
) -> bytes:
    """A header, for create_connection(proxy_header=...), or to send as the first bytes of a connection.

    source and destination: the client's address, and the one that it connected to, as get_extra_info("peername") and
    ("sockname") show them; for version 2 also the paths of UNIX sockets. Without them the header says that the client
    is not known. command="LOCAL": the connection is the sender's own, a health check for example (version 2).

    Version 2 only: authority: the host that the client asked for; alpn: the protocol that was agreed upon; unique_id:
    up to 128 bytes that name the connection; netns: a network namespace; ssl: the TLS that was taken off; tlvs: (type,
    value) of others; checksum: add a CRC32c.

    ValueError for what no header can say, TypeError for values of a wrong type.
    """
    if (source is None) != (destination is None):
        raise ValueError("source and destination go together")
    if command not in ("PROXY", "LOCAL"):
        raise ValueError(f"command must be 'PROXY' or 'LOCAL', not {command!r}")
    if command == "LOCAL" and source is not None:
        raise ValueError("a LOCAL connection has no addresses but its own")
    texts = ((ALPN, alpn), (AUTHORITY, authority), (NETNS, netns))
    found = [(kind, text.encode("utf-8", "surrogateescape")) for kind, text in texts if text is not None]
    if unique_id is not None:
        if len(unique_id) > LONGEST_UNIQUE_ID:
            raise ValueError(f"unique_id has at most {LONGEST_UNIQUE_ID} bytes, not {len(unique_id)}")
        found.append((UNIQUE_ID, unique_id))
    if ssl is not None:
        found.append((SSL, ssl_value(ssl)))
    found.extend(tlvs)
    if version == 1:
        if found or checksum or command == "LOCAL":
            raise ValueError("version 1 has addresses and nothing else")
        return line(source, destination)
    if version != 2:
        raise ValueError(f"version must be 1 or 2, not {version!r}")
    if found and source is None:
        raise ValueError("TLVs need a source and a destination: without them no receiver reads them")
    return binary(command, source, destination, found, checksum)


def line(source: Any, destination: Any) -> bytes:
    if source is None:
        return b"PROXY UNKNOWN\r\n"
    family, hosts, ports = pair_of(source, destination)
    if family == socket.AF_UNIX:
        raise ValueError("version 1 has no UNIX sockets")
    words = [socket.inet_ntop(family, host) for host in hosts] + [str(port) for port in ports]
    return f"PROXY {'TCP6' if family == socket.AF_INET6 else 'TCP4'} {' '.join(words)}\r\n".encode()


def binary(command: str, source: Any, destination: Any, tlvs: list[tuple[int, bytes]], checksum: bool) -> bytes:
    protocol, addresses = 0x00, b""
    if source is not None:
        family, hosts, ports = pair_of(source, destination)
        protocol = PROTOCOLS[family]
        addresses = b"".join(hosts) + struct.pack(f">{len(ports)}H", *ports)
    block = addresses + packed(tlvs)
    if checksum and source is not None:
        block += packed([(CRC32C, bytes(CHECKSUM_SIZE))])
    if len(block) > LONGEST_VALUE:
        raise ValueError(f"a header has at most {LONGEST_VALUE} bytes behind its first 16, not {len(block)}")
    header = SIGNATURE + struct.pack(">BBH", 0x21 if command == "PROXY" else 0x20, protocol, len(block)) + block
    if checksum and source is not None:
        header = header[:-CHECKSUM_SIZE] + struct.pack(">I", crc32c(header))
    return header


def packed(tlvs: Iterable[tuple[int, bytes]]) -> bytes:
    parts = []
    for kind, value in tlvs:
        if not 0 <= kind <= 0xFF or len(value) > LONGEST_VALUE:
            raise ValueError(f"no TLV has the type {kind!r} and {len(value)} bytes")
        parts.append(struct.pack(">BH", kind, len(value)) + value)
    return b"".join(parts)


def ssl_value(ssl: ProxySsl) -> bytes:
    flags = 0x01 * ssl.is_tls | 0x02 * ssl.has_certificate | 0x04 * ssl.is_resumed_with_certificate
    named = {
        SSL_VERSION: ssl.version,
        SSL_COMMON_NAME: ssl.common_name,
        SSL_CIPHER: ssl.cipher,
        SSL_SIGNATURE_ALGORITHM: ssl.signature_algorithm,
        SSL_KEY_ALGORITHM: ssl.key_algorithm,
    }
    nested = [(kind, text.encode("utf-8", "surrogateescape")) for kind, text in named.items() if text is not None]
    nested += [tlv for tlv in ssl.tlvs if tlv not in nested]
    return struct.pack(">BI", flags, 0 if ssl.is_verified else 1) + packed(nested)


def pair_of(source: Any, destination: Any) -> tuple[int, list[bytes], list[int]]:
    """Family, hosts (of UNIX sockets the padded paths) and ports (of UNIX sockets none)."""
    family, source_host, source_port = numbers_of(source)
    other_family, destination_host, destination_port = numbers_of(destination)
    if family != other_family:
        raise ValueError(f"source and destination are of two families: {source!r}, {destination!r}")
    return (
        family,
        [source_host, destination_host],
        [port for port in (source_port, destination_port) if port is not None],
    )


def numbers_of(address: Any) -> tuple[int, bytes, int | None]:
    if isinstance(address, (str, bytes, os.PathLike)):
        path = os.fsencode(address)
        if len(path) > UNIX_PATH:
            raise ValueError(f"a header has room for {UNIX_PATH} bytes of a path: {address!r}")
        return socket.AF_UNIX, path.ljust(UNIX_PATH, b"\0"), None
    try:
        host, port = address[:2]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        number = socket.inet_pton(family, host)
    except (TypeError, ValueError, OSError):
        raise ValueError(f"an address is (host, port) with a numeric host, or a path, not {address!r}") from None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 0xFFFF:
        raise ValueError(f"port must be a number from 0 to {0xFFFF}, not {port!r}")
    return family, number, port


def check_header(header: bytes | None) -> None:
    """TypeError or ValueError unless it is None, or a whole header and nothing else."""
    if header is None:
        return
    if not isinstance(header, bytes):
        raise TypeError(f"proxy_header must be bytes, not {header!r}")
    parsed = parse(header)
    if parsed is None or len(parsed.raw) != len(header):
        raise ValueError(f"proxy_header must be one whole header of the PROXY protocol, not {header!r}")
