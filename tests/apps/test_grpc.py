"""grpc.aio: a server and a client whose core has threads of its own and wakes the loop through a descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

Run = Callable[..., Any]
Payload = Callable[[int], bytes]

LARGE = 3 * 1024 * 1024  # below gRPC's limit of 4 MiB for a message
CALLS = 300
MESSAGES = 500


@pytest.fixture(autouse=True)
def core_at_rest() -> Iterator[None]:
    """gRPC's own threads close their descriptors after the last call has ended, and announce it to nobody."""
    before = len(os.listdir("/dev/fd"))
    yield
    gc.collect()
    deadline = time.monotonic() + 10
    while len(os.listdir("/dev/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.01)


class Service:
    """Methods on bare bytes: one of each of gRPC's kinds."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def total(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"%d" % sum([int(request) async for request in requests])

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()

    async def refuse(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "on purpose")
        return b""

    async def hold(self, request: bytes, context: Any) -> bytes:
        self.arrived.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            "echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "count": grpc.unary_stream_rpc_method_handler(self.count),
            "total": grpc.stream_unary_rpc_method_handler(self.total),
            "chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
            "hold": grpc.unary_unary_rpc_method_handler(self.hold),
        }
        return grpc.method_handlers_generic_handler("Service", methods)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Service, grpc.aio.Channel]]:
    service = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield service, channel
    finally:
        await server.stop(None)


def test_one_request_one_answer(run: Run, payload: Payload) -> None:
    large = payload(LARGE)

    async def main() -> None:
        async with serving() as (_, channel):
            echo = channel.unary_unary("/Service/echo")
            answers = await asyncio.gather(*(echo(b"%d" % number) for number in range(CALLS)))
            assert answers == [b"%d" % number for number in range(CALLS)]
            assert await echo(large) == large

    run(main())


def test_streams_of_messages(run: Run) -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(MESSAGES):
            yield b"%d" % number

    async def main() -> None:
        async with serving() as (_, channel):
            received = [message async for message in channel.unary_stream("/Service/count")(b"%d" % MESSAGES)]
            assert received == [b"%d" % number for number in range(MESSAGES)]
            total = await channel.stream_unary("/Service/total")(numbers())
            assert int(total) == sum(range(MESSAGES))
            call = channel.stream_stream("/Service/chat")()
            for word in (b"one", b"two", b"three"):
                await call.write(word)
                assert await call.read() == word.upper()
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF

    run(main())


def test_errors_deadlines_and_cancellation(run: Run) -> None:
    async def main() -> None:
        async with serving() as (service, channel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/Service/refuse")(b"")
            assert (refused.value.code(), refused.value.details()) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "on purpose",
            )
            hold = channel.unary_unary("/Service/hold")
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await hold(b"", timeout=0.05)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            service.arrived.clear()
            service.cancelled.clear()
            call = hold(b"")
            await service.arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await service.cancelled.wait()
            assert await channel.unary_unary("/Service/echo")(b"after") == b"after"

    run(main())
