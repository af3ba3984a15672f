"""hoop.Agent under random users, cancellations, deaths and failures, against a list of what may never be otherwise."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import hoop
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.agents import FakeTransport, Peer, settle

KEYS = "abc"
STEPS = 500  # of one example; 200 examples make 100,000


class World:
    """An agent, the peer that it connects to, and those who use it, with a naive account of all of them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.peer = Peer()
        self.max_sockets = rng.choice([None, 1, 2, 4])
        self.max_total = rng.choice([None, 1, 3, 6])
        self.max_free = rng.choice([0, 1, 256])
        self.check_fails = False
        self.agent = hoop.Agent(
            self.peer.connect,
            max_sockets=self.max_sockets,
            max_total_sockets=self.max_total,
            max_free_sockets=self.max_free,
            scheduling=rng.choice(["lifo", "fifo"]),
            timeout=None,
            keep_alive=None,
            max_uses=rng.choice([None, None, 3]),
            check=rng.choice([None, self.check]),
        )
        self.waiting: dict[str, list[asyncio.Task[hoop.Lease]]] = {key: [] for key in KEYS}
        self.lent: list[tuple[str, hoop.Lease]] = []
        self.failures: list[asyncio.Task[hoop.Lease]] = []

    async def check(self, made: Any) -> bool:
        await asyncio.sleep(0)
        return not self.check_fails

    # ---- what may happen ------------------------------------------------------------------------------------------

    def acquire(self) -> None:
        key = self.rng.choice(KEYS)
        task = asyncio.get_running_loop().create_task(self.agent.acquire(key))
        self.waiting[key].append(task)

    def end_lease(self) -> None:
        if self.lent:
            _, lease = self.lent.pop(self.rng.randrange(len(self.lent)))
            self.rng.choice([lease.release, lease.release, lease.close])()

    def cancel(self) -> None:
        tasks = [task for key in KEYS for task in self.waiting[key]]
        if tasks:
            self.rng.choice(tasks).cancel()

    def connect(self) -> None:
        if self.peer.attempts:
            self.peer.succeed(self.rng.randrange(len(self.peer.attempts)))

    def refuse(self) -> None:
        if self.peer.attempts:
            self.peer.fail(self.rng.randrange(len(self.peer.attempts)))

    def die(self) -> None:
        alive = [transport for transport in self.peer.transports if not transport.is_closing()]
        if alive:
            self.rng.choice(alive).die()

    def toggle_check(self) -> None:
        self.check_fails = not self.check_fails

    async def step(self) -> None:
        for _ in range(self.rng.choice([1, 1, 2, 3])):  # several in one turn
            self.rng.choice(
                [self.acquire] * 4 + [self.end_lease] * 3 + [self.connect] * 4
                + [self.cancel, self.refuse, self.die, self.toggle_check]
            )()  # fmt: skip
            if self.rng.random() < 0.3:
                await asyncio.sleep(0)
        await self.settle()
        self.collect()
        self.inspect()

    async def settle(self) -> None:
        """Turns of the loop until nothing happens any more: each dead connection that is tried takes a few."""
        before = None
        while (now := (self.agent.stats(), len(self.peer.attempts))) != before:
            before = now
            await settle()

    # ---- what must be so ------------------------------------------------------------------------------------------

    def collect(self) -> None:
        for key, tasks in self.waiting.items():
            still = [task for task in tasks if not task.done()]
            for task in tasks:
                if not task.done() or task.cancelled():
                    continue
                if task.exception() is not None:
                    assert isinstance(task.exception(), ConnectionRefusedError)
                    continue
                self.lent.append((key, task.result()))
            self.waiting[key] = still

    def inspect(self) -> None:
        stats = self.agent.stats()
        lent = [lease.transport for _, lease in self.lent]
        assert len(set(map(id, lent))) == len(lent), "one connection has two users"
        assert stats.lent == len(self.lent)
        assert stats.waiting == sum(map(len, self.waiting.values()))
        assert stats.connecting == len(self.peer.attempts)
        free = [pooled.transport for pooled in self.agent._idle]
        assert stats.free == len(free) == sum(len(host.free) for host in self.agent._hosts.values())
        opened = [transport for transport in self.peer.transports if not transport.is_closing()]
        owned = set(map(id, free)) | set(map(id, lent))
        assert {id(transport) for transport in opened} <= owned, "a connection is open, and has no owner"
        assert not any(transport.is_closing() for transport in free), "a dead connection is offered"
        assert self.agent._total == stats.lent + stats.free + stats.connecting
        if self.max_total is not None:
            assert self.agent._total <= self.max_total
        for key, tasks in self.waiting.items():
            self.inspect_host(key, tasks)

    def inspect_host(self, key: str, tasks: list[asyncio.Task[hoop.Lease]]) -> None:
        host = self.agent._hosts.get((key,))
        if host is None:
            assert not tasks
            return
        assert host.lent == sum(other == key for other, _ in self.lent)
        assert len(host.attempts) == sum(attempt[0] == key for attempt in self.peer.attempts)
        if self.max_sockets is not None:
            assert host.size <= self.max_sockets
        assert len(host.free) <= self.max_free
        if tasks:
            assert not host.free, "a user waits beside a free connection"
            has_room = (self.max_sockets is None or host.size < self.max_sockets) and (
                self.max_total is None or self.agent._total < self.max_total or len(self.agent._idle) > 0
            )
            assert len(host.attempts) >= len(tasks) or not has_room, "a user waits for nothing"

    async def end(self) -> None:
        """Everybody leaves: nothing is left."""
        while self.lent or any(self.waiting.values()):
            while self.lent:
                self.lent.pop()[1].release()
            while self.peer.attempts:
                self.peer.succeed()
            await self.settle()
            self.collect()
            self.inspect()
        self.agent.close()
        await settle()
        assert all(transport.is_closing() for transport in self.peer.transports)
        assert self.agent.stats().hosts == 0
        assert self.agent._total == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
@example(604599)  # one connection after the other is found dead
def test_counts_agree_and_everybody_is_served(seed: int) -> None:
    async def main() -> None:
        world = World(random.Random(seed))
        for _ in range(STEPS):
            await world.step()
        await world.end()

    hoop.run(main())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5]))
def test_users_of_a_host_are_served_in_the_order_of_their_coming(seed: int, limit: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        peer = Peer()
        agent = hoop.Agent(peer.connect, max_sockets=limit, timeout=None)
        served: list[int] = []

        async def use(number: int) -> None:
            async with await agent.acquire("k") as lease:
                served.append(number)
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                if rng.random() < 0.8:
                    lease.release()

        tasks = [asyncio.get_running_loop().create_task(use(number)) for number in range(50)]
        cancelled = [task for task in tasks if rng.random() < 0.2]
        await settle()
        for task in cancelled:
            task.cancel()
        while not all(task.done() for task in tasks):
            while peer.attempts:
                peer.succeed(rng.randrange(len(peer.attempts)))
            await asyncio.sleep(0)
        assert served == sorted(served)
        assert set(served) == {number for number, task in enumerate(tasks) if task not in cancelled}
        agent.close()

    hoop.run(main())


def test_a_fake_dies_as_the_real_ones_do() -> None:
    lost: list[Any] = []

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    transport = FakeTransport(Protocol())
    transport.die()
    transport.die()
    assert len(lost) == 1
    with pytest.raises(TypeError):
        FakeTransport()  # type: ignore[call-arg]
