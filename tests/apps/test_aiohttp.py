"""aiohttp's server and client on the same loop, which is the one under test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

Run = Callable[..., Any]
Payload = Callable[[int], bytes]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGE = 10 * 1024 * 1024
CONCURRENT = 200
STEPS = 32


@contextlib.asynccontextmanager
async def serving(**handlers: Handler) -> AsyncIterator[str]:
    """A server with one handler for each path; gives the address to put before the path."""
    application = web.Application(client_max_size=2 * LARGE)
    for name, handler in handlers.items():
        application.router.add_route("*", f"/{name}", handler)
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def open_stream(base: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = base.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {request.query.get('name', 'nobody')}")


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.Response(body=body, headers={"X-Checksum": hashlib.sha256(body).hexdigest()})


def test_get_and_post(run: Run) -> None:
    async def form(request: web.Request) -> web.Response:
        fields = await request.post()
        upload = fields["upload"]
        assert isinstance(upload, web.FileField)
        return web.json_response({"name": fields["name"], "upload": len(upload.file.read())})

    async def main() -> None:
        async with serving(hello=hello, echo=echo, form=form) as base, aiohttp.ClientSession(base) as session:
            async with session.get("/hello", params={"name": "größe"}) as answer:
                assert (answer.status, await answer.text()) == (200, "hello größe")
            async with session.post("/echo", json={"numbers": [1, 2, 3]}) as answer:
                assert await answer.json(content_type=None) == {"numbers": [1, 2, 3]}
            fields = aiohttp.FormData({"name": "value"})
            fields.add_field("upload", bytes(100_000), filename="zeros")
            async with session.post("/form", data=fields) as answer:
                assert await answer.json() == {"name": "value", "upload": 100_000}
            async with session.get("/nowhere") as answer:
                assert answer.status == 404

    run(main())


def test_handler_that_raises_answers_500(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: web.Request) -> web.Response:
        raise LookupError("on purpose")

    async def main() -> None:
        async with serving(broken=broken, hello=hello) as base, aiohttp.ClientSession(base) as session:
            async with session.get("/broken") as answer:
                assert answer.status == 500
            async with session.get("/hello") as answer:
                assert answer.status == 200

    run(main())
    assert "on purpose" in caplog.text


def test_keep_alive_reuses_the_connection(run: Run) -> None:
    opened: list[object] = []

    async def created(*event: object) -> None:
        opened.append(event)

    async def main() -> None:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(created)
        async with serving(hello=hello) as base, aiohttp.ClientSession(base, trace_configs=[tracing]) as session:
            for _ in range(100):
                async with session.get("/hello") as answer:
                    assert await answer.text() == "hello nobody"
            assert len(opened) == 1

    run(main())


def test_host_name_is_resolved(run: Run) -> None:
    """By getaddrinfo, and with happy eyeballs when the name has several addresses."""

    async def main() -> None:
        async with serving(hello=hello) as base:
            connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
            async with aiohttp.ClientSession(base.replace("127.0.0.1", "localhost"), connector=connector) as session:
                async with session.get("/hello") as answer:
                    assert await answer.text() == "hello nobody"

    run(main())


def test_large_bodies_both_ways(run: Run, payload: Payload) -> None:
    body = payload(LARGE)
    checksum = hashlib.sha256(body).hexdigest()

    async def main() -> None:
        async with serving(echo=echo) as base, aiohttp.ClientSession(base) as session:
            async with session.post("/echo", data=io.BytesIO(body)) as answer:
                received = await answer.read()
                assert answer.headers["X-Checksum"] == checksum
                assert hashlib.sha256(received).hexdigest() == checksum

    run(main())


def test_file_response(run: Run, payload: Payload, tmp_path: Path) -> None:
    """loop.sendfile, whole and in part."""
    body = payload(LARGE)
    path = tmp_path / "file.bin"
    path.write_bytes(body)

    async def file(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    async def main() -> None:
        async with serving(file=file) as base, aiohttp.ClientSession(base) as session:
            async with session.get("/file") as answer:
                assert hashlib.sha256(await answer.read()).digest() == hashlib.sha256(body).digest()
            async with session.get("/file", headers={"Range": "bytes=1000001-2000000"}) as answer:
                assert answer.status == 206
                assert await answer.read() == body[1_000_001:2_000_001]

    run(main())


def test_chunks_both_ways_in_lockstep(run: Run) -> None:
    """The client sends its next chunk when the echo of the last has arrived, so a chunk held back would hang."""
    echoed: asyncio.Queue[bytes] = asyncio.Queue()

    async def duplex(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk.upper())
        await response.write_eof()
        return response

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(STEPS):
            yield b"chunk %d;" % number
            assert await echoed.get() == b"CHUNK %d;" % number

    async def main() -> None:
        async with serving(duplex=duplex) as base, aiohttp.ClientSession(base) as session:
            async with session.post("/duplex", data=chunks()) as answer:
                received = 0
                async for chunk in answer.content.iter_any():
                    received += 1
                    echoed.put_nowait(chunk)
                assert received == STEPS

    run(main())


def test_slow_reader_holds_the_writer_back(run: Run) -> None:
    """The handler's writes have to wait while the client does not read, and the bytes are all there in the end."""
    blocked = asyncio.Event()
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        assert request.transport is not None
        while written < 4 * LARGE:
            write = asyncio.ensure_future(response.write(bytes(65536)))
            written += 65536
            await asyncio.sleep(0)
            if not write.done():
                blocked.set()
            await write
        return response

    async def main() -> None:
        async with serving(flood=flood) as base, aiohttp.ClientSession(base) as session:
            async with session.get("/flood") as answer:
                await blocked.wait()
                assert written < 4 * LARGE
                received = 0
                async for chunk in answer.content.iter_any():
                    received += len(chunk)
                assert received == written == 4 * LARGE

    run(main())


async def talk(request: web.Request) -> web.WebSocketResponse:
    """Sends back each message; "close" closes with a code of its own."""
    socket = web.WebSocketResponse(max_msg_size=LARGE)
    await socket.prepare(request)
    async for message in socket:
        if message.type == aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.data == "close":
            await socket.close(code=4001, message=b"as asked")
        else:
            await socket.send_str(message.data)
    return socket


def test_websocket(run: Run, payload: Payload) -> None:
    body = payload(LARGE // 4)

    async def main() -> None:
        async with serving(talk=talk) as base, aiohttp.ClientSession(base) as session:
            async with session.ws_connect("/talk", max_msg_size=LARGE) as socket:
                for number in range(100):
                    await socket.send_str(f"text {number}")
                    assert await socket.receive_str() == f"text {number}"
                await socket.send_bytes(body)
                assert await socket.receive_bytes() == body
                await socket.send_str("close")
                message = await socket.receive()
                assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4001, "as asked")
                assert socket.close_code == 4001

    run(main())


def test_websocket_client_vanishes(run: Run) -> None:
    """A connection reset under an open websocket ends its handler."""

    async def main() -> None:
        ended = asyncio.Event()

        async def watched(request: web.Request) -> web.WebSocketResponse:
            try:
                return await talk(request)
            finally:
                ended.set()

        async with serving(watched=watched, hello=hello) as base:
            reader, writer = await open_stream(base)
            upgrade = ["GET /watched HTTP/1.1", "Host: test", "Connection: Upgrade", "Upgrade: websocket"]
            key = ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
            writer.write("\r\n".join(upgrade + key).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            writer.transport.abort()
            await ended.wait()
            async with aiohttp.ClientSession(base) as session, session.get("/hello") as answer:
                assert answer.status == 200

    run(main())


class Held:
    """A handler that stays until it is let go, and says how it ended."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.Response:
        self.arrived.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return web.Response(text="released")


def test_client_timeout_cancels_the_handler(run: Run) -> None:
    async def main() -> None:
        held = Held()
        timeout = aiohttp.ClientTimeout(total=0.5)
        async with serving(held=held.__call__, hello=hello) as base, aiohttp.ClientSession(base) as session:
            with pytest.raises(asyncio.TimeoutError):
                async with session.get("/held", timeout=timeout):
                    pytest.fail("the handler answered")
            assert held.arrived.is_set()
            await held.cancelled.wait()
            async with session.get("/hello") as answer:
                assert answer.status == 200

    run(main())


def test_client_that_disconnects_cancels_the_handler(run: Run) -> None:
    async def main() -> None:
        held = Held()
        async with serving(held=held.__call__, hello=hello) as base:
            _, writer = await open_stream(base)
            writer.write(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
            await held.arrived.wait()
            writer.transport.abort()
            await held.cancelled.wait()
            writer.close()

    run(main())


def test_cancelled_client_task(run: Run) -> None:
    """Cancelling the client in mid-request closes its connection, and with it the handler on the other side."""

    async def main() -> None:
        held = Held()
        async with serving(held=held.__call__, hello=hello) as base, aiohttp.ClientSession(base) as session:
            asking = asyncio.ensure_future(session.get("/held"))
            await held.arrived.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await held.cancelled.wait()
            async with session.get("/hello") as answer:
                assert answer.status == 200

    run(main())


def test_concurrent_requests(run: Run) -> None:
    """No request is answered before all of them have arrived."""

    async def main() -> None:
        barrier = asyncio.Barrier(CONCURRENT)

        async def meet(request: web.Request) -> web.Response:
            await barrier.wait()
            return web.Response(text=request.query["number"])

        async def ask(session: aiohttp.ClientSession, number: int) -> None:
            async with session.get("/meet", params={"number": number}) as answer:
                assert await answer.text() == str(number)

        connector = aiohttp.TCPConnector(limit=CONCURRENT)
        async with serving(meet=meet) as base, aiohttp.ClientSession(base, connector=connector) as session:
            for _ in range(3):
                await asyncio.gather(*(ask(session, number) for number in range(CONCURRENT)))

    run(main())


def test_shutdown_with_connections_open(run: Run) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with serving(hello=hello) as base:
                session = await stack.enter_async_context(aiohttp.ClientSession(base))
                async with session.get("/hello") as answer:
                    assert answer.status == 200
                reader, writer = await open_stream(base)
                writer.write(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n")
                await reader.readuntil(b"hello nobody")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("/hello")

    run(main())
