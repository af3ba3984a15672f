"""What goes wrong in other connection pools, not in hoop.Agent. Each test has the number of a trap in docs/agent.md."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import Coroutine
from typing import Any

import hoop
import pytest
from conformance.tls_peers import NAME, client_context, server_context
from unit.agents import FakeTransport, Peer, ask, echo_server, fill, on_hoop, settle


def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine)


@on_hoop
async def test_trap_a1_a_waiter_cancelled_in_the_turn_of_the_hand_over_passes_the_connection_on() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, max_sockets=1)
    first = start(agent.acquire("k"))
    await settle()
    peer.succeed()
    lease = await first
    cancelled, next_one = start(agent.acquire("k")), start(agent.acquire("k"))
    await settle()
    lease.release()  # to the first waiter, hand to hand
    cancelled.cancel()
    await settle()
    assert cancelled.cancelled()
    assert (await next_one).connection is lease.connection


@on_hoop
async def test_trap_a1_a_timeout_in_the_turn_of_the_hand_over_passes_the_connection_on() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, max_sockets=1)
    first = start(agent.acquire("k"))
    await settle()
    peer.succeed()
    lease = await first
    waiting = start(asyncio.wait_for(agent.acquire("k"), 1000))
    await settle()
    lease.release()
    waiting.cancel()
    await asyncio.wait([waiting])
    if not waiting.cancelled():  # Python 3.11: what has come in time is returned all the same
        waiting.result().release()
    assert agent.stats().lent == 0
    assert agent.stats().free == 1
    (await agent.acquire("k", timeout=1)).release()


@on_hoop
async def test_trap_a2_a_newcomer_does_not_overtake_a_waiter() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, max_sockets=1)
    first = start(agent.acquire("k"))
    await settle()
    peer.succeed()
    lease = await first
    waiter = start(agent.acquire("k"))
    await settle()
    lease.release()
    newcomer = start(agent.acquire("k"))  # before the waiter's task has run
    await settle()
    assert waiter.done()
    assert not newcomer.done()
    assert agent.stats().lent == 1
    (await waiter).release()
    (await newcomer).release()


@on_hoop
async def test_trap_a3_after_a_failed_attempt_the_next_one_tries() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, max_sockets=1)
    waiters = [start(agent.acquire("k")) for _ in range(6)]
    await settle()
    for waiter in waiters[:5]:
        assert len(peer.attempts) == 1
        peer.fail()
        await settle()
        with pytest.raises(ConnectionRefusedError):
            waiter.result()
    peer.succeed()
    (await waiters[5]).release()


@on_hoop
async def test_trap_a4_a_place_under_the_total_limit_goes_to_the_oldest_waiter_of_all_hosts() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, max_total_sockets=1)
    first = start(agent.acquire("a"))
    await settle()
    peer.succeed()
    lease = await first
    older = start(agent.acquire("b"))
    await settle()
    younger = start(agent.acquire("c"))
    await settle()
    lease.release()
    await settle()
    assert [key for key, _ in peer.attempts] == ["b"]
    peer.succeed()
    (await older).close()
    await settle()
    assert [key for key, _ in peer.attempts] == ["c"]
    peer.succeed()
    (await younger).close()


@on_hoop
async def test_trap_a5_a_waiter_takes_whichever_comes_first_and_the_other_becomes_free() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect)
    first = start(agent.acquire("k"))
    await settle()
    peer.succeed()
    lease = await first
    waiter = start(agent.acquire("k"))
    await settle()
    assert len(peer.attempts) == 1
    lease.release()
    assert (await waiter).connection is lease.connection
    peer.succeed()
    await settle()
    assert agent.stats().free == 1
    again = await agent.acquire("k", timeout=1)
    assert not again.reused


@on_hoop
async def test_trap_a6_the_end_that_the_loop_has_not_seen_yet_is_seen_at_checkout() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        await fill(agent, *server.address, count=1)
        while not server.writers:
            await asyncio.sleep(0)
        fd = server.writers[0].get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(fd)) as sock:
            sock.shutdown(socket.SHUT_WR)  # FIN, in this very turn
        lease = await agent.acquire(*server.address)
        assert not lease.reused
        assert await ask(lease) == b"?\n"
        assert agent.stats().dead == 1


@on_hoop
async def test_trap_a7_a_byte_on_a_free_connection_makes_it_unusable() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        await fill(agent, *server.address, count=2)
        server.writers[0].write(b"unasked")
        lease = await agent.acquire(*server.address)
        other = await agent.acquire(*server.address)
        assert [await ask(lease), await ask(other)] == [b"?\n", b"?\n"]
        while agent.stats().dead == 0:  # whether seen by a look or by the loop
            await asyncio.sleep(0)


@on_hoop
async def test_trap_a7_what_its_user_has_left_unread_makes_it_unusable() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        lease = await agent.acquire(*server.address)
        lease.writer.write(b"one\ntwo\n")
        assert await lease.reader.readline() == b"one\n"
        lease.release()
        again = await agent.acquire(*server.address)
        assert not again.reused
        assert await ask(again) == b"?\n"


@on_hoop
async def test_trap_a8_pending_tickets_of_tls_are_no_reason_to_close() -> None:
    keywords = {"ssl": client_context(), "server_hostname": NAME}
    async with echo_server(ssl=server_context()) as server:
        agent = hoop.Agent()
        lease = await agent.acquire(*server.address, **keywords)
        lease.release()  # nothing was read: the tickets of TLS 1.3 come after the handshake
        again = await agent.acquire(*server.address, **keywords)
        assert again.connection is lease.connection
        assert await ask(again) == b"?\n"
        again.close()


@on_hoop
async def test_trap_a9_the_idle_timer_never_ends_a_connection_that_is_lent() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, keep_alive=0.001)
    first = start(agent.acquire("k"))
    await settle()
    peer.succeed()
    lease = await first
    lease.release()
    (pooled,) = agent._idle  # the timer is set for it
    lease = await agent.acquire("k")
    while agent._expiry is not None:  # until the timer has rung
        await asyncio.sleep(0)
    assert not lease.transport.is_closing()
    assert pooled.made is lease.connection
    lease.release()


@on_hoop
async def test_trap_a10_a_lease_left_in_the_middle_of_an_exchange_is_closed() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        asked = asyncio.Event()

        async def exchange() -> None:
            async with await agent.acquire(*server.address) as lease:
                lease.writer.write(b"for the first user")
                asked.set()
                await asyncio.get_running_loop().create_future()
                lease.release()

        user = start(exchange())
        await asked.wait()
        user.cancel()
        await asyncio.wait([user])
        assert (agent.stats().lent, agent.stats().free) == (0, 0)
        async with await agent.acquire(*server.address) as lease:
            assert await ask(lease, b"for the second\n") == b"for the second\n"


@on_hoop
async def test_trap_a11_an_error_of_a_free_connection_troubles_no_user() -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    async with echo_server() as server:
        agent = hoop.Agent()
        await fill(agent, *server.address, count=1)
        while not server.writers:
            await asyncio.sleep(0)
        server.writers[0].transport.abort()
        while agent.stats().dead == 0:
            await asyncio.sleep(0)
        assert agent.stats().free == 0
    gc.collect()
    assert problems == []


@on_hoop
async def test_trap_a12_a_free_connection_that_goes_makes_room_for_a_waiter() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, max_sockets=1, check=lambda made: asyncio.sleep(1000))
    first = start(agent.acquire("k"))
    await settle()
    peer.succeed()
    (await first).release()
    checking = start(agent.acquire("k"))  # the check takes long
    await settle()
    waiter = start(agent.acquire("k"))
    await settle()
    assert peer.attempts == []
    checking.cancel()  # closed in the middle of the check
    await settle()
    peer.succeed()
    (await waiter).release()


@on_hoop
async def test_trap_a13_a_look_at_a_sound_connection_takes_no_turn_of_the_loop() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        await fill(agent, *server.address, count=1)
        acquiring = agent.acquire(*server.address)
        with pytest.raises(StopIteration) as caught:
            acquiring.send(None)
        caught.value.value.close()


@on_hoop
async def test_trap_a14_what_makes_connections_different_is_in_the_key() -> None:
    made: list[Any] = []

    async def connect(*arguments: Any, **keywords: Any) -> Any:
        made.append((arguments, keywords))
        protocol = asyncio.Protocol()
        return FakeTransport(protocol), protocol

    agent = hoop.Agent(connect)
    first, second = ssl.create_default_context(), ssl.create_default_context()
    keys: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("host", 1), {}),
        (("host", 2), {}),
        (("host", 1), {"ssl": first}),
        (("host", 1), {"ssl": second}),
        (("host", 1), {"ssl": first, "server_hostname": "a"}),
        (("host", 1), {"local_addr": ("127.0.0.2", 0)}),
        (("host", 1), {"proxy_header": b"PROXY UNKNOWN\r\n"}),
    ]
    for arguments, keywords in keys * 2:
        (await agent.acquire(*arguments, **keywords)).release()
    assert made == keys
    assert agent.stats().free == len(keys)


@on_hoop
async def test_trap_a15_acquire_ends_in_finite_time_by_default() -> None:
    assert hoop.Agent()._timeout == 30.0
    peer = Peer()
    agent = hoop.Agent(peer.connect, timeout=0.001)
    with pytest.raises(TimeoutError, match="1 in the making"):
        await agent.acquire("k")
    assert agent.stats().timeouts == 1


@on_hoop
async def test_trap_a16_a_forked_child_ends_no_connection_of_its_parent() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        await fill(agent, *server.address, count=1)
        lease = await agent.acquire(*server.address)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                agent.close()
                lease.close()
                del lease
                gc.collect()
                status = 0 if agent.stats().free == 0 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert await ask(lease) == b"?\n"
        lease.release()


@on_hoop
async def test_trap_a17_ends_of_free_connections_bring_no_burst_of_new_ones() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        await fill(agent, *server.address, count=100)
        while len(server.writers) < 100:
            await asyncio.sleep(0)
        for writer in server.writers:
            writer.close()
        while agent.stats().dead < 100:
            await asyncio.sleep(0)
        await settle()
        assert (agent.stats().created, agent.stats().connecting) == (100, 0)
        async with await agent.acquire(*server.address):
            assert agent.stats().created == 101


@on_hoop
async def test_trap_a17_the_stock_backs_off_after_a_failure_and_a_failing_check_ends() -> None:
    peer = Peer()
    agent = hoop.Agent(peer.connect, min_free=1)
    first = start(agent.acquire("k"))
    await settle()
    peer.succeed()
    (await first).close()
    await settle()
    assert len(peer.attempts) == 1  # for the stock
    peer.fail()
    await settle()
    assert peer.attempts == []  # not again at once
    (host,) = agent._hosts.values()
    assert host.refill is not None
    agent.close()

    async def fails(made: Any) -> bool:
        raise RuntimeError("broken check")

    async def connect(key: str) -> Any:
        protocol = asyncio.Protocol()
        return FakeTransport(protocol), protocol

    agent = hoop.Agent(connect, check=fails)
    await fill(agent, "k", count=3)
    lease = await agent.acquire("k", timeout=1)
    assert not lease.reused
    assert (agent.stats().dead, agent.stats().created) == (3, 4)


@on_hoop
async def test_trap_a18_the_runner_up_of_two_addresses_is_closed() -> None:
    async with echo_server() as server:
        agent = hoop.Agent()
        lease = await agent.acquire("localhost", server.address[1], happy_eyeballs_delay=0.0001)
        assert await ask(lease) == b"?\n"
        lease.close()
        assert agent.stats().created == 1
        while not server.ended.is_set():
            await asyncio.sleep(0)
        assert all(writer.is_closing() for writer in server.writers)


@on_hoop
async def test_trap_a19_close_fails_waiters_and_lets_lent_ones_finish() -> None:
    async with echo_server() as server:
        agent = hoop.Agent(max_sockets=2)
        lent, free = await agent.acquire(*server.address), await agent.acquire(*server.address)
        free.release()
        other = await agent.acquire(*server.address)
        waiter = start(agent.acquire(*server.address))
        await settle()
        other.close()
        other = await waiter
        waiter = start(agent.acquire(*server.address))
        await settle()
        agent.close()
        with pytest.raises(hoop.AgentClosed):
            await waiter
        with pytest.raises(hoop.AgentClosed):
            await agent.acquire(*server.address)
        drained = start(agent.drain())
        await settle()
        assert not drained.done()
        assert await ask(lent) == b"?\n"
        lent.release()
        other.release()
        await drained
        assert lent.transport.is_closing()
        assert agent.stats().lent == agent.stats().free == agent.stats().hosts == 0


def test_trap_a19_free_connections_do_not_keep_a_loop_running() -> None:
    loop = hoop.Loop()
    try:
        server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
        server.unref()
        agent = hoop.Agent()
        loop.run_until_complete(fill(agent, *server.sockets[0].getsockname(), count=1))
        assert agent.stats().free == 1
        server.close_clients()
        server.close()
        loop.run()  # ends: neither the connection nor its timer is waited for
    finally:
        loop.close()
