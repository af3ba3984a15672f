"""What an application says about TLS, as one value, and the one judge of which options go together.

The words of the errors are asyncio's.
"""

from __future__ import annotations

import os
import ssl
from typing import Any, Literal, NamedTuple


class TlsOptions(NamedTuple):
    """How a connection, or each connection of a server, speaks TLS. A connection in the clear has None in its place."""

    context: ssl.SSLContext | bool  # True: the default one of a client
    is_server: bool = False
    server_hostname: str | bytes | None = None  # in the server's certificate; None or empty: any
    handshake_timeout: float | None = None  # in seconds; None: asyncio's
    shutdown_timeout: float | None = None  # likewise
    is_safe: bool = False  # whether the safe engine is wanted, although there may be the direct one


class TlsEngineInUse(NamedTuple):
    """What hoop.tls_engine() tells."""

    name: Literal["direct", "safe"]
    reason: str  # for people to read


def wants_safe_engine() -> bool:
    """What HOOP_TLS_ENGINE says. ValueError for what is neither "direct" nor "safe" nor empty."""
    wanted = os.environ.get("HOOP_TLS_ENGINE", "")
    if wanted not in ("", "direct", "safe"):
        raise ValueError(f"HOOP_TLS_ENGINE must be 'direct' or 'safe', not {wanted!r}")
    return wanted == "safe"


def client_options(
    context: ssl.SSLContext | bool | None,
    server_hostname: Any,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> TlsOptions | None:
    """For a connection that the caller makes. ValueError without a server_hostname, and for TLS options without TLS."""
    if not context:
        refuse_without_tls(server_hostname, handshake_timeout, shutdown_timeout)
        return None
    if server_hostname is None:
        raise ValueError("you have to pass server_hostname when using ssl")
    return TlsOptions(context, False, server_hostname, handshake_timeout, shutdown_timeout, wants_safe_engine())


def host_options(
    host: Any,
    context: ssl.SSLContext | bool | None,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> TlsOptions | None:
    """As client_options(): the name in the certificate is the host's, unless the caller gives another one."""
    name: Any = server_hostname
    if context and name is None:
        if not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        name = host
    return client_options(context, name, handshake_timeout, shutdown_timeout)


def accepted_options(
    context: ssl.SSLContext | bool | None, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsOptions | None:
    """For a connection that a server has accepted. ValueError for TLS options without TLS."""
    if context is None:
        refuse_without_tls(None, handshake_timeout, shutdown_timeout)
        return None
    return TlsOptions(context, True, None, handshake_timeout, shutdown_timeout, wants_safe_engine())


def server_options(
    context: ssl.SSLContext | None, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsOptions | None:
    """For all connections of a server: as accepted_options(), and TypeError for True and False."""
    if isinstance(context, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    return accepted_options(context, handshake_timeout, shutdown_timeout)


def refuse_without_tls(
    server_hostname: str | None, handshake_timeout: float | None, shutdown_timeout: float | None
) -> None:
    """ValueError if one is given."""
    for name, value in (
        ("server_hostname", server_hostname),
        ("ssl_handshake_timeout", handshake_timeout),
        ("ssl_shutdown_timeout", shutdown_timeout),
    ):
        if value is not None:
            raise ValueError(f"{name} is only meaningful with ssl")
