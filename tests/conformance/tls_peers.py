"""Certificates made for the test run, and the other end of a TLS connection: blocking, on sockets of the ssl module."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable
from typing import Any

import trustme
from conformance.peers import DEADLINE_S, LOCALHOST, Recorder, address_of, connected, off_loop, soon, tcp_pair

MIB = 1024 * 1024
SMALL_BUFFERS = {"send_buffer": 8192, "receive_buffer": 8192}  # of the kernel: `sizes` of tls_connected()
NAME = "localhost"
OTHER_NAME = "other.example"


@functools.cache
def authority() -> trustme.CA:
    """The authority whose word counts in these tests."""
    return trustme.CA()


@functools.cache
def stranger() -> trustme.CA:
    """An authority that nobody here trusts."""
    return trustme.CA()


@functools.cache
def certificate(name: str = NAME) -> trustme.LeafCert:
    return authority().issue_cert(name)


@functools.cache
def untrusted_certificate() -> trustme.LeafCert:
    return stranger().issue_cert(NAME)


def server_context(leaf: trustme.LeafCert | None = None, *, asks_client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (leaf or certificate()).configure_cert(context)
    if asks_client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority().configure_trust(context)
    return context


def client_context(leaf: trustme.LeafCert | None = None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Trusts the authority and checks the name; leaf is the client's own certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if leaf is not None:
        leaf.configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def trusting_context() -> ssl.SSLContext:
    """A client that believes everything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def anonymous_tls(purpose: int) -> ssl.SSLContext:
    """TLS without certificates (anonymous Diffie-Hellman): who is who is not what is tested here."""
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


def wrap_server(sock: socket.socket, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """Blocking: the handshake, as the server."""
    return (context or server_context()).wrap_socket(sock, server_side=True)


def wrap_client(
    sock: socket.socket, context: ssl.SSLContext | None = None, name: str | None = NAME, **arguments: Any
) -> ssl.SSLSocket:
    """Blocking: the handshake, as a client."""
    return (context or client_context()).wrap_socket(sock, server_hostname=name, **arguments)


def dial_tls(
    address: tuple[Any, ...], context: ssl.SSLContext | None = None, name: str | None = NAME, **arguments: Any
) -> ssl.SSLSocket:
    """Blocking: a client's connection to a server of the loop under test."""
    return wrap_client(socket.create_connection(address[:2], timeout=DEADLINE_S), context, name, **arguments)


async def tls_server(clients: Any, context: ssl.SSLContext | None = None, **arguments: Any) -> Any:
    """A server of the running loop for the protocols that clients() makes."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(clients, LOCALHOST, 0, ssl=context or server_context(), **arguments)


async def tls_client(protocol: Any, server: Any, context: ssl.SSLContext | None = None) -> Any:
    """A transport of the running loop, connected to a server that may be the same loop's."""
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: protocol, *address_of(server), ssl=context or client_context(), server_hostname=NAME
    )
    return transport


async def all_closed(transport: Any, server: Any, *protocols: Recorder) -> None:
    """End a connection of tls_client() and its server; the protocols at both ends have been told."""
    transport.close()
    for protocol in protocols:
        await protocol.until_lost()
    server.close()


async def tls_connected(
    protocol: Any,
    *,
    context: ssl.SSLContext | None = None,
    peer_context: ssl.SSLContext | None = None,
    server_hostname: str = NAME,
    sizes: dict[str, int] | None = None,
    **arguments: Any,
) -> tuple[Any, ssl.SSLSocket]:
    """A TLS client transport of the running loop for protocol, and the blocking server at its other end.

    arguments go to create_connection, sizes (of kernel buffers) to tcp_pair.
    """
    ours, peer = tcp_pair(**(sizes or {}))
    handshake = asyncio.ensure_future(off_loop(wrap_server, peer, peer_context))
    transport, _ = await soon(
        asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=ours, ssl=context or client_context(), server_hostname=server_hostname, **arguments
        )
    )
    return transport, await soon(handshake)


async def upgraded(
    protocol: Recorder, *, server_side: bool = False, **arguments: Any
) -> tuple[Any, ssl.SSLSocket, Any]:
    """A connection of protocol after start_tls: the new transport, the blocking peer, the transport below."""
    below, peer = await connected(protocol)
    wrap: Callable[..., ssl.SSLSocket] = wrap_client if server_side else wrap_server
    handshake = asyncio.ensure_future(off_loop(wrap, peer))
    context = server_context() if server_side else client_context()
    hostname = None if server_side else NAME
    transport = await soon(
        asyncio.get_running_loop().start_tls(
            below, protocol, context, server_side=server_side, server_hostname=hostname, **arguments
        )
    )
    protocol.transport = transport
    return transport, await soon(handshake), below


def read_tls_exactly(sock: ssl.SSLSocket, size: int) -> bytes:
    """Blocking: size bytes of plaintext, fewer at the end of the stream."""
    data = bytearray()
    with contextlib.suppress(ssl.SSLZeroReturnError, ssl.SSLEOFError):
        while len(data) < size:
            chunk = sock.recv(min(65536, size - len(data)))
            if not chunk:
                break
            data += chunk
    return bytes(data)


def say_goodbye(sock: ssl.SSLSocket) -> None:
    """Blocking: exchange close_notify, then close."""
    with contextlib.suppress(OSError):
        sock.unwrap()
    sock.close()
