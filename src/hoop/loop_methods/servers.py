"""Listening: create_server and the Server that it returns."""

from __future__ import annotations

import asyncio
import collections.abc
import errno
import itertools
import operator
import os
import socket
import ssl as ssl_module
import sys
from asyncio.log import logger
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import Any, Literal, Self

from hoop.drain import Drain, DrainReport
from hoop.limits import Limits
from hoop.loop_methods.ageing import Ageing
from hoop.loop_methods.connections import ProtocolFactory
from hoop.loop_methods.drains import LINGER_S, Drains, ServerDrain
from hoop.loop_methods.name_lookups import AddressInfo, NameLookups
from hoop.net.admission import Admission
from hoop.net.listener import Listener
from hoop.net.proxy_listener import ProxyGate, ProxyListener, end_arrivals_of
from hoop.net.server_streams import close_stream, streams_of
from hoop.proxy_protocol import ProxyProtocol
from hoop.server_defaults import ServerDefaults
from hoop.stats import ServerStats
from hoop.tls.tls_options import TlsOptions, server_options
from hoop.tls.tls_transport import new_session

WithProxyProtocol = ProxyProtocol | Literal[False] | None  # None: what loop.server_defaults has

PROXY_COUNTS = ("refused_untrusted", "invalid_proxy_headers", "proxy_header_timeouts")
SOMAXCONN_FILE = "/proc/sys/net/core/somaxconn"  # Linux: listen(2) silently cuts a longer backlog


class Server(asyncio.AbstractServer):
    """A set of listening sockets and the connections they brought in. As asyncio.Server of the running Python."""

    def __init__(
        self,
        loop: Servers,
        sockets: list[socket.socket],
        protocol_factory: ProtocolFactory,
        backlog: int,
        cleanup: Callable[[], None] | None = None,  # called once, when the listening sockets are closed
        limits: Limits | None = None,
        ssl_context: ssl_module.SSLContext | None = None,
        proxy_protocol: ProxyProtocol | None = None,
    ) -> None:
        self._loop = loop
        self._sockets: list[socket.socket] | None = sockets
        self._protocol_factory = protocol_factory
        self._backlog = backlog
        self._ssl_context = ssl_context  # where asyncio's servers have it: programs look there
        self._cleanup = cleanup
        self._admission = Admission(loop, limits)
        age_s = None if limits is None else limits.max_connection_age
        self._ageing = None if age_s is None else Ageing(loop, age_s)
        self._proxy_gate = None if proxy_protocol is None else gate_of(loop, proxy_protocol)
        self._listeners: list[Listener] = []
        self._active_count = 0
        self._waiters: list[asyncio.Future[None]] | None = []
        self._serving = False
        self._serving_forever: asyncio.Future[None] | None = None
        self._is_referenced = True
        self._last_waiter: asyncio.Future[None] | None = None  # of a drain: for the end of the last connection
        self._is_draining = False
        self._is_ending = False  # the drain has stopped accepting: its connections read it
        loop._servers.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} sockets={self.sockets!r}>"

    # The transports of accepted connections call these two.

    def _attach(self, transport: Any = None) -> None:
        if self._ageing is not None:
            self._ageing.begin(transport)  # first: without memory for its timer there is no connection
        self._active_count += 1

    def _detach(self, transport: Any = None) -> None:
        self._active_count -= 1
        if self._ageing is not None:
            self._ageing.end(transport)
        if self._active_count == 0:
            if self._sockets is None:
                self._wake_waiters()
            waiter = self._last_waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _admitted(self) -> int:
        """Connections that ever came. One whose PROXY header was awaited was counted as active before."""
        accepted: int = self._admission.counts()["accepted"]
        return accepted if self._proxy_gate is None else accepted - self._proxy_gate.completed

    def _let_linger(self, stream: Any) -> None:
        self._loop.call_later(LINGER_S, stream.abort).unref()

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _start_serving(self) -> None:
        if self._serving:
            return
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        self._serving = True
        try:
            warn_of_backlog(self._backlog)
            for sock in self._sockets:
                sock.listen(self._backlog)
                listener = self._listener_on(sock)
                self._listeners.append(listener)  # first: what has started must be stopped if anything fails
                listener.start()
            self._set_referenced(self._is_referenced)
        except BaseException:
            self._stop_listening()
            raise

    def _listener_on(self, sock: socket.socket) -> Listener:
        gate = self._proxy_gate
        kind = Listener if gate is None else ProxyListener
        listener = kind(self._loop, sock, self._protocol_factory, self, self._backlog, self._admission)
        if gate is not None and isinstance(listener, ProxyListener):
            listener.obey(gate)
        return listener

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        self._serving = False

    async def _begin(self, is_owner: bool) -> None:
        """start_serving() of a new server. On failure, stop listening: no caller has the server yet.

        Sockets of the caller's stay open.
        """
        try:
            await self.start_serving()
        except BaseException:
            if is_owner:
                self.close()
            else:
                self._stop_listening()
            raise

    def _set_referenced(self, is_referenced: bool) -> None:
        self._is_referenced = is_referenced
        for listener in self._listeners:
            listener.ref() if is_referenced else listener.unref()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the server runs on."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether the server accepts connections."""
        return self._serving

    def stats(self) -> ServerStats:
        """How many connections came, were refused, and were ended by a limit."""
        of_proxies = dict.fromkeys(PROXY_COUNTS, 0) if self._proxy_gate is None else self._proxy_gate.counts()
        return ServerStats(**{**self._admission.counts(), **of_proxies, "active": self._active_count})

    def ref(self) -> Self:
        """Have loop.run() wait for this server again, as it does by default. Returns self. (Node: server.ref)"""
        self._set_referenced(True)
        return self

    def unref(self) -> Self:
        """Let loop.run() return although this server listens; connections count by themselves, and so does a task in
        serve_forever(). Returns self. (Node: server.unref)"""
        self._set_referenced(False)
        return self

    def has_ref(self) -> bool:
        """Whether loop.run() waits for this server as long as it listens."""
        return self._is_referenced

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets; empty once closed."""
        return () if self._sockets is None else tuple(TransportSocket(sock) for sock in self._sockets)

    def close(self) -> None:
        """Stop accepting and close the listening sockets; open connections go on. Idempotent."""
        self._loop._check_caller("Server.close")
        self._close_sockets()
        forever = self._serving_forever
        if forever is not None and not forever.done():
            forever.cancel()
            self._serving_forever = None
        if self._active_count == 0:
            self._wake_waiters()  # a drain may have closed the sockets before

    def _close_sockets(self) -> None:
        """Refuse clients from now on. serve_forever() goes on as long as a drain has connections to wait for."""
        sockets = self._sockets
        if sockets is None:
            return
        self._sockets = None
        self._stop_listening()
        for sock in sockets:
            sock.close()
        cleanup, self._cleanup = self._cleanup, None
        if cleanup is not None:
            cleanup()

    def close_clients(self) -> None:
        """close() every connection that this server accepted and that is still open."""
        self._loop._check_caller("Server.close_clients")
        self._end_arrivals()
        for stream in streams_of(self._loop, self):
            close_stream(stream)

    def abort_clients(self) -> None:
        """abort() every connection that this server accepted and that is still open."""
        self._loop._check_caller("Server.abort_clients")
        self._end_arrivals()
        for stream in streams_of(self._loop, self):
            stream.abort()

    async def stop_accepting(self) -> None:
        """Accept the connections that wait in the kernel's queue, then no more. Idempotent.

        The listening sockets stay open, for other processes that share them or for start_serving(). What a limit of
        connections keeps in the queue stays there.
        """
        for listener in self._listeners:
            listener.finish(self._longest_queue())
        await asyncio.sleep(0)
        self._stop_listening()

    def _longest_queue(self) -> int:
        return min(max(self._backlog, 0), longest_backlog() or self._backlog) + 1  # the kernel takes one more

    async def drain(self, drain: Drain | None = None, *, keep_listening: bool = False) -> DrainReport:
        """End gracefully: see hoop.Drain; by default as server_defaults.drain says, or hoop.Drain(). Returns when all
        has ended.

        keep_listening: leave the listening sockets open, for a process that takes over; close() is then the caller's.
        RuntimeError when it drains already. (Node: server.close, with a deadline)
        """
        course = self._loop.server_defaults.drain_for(drain)
        if self._is_draining:
            raise RuntimeError(f"server {self!r} is draining already")
        self._is_draining = True
        if self._ageing is not None:
            self._ageing.stop()
            self._ageing = None
        return await ServerDrain(self, course).run(keep_listening)

    def is_draining(self) -> bool:
        """Whether drain() was called."""
        return self._is_draining

    async def _wait_for_last(self, timeout_s: float) -> bool:
        """Wait until no connection is open, or that long. Whether none is open."""
        if self._active_count == 0:
            return True
        waiter = self._last_waiter = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._last_waiter = None
        return self._active_count == 0

    def _end_arrivals(self) -> None:
        """Close the connections that no protocol knows yet: their PROXY headers have not come."""
        if self._proxy_gate is not None:
            end_arrivals_of(self._loop, self)

    async def start_serving(self) -> None:
        """Start accepting. Idempotent; RuntimeError once closed."""
        self._start_serving()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Accept until cancelled; then close, and end and await the connections (Python 3.11: leave them be).

        RuntimeError if closed or already awaited.
        """
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._sockets is None:
            raise RuntimeError(f"server {self!r} is closed")
        self._start_serving()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except asyncio.CancelledError:
            try:
                self.close()
                if sys.version_info >= (3, 12):  # cpython#123720: a client that hangs must not hang this
                    self.close_clients()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._serving_forever = None

    async def wait_closed(self) -> None:
        """Wait until the server is closed and its last connection has ended (Python 3.11: return if it is closed)."""
        if self._waiters is None or (sys.version_info < (3, 12) and self._sockets is None):
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter


class Servers(Drains, NameLookups):
    """create_server, and the defaults of every server."""

    def _begin_servers(self) -> None:
        self._server_defaults = ServerDefaults()

    @property
    def server_defaults(self) -> ServerDefaults:
        """What servers of this loop get if their maker does not say: a hoop.ServerDefaults. Set its attributes."""
        return self._server_defaults

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: ProtocolFactory,
        host: str | collections.abc.Sequence[str] | None = None,
        port: int | str | None = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ssl_module.SSLContext | None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        limits: Limits | None = None,
        proxy_protocol: WithProxyProtocol = None,
    ) -> Server:
        """Listen on host (a name, several, or None for all interfaces) and port, or on sock.

        limits are those that the server puts on its clients, and Server.stats() counts how often one was met;
        proxy_protocol is what it expects of balancers in front of it. Both are hoop's own; without them the loop's
        server_defaults apply. Raises OSError when an address cannot be bound, ValueError for arguments that do not go
        together.
        """
        limits = self._server_defaults.limits_for(limits)
        proxied = self._server_defaults.proxy_protocol_for(proxy_protocol)
        tls = server_options(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if isinstance(sock, ssl_module.SSLSocket):
            raise TypeError("Socket cannot be of type SSLSocket")
        if host is not None or port is not None:
            if sock is not None:
                raise ValueError("host/port and sock can not be specified at the same time")
            infos = await self._resolve_all(host, port, family, flags)
            sockets = self._bind_all(infos, reuse_address, reuse_port, keep_alive)
        else:
            if sock is None:
                raise ValueError("Neither host/port nor sock were specified")
            if sock.type != socket.SOCK_STREAM:
                raise ValueError(f"A Stream Socket was expected, got {sock!r}")
            sockets = [sock]
        try:
            prepare(sockets, limits, proxied is not None)
            if tls is not None:
                protocol_factory = self._tls_factory(protocol_factory, tls)
            server = Server(
                self, sockets, protocol_factory, backlog, limits=limits, ssl_context=ssl, proxy_protocol=proxied
            )
        except BaseException:
            if sock is None:
                for listening in sockets:
                    listening.close()
            raise
        if start_serving:
            await server._begin(sock is None)
        if self.get_debug():
            logger.info("%r is serving", server)
        return server

    def _tls_factory(self, protocol_factory: ProtocolFactory, tls: TlsOptions) -> ProtocolFactory:
        """A factory that wraps each accepted connection's protocol in TLS."""

        def wrap_protocol() -> asyncio.BaseProtocol:
            return new_session(self, protocol_factory(), tls)

        return wrap_protocol

    async def _resolve_all(self, host: Any, port: Any, family: int, flags: int) -> list[AddressInfo]:
        """Every address to listen on, each once, in the order given."""
        if host == "":
            hosts: list[Any] = [None]
        elif isinstance(host, str) or not isinstance(host, collections.abc.Iterable):
            hosts = [host]
        else:
            hosts = list(host)
        kind: Any = {"family": family, "type": socket.SOCK_STREAM, "flags": flags}
        if len(hosts) == 1:  # no tasks; and a gather() that finds no memory when its tasks are done never ends
            found = [await self._ensure_resolved((hosts[0], port), **kind)]
        else:
            found = await asyncio.gather(*(self._ensure_resolved((name, port), **kind) for name in hosts))
        for name, infos in zip(hosts, found, strict=True):
            if not infos:
                raise OSError(f"getaddrinfo({name!r}) returned empty list")
        return list(dict.fromkeys(itertools.chain.from_iterable(found)))

    def _bind_all(
        self, infos: list[AddressInfo], reuse_address: bool | None, reuse_port: bool | None, keep_alive: bool | None
    ) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        refusal: OSError | None = None
        try:
            for family, type_, proto, _, address in infos:
                try:
                    sock = socket.socket(family, type_, proto)
                except OSError as error:  # a family that this machine does not have
                    refusal = error
                    logger.debug("create_server() failed to create socket.socket(%r, %r, %r)", family, type_, proto)
                    continue
                sockets.append(sock)
                set_listen_options(sock, reuse_address, reuse_port, keep_alive)
                try:
                    sock.bind(address)
                except OSError as error:
                    message = f"error while attempting to bind on address {address!r}: {str(error).lower()}"
                    if error.errno == errno.EADDRNOTAVAIL:  # the family is there, but not enabled
                        sockets.pop().close()
                        logger.debug(message)
                        continue
                    raise OSError(error.errno, message) from None
            if not sockets:
                raise OSError(f"could not bind on any address out of {[info[4] for info in infos]!r}") from refusal
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        refusal = None  # its traceback holds this frame
        return sockets


def wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def set_listen_options(
    sock: socket.socket, reuse_address: bool | None, reuse_port: bool | None, keep_alive: bool | None
) -> None:
    if reuse_address is None:
        reuse_address = os.name == "posix"
    if reuse_address:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("reuse_port not supported by socket module")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if keep_alive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sock.family == socket.AF_INET6:
        # the IPv4 wildcard has a socket of its own
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def prepare(sockets: list[socket.socket], limits: Limits | None, is_proxied: bool) -> None:
    """Set sockets up for these limits. ValueError or OSError for limits that they do not take."""
    for sock in sockets:
        sock.setblocking(False)
        if limits is not None:
            limits.apply_to(sock, is_proxied=is_proxied)


def gate_of(loop: Servers, proxy_protocol: ProxyProtocol) -> ProxyGate:
    return ProxyGate(
        loop,
        proxy_protocol.networks(),
        proxy_protocol.versions,
        proxy_protocol.header_timeout,
        proxy_protocol.untrusted == "ignore",
    )


def warn_of_backlog(backlog: int) -> None:
    """Warn of a long backlog, which listen(2) cuts silently."""
    longest = longest_backlog()
    if longest is not None and operator.index(backlog) > longest:  # TypeError as listen() has it
        logger.warning("a backlog of %d is cut to %d, the system's net.core.somaxconn", backlog, longest)


def longest_backlog() -> int | None:
    """The longest queue of connections that the kernel keeps for a listening socket; None where it does not say."""
    try:
        # O_NONBLOCK for tools that watch for calls that block (blockbuster, in aiohttp's and anyio's tests).
        fd = os.open(SOMAXCONN_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 32))
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None
