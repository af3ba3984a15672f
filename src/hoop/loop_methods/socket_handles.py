"""Socket handles: listen_tcp, connect_tcp, listen_unix, connect_unix and bind_udp, with callbacks instead of protocols.

What they return stands on asyncio's transports and servers, so limits, TLS, addresses and errors are the same. Nothing
here needs a coroutine: with loop.run() a program can do without asyncio altogether.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Coroutine
from typing import Any

from hoop.handles.socket import Socket, new_client_socket
from hoop.handles.udp_socket import UdpSocket
from hoop.limits import Limits
from hoop.loop_methods.connections import Connections
from hoop.loop_methods.servers import Server, Servers, WithProxyProtocol, prepare, set_listen_options
from hoop.loop_methods.unix_sockets import CLEANS_UP, Path, UnixSockets, bound_to, file_remover
from hoop.names.address_info import literal_family
from hoop.proxy_protocol import check_header
from hoop.tls.tls_options import TlsOptions, client_options, host_options, server_options

LOCALHOST = "127.0.0.1"
LAST_PORT = 0xFFFF
DEFAULT_BACKLOG = 511  # connections, as Node's
RACE_DELAY_S = 0.25  # between attempts: the "Connection Attempt Delay" of RFC 8305, section 8


class SocketServer(Server):
    """A listening handle: hands a Socket to on_connection for each connection. (Node: net.Server)

    Made by loop.listen_tcp() and loop.listen_unix(). on_close, if set, is called as on_close(server) when the server is
    closed and its last connection has ended.
    """

    on_close: Callable[[SocketServer], object] | None = None

    @property
    def address(self) -> Any:
        """Where it listens, as the socket module shows it; None once closed."""
        sockets = self.sockets
        return sockets[0].getsockname() if sockets else None

    def _wake_waiters(self) -> None:
        super()._wake_waiters()
        if not self._loop.is_closed():
            self._loop.call_soon(self._tell_closed)

    def _tell_closed(self) -> None:
        if self.on_close is not None:
            self.on_close(self)


class SocketHandles(UnixSockets, Connections, Servers):
    """listen_tcp, connect_tcp, listen_unix, connect_unix, bind_udp."""

    def listen_tcp(
        self,
        on_connection: Callable[[Socket], object],
        host: str | None = LOCALHOST,
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        backlog: int = DEFAULT_BACKLOG,
        reuse_port: bool = False,
        limits: Limits | None = None,
        proxy_protocol: WithProxyProtocol = None,
        allow_half_open: bool = False,
        ssl: ssl_module.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> SocketServer:
        """Listen on host and port (0: any that is free) and call on_connection(socket) for each connection.

        host is a numeric address, "localhost" for 127.0.0.1, or None for all interfaces, of both families where the
        system has sockets for both. sock, bound, takes their place. allow_half_open: when the peer ends its direction
        the socket stays open for writing until end(). With ssl the callback comes after the handshake. limits: see
        hoop.Limits; proxy_protocol: see hoop.ProxyProtocol; without them the loop's server_defaults apply.

        Raises OSError when the address cannot be bound; ValueError for a host that is a name (resolve it first, a
        listening address should not depend on DNS), a port out of range, and for arguments that do not go together.
        (Node: net.createServer; uv_listen)
        """
        tls = server_options(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        listening = bound_tcp(host, port, reuse_port) if sock is None else stream_socket(sock)
        return self._listen(on_connection, listening, backlog, limits, proxy_protocol, allow_half_open, tls, None)

    def listen_unix(
        self,
        on_connection: Callable[[Socket], object],
        path: Path,
        *,
        backlog: int = DEFAULT_BACKLOG,
        limits: Limits | None = None,
        proxy_protocol: WithProxyProtocol = None,
        allow_half_open: bool = False,
        ssl: ssl_module.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        cleanup_socket: bool = CLEANS_UP,
    ) -> SocketServer:
        """As listen_tcp, on the UNIX socket path (Linux: an abstract name begins with NUL); see create_unix_server."""
        tls = server_options(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        listening = bound_to(os.fspath(path))
        cleanup = file_remover(listening) if cleanup_socket else None
        return self._listen(on_connection, listening, backlog, limits, proxy_protocol, allow_half_open, tls, cleanup)

    def _listen(
        self,
        on_connection: Callable[[Socket], object],
        listening: socket.socket,
        backlog: int,
        limits: Limits | None,
        proxy_protocol: WithProxyProtocol,
        allow_half_open: bool,
        tls: TlsOptions | None,
        cleanup: Callable[[], None] | None,
    ) -> SocketServer:
        """Make a server on a bound socket; close the socket if that fails."""
        try:
            if not callable(on_connection):
                raise TypeError(f"on_connection must be callable, not {on_connection!r}")
            limits = self._server_defaults.limits_for(limits)
            proxied = self._server_defaults.proxy_protocol_for(proxy_protocol)
            prepare([listening], limits, proxied is not None)
            factory: Any = functools.partial(Socket, self, on_connection, allow_half_open=allow_half_open)
            context: Any = None
            if tls is not None:
                context = tls.context
                factory = self._tls_factory(factory, tls)
            server = SocketServer(self, [listening], factory, backlog, cleanup, limits, context, proxied)
            server._start_serving()
        except BaseException:
            listening.close()
            raise
        return server

    def connect_tcp(
        self,
        host: str,
        port: int | str,
        on_connect: Callable[[Socket], object] | None = None,
        *,
        allow_half_open: bool = False,
        local_addr: tuple[str, int] | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        proxy_header: bytes | None = None,
    ) -> Socket:
        """A Socket that connects to host and port, and calls on_connect(socket) then (with ssl: after the handshake).

        It can be written to at once. Addresses are tried as create_connection does, staggered by 250 ms (RFC 8305);
        proxy_header is sent as it does.
        What goes wrong comes to on_error(socket, error). ValueError for arguments that do not go together.
        (Node: net.connect; uv_tcp_connect)
        """
        tls = host_options(host, ssl, server_hostname, None, None)
        check_header(proxy_header)
        handle = self._new_client(on_connect, allow_half_open)

        def protocol() -> Any:
            return handle  # which has a protocol's methods

        async def connect() -> None:
            sock, peer = await self._connect_any(host, port, local_addr=local_addr, delay_s=RACE_DELAY_S, interleave=1)
            try:
                adopting = self._adopt_connection(sock, protocol, tls, peer, proxy_header)
            except BaseException:  # no memory for a coroutine that would close it
                sock.close()
                raise
            await adopting

        return self._connect(handle, connect)

    def connect_unix(
        self,
        path: Path,
        on_connect: Callable[[Socket], object] | None = None,
        *,
        allow_half_open: bool = False,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        proxy_header: bytes | None = None,
    ) -> Socket:
        """As connect_tcp, to the UNIX socket path (Linux: an abstract name begins with a NUL)."""
        tls = client_options(ssl, server_hostname, None, None)
        check_header(proxy_header)
        name = os.fspath(path)
        handle = self._new_client(on_connect, allow_half_open)

        def protocol() -> Any:
            return handle  # which has a protocol's methods

        async def connect() -> None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self.sock_connect(sock, name)
                adopting = self._adopt_connection(sock, protocol, tls, head=proxy_header)
            except BaseException:
                sock.close()
                raise
            await adopting

        return self._connect(handle, connect)

    def _new_client(self, on_connect: Callable[[Socket], object] | None, allow_half_open: bool) -> Socket:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        handle = new_client_socket(self, allow_half_open)
        handle.on_connect = on_connect
        return handle

    def _connect(self, handle: Socket, connect: Callable[[], Coroutine[Any, Any, None]]) -> Socket:
        """Have a task connect; what it raises is the handle's error."""

        async def attempt() -> None:
            try:
                await connect()
            except Exception as error:
                handle._failed(error)

        handle._connect_with(asyncio.Task(attempt(), loop=self))
        return handle

    def bind_udp(
        self,
        on_message: Callable[[UdpSocket, bytes, Any], object] | None,
        host: str | None = LOCALHOST,
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        remote_address: tuple[str, int] | None = None,
        reuse_port: bool = False,
        allow_broadcast: bool = False,
    ) -> UdpSocket:
        """A UDP socket on host and port (0: any that is free); on_message(socket, data, address) gets what arrives.

        host is as in listen_tcp. With remote_address, numeric too, the socket is connected: only that peer's datagrams
        arrive, and send() needs no address. sock, bound, takes the place of host and port. Raises OSError when an
        address does not work, ValueError for a host that is a name, a port out of range and a remote_address that is
        no (host, port).
        (Node: dgram.createSocket; uv_udp_bind)
        """
        udp = bound_udp(host, port, reuse_port) if sock is None else sock
        try:
            if udp.type != socket.SOCK_DGRAM:
                raise ValueError(f"a datagram socket was expected, got {udp!r}")
            udp.setblocking(False)
            if allow_broadcast:
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if remote_address is not None:
                connect_udp(udp, remote_address)
            handle = UdpSocket(self, udp, on_message)
            if sock is None:
                transport: Any = handle.transport
                transport._keep_socket_alone()
            return handle
        except BaseException:
            if sock is None:
                udp.close()
            raise


def numeric(host: str) -> str:
    """host, if it is a numeric address (an IPv6 one perhaps with a zone); 127.0.0.1 for localhost. Else ValueError."""
    if host == "localhost":
        return LOCALHOST
    if isinstance(host, str):
        address, percent, zone = host.partition("%")
        family = literal_family(address)
        if family is not None and (not percent or (family == socket.AF_INET6 and zone)):
            return host
    raise ValueError(f"host must be a numeric address, 'localhost' or None, not {host!r}")


def checked_port(port: int) -> int:
    """port, if it can be one; else ValueError."""
    if not isinstance(port, int) or not 0 <= port <= LAST_PORT:
        raise ValueError(f"port must be a number from 0 to {LAST_PORT}, not {port!r}")
    return port


def connect_udp(sock: socket.socket, address: tuple[Any, ...]) -> None:
    """ValueError if address is no (host, port), or has a name for a host."""
    if not isinstance(address, (tuple, list)) or len(address) < 2:
        raise ValueError(f"remote_address must be (host, port), not {address!r}")
    host, port, *rest = address
    try:
        sock.connect((numeric(host), checked_port(port), *rest))
    except (TypeError, OverflowError) as error:  # of what only IPv6 has
        raise ValueError(f"remote_address must be (host, port), not {address!r}: {error}") from None


def bound_tcp(host: str | None, port: int, reuse_port: bool) -> socket.socket:
    """A socket bound to host and port; for all interfaces one that takes both families, if the system has such."""
    checked_port(port)
    if host is None or host == "":
        if socket.has_dualstack_ipv6():
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            address: tuple[Any, ...] = ("::", port)
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            address = ("0.0.0.0", port)
    else:
        address = (numeric(host), port)
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        set_listen_options(sock, True, reuse_port, None)
        if address[0] == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def bound_udp(host: str | None, port: int, reuse_port: bool) -> socket.socket:
    """For all interfaces that is IPv4 only: a dual-stack UDP socket shows IPv4 peers under other addresses."""
    address = ("0.0.0.0" if host is None or host == "" else numeric(host), checked_port(port))
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def stream_socket(sock: socket.socket) -> socket.socket:
    if isinstance(sock, ssl_module.SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")
    return sock
