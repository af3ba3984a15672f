"""TLS in TLS: aiohttp and httpx through an HTTPS proxy, which they ask in TLS for a tunnel, to an HTTPS origin."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from asyncio import sslproto
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from aiohttp import web

if TYPE_CHECKING:
    from certificates import Certificates

Run = Callable[..., Any]
Payload = Callable[[int], bytes]

LARGE = 8 * 1024 * 1024


class Proxy:
    """CONNECT over TLS: what comes after the answer is carried both ways as it is. It counts what it carried."""

    def __init__(self) -> None:
        self.address = ""
        self.tunnels: list[str] = []
        self.carried = 0

    @contextlib.asynccontextmanager
    async def serving(self, certificates: Certificates) -> AsyncIterator[None]:
        clients: set[asyncio.Task[None]] = set()

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            clients.add(task)
            with contextlib.closing(writer):
                await self.tunnel(reader, writer)

        server = await asyncio.start_server(client, "127.0.0.1", 0, ssl=certificates.server_context())
        self.address = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            await asyncio.gather(*clients)
            await server.wait_closed()

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split()
        if method != "CONNECT" or "refused" in target:
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return
        self.tunnels.append(target)
        host, port = target.rsplit(":", 1)
        origin_reader, origin_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with contextlib.closing(origin_writer):
            await asyncio.gather(self.carry(reader, origin_writer), self.carry(origin_reader, writer))

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(65536):
                self.carried += len(piece)
                target.write(piece)
                await target.drain()
        target.close()


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.Response(body=body, headers={"x-checksum": hashlib.sha256(body).hexdigest()})


@contextlib.asynccontextmanager
async def proxy_and_origin(
    certificates: Certificates, certificates_of_origin: Certificates | None = None
) -> AsyncIterator[tuple[Proxy, str]]:
    """The proxy, and the address to put before a path at the origin."""
    origin_context = (certificates_of_origin or certificates).server_context()
    application = web.Application(client_max_size=2 * LARGE)
    application.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    proxy = Proxy()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=origin_context).start()
        async with proxy.serving(certificates):
            yield proxy, f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def session(certificates: Certificates, proxy: Proxy) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=certificates.client_context())
    return aiohttp.ClientSession(connector=connector, proxy=proxy.address)


def test_aiohttp(run: Run, certificates: Certificates, payload: Payload) -> None:
    """Small and large bodies through one tunnel, which is kept."""
    body = payload(LARGE)
    checksum = hashlib.sha256(body).hexdigest()

    async def main() -> None:
        async with proxy_and_origin(certificates) as (proxy, origin), session(certificates, proxy) as client:
            for sent in (b"", b"small", body):
                async with client.post(f"{origin}/echo", data=sent) as answer:
                    assert await answer.read() == sent
            assert answer.headers["x-checksum"] == checksum
            assert proxy.tunnels == [origin.removeprefix("https://")]
            assert proxy.carried > 2 * LARGE

    run(main())


def test_aiohttp_many_tunnels(run: Run, certificates: Certificates, payload: Payload) -> None:
    async def main() -> None:
        async with proxy_and_origin(certificates) as (proxy, origin), session(certificates, proxy) as client:

            async def exchange(number: int) -> None:
                sent = payload(10_000 * number + 1)
                async with client.post(f"{origin}/echo", data=sent) as answer:
                    assert await answer.read() == sent

            await asyncio.gather(*(exchange(number) for number in range(30)))
            assert len(proxy.tunnels) == 30

    run(main())


def test_aiohttp_is_refused_by_the_proxy(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with proxy_and_origin(certificates) as (proxy, _), session(certificates, proxy) as client:
            with pytest.raises(aiohttp.ClientHttpProxyError) as caught:
                await client.get("https://refused.invalid/")
            assert caught.value.status == 403

    run(main())


def test_aiohttp_does_not_trust_the_origin(
    run: Run, certificates: Certificates, tmp_path: Path, loop_name: str
) -> None:
    """The proxy is trusted; the origin, which the inner handshake is with, has another authority."""
    if loop_name == "asyncio" and "exc" not in inspect.signature(sslproto.SSLProtocol._abort).parameters:
        pytest.skip("this asyncio raises TypeError from its own transport when an inner handshake fails")
    stranger = type(certificates)(tmp_path)

    async def main() -> None:
        async with proxy_and_origin(certificates, stranger) as (proxy, origin), session(certificates, proxy) as client:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await client.get(f"{origin}/echo")
            assert len(proxy.tunnels) == 1

    run(main())


def test_httpx(run: Run, certificates: Certificates, payload: Payload) -> None:
    body = payload(LARGE)

    async def main() -> None:
        async with proxy_and_origin(certificates) as (proxy, origin):
            context = certificates.client_context()
            way = httpx.Proxy(proxy.address, ssl_context=certificates.client_context())
            async with httpx.AsyncClient(proxy=way, verify=context, trust_env=False, timeout=30) as client:
                for sent in (b"small", body):
                    answer = await client.post(f"{origin}/echo", content=sent)
                    assert answer.content == sent
                assert len(proxy.tunnels) == 1

    run(main())
