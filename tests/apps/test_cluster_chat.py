"""A chat over two workers, which Redis connects: what is said to one reaches those who listen at the other."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from cluster_process import LIMIT_S, Cluster, ended
from free_ports import free_ports
from server_process import ServerProcess, wait_for_listener

pytestmark = pytest.mark.once  # as all of tests/cluster

if sys.platform != "linux":
    pytest.skip("other systems have no pidfds", allow_module_level=True)

Program = Callable[..., Path]
Start = Callable[..., Cluster]

WORKERS = 2
CHAT = """\
import asyncio
import os

import hoop
import hoop.cluster
import redis.asyncio

GENERATION = 1
PORT = {port}


async def serve():
    worker = hoop.cluster.worker
    async with redis.asyncio.Redis(port=PORT) as client, client.pubsub() as channel:
        await channel.subscribe("chat")
        members = set()
        hear = asyncio.ensure_future(spread(channel, members))

        async def member(reader, writer):
            writer.write(f"{{GENERATION}} {{worker.id}} {{os.getpid()}}\\n".encode())
            members.add(writer)
            leaving = asyncio.ensure_future(hoop.draining())
            try:
                while not leaving.done():
                    said = asyncio.ensure_future(reader.readline())
                    await asyncio.wait([said, leaving], return_when=asyncio.FIRST_COMPLETED)
                    if not said.done() or not said.result():
                        said.cancel()
                        break
                    await client.publish("chat", said.result())
            finally:
                leaving.cancel()
                members.discard(writer)
                writer.close()

        servers = [await asyncio.start_server(member, sock=sock) for sock in worker.sockets]
        worker.ready()
        try:
            await asyncio.gather(*(server.serve_forever() for server in servers))
        finally:
            hear.cancel()


async def spread(channel, members):
    async for message in channel.listen():
        if message["type"] == "message":
            for writer in members:
                writer.write(message["data"])
"""


@pytest.fixture
def redis_port(tmp_path: Path, program: Program) -> Iterator[int]:
    binary = program("redis-server", debian_package="redis-server")
    port = free_ports(1)
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", tmp_path]
    with ServerProcess([binary, "--port", str(port), *options]) as server:
        server.wait_for("Ready to accept connections")
        with redis.Redis(port=port, socket_timeout=LIMIT_S) as client:
            assert client.info("server")["process_id"] == server.process.pid
        yield port


class Member:
    """Somebody in the chat, with the worker that they came to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.generation = self.worker = self.pid = -1

    async def enter(self) -> None:
        self.generation, self.worker, self.pid = map(int, (await self.hear()).split())

    async def hear(self) -> str:
        async with asyncio.timeout(LIMIT_S):
            return (await self.reader.readline()).decode()

    def say(self, text: str) -> None:
        self.writer.write(text.encode() + b"\n")

    async def leave(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def one_at_each_worker(port: int) -> list[Member]:
    """Members who have entered, one at each worker."""
    found: dict[int, Member] = {}
    while len(found) < WORKERS:
        member = Member(*await asyncio.open_connection("127.0.0.1", port))
        await member.enter()
        await found.pop(member.worker).leave() if member.worker in found else None
        found[member.worker] = member
    return [found[worker] for worker in sorted(found)]


async def all_hear(members: list[Member], text: str, speaker: Member) -> None:
    speaker.say(text)
    assert [await member.hear() for member in members] == [f"{text}\n"] * len(members)


def test_chat_over_two_workers(cluster: Start, redis_port: int) -> None:
    """Before and after a reload; those who are there when their worker goes hear that it goes."""
    port = free_ports(1)
    served = cluster(
        f"workers={WORKERS}, bind='127.0.0.1:{port}', server='main'",
        application=CHAT.format(port=redis_port),
        target="serve",
    )
    wait_for_listener(port)

    async def main() -> None:
        first = await one_at_each_worker(port)
        for number, speaker in enumerate(first * 10):
            await all_hear(first, f"message {number}", speaker)
        reloaded = asyncio.ensure_future(served.reload({member.pid for member in first}))
        assert [await member.hear() for member in first] == [""] * WORKERS
        await reloaded
        second = await one_at_each_worker(port)
        assert [member.generation for member in second] == [2] * WORKERS
        for number, speaker in enumerate(second * 10):
            await all_hear(second, f"message {number}", speaker)
        for member in first:
            await member.leave()
        served.send(signal.SIGTERM)
        assert [await member.hear() for member in second] == [""] * WORKERS
        for member in second:
            await member.leave()
        await ended({member.pid for member in second})

    asyncio.run(main())
    assert served.process.wait(LIMIT_S) == 0, served.text
