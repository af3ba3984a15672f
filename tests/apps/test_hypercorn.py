"""hypercorn serves HTTP/2 over TLS to httpx, both on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

if TYPE_CHECKING:
    from certificates import Certificates

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Run = Callable[..., Any]
Payload = Callable[[int], bytes]

LARGE = 8 * 1024 * 1024
STREAMS = 100
PIECE = 64 * 1024


class Application:
    """Echoes; /held answers when everyone is there; /endless stays until its client leaves."""

    def __init__(self) -> None:
        self.everyone = asyncio.Barrier(STREAMS)
        self.disconnected = asyncio.Event()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/endless":
            await self.endless(receive, send)
            return
        body = bytearray()
        while (message := await receive())["more_body"]:
            body += message["body"]
        body += message["body"]
        if scope["path"] == "/held":
            await self.everyone.wait()
        headers = [(b"x-version", scope["http_version"].encode()), (b"x-path", scope["path"].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(body), PIECE):
            piece = bytes(body[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def endless(self, receive: Receive, send: Send) -> None:
        while (message := await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(PIECE), "more_body": True})
        while message["type"] != "http.disconnect":
            message = await receive()
        self.disconnected.set()


def client_of(address: httpx.URL | str, certificates: Certificates) -> httpx.AsyncClient:
    context = certificates.client_context()
    return httpx.AsyncClient(base_url=address, verify=context, http2=True, trust_env=False, timeout=30)


@contextlib.asynccontextmanager
async def serving(certificates: Certificates) -> AsyncIterator[tuple[Application, httpx.AsyncClient]]:
    """The application, and a client of the server; the server ends in good order when it is told to."""
    application = Application()
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"https://localhost:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.certfile = str(certificates.certificate_file)
    config.keyfile = str(certificates.key_file)
    config.errorlog = None
    finish = asyncio.Event()
    server = asyncio.ensure_future(serve(application, config, shutdown_trigger=finish.wait))
    try:
        async with client_of(address, certificates) as client:
            yield application, client
    finally:
        finish.set()
        await server


def test_requests(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with serving(certificates) as (_, client):
            for number in range(200):
                answer = await client.post(f"/echo/{number}", content=f"body {number}")
                assert answer.text == f"body {number}"
                assert (answer.headers["x-version"], answer.http_version) == ("2", "HTTP/2")

    run(main())


def test_all_streams_are_open_at_once(run: Run, certificates: Certificates) -> None:
    """No answer comes before all requests have arrived: they share the one connection."""

    async def main() -> None:
        async with serving(certificates) as (_, client):
            await client.get("/first")
            requests = (client.post("/held", content=b"%d" % number) for number in range(STREAMS))
            answers = await asyncio.gather(*requests)
            assert [answer.text for answer in answers] == [str(number) for number in range(STREAMS)]

    run(main())


def test_large_bodies_on_several_streams(run: Run, certificates: Certificates, payload: Payload) -> None:
    """Flow control of each stream and of the connection, both ways at once."""
    bodies = [payload(LARGE // 4 + number) for number in range(4)]

    async def main() -> None:
        async with serving(certificates) as (_, client):
            answers = await asyncio.gather(*(client.post("/echo", content=body) for body in bodies))
            for answer, body in zip(answers, bodies, strict=True):
                assert hashlib.sha256(answer.content).digest() == hashlib.sha256(body).digest()

    run(main())


def test_client_that_leaves(run: Run, certificates: Certificates) -> None:
    """The handlers of its open streams learn of it, and another client is served."""

    async def main() -> None:
        async with serving(certificates) as (application, client):
            async with client_of(client.base_url, certificates) as leaving:
                async with leaving.stream("GET", "/endless") as answer:
                    assert len(await anext(answer.aiter_raw())) > 0
            await application.disconnected.wait()
            assert (await client.post("/echo", content=b"after")).content == b"after"

    run(main())


def test_untrusted(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with serving(certificates) as (_, client):
            async with httpx.AsyncClient(base_url=client.base_url, trust_env=False, timeout=30) as stranger:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await stranger.get("/")
            assert (await client.get("/")).status_code == 200

    run(main())
