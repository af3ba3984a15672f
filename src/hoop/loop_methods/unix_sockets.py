"""UNIX stream sockets: create_unix_connection and create_unix_server, on the transports and servers of TCP."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl as ssl_module
import stat
import sys
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from hoop.limits import Limits
from hoop.loop_methods.connections import Connections, ProtocolFactory
from hoop.loop_methods.servers import Server, Servers, WithProxyProtocol, prepare
from hoop.proxy_protocol import check_header
from hoop.tls.tls_options import client_options, server_options

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)
Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# asyncio removes the file of a closed server since Python 3.13.
CLEANS_UP = sys.version_info >= (3, 13)


class UnixSockets(Connections, Servers):
    """create_unix_connection, create_unix_server."""

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], ProtocolT],
        path: Path | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | None = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        proxy_header: bytes | None = None,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """Connect to the UNIX socket at path (Linux: an abstract name begins with a NUL), or adopt sock (connected).

        proxy_header is as in create_connection. Returns (transport, protocol). Raises OSError when no server listens
        there, ValueError for arguments that do not go together.
        """
        tls = client_options(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        check_header(proxy_header)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            path = os.fspath(path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self.sock_connect(sock, path)
            except BaseException:
                sock.close()
                raise
        elif sock is None:
            raise ValueError("no path and sock were specified")
        else:
            check_unix_stream(sock)
        try:
            adopting = self._adopt_connection(sock, protocol_factory, tls, head=proxy_header)
        except BaseException:  # no memory for a coroutine that would close it
            sock.close()
            raise
        return await adopting

    async def create_unix_server(  # type: ignore[override]
        self,
        protocol_factory: ProtocolFactory,
        path: Path | None = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ssl_module.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = CLEANS_UP,
        limits: Limits | None = None,
        proxy_protocol: WithProxyProtocol = None,
    ) -> Server:
        """Listen on the UNIX socket path (Linux: an abstract name begins with a NUL), or on sock.

        A socket file that stands at path is replaced, whether or not another server still listens on it. With
        cleanup_socket (the default since Python 3.13, as in asyncio) closing the server removes the file, unless
        another socket has taken its place. limits and proxy_protocol are as in create_server. Raises OSError when path
        cannot be bound, ValueError for arguments that do not go together.
        """
        limits = self._server_defaults.limits_for(limits)
        proxied = self._server_defaults.proxy_protocol_for(proxy_protocol)
        tls = server_options(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = bound_to(os.fspath(path))
        elif sock is None:
            raise ValueError("path was not specified, and no sock specified")
        else:
            check_unix_stream(sock)
        try:
            prepare([sock], limits, proxied is not None)
            if tls is not None:
                protocol_factory = self._tls_factory(protocol_factory, tls)
            is_kept = sock.getsockname() in self._server_defaults.kept_files
            cleanup = file_remover(sock) if cleanup_socket and not is_kept else None
            server = Server(self, [sock], protocol_factory, backlog, cleanup, limits, ssl, proxied)
        except BaseException:
            if path is not None:
                sock.close()
            raise
        if start_serving:
            await server._begin(path is not None)
        if self.get_debug():
            logger.info("%r is serving", server)
        return server


def check_unix_stream(sock: socket.socket) -> None:
    if isinstance(sock, ssl_module.SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


def is_file(name: str | bytes) -> bool:
    """Whether the name of a UNIX socket is a path: neither abstract nor empty."""
    return bool(name) and name[:1] not in ("\0", b"\0")


def bound_to(path: str | bytes) -> socket.socket:
    """A socket bound to path; a socket file that another server left there is removed first."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if is_file(path):
            remove_stale(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
        raise
    except BaseException:
        sock.close()
        raise
    return sock


def remove_stale(path: str | bytes) -> None:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:  # bind() will say what that means for the caller
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, error)


def file_remover(sock: socket.socket) -> Callable[[], None] | None:
    """A function that removes the file of a bound socket; None where there is no file."""
    path: Any = sock.getsockname()
    if not is_file(path):
        return None
    try:
        return functools.partial(remove_own_file, path, os.stat(path).st_ino)
    except FileNotFoundError:
        return None


def remove_own_file(path: str, inode: int) -> None:
    """Remove path if it is still the same file: another server may have replaced it."""
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.error("Unable to clean up listening UNIX socket %r: %r", path, error)
