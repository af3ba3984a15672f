"""hoop takes a peer's address when the kernel offers it: a reset connection no longer knows it (uvloop#560)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import sys
import tempfile
from typing import Any

import pytest
from peers import DEADLINE_S, LOCALHOST, Clients, Recorder, address_of, closed, has_ipv6_loopback, reset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="where others drop what was reset before accept(2)")


def reset_in_the_queue(address: tuple[Any, ...]) -> tuple[Any, ...]:
    """Connect to a server of this thread's loop, which cannot have accepted yet, and reset; the address of our end."""
    sock = socket.create_connection(address[:2], timeout=DEADLINE_S)
    own = sock.getsockname()
    reset(sock)
    return own


@pytest.mark.parametrize("host", [LOCALHOST, "::1"])
def test_an_accepted_connection_that_was_reset_knows_its_peer(run: Any, host: str) -> None:
    """uvloop#560: there get_extra_info("peername") is None, and a server's access log fails."""
    if host == "::1" and not has_ipv6_loopback():
        pytest.skip("no IPv6 here")

    async def main() -> None:
        clients = Clients()
        server = await asyncio.get_running_loop().create_server(clients, host, 0)
        own = reset_in_the_queue(address_of(server))
        protocol = await clients.until_made()
        assert protocol.transport.get_extra_info("peername") == own
        assert protocol.transport.get_extra_info("sockname") == address_of(server)
        await protocol.until_lost()
        assert protocol.transport.get_extra_info("peername") == own
        server.close()
        await closed(server)

    run(main())


def test_an_accepted_unix_connection_knows_its_peer_s_name(run: Any) -> None:
    """A client that has bound a name of its own, and is gone by the time it is accepted."""

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="hoop") as folder:
            path, own = os.path.join(folder, "s"), os.path.join(folder, "c")
            clients = Clients()
            server: Any = await asyncio.get_running_loop().create_unix_server(clients, path)
            with socket.socket(socket.AF_UNIX) as client:
                client.bind(own)
                client.settimeout(DEADLINE_S)
                client.connect(path)
            protocol = await clients.until_made()
            assert protocol.transport.get_extra_info("peername") == own
            await protocol.until_lost()
            server.close()
            await closed(server)

    run(main())


def test_sock_accept_tells_the_peer_of_a_connection_that_was_reset(run: Any) -> None:
    async def main() -> None:
        with socket.create_server((LOCALHOST, 0)) as listener:
            listener.setblocking(False)
            own = reset_in_the_queue(listener.getsockname())
            sock, address = await asyncio.get_running_loop().sock_accept(listener)
            with sock:
                assert address == own

    run(main())


def test_a_client_knows_whom_it_connected_to() -> None:
    """Of a connection that the server has reset before a transport was made of it hoop tells the address that was
    connected to; asyncio tells None."""
    import hoop

    class Slow(hoop.Loop):
        """Returns from sock_connect() only after the server has reset."""

        async def sock_connect(self, sock: socket.socket, address: Any) -> None:
            await super().sock_connect(sock, address)
            peer, _ = listener.accept()
            reset(peer)
            poll = select.poll()
            poll.register(sock, 0)
            assert poll.poll(DEADLINE_S * 1000)
            with pytest.raises(OSError):
                sock.getpeername()

    async def main() -> None:
        address = listener.getsockname()
        transport, protocol = await asyncio.get_running_loop().create_connection(Recorder, *address)
        assert transport.get_extra_info("peername") == address
        assert protocol.transport.get_extra_info("sockname")[0] == LOCALHOST
        await protocol.until_lost()
        connected: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        handle = asyncio.get_running_loop().connect_tcp(*address, connected.set_result)  # type: ignore[attr-defined]
        assert await connected is handle
        assert handle.remote_address == address
        handle.destroy()

    with socket.create_server((LOCALHOST, 0)) as listener, contextlib.closing(Slow()) as loop:
        listener.settimeout(DEADLINE_S)
        loop.run_until_complete(asyncio.wait_for(main(), DEADLINE_S))
