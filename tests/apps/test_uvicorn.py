"""uvicorn with httptools, served in this process on the loop under test, to httpx and to clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Run = Callable[..., Any]

LARGE = 20 * 1024 * 1024
PIECE = 64 * 1024
STEPS = 32
PIPELINED = 100


class Application:
    """The ASGI application: one method for each path, and the events that the tests wait for."""

    def __init__(self) -> None:
        self.requests = 0
        self.arrived = asyncio.Event()  # a request whose handler stays until the test or the client lets it go
        self.disconnected = asyncio.Event()  # that handler was told that its client is gone
        self.release = asyncio.Event()  # the test lets /held answer
        self.step = asyncio.Semaphore(0)  # the test asks /steps for one more piece

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.requests += 1
        await getattr(self, scope["path"].split("/")[1])(scope, receive, send)

    async def answer(self, send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length, *headers]})
        await send({"type": "http.response.body", "body": body})

    async def peer(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers with the client's port, which tells connections apart."""
        await self.answer(send, str(scope["client"][1]).encode())

    async def path(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.answer(send, scope["path"].encode())

    async def echo(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers with the body it was sent, in pieces, and with the checksum of what it received."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request", message
            body += message["body"]
            more = message["more_body"]
        checksum = hashlib.sha256(body).hexdigest().encode()
        headers = [(b"content-length", str(len(body)).encode()), (b"x-checksum", checksum)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(body), PIECE):
            piece = bytes(body[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def steps(self, scope: Message, receive: Receive, send: Send) -> None:
        """Streams one piece each time it is asked to."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(STEPS):
            await self.step.acquire()
            await send({"type": "http.response.body", "body": b"%d;" % number, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def endless(self, scope: Message, receive: Receive, send: Send) -> None:
        """Streams until the client is gone."""
        await receive()
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(PIECE), "more_body": True})
            self.arrived.set()
            await asyncio.sleep(0)
        assert (await gone)["type"] == "http.disconnect"
        self.disconnected.set()

    async def swallow(self, scope: Message, receive: Receive, send: Send) -> None:
        """Reads a body that never comes to its end."""
        while (await receive())["type"] == "http.request":
            self.arrived.set()
        self.disconnected.set()

    async def held(self, scope: Message, receive: Receive, send: Send) -> None:
        self.arrived.set()
        await self.release.wait()
        await self.answer(send, b"released")


class Server(uvicorn.Server):
    """A server that says when it listens, and when its last connection has gone."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.ready = asyncio.Event()
        self.idle = asyncio.Event()
        self.connections_made = 0
        server = self

        class Protocol(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                server.connections_made += 1
                server.idle.clear()

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                if not server.server_state.connections:
                    server.idle.set()

        config = uvicorn.Config(
            application,
            host="127.0.0.1",
            port=0,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=60,
        )
        super().__init__(config)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """A running server; on leaving it is shut down, and has to go in good order."""
    server = Server(Application())
    task = asyncio.ensure_future(server.serve())
    ready = asyncio.ensure_future(server.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        await task
        pytest.fail("uvicorn ended before it was ready")
    try:
        yield server
    finally:
        server.should_exit = True
        await task
    assert not server.server_state.connections


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=30)


def request_for(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: test", *headers, "", ""]).encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One response that has a content-length: head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None, head
    return head, await reader.readexactly(int(length[1]))


async def close_stream(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def test_keep_alive_uses_one_connection(run: Run) -> None:
    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            answers = [await client.get("/peer") for _ in range(100)]
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.text for answer in answers}) == 1
            assert server.connections_made == 1
            assert server.application.requests == 100

    run(main())


def test_connection_close_is_honoured(run: Run) -> None:
    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            answers = [await client.get("/peer", headers={"connection": "close"}) for _ in range(10)]
            assert len({answer.text for answer in answers}) == 10
            assert server.connections_made == 10
            await server.idle.wait()

    run(main())


def test_client_in_another_thread(run: Run) -> None:
    """A blocking client can only be answered while the loop waits without the GIL."""

    def talk(port: int) -> set[str]:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            return {client.get("/peer").text for _ in range(100)}

    async def main() -> None:
        async with serving() as server:
            ports = await asyncio.gather(*(asyncio.to_thread(talk, server.port) for _ in range(4)))
            assert [len(seen) for seen in ports] == [1, 1, 1, 1]
            assert server.connections_made == 4

    run(main())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_bodies_both_ways(run: Run, payload: Callable[[int], bytes], framing: str) -> None:
    body = payload(LARGE)
    checksum = hashlib.sha256(body).hexdigest()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), PIECE):
            yield body[start : start + PIECE]

    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            answer = await client.post("/echo", content=body if framing == "length" else pieces())
            assert answer.headers["x-checksum"] == checksum
            assert len(answer.content) == LARGE
            assert hashlib.sha256(answer.content).hexdigest() == checksum
            assert (await client.get("/path/after")).text == "/path/after"
            assert server.connections_made == 1

    run(main())


def test_streamed_pieces_arrive_one_by_one(run: Run) -> None:
    """Each piece is asked for only when the one before has arrived, so a piece held back would hang."""

    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            async with client.stream("GET", "/steps") as answer:
                received = []
                server.application.step.release()
                async for piece in answer.aiter_raw():
                    received.append(piece)
                    server.application.step.release()
            assert received == [b"%d;" % number for number in range(STEPS)]

    run(main())


def test_pipelined_requests_are_answered_in_order(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"".join(request_for(f"/path/{number}") for number in range(PIPELINED)))
            for number in range(PIPELINED):
                _, body = await read_answer(reader)
                assert body == f"/path/{number}".encode()
            await close_stream(writer)
            await server.idle.wait()
            assert server.connections_made == 1

    run(main())


def test_request_in_single_bytes(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            for byte in request_for("/path/slow") * 2:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            for _ in range(2):
                assert (await read_answer(reader))[1] == b"/path/slow"
            await close_stream(writer)

    run(main())


def test_bad_request_closes_only_its_connection(run: Run) -> None:
    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            assert (await client.get("/path/before")).status_code == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            await close_stream(writer)
            assert (await client.get("/path/after")).text == "/path/after"
            assert server.connections_made == 2

    run(main())


@pytest.mark.parametrize("farewell", ["close", "abort"])
@pytest.mark.parametrize("moment", ["response", "request"])
def test_client_that_vanishes(run: Run, moment: str, farewell: str) -> None:
    """In mid-response or mid-request; the server forgets the connection and serves the next one."""
    requests = {
        "response": request_for("/endless"),
        "request": request_for("/swallow", "content-length: 1000") + b"no thousand bytes",
    }

    async def vanish(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(requests[moment])
        await server.application.arrived.wait()
        if moment == "response":
            await reader.readexactly(PIECE)
        if farewell == "abort":
            writer.transport.abort()
        await close_stream(writer)

    async def main() -> None:
        async with serving() as server, client_of(server) as client:
            await vanish(server)
            await server.application.disconnected.wait()
            await server.idle.wait()
            assert not server.server_state.connections
            assert (await client.get("/path/after")).text == "/path/after"

    run(main())


def test_many_clients_vanish_while_others_are_served(run: Run) -> None:
    async def vanish(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_for("/endless"))
        await reader.readexactly(1)
        writer.transport.abort()
        await close_stream(writer)

    async def main() -> None:
        async with serving() as server:
            async with client_of(server) as client:
                vanishing = [asyncio.ensure_future(vanish(server)) for _ in range(50)]
                answers = await asyncio.gather(*(client.get("/path/served") for _ in range(50)))
                assert [answer.text for answer in answers] == ["/path/served"] * 50
                await asyncio.gather(*vanishing)
            await server.idle.wait()

    run(main())


async def idle_connections(server: Server, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connections that have had one answer each and are kept alive."""
    streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)]
    for _, writer in streams:
        writer.write(request_for("/path/idle"))
    for reader, _ in streams:
        await read_answer(reader)
    return streams


def test_graceful_shutdown(run: Run) -> None:
    """Idle connections are closed, a request in progress is finished, nobody new is let in, and serve() returns."""

    async def main() -> None:
        async with serving() as server:
            port = server.port
            idle = await idle_connections(server, 10)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_for("/held"))
            await server.application.arrived.wait()
            server.should_exit = True
            assert await asyncio.gather(*(reader.read() for reader, _ in idle)) == [b""] * 10
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            server.application.release.set()
            _, body = await read_answer(reader)
            assert body == b"released"
            assert await reader.read() == b""
            for _, stream in [*idle, (reader, writer)]:
                await close_stream(stream)

    run(main())


def test_shutdown_by_a_signal(run: Run) -> None:
    """uvicorn takes SIGTERM for itself, shuts down, and then raises it again for whoever had it before."""
    received: list[int] = []

    async def main() -> None:
        server = Server(Application())
        task = asyncio.ensure_future(server.serve())
        await server.ready.wait()
        idle = await idle_connections(server, 3)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.gather(*(reader.read() for reader, _ in idle)) == [b""] * 3
        await task
        for _, writer in idle:
            await close_stream(writer)

    previous = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        run(main())
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert received == [signal.SIGTERM]


COMMAND_LINE_APPLICATION = """\
import asyncio


async def application(scope, receive, send):
    loop = type(asyncio.get_running_loop())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{loop.__module__} {loop.__qualname__}".encode()})
"""


def test_command_line(tmp_path: Any, loop_name: str, loop_factory: Any) -> None:
    """`uvicorn --loop module:factory` in a process of its own runs the loop that it was told to, until SIGTERM."""
    (tmp_path / "served.py").write_text(COMMAND_LINE_APPLICATION)
    factory = {"asyncio": "asyncio:SelectorEventLoop"}.get(loop_name, f"{loop_name}:new_event_loop")
    options = ["--app-dir", str(tmp_path), "--loop", factory, "--http", "httptools", "--port", "0", "--lifespan", "off"]
    command = [sys.executable, "-m", "uvicorn", *options, "--no-use-colors", "served:application"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        deadline = threading.Timer(30, process.kill)
        deadline.start()
        try:
            assert process.stderr is not None
            lines: list[str] = []
            address = None
            for line in process.stderr:
                lines.append(line)
                if address := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                    break
            assert address is not None, "".join(lines)
            with httpx.Client(trust_env=False, timeout=20) as client:
                answer = client.get(address[1])
            made = loop_factory()
            made.close()
            assert answer.text == f"{type(made).__module__} {type(made).__qualname__}"
            process.terminate()
            rest = process.stderr.read()
            assert process.wait() in (0, -signal.SIGTERM), rest
            assert "Finished server process" in rest
        finally:
            deadline.cancel()
            process.kill()
