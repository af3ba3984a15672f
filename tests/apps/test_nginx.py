"""aiohttp and httpx against a real nginx over TLS, with HTTP/1.1 and HTTP/2: 50 MB each way, compared by checksum."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from server_process import ServerProcess

if TYPE_CHECKING:
    from certificates import Certificates

Run = Callable[..., Any]
Payload = Callable[[int], bytes]

LARGE = 50 * 1000 * 1000
PIECE = 256 * 1024
CONCURRENT = 64
CREATED_OR_REPLACED = (201, 204)
CONFIGURATION = """\
daemon off;
pid nginx.pid;
error_log stderr warn;
{user}
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path bodies;
    proxy_temp_path unused-proxy;
    fastcgi_temp_path unused-fastcgi;
    uwsgi_temp_path unused-uwsgi;
    scgi_temp_path unused-scgi;
    client_max_body_size 100m;
    keepalive_requests 10000;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root files;
        location /small/ {{ return 200 "$request_uri over $server_protocol"; }}
        location /closing/ {{ keepalive_timeout 0; return 200 closed; }}
        location /stored/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"""


class Nginx:
    """Where the server is, the folder of its files, and how to trust it."""

    def __init__(self, port: int, files: Path, certificates: Certificates) -> None:
        self.base = f"https://localhost:{port}"
        self.port = port
        self.files = files
        self.certificates = certificates

    def aiohttp_session(self, *, limit: int = 100, **options: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self.certificates.client_context(), limit=limit)
        return aiohttp.ClientSession(self.base, connector=connector, **options)

    def httpx_client(self, *, http2: bool) -> httpx.AsyncClient:
        context = self.certificates.client_context()
        return httpx.AsyncClient(base_url=self.base, verify=context, http2=http2, trust_env=False, timeout=30)

    def checksum_of(self, name: str) -> str:
        with (self.files / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(scope="module")
def nginx(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[..., Path], certificates: Certificates
) -> Iterator[Nginx]:
    """nginx takes over a listener from us, as when a new nginx replaces an old one: so the kernel chooses the port."""
    binary = program("nginx", debian_package="nginx")
    prefix = tmp_path_factory.mktemp("nginx")
    files = prefix / "files"
    (files / "stored").mkdir(parents=True)
    with (files / "large").open("wb") as file:
        generator = random.Random(LARGE)
        for _ in range(50):
            file.write(generator.randbytes(LARGE // 50))
    with socket.create_server(("127.0.0.1", 0), backlog=511) as listener:
        port = listener.getsockname()[1]
        configuration = CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            port=port,
            certificate=certificates.certificate_file,
            key=certificates.key_file,
        )
        (prefix / "nginx.conf").write_text(configuration)
        handed_over = {**os.environ, "NGINX": f"{listener.fileno()};"}
        command = [binary, "-p", prefix, "-c", prefix / "nginx.conf", "-e", "stderr"]
        server = ServerProcess(command, env=handed_over, pass_fds=[listener.fileno()], cwd=prefix)
    with server:
        yield Nginx(port, files, certificates)
    assert "[emerg]" not in server.text and "[alert]" not in server.text, server.text


async def pieces_of(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


def test_aiohttp_50_mb_each_way(run: Run, nginx: Nginx, payload: Payload) -> None:
    body = payload(LARGE)

    async def main() -> None:
        async with nginx.aiohttp_session() as session:
            async with session.put("/stored/aiohttp", data=pieces_of(body)) as answer:
                assert answer.status in CREATED_OR_REPLACED
            assert nginx.checksum_of("stored/aiohttp") == hashlib.sha256(body).hexdigest()
            received = hashlib.sha256()
            size = 0
            async with session.get("/large") as answer:
                async for piece in answer.content.iter_any():
                    received.update(piece)
                    size += len(piece)
            assert (size, received.hexdigest()) == (LARGE, nginx.checksum_of("large"))

    run(main())


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_httpx_50_mb_each_way(run: Run, nginx: Nginx, payload: Payload, http2: bool) -> None:
    body = payload(LARGE)
    name = f"stored/httpx-{http2}"

    async def main() -> None:
        async with nginx.httpx_client(http2=http2) as client:
            length = {"content-length": str(len(body))}
            answer = await client.put(f"/{name}", content=pieces_of(body), headers=length)
            assert answer.status_code in CREATED_OR_REPLACED
            assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            assert nginx.checksum_of(name) == hashlib.sha256(body).hexdigest()
            received = hashlib.sha256()
            async with client.stream("GET", "/large") as answer:
                async for piece in answer.aiter_raw():
                    received.update(piece)
            assert received.hexdigest() == nginx.checksum_of("large")

    run(main())


def test_aiohttp_many_at_once(run: Run, nginx: Nginx) -> None:
    """More requests than connections: these are used again, and each answer is the right one's."""
    limit = 16
    opened: list[object] = []

    async def created(*event: object) -> None:
        opened.append(event)

    async def main() -> None:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(created)
        async with nginx.aiohttp_session(limit=limit, trace_configs=[tracing]) as session:

            async def ask(number: int) -> None:
                async with session.get(f"/small/{number}") as answer:
                    assert await answer.text() == f"/small/{number} over HTTP/1.1"

            await asyncio.gather(*(ask(number) for number in range(10 * CONCURRENT)))
            assert 1 <= len(opened) <= limit

    run(main())


def test_httpx_many_streams_of_one_connection(run: Run, nginx: Nginx) -> None:
    async def main() -> None:
        async with nginx.httpx_client(http2=True) as client:

            async def ask(number: int) -> None:
                answer = await client.get(f"/small/{number}")
                assert answer.text == f"/small/{number} over HTTP/2.0"
                connections.add(answer.extensions["network_stream"].get_extra_info("client_addr"))

            connections: set[Any] = set()
            await ask(0)
            await asyncio.gather(*(ask(number) for number in range(CONCURRENT)))
            assert len(connections) == 1

    run(main())


def test_server_that_closes_after_each_answer(run: Run, nginx: Nginx) -> None:
    async def main() -> None:
        async with nginx.aiohttp_session() as session, nginx.httpx_client(http2=False) as client:
            for _ in range(20):
                async with session.get("/closing/") as answer:
                    assert await answer.text() == "closed"
                assert (await client.get("/closing/")).text == "closed"

    run(main())


def test_download_given_up(run: Run, nginx: Nginx) -> None:
    """A client that leaves in the middle of an answer, and one that is cancelled there, leave the loop in order."""

    async def main() -> None:
        async with nginx.aiohttp_session() as session:
            async with session.get("/large") as answer:
                assert await answer.content.readexactly(PIECE)
            arrived = asyncio.Event()

            async def download() -> None:
                async with session.get("/large") as answer:
                    await answer.content.readexactly(PIECE)
                    arrived.set()
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(download())
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with session.get("/small/after") as answer:
                assert answer.status == 200

    run(main())


def test_plain_text_to_the_tls_port(run: Run, nginx: Nginx) -> None:
    """nginx answers clear HTTP with an error in clear; a client that expects TLS of such a server gets an SSLError."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://localhost:{nginx.port}/small/") as answer:
                assert answer.status == 400
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"{nginx.base}/small/")

    run(main())
