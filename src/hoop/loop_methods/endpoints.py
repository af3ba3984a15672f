"""Datagram endpoints: create_datagram_endpoint."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

from hoop.core.checks import require_protocol
from hoop.loop_methods.name_lookups import NameLookups
from hoop.loop_methods.unix_sockets import remove_stale
from hoop.net.datagram import make_datagram

P = TypeVar("P", bound=asyncio.BaseProtocol)
AddressPair = tuple[Any, Any]  # local, remote
Candidate = tuple[tuple[int, int], AddressPair]  # (family, proto), addresses


class Endpoints(NameLookups):
    """create_datagram_endpoint."""

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]:
        """Make a datagram socket, bound to local_addr or connected to remote_addr, or use sock. (transport, protocol)

        Addresses are (host, port), with family AF_UNIX paths; a stale socket at a local path is removed. With
        allow_broadcast the socket is not connected, so that answers from every host arrive; sendto() still sends to
        remote_addr alone. Raises OSError when no address works, ValueError and TypeError for arguments that do not go
        together.
        """
        remote_address = None
        is_ours = sock is None
        if sock is not None:
            check_socket(
                sock,
                local_addr=local_addr,
                remote_addr=remote_addr,
                family=family,
                proto=proto,
                flags=flags,
                reuse_port=reuse_port,
                allow_broadcast=allow_broadcast,
            )
            sock.setblocking(False)
        else:
            candidates = await self._endpoint_candidates(local_addr, remote_addr, family, proto, flags)
            sock, remote_address = await self._open_endpoint(candidates, reuse_port, allow_broadcast)
        try:
            protocol = protocol_factory()
            require_protocol(protocol)
            waiter = self.create_future()
            transport = make_datagram(self, sock, protocol, remote_address, waiter)
            if is_ours:
                transport._keep_socket_alone()  # type: ignore[attr-defined]
        except BaseException:
            if is_ours:
                sock.close()
            raise
        if self.get_debug():
            message = "Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)"
            logger.debug(message, local_addr, remote_addr, transport, protocol)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    async def _endpoint_candidates(
        self, local_addr: Any, remote_addr: Any, family: int, proto: int, flags: int
    ) -> list[Candidate]:
        """List the address pairs to try, in order."""
        if not (local_addr or remote_addr):
            if family == 0:
                raise ValueError("unexpected address family")
            return [((family, proto), (None, None))]
        if family == socket.AF_UNIX:
            for path in (local_addr, remote_addr):
                if path is not None and not isinstance(path, str):
                    raise TypeError("string is expected")
            if local_addr and local_addr[0] != "\0":
                remove_stale(local_addr)
            return [((family, proto), (local_addr, remote_addr))]
        found: dict[tuple[int, int], list[Any]] = {}
        for index, address in enumerate((local_addr, remote_addr)):
            if address is None:
                continue
            if not (isinstance(address, tuple) and len(address) == 2):
                raise TypeError("2-tuple is expected")
            infos = await self._ensure_resolved(
                address, family=family, type=socket.SOCK_DGRAM, proto=proto, flags=flags
            )
            if not infos:
                raise OSError("getaddrinfo() returned empty list")
            for info_family, _, info_proto, _, resolved in infos:
                found.setdefault((info_family, info_proto), [None, None])[index] = resolved
        candidates: list[Candidate] = [
            (key, (local, remote))
            for key, (local, remote) in found.items()
            if not ((local_addr and local is None) or (remote_addr and remote is None))
        ]
        if not candidates:
            raise ValueError("can not get address information")
        return candidates

    async def _open_endpoint(
        self, candidates: list[Candidate], reuse_port: bool | None, allow_broadcast: bool | None
    ) -> tuple[socket.socket, Any]:
        """Return a socket for the first candidate that can be bound and connected, and the address it sends to."""
        failures: list[OSError] = []
        try:
            for (family, proto), (local, remote) in candidates:
                sock = None
                try:
                    sock = socket.socket(family=family, type=socket.SOCK_DGRAM, proto=proto)
                    set_endpoint_options(sock, reuse_port, allow_broadcast)
                    sock.setblocking(False)
                    if local:
                        sock.bind(local)
                    if remote and not allow_broadcast:
                        await self.sock_connect(sock, remote)
                    return sock, remote or None
                except OSError as error:
                    if sock is not None:
                        sock.close()
                    failures.append(error)
                except BaseException:
                    if sock is not None:
                        sock.close()
                    raise
            raise failures[0]
        finally:
            failures.clear()  # the errors' tracebacks lead back to this frame


def check_socket(sock: socket.socket, **modifiers: Any) -> None:
    if sys.version_info >= (3, 13):
        if sock.type == socket.SOCK_STREAM:
            raise ValueError(f"A datagram socket was expected, got {sock!r}")
    elif sock.type != socket.SOCK_DGRAM:
        raise ValueError(f"A UDP Socket was expected, got {sock!r}")
    given = ", ".join(f"{name}={value}" for name, value in modifiers.items() if value)
    if given:
        raise ValueError(f"socket modifier keyword arguments can not be used when sock is specified. ({given})")


def set_endpoint_options(sock: socket.socket, reuse_port: bool | None, allow_broadcast: bool | None) -> None:
    """Set SO_REUSEPORT and SO_BROADCAST. Never SO_REUSEADDR: on UDP it would let another process take over the port."""
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("reuse_port not supported by socket module")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if allow_broadcast:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
