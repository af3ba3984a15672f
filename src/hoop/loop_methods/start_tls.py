"""start_tls: a connection that began in the clear goes on encrypted."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from hoop.handles.socket import Socket
from hoop.loop_methods.base_loop import BaseLoop
from hoop.net.stream import StreamTransport  # type: ignore[attr-defined]
from hoop.tls.tls_options import TlsOptions, wants_safe_engine
from hoop.tls.tls_transport import TlsTransport, new_session  # type: ignore[attr-defined]


class StartTls(BaseLoop, asyncio.AbstractEventLoop):
    """start_tls."""

    async def start_tls(  # type: ignore[override]
        self,
        transport: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """Speak TLS on transport from now on; returns, after the handshake, the transport that protocol is to use.

        The handshake also gets what the peer sent early and an asyncio.StreamReader or a hoop.Socket already holds.
        Raises TypeError for a transport that cannot be upgraded, ConnectionResetError for one that is closing, and
        whatever makes the handshake fail (ssl.SSLError, ConnectionError), after which the transport is closed.
        """
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        if transport.is_closing():
            raise ConnectionResetError(f"start_tls() on a transport that is closing: {transport!r}")
        waiter = self.create_future()
        options = TlsOptions(
            sslcontext,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            wants_safe_engine(),
        )
        session = new_session(self, protocol, options, waiter, is_upgrade=True)
        upgraded = session.app_transport
        try:
            session.begin_upgrade(transport, taken_from_socket(transport) + taken_from_reader(protocol))
            await waiter
        except BaseException:
            waiter.cancel()  # its caller has gone: the connection's end is then no error to log
            transport.close()
            raise
        finally:
            del waiter  # its error's traceback leads back to this frame
        return upgraded


def taken_from_socket(transport: asyncio.Transport) -> bytes:
    """What a hoop.Socket, whose connection this was, has received and its user not read: as with a StreamReader."""
    if not isinstance(transport, (StreamTransport, TlsTransport)):
        return b""  # no other transport is a Socket's, or has to have get_protocol()
    former = transport.get_protocol()
    unread: bytes = former._take_unread() if isinstance(former, Socket) else b""  # type: ignore[attr-defined]
    return unread


def taken_from_reader(protocol: asyncio.BaseProtocol) -> bytes:
    """What a StreamReader holds unread belongs to the handshake (cpython#142352).

    Left where it is, clear text that an attacker may have sent would pass for what came over TLS.
    """
    reader: Any = getattr(protocol, "_stream_reader", None)
    buffer = getattr(reader, "_buffer", None)
    if not isinstance(buffer, bytearray):
        return b""
    early = bytes(buffer)
    buffer.clear()
    return early
