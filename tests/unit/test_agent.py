"""hoop.Agent: its options, every kind of connection, and what users see. Its traps: test_agent_traps.py."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import hoop
import pytest
from conformance.tls_peers import NAME, client_context, server_context
from unit.agents import FakeTransport, Peer, ask, echo_server, fill, on_hoop, settle


class Collector(asyncio.Protocol):
    """Keeps the bytes that come, and tells one who waits."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.came.put_nowait(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def connect_fake(*arguments: Any) -> tuple[FakeTransport, asyncio.Protocol]:
    protocol = asyncio.Protocol()
    return FakeTransport(protocol), protocol


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep_alive": 0}, ValueError),
        ({"keep_alive": "4"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"connect_timeout": 0}, ValueError),
        ({"max_age": float("nan")}, ValueError),
        ({"max_sockets": 0}, ValueError),
        ({"max_sockets": 1.5}, TypeError),
        ({"max_total_sockets": -1}, ValueError),
        ({"max_free_sockets": -1}, ValueError),
        ({"max_free_sockets": None}, ValueError),
        ({"max_uses": 0}, ValueError),
        ({"min_free": -1}, ValueError),
        ({"min_free": 2, "max_free_sockets": 1}, ValueError),
        ({"scheduling": "random"}, ValueError),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        hoop.Agent(**options)


@on_hoop
async def test_arguments_that_make_no_sense_are_refused() -> None:
    agent = hoop.Agent()
    with pytest.raises(TypeError, match="a host and a port"):
        await agent.acquire("host")
    with pytest.raises(TypeError, match="hashable"):
        await agent.acquire("host", 1, local_addr=["127.0.0.1", 0])
    with pytest.raises(ValueError, match="timeout"):
        await hoop.Agent(connect_fake).acquire("k", timeout=0)

    async def wrong() -> int:
        return 3

    with pytest.raises(TypeError, match="connect must return"):
        await hoop.Agent(wrong).acquire()
    assert agent.stats().hosts == 0


@on_hoop
async def test_streams_of_hoop_are_the_default() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        async with await agent.acquire(*server.address) as lease:
            assert await ask(lease) == b"?\n"
            assert not lease.reused
            assert isinstance(lease.reader, hoop.StreamReader)
            with pytest.raises(TypeError):
                _ = lease.protocol
            with pytest.raises(TypeError):
                _ = lease.socket
            lease.release()
        async with await agent.acquire(*server.address) as lease:
            assert lease.reused
            assert await ask(lease) == b"?\n"
            lease.release()
        assert len(server.writers) == 1


@on_hoop
async def test_a_connection_that_goes_while_it_is_free_ends_its_streams() -> None:
    async with echo_server() as server:
        agent = hoop.Agent(keep_alive=0.001)
        lease = await agent.acquire(*server.address)
        reader, writer = lease.connection
        lease.release()
        await writer.wait_closed()
        assert reader.at_eof()
        assert agent.stats().expired == 1


@on_hoop
async def test_asyncios_streams() -> None:
    async with echo_server() as server:
        agent = hoop.Agent(asyncio.open_connection)
        for _ in range(3):
            async with await agent.acquire(*server.address) as lease:
                assert await ask(lease) == b"?\n"
                lease.release()
        assert agent.stats().reused == 2


@on_hoop
async def test_a_transport_and_its_protocol() -> None:
    loop = asyncio.get_running_loop()
    async with echo_server() as server:

        async def connect(host: str, port: int) -> tuple[asyncio.Transport, Collector]:
            return await loop.create_connection(Collector, host, port)

        agent = hoop.Agent(connect)
        for number in range(3):
            async with await agent.acquire(*server.address) as lease:
                lease.transport.write(b"?\n")
                assert await lease.protocol.came.get() == b"?\n"
                assert lease.reused == (number > 0)
                lease.release()
        server.writers[0].transport.abort()
        await lease.protocol.lost.wait()  # the owner hears of it, though it was free
        with pytest.raises(TypeError):
            _ = lease.reader


@on_hoop
async def test_a_socket_handle() -> None:
    loop: Any = asyncio.get_running_loop()
    async with echo_server() as server:
        came: asyncio.Queue[bytes] = asyncio.Queue()

        async def connect(host: str, port: int) -> hoop.Socket:
            socket: hoop.Socket = loop.connect_tcp(host, port)
            socket.on_data = lambda socket, data: came.put_nowait(data)
            return socket

        agent = hoop.Agent(connect)
        for _ in range(3):
            async with await agent.acquire(*server.address) as lease:
                lease.socket.write(b"?\n")
                assert await came.get() == b"?\n"
                lease.release()
        assert agent.stats().created == 1
        agent.close()
        with pytest.raises(ConnectionRefusedError):
            await hoop.Agent(connect).acquire("127.0.0.1", await unused_port())


async def unused_port() -> int:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


@pytest.mark.each_tls_engine
def test_tls() -> None:
    @on_hoop
    async def main() -> None:
        keywords = {"ssl": client_context(), "server_hostname": NAME}
        async with echo_server(ssl=server_context()) as server:
            agent = hoop.Agent()
            for _ in range(3):
                async with await agent.acquire(*server.address, **keywords) as lease:
                    assert await ask(lease) == b"?\n"
                    lease.release()
            assert agent.stats().created == 1
            while not server.writers:
                await asyncio.sleep(0)
            server.writers[0].close()  # close_notify and FIN
            while not agent.stats().dead:
                await asyncio.sleep(0)
            async with await agent.acquire(*server.address, **keywords) as lease:
                assert not lease.reused

    main()


def test_another_loop() -> None:
    async def main() -> None:
        server = await asyncio.start_server(serve_lines, "127.0.0.1", 0)
        agent = hoop.Agent(asyncio.open_connection)
        for number in range(3):
            async with await agent.acquire(*server.sockets[0].getsockname()) as lease:
                assert await ask(lease) == b"?\n"
                assert lease.reused == (number > 0)
                lease.release()
        agent.close()
        server.close()

    async def serve_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    asyncio.run(main())


def test_an_agent_belongs_to_one_loop() -> None:
    agent = hoop.Agent(connect_fake)

    async def main() -> None:
        (await agent.acquire("k")).release()

    hoop.run(main())
    with pytest.raises(RuntimeError, match="one loop"):
        hoop.run(main())
    agent.close()  # of a closed loop: nothing to do


@on_hoop
async def test_lifo_and_fifo() -> None:
    for scheduling, expected in (("lifo", 2), ("fifo", 0)):
        agent = hoop.Agent(connect_fake, scheduling=scheduling)  # type: ignore[arg-type]
        leases = [await agent.acquire("k") for _ in range(3)]
        connections = [lease.connection for lease in leases]
        for lease in leases:
            lease.release()
        assert (await agent.acquire("k")).connection is connections[expected]
        agent.close()


@on_hoop
async def test_no_more_are_kept_than_max_free_sockets() -> None:
    agent = hoop.Agent(connect_fake, max_free_sockets=2)
    await fill(agent, "k", count=5)
    assert (agent.stats().free, agent.stats().closed) == (2, 3)


@on_hoop
async def test_a_connection_serves_max_uses_users() -> None:
    agent = hoop.Agent(connect_fake, max_uses=2)
    for _ in range(6):
        (await agent.acquire("k")).release()
    assert agent.stats().created == 3


@on_hoop
async def test_max_age_ends_a_connection_between_users_only() -> None:
    agent = hoop.Agent(connect_fake, max_age=0.001)
    lease = await agent.acquire("k")
    loop = asyncio.get_running_loop()
    while loop.time() < lease._pooled.worn_at:  # type: ignore[union-attr,operator]
        await asyncio.sleep(0)
    assert not lease.transport.is_closing()
    lease.release()
    assert lease.transport.is_closing()


@on_hoop
async def test_ages_differ_so_that_ends_do_not_coincide() -> None:
    agent = hoop.Agent(connect_fake, max_age=1000)
    leases = [await agent.acquire("k") for _ in range(20)]
    ages = [lease._pooled.worn_at for lease in leases]  # type: ignore[union-attr]
    now = asyncio.get_running_loop().time()
    assert len(set(ages)) == 20
    assert all(899 < age - now < 1001 for age in ages if age is not None)


@on_hoop
async def test_the_peer_may_promise_less_than_keep_alive() -> None:
    agent = hoop.Agent(connect_fake, keep_alive=1000)
    lease = await agent.acquire("k")
    lease.release(keep_alive=1e-6)
    loop = asyncio.get_running_loop()
    (pooled,) = agent._idle
    while loop.time() <= pooled.deadline:
        await asyncio.sleep(0)
    assert not (await agent.acquire("k")).reused
    assert agent.stats().expired == 1


@on_hoop
async def test_on_connect_comes_before_the_first_user_and_its_error_is_the_attempts() -> None:
    seen: list[Any] = []

    async def log_in(connection: Any) -> None:
        seen.append(connection)
        if len(seen) == 2:
            raise PermissionError("wrong password")

    agent = hoop.Agent(connect_fake, on_connect=log_in)
    lease = await agent.acquire("k")
    assert seen == [lease.connection]
    with pytest.raises(PermissionError):
        await agent.acquire("k")
    assert seen[1][0].is_closing()
    assert agent.stats().lent == 1


@on_hoop
async def test_connect_timeout() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, connect_timeout=0.001)
    with pytest.raises(TimeoutError, match="connecting to"):
        await agent.acquire("k")
    assert (agent.stats().failures, agent.stats().connecting) == (1, 0)


@on_hoop
async def test_min_free_are_made_in_advance() -> None:
    agent = hoop.Agent(connect_fake, min_free=2)
    lease = await agent.acquire("k")
    lease.close()
    await settle()
    assert agent.stats().free == 2
    assert not (await agent.acquire("k", timeout=1)).reused
    agent.close()


@on_hoop
async def test_a_lease_that_was_dropped_frees_its_place() -> None:
    agent = hoop.Agent(connect_fake, max_sockets=1)
    await agent.acquire("k")
    gc.collect()
    assert agent.stats().lent == 0
    (await agent.acquire("k", timeout=1)).release()


@on_hoop
async def test_a_lease_ends_once() -> None:
    agent = hoop.Agent(connect_fake)
    lease = await agent.acquire("k")
    lease.release()
    other = await agent.acquire("k")
    lease.release()
    lease.close()
    assert (agent.stats().lent, other.transport.is_closing()) == (1, False)
    assert "ended" in repr(lease)
    assert "reused" in repr(other)


@on_hoop
async def test_the_total_limit_closes_a_free_connection_to_another_host() -> None:
    agent = hoop.Agent(connect_fake, max_total_sockets=2)
    await fill(agent, "a", count=2)
    lease = await agent.acquire("b", timeout=1)
    assert (agent.stats().free, agent.stats().lent, agent.stats().hosts) == (1, 1, 2)
    lease.close()
