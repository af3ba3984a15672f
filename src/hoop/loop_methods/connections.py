"""Outgoing connections: resolving, racing addresses (RFC 8305), binding, connecting."""

from __future__ import annotations

import asyncio
import collections
import functools
import itertools
import socket
import ssl as ssl_module
from asyncio.log import logger
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from hoop.core.checks import require_protocol
from hoop.loop_methods.name_lookups import AddressInfo, NameLookups
from hoop.loop_methods.race import first_to_succeed
from hoop.net.stream import make_stream
from hoop.proxy_protocol import check_header
from hoop.tls.tls_options import TlsOptions, accepted_options, host_options
from hoop.tls.tls_transport import new_session

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)


class Connections(NameLookups):
    """create_connection, connect_accepted_socket, sock_connect."""

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect sock, which must be non-blocking, to address. Resolve a host name first. Raises OSError."""
        if self.get_debug() and sock.gettimeout() != 0:  # told before the name is asked for, as in asyncio
            raise ValueError("the socket must be non-blocking")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            infos = await self._ensure_resolved(address, family=sock.family, type=sock.type, proto=sock.proto)
            address = infos[0][4]
        await self._sock_connect_resolved(sock, address)

    async def create_connection(
        self,
        protocol_factory: Callable[[], ProtocolT],
        host: str | bytes | None = None,
        port: str | bytes | int | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket.socket | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
        proxy_header: bytes | None = None,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """Connect to host and port over TCP, or adopt sock (connected); (transport, protocol).

        Addresses are tried in turn, or raced happy_eyeballs_delay seconds apart (RFC 8305). proxy_header, made by
        hoop.proxy_protocol.encode(), goes before all else, TLS too, with the first bytes (hoop's own). Raises OSError
        when no address answers (with all_errors an ExceptionGroup of all), ValueError for arguments that do not fit.
        """
        check_header(proxy_header)
        peer = None
        tls = host_options(host, ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        if isinstance(sock, ssl_module.SSLSocket):
            raise TypeError("Socket cannot be of type SSLSocket")
        if host is not None or port is not None:
            if sock is not None:
                raise ValueError("host/port and sock can not be specified at the same time")
            if happy_eyeballs_delay is not None and interleave is None:
                interleave = 1
            sock, peer = await self._connect_any(
                host,
                port,
                family=family,
                proto=proto,
                flags=flags,
                local_addr=local_addr,
                delay_s=happy_eyeballs_delay,
                interleave=interleave,
                all_errors=all_errors,
            )
        elif sock is None:
            raise ValueError("host and port was not specified and no sock specified")
        elif sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        try:
            adopting = self._adopt_connection(sock, protocol_factory, tls, peer, proxy_header)
        except BaseException:  # no memory for a coroutine that would close it
            sock.close()
            raise
        transport, protocol = await adopting
        if self.get_debug():
            logger.debug("connected to %s:%r: (%r, %r)", host, port, transport, protocol)
        return transport, protocol

    async def connect_accepted_socket(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], ProtocolT],
        sock: socket.socket,
        *,
        ssl: ssl_module.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """Adopt a connection accepted outside of asyncio; (transport, protocol). ValueError if sock is no stream."""
        if isinstance(sock, ssl_module.SSLSocket):
            raise TypeError("Socket cannot be of type SSLSocket")
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        tls = accepted_options(ssl or None, ssl_handshake_timeout, ssl_shutdown_timeout)
        return await self._adopt_connection(sock, protocol_factory, tls)

    async def _adopt_connection(
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], ProtocolT],
        tls: TlsOptions | None,
        peer: Any = None,
        head: bytes | None = None,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """A transport for sock; returns once connection_made (and the TLS handshake) is done.

        peer is the address that sock was connected to, if that is known; head goes before the first bytes. The socket
        is closed if anything fails, unless it turns out to be another transport's.
        """
        transport: asyncio.Transport
        session = None
        try:
            waiter = self.create_future()
            sock.setblocking(False)
            protocol = protocol_factory()
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                session = new_session(self, protocol, tls, waiter)
            else:
                require_protocol(protocol)
        except BaseException:
            sock.close()
            raise
        if session is not None:
            transport = session.app_transport
            make_stream(self, sock, session, peer=peer, head=head)
        else:
            transport = make_stream(self, sock, protocol, waiter, peer=peer, head=head)
        try:
            await waiter
            return transport, protocol
        except BaseException:
            transport.close()
            raise
        finally:
            del waiter  # its error's traceback leads back to this frame

    async def _connect_any(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        local_addr: tuple[str, int] | None = None,
        delay_s: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[socket.socket, Any]:
        """A socket connected to one of the host's addresses, and that address.

        The addresses are raced, delay_s apart, or tried one after another if that is None.
        """
        infos = await self._resolve_stream((host, port), family, proto, flags)
        local_infos = None
        if local_addr is not None:
            local_infos = await self._resolve_stream(local_addr, family, proto, flags)
        if interleave:
            infos = interleaved(infos, interleave)
        failures: list[list[OSError]] = []
        opened: list[socket.socket] = []
        close_losers = close_all_but  # the collector may close this coroutine when modules are emptied already
        winner: tuple[socket.socket, Any] | None = None
        try:
            if delay_s is None:
                for info in infos:
                    try:
                        winner = await self._connect_one(opened, failures, info, local_infos)
                        break
                    except OSError:
                        continue
            else:
                attempts = (functools.partial(self._connect_one, opened, failures, info, local_infos) for info in infos)
                winner = await first_to_succeed(self, attempts, delay_s)
            if winner is None:
                raise combined_failure([error for attempt in failures for error in attempt], all_errors)
            close_losers(winner[0], opened)
            return winner
        except BaseException:
            close_losers(None, opened)  # also one that won a race that was then cancelled
            raise
        finally:
            failures.clear()  # the errors' tracebacks lead back to this frame

    async def _resolve_stream(self, address: Any, family: int, proto: int, flags: int) -> list[AddressInfo]:
        infos = await self._ensure_resolved(address, family=family, type=socket.SOCK_STREAM, proto=proto, flags=flags)
        if not infos:
            raise OSError("getaddrinfo() returned empty list")
        return infos

    async def _connect_one(
        self,
        opened: list[socket.socket],
        failures: list[list[OSError]],
        info: AddressInfo,
        local_infos: list[AddressInfo] | None,
    ) -> tuple[socket.socket, Any]:
        """Create, bind and connect one socket; also its address. Add it to opened, and errors to failures."""
        errors: list[OSError] = []
        failures.append(errors)
        family, type_, proto, _, address = info
        sock = None
        try:
            sock = socket.socket(family=family, type=type_, proto=proto)
            opened.append(sock)
            sock.setblocking(False)
            if local_infos is not None:
                bind_to_one(sock, local_infos, errors)
            await self.sock_connect(sock, address)
            return sock, address
        except OSError as error:
            errors.append(error)
            if sock is not None:
                sock.close()
            raise
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        finally:
            del errors, failures  # which lead back to this frame


def close_all_but(kept: socket.socket | None, opened: list[socket.socket]) -> None:
    """Close the others. No iterator: out of memory, too, the peers must see their connections end."""
    index = len(opened)
    while index > 0:
        index -= 1
        if opened[index] is not kept:
            opened[index].close()


def bind_to_one(sock: socket.socket, local_infos: Iterable[AddressInfo], failures: list[OSError]) -> None:
    """Bind to the first local address of the socket's family that works. Raises OSError when none does."""
    for family, _, _, _, address in local_infos:
        if family != sock.family:
            continue
        try:
            sock.bind(address)
            return
        except OSError as error:
            failures.append(
                OSError(error.errno, f"error while attempting to bind on address {address!r}: {str(error).lower()}")
            )
    if failures:
        raise failures.pop()
    raise OSError(f"no matching local address with family={sock.family!r} found")


def combined_failure(errors: list[OSError], all_errors: bool) -> Exception:
    """One exception for all the addresses that failed, as asyncio words it."""
    if not errors:
        return TimeoutError("create_connection failed")  # all attempts of a race were cancelled
    if all_errors:
        return ExceptionGroup("create_connection failed", errors)
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    return OSError(f"Multiple exceptions: {', '.join(str(error) for error in errors)}")


def interleaved(infos: list[AddressInfo], first_family_count: int) -> list[AddressInfo]:
    """Alternate between address families, after first_family_count addresses of the first one (RFC 8305, section 4)."""
    by_family: dict[int, list[AddressInfo]] = collections.OrderedDict()
    for info in infos:
        by_family.setdefault(info[0], []).append(info)
    families = list(by_family.values())
    head: list[AddressInfo] = []
    if first_family_count > 1:
        head = families[0][: first_family_count - 1]
        del families[0][: first_family_count - 1]
    rows = itertools.zip_longest(*families)
    return head + [info for info in itertools.chain.from_iterable(rows) if info is not None]
