"""redis-py's asyncio client against a real redis-server, which is a child process of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from free_ports import free_port
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from server_process import ServerProcess

Run = Callable[..., Any]
Payload = Callable[[int], bytes]
Connect = Callable[..., contextlib.AbstractAsyncContextManager[Any]]

LARGE = 8 * 1024 * 1024
ATTEMPTS = 5


class RedisServer(ServerProcess):
    """A redis-server without persistence. It is up once it has said so and has answered PING."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.port = free_port()
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", directory]
        super().__init__([binary, *where, "--save", "", "--appendonly", "no", "--daemonize", "no"])

    def answers(self) -> bool:
        """Whether it is this process that answers on the port."""
        if not self.find("Ready to accept connections"):
            return False
        with contextlib.suppress(redis.ConnectionError), redis.Redis(port=self.port, socket_timeout=5) as client:
            return bool(client.ping()) and client.info("server")["process_id"] == self.process.pid
        return False


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory, program: Callable[..., Path]) -> Iterator[RedisServer]:
    binary = program("redis-server", debian_package="redis-server")
    for _ in range(ATTEMPTS):
        with RedisServer(binary, tmp_path_factory.mktemp("redis")) as server:
            if server.answers():
                yield server
                return
    pytest.fail("redis-server did not start:\n" + server.text)


@pytest.fixture
def connect(redis_server: RedisServer) -> Connect:
    """`async with connect(**options) as client`: a client of an empty server."""

    @contextlib.asynccontextmanager
    async def connect(**options: Any) -> AsyncIterator[redis.asyncio.Redis]:
        client = redis.asyncio.Redis(port=redis_server.port, **options)
        try:
            yield client
        finally:
            await client.aclose()

    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    return connect


async def blocked_pop(watcher: redis.asyncio.Redis, worker: redis.asyncio.Redis) -> asyncio.Future[Any]:
    """A BLPOP that the server has received and cannot answer."""
    async with watcher.monitor() as monitor:
        popping = asyncio.ensure_future(worker.blpop(["queue"], timeout=0))
        while "BLPOP" not in (await monitor.next_command())["command"].upper():
            pass
    return popping


def test_get_and_set(run: Run, connect: Connect) -> None:
    async def main() -> None:
        async with connect() as client:
            assert await client.get("absent") is None
            for number in range(200):
                assert await client.set(f"key {number}", number)
            for number in range(200):
                assert await client.get(f"key {number}") == str(number).encode()
            with pytest.raises(redis.ResponseError):
                await client.lpush("key 0", "wrong type")
            assert await client.dbsize() == 200

    run(main())


def test_pipeline_of_a_thousand(run: Run, connect: Connect) -> None:
    async def main() -> None:
        async with connect() as client:
            for transaction in (False, True):
                await client.delete("sum")
                async with client.pipeline(transaction=transaction) as pipeline:
                    for number in range(1000):
                        pipeline.incrby("sum", number)
                    sums = await pipeline.execute()
                assert sums == [number * (number + 1) // 2 for number in range(1000)]

    run(main())


def test_large_values(run: Run, connect: Connect, payload: Payload) -> None:
    values = [payload(LARGE), payload(LARGE + 1)]

    async def main() -> None:
        async with connect() as client:
            for value in values:
                assert await client.set("large", value)
                received = await client.get("large")
                assert hashlib.sha256(received).digest() == hashlib.sha256(value).digest()
            assert await client.getrange("large", LARGE - 3, LARGE) == values[1][-4:]

    run(main())


def test_publish_and_subscribe(run: Run, connect: Connect) -> None:
    count = 500

    async def main() -> None:
        subscribed = [asyncio.Event() for _ in range(3)]

        async def subscriber(client: redis.asyncio.Redis, ready: asyncio.Event) -> list[bytes]:
            received: list[bytes] = []
            async with client.pubsub() as channel:
                await channel.subscribe("news")
                async for message in channel.listen():
                    if message["type"] == "subscribe":
                        ready.set()
                    elif message["data"] == b"end":
                        break
                    else:
                        received.append(message["data"])
                await channel.unsubscribe("news")
            return received

        async with connect() as client:
            listening = [asyncio.ensure_future(subscriber(client, ready)) for ready in subscribed]
            for ready in subscribed:
                await ready.wait()
            for number in range(count):
                assert await client.publish("news", number) == 3
            await client.publish("news", "end")
            for received in await asyncio.gather(*listening):
                assert received == [str(number).encode() for number in range(count)]

    run(main())


def test_cancelled_blocking_pop(run: Run, connect: Connect) -> None:
    """A BLPOP cancelled while the server holds it takes no value with it and leaves no answer for the next command."""

    async def main() -> None:
        async with connect() as client, connect() as worker, connect() as watcher:
            popping = await blocked_pop(watcher, worker)
            popping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await popping
            await client.client_kill_filter(_type="normal", skipme=True)
            assert await client.rpush("queue", "first", "second") == 2
            assert await worker.blpop(["queue"], timeout=10) == (b"queue", b"first")
            assert await worker.lrange("queue", 0, -1) == [b"second"]

    run(main())


def test_blocking_pop_is_woken(run: Run, connect: Connect) -> None:
    async def main() -> None:
        async with connect() as client:
            popping = [asyncio.ensure_future(client.blpop(["queue"], timeout=0)) for _ in range(20)]
            for number in range(20):
                await client.rpush("queue", number)
            values = await asyncio.gather(*popping)
            assert sorted(int(value) for _, value in values) == list(range(20))

    run(main())


def test_pool_with_fifty_tasks(run: Run, redis_server: RedisServer, connect: Connect) -> None:
    """Fifty tasks share ten connections; each sees its own answers, and no eleventh connection is made."""
    tasks, rounds, limit = 50, 20, 10

    async def main() -> None:
        pool = redis.asyncio.BlockingConnectionPool(
            port=redis_server.port, max_connections=limit, timeout=30, client_name="pooled"
        )

        async def work(client: redis.asyncio.Redis, number: int) -> None:
            for turn in range(rounds):
                value = f"task {number} turn {turn}"
                assert await client.echo(value) == value.encode()
                await client.incr("total")

        async with connect() as observer, redis.asyncio.Redis.from_pool(pool) as client:
            await asyncio.gather(*(work(client, number) for number in range(tasks)))
            assert await client.get("total") == str(tasks * rounds).encode()
            pooled = [peer for peer in await observer.client_list() if peer["name"] == "pooled"]
            assert 1 < len(pooled) <= limit

    run(main())


def test_connection_lost_under_a_waiting_command(run: Run, connect: Connect) -> None:
    """The server closes the connection of a pending command: an error there, and the client connects again."""

    async def main() -> None:
        no_retry = Retry(NoBackoff(), 0)
        alone = connect(single_connection_client=True, retry=no_retry)
        async with connect() as client, connect() as watcher, alone as worker:
            identity = await worker.client_id()
            waiting = await blocked_pop(watcher, worker)
            assert await client.client_kill_filter(_id=identity) == 1
            with pytest.raises(redis.ConnectionError):
                await waiting
            assert await worker.ping()

    run(main())


def test_refused_connection(run: Run, redis_server: RedisServer) -> None:
    """Nobody listens: an error at once, nothing left open, and several attempts behave alike."""

    async def main() -> None:
        no_retry = Retry(NoBackoff(), 0)
        client = redis.asyncio.Redis(port=free_port(), retry=no_retry)
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                await client.ping()
        await client.aclose()

    run(main())
