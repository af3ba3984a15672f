"""hoop.adapters: uvicorn, hypercorn, aiohttp, protocols and functions serve for a worker, and end without a loss."""

from __future__ import annotations

import asyncio
import functools
import importlib
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoop
import pytest
from hoop.adapters.serving import serve_by
from hoop.adapters.target import TargetError
from served import DEADLINE_S, Client, Served, StandIn, listening, serve_and_drain

CLIENTS = 8
REQUESTS_AFTERWARDS = 20
BODY = b"Hello, world!\n"
LONG_DRAIN = hoop.Drain(idle_grace=DEADLINE_S)  # that the end of the last connection ends
UNHURRIED = hoop.Drain(idle_grace=5.0, timeout=DEADLINE_S)  # a client on a busy machine may be silent for a second


async def asgi_3(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    status = 404 if scope["path"] != "/" else 200
    headers = [(b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def asgi_2(scope: Any) -> Any:
    return lambda receive, send: asgi_3(scope, receive, send)


def of_aiohttp() -> Any:
    web = pytest.importorskip("aiohttp.web")

    async def answer(request: Any) -> Any:
        return web.Response(body=BODY)

    application = web.Application()
    application.router.add_get("/", answer)
    return application


class Protocol(asyncio.Protocol):
    """As much HTTP as Client needs."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(BODY)
        if hoop.is_draining():
            head += b"Connection: close\r\n"
        self.transport.write(head + b"\r\n" + BODY)
        if hoop.is_draining():
            self.transport.close()


async def main_with_worker(worker: Any) -> None:
    loop = asyncio.get_running_loop()
    for sock in worker.sockets:
        await loop.create_server(Protocol, sock=sock)
    worker.ready()
    await loop.create_future()


KINDS = {
    "uvicorn": ("uvicorn", lambda: asgi_3),
    "uvicorn-asgi2": ("uvicorn", lambda: asgi_2),
    "hypercorn": ("hypercorn", lambda: asgi_3),
    "aiohttp": ("aiohttp", of_aiohttp),
    "protocol": ("protocol", lambda: Protocol),
    "main": ("main", lambda: main_with_worker),
}
HTTP_SERVERS = ("uvicorn", "hypercorn", "aiohttp")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, Callable[[], Any]]:
    server, application = KINDS[request.param]
    if server in HTTP_SERVERS:
        pytest.importorskip(server)
    return server, application


def test_keep_alive_clients_lose_nothing_when_a_worker_takes_over(kind: tuple[str, Callable[[], Any]]) -> None:
    """Two workers on one socket: the first one drains while its clients go on and on."""

    async def ask(client: Client, is_over: asyncio.Event) -> None:
        left = REQUESTS_AFTERWARDS
        while left > 0:
            assert await client.get() == (200, BODY)
            left -= is_over.is_set()
        client.close()

    async def main(address: Any, old: Served, sock: socket.socket) -> tuple[list[Client], Served]:
        clients = [Client(address) for _ in range(CLIENTS)]
        for client in clients:
            await client.get()
        new = Served(*kind, StandIn([sock], drain=UNHURRIED))
        try:
            await asyncio.to_thread(new.wait_until_ready)
            is_over = asyncio.Event()
            asking = asyncio.gather(*(ask(client, is_over) for client in clients))
            old.begin_to_drain()
            await asyncio.to_thread(old.wait_until_ended)
            is_over.set()
            await asking
        finally:
            new.begin_to_drain()
            await asyncio.to_thread(new.wait_until_ended)
        return clients, new

    with listening(2) as (address, copies):
        old = Served(*kind, StandIn([copies[0]], drain=UNHURRIED))
        old.wait_until_ready()
        try:
            clients, new = hoop.run(asyncio.wait_for(main(address, old, copies[1]), DEADLINE_S))
        finally:
            old.begin_to_drain()
            old.wait_until_ended()
    assert {status for client in clients for status in client.statuses} == {200}
    assert all(client.closes >= 1 for client in clients), [(one.closes, len(one.statuses)) for one in clients]
    if kind[0] in HTTP_SERVERS:
        assert old.worker.requests + new.worker.requests == sum(len(client.statuses) for client in clients)


@pytest.mark.parametrize("server", HTTP_SERVERS)
def test_health_is_answered_where_the_application_does_not(server: str) -> None:
    pytest.importorskip(server)
    application = of_aiohttp() if server == "aiohttp" else asgi_3

    async def main(address: Any, worker: StandIn) -> list[tuple[int, bytes]]:
        loop: Any = asyncio.get_running_loop()
        drained = loop.create_future()
        serving = loop.create_task(serve_and_drain(server, application, worker, drained))
        await asyncio.to_thread(worker.on_ready.wait)
        client = Client(address)
        answers = [await client.get(path) for path in ("/livez", "/readyz")]
        drained.set_result(None)
        await hoop.draining()
        late = Client(address)  # in the delay the socket is open yet
        answers += [await late.get(path) for path in ("/livez", "/readyz")]
        client.close()
        await serving
        return answers

    with listening() as (address, sockets):
        worker = StandIn(sockets, drain=hoop.Drain(delay=1, idle_grace=0.1))
        answers = hoop.run(main(address, worker))
    assert answers == [(200, b"ok\n"), (200, b"ok\n"), (200, b"ok\n"), (503, b"not ready\n")]


def uvicorn_servers(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """Where the servers that the adapter makes from now on will be, with such options of uvicorn.Config."""
    uvicorn = pytest.importorskip("uvicorn")
    adapter: Any = importlib.import_module("hoop.adapters.uvicorn")
    servers: list[Any] = []

    def server(config: Any, worker: Any, make: Callable[..., Any] = adapter.Server) -> Any:
        servers.append(make(config, worker))
        return servers[-1]

    monkeypatch.setattr(uvicorn, "Config", functools.partial(uvicorn.Config, **options))
    monkeypatch.setattr(adapter, "Server", server)
    return servers


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_uvicorn_closes_connections_while_it_drains(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the adapter relies on: the headers of uvicorn's server are in each answer, and end the connection."""
    pytest.importorskip(http)
    servers = uvicorn_servers(monkeypatch, http=http)

    async def main(address: Any, worker: StandIn) -> list[tuple[list[int], int]]:
        loop = asyncio.get_running_loop()
        drained, begun, released = (loop.create_future() for _ in range(3))

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/slow":
                begun.set_result(None)
                await released
            await asgi_3({**scope, "path": "/"}, receive, send)

        serving = loop.create_task(serve_and_drain("uvicorn", application, worker, drained))
        await asyncio.to_thread(worker.on_ready.wait)
        slow, kept, late = clients = [Client(address) for _ in range(3)]
        under_way = loop.create_task(slow.get("/slow"))
        await begun
        await servers[0].on_tick(0)  # makes the headers anew, as once in a second
        await asyncio.gather(kept.get(), late.get())
        assert kept.closes == late.closes == 0
        drained.set_result(None)
        await hoop.draining()
        await kept.get()
        await servers[0].on_tick(0)
        await late.get()
        released.set_result(None)
        await under_way
        await serving
        return [(client.statuses, client.closes) for client in clients]

    with listening() as (address, sockets):
        worker = StandIn(sockets, drain=LONG_DRAIN)
        assert hoop.run(main(address, worker)) == [([200], 1), ([200, 200], 1), ([200, 200], 1)]


@pytest.mark.parametrize("websocket", ["auto", "websockets-sansio", "wsproto"])
def test_uvicorn_opens_websockets_while_it_drains(websocket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wsproto" if websocket == "wsproto" else "websockets")
    uvicorn_servers(monkeypatch, ws=websocket)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def main(address: Any, worker: StandIn) -> bytes:
        loop = asyncio.get_running_loop()
        drained = loop.create_future()
        serving = loop.create_task(serve_and_drain("uvicorn", application, worker, drained))
        await asyncio.to_thread(worker.on_ready.wait)
        reader, writer = await hoop.open_connection(*address)
        drained.set_result(None)
        await hoop.draining()
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await serving
        assert worker.requests == 1
        return head.lower()

    with listening() as (address, sockets):
        head = hoop.run(main(address, StandIn(sockets, drain=LONG_DRAIN)))
    assert head.startswith(b"http/1.1 101 ")
    assert b"server: uvicorn" in head
    assert b"connection: upgrade" in head
    assert b"connection: close" not in head


@pytest.mark.parametrize("server", ["uvicorn", "aiohttp"])
def test_trap_c24_an_old_connection_ends_with_an_answer_that_says_so(server: str) -> None:
    """And the next one is served: the worker goes on."""
    pytest.importorskip(server)

    async def main(address: Any, worker: StandIn) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.server_defaults.limits = hoop.Limits(max_connection_age=0.05)
        drained = loop.create_future()
        serving = loop.create_task(serve_and_drain(server, KINDS[server][1](), worker, drained))
        await asyncio.to_thread(worker.on_ready.wait)
        for _ in range(2):
            reader, writer = await hoop.open_connection(*address)
            head = b""
            while b"connection: close" not in head:
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                assert await reader.readexactly(len(BODY)) == BODY
                assert head.count(b"server: ") == 1
            assert await reader.read() == b""
            writer.close()
        drained.set_result(None)
        await serving

    with listening() as (address, sockets):
        hoop.run(main(address, StandIn(sockets)))


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_an_application_keeps_its_own_health(server: str) -> None:
    pytest.importorskip(server)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asgi_3({**scope, "path": "/"}, receive, send)

    async def main(address: Any, worker: StandIn) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        drained = loop.create_future()
        serving = loop.create_task(serve_and_drain(server, application, worker, drained))
        await asyncio.to_thread(worker.on_ready.wait)
        client = Client(address)
        answer = await client.get("/readyz")
        client.close()
        drained.set_result(None)
        await serving
        return answer

    with listening() as (address, sockets):
        assert hoop.run(main(address, StandIn(sockets))) == (200, BODY)


@pytest.mark.parametrize("server", [*HTTP_SERVERS, "protocol"])
def test_tls_with_the_context_of_the_worker(server: str) -> None:
    trustme = pytest.importorskip("trustme")
    if server in HTTP_SERVERS:
        pytest.importorskip(server)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def main(address: Any) -> tuple[int, bytes]:
        client = Client(address, trusting)
        answer = await client.get()
        client.close()
        return answer

    with listening() as (address, sockets):
        served = Served(*KINDS[server], StandIn(sockets, ssl=context))
        served.wait_until_ready()
        try:
            assert hoop.run(main(address)) == (200, BODY)
        finally:
            served.begin_to_drain()
            served.wait_until_ended()


def test_a_unix_socket_is_left_where_it_is(kind: tuple[str, Callable[[], Any]], tmp_path: Path) -> None:
    async def main(path: str) -> tuple[int, bytes]:
        client = Client(path)
        answer = await client.get()
        client.close()
        return answer

    path = str(tmp_path / "sock")
    with listening(1, socket.AF_UNIX, path) as (_, sockets):
        served = Served(*kind, StandIn(sockets))
        served.wait_until_ready()
        try:
            assert hoop.run(main(path)) == (200, BODY)
        finally:
            served.begin_to_drain()
            served.wait_until_ended()
    assert Path(path).is_socket()  # it is the master's


# Starts that fail.


async def raises_in_its_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise LookupError("no database")


async def refuses_to_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "Traceback:\n  somewhere\nLookupError: no database"})


async def hangs_in_its_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.get_running_loop().create_future()


def aiohttp_with(start: Callable[[Any], Any]) -> Any:
    web = pytest.importorskip("aiohttp.web")
    application = web.Application()
    application.on_startup.append(start)
    return application


async def raise_in_aiohttp(application: Any) -> None:
    raise LookupError("no database")


async def hang_in_aiohttp(application: Any) -> None:
    await asyncio.get_running_loop().create_future()


FAILING_STARTS = [
    *((server, lambda: raises_in_its_start, r"failed to start: LookupError: no database", "raises_in_its_start")
      for server in ("uvicorn", "hypercorn")),
    *((server, lambda: refuses_to_start, r"failed to start: LookupError: no database", "somewhere")
      for server in ("uvicorn", "hypercorn")),
    *((server, lambda: hangs_in_its_start, r"did not start: its lifespan was not through after 0\.2 s", "create_future")
      for server in ("uvicorn", "hypercorn")),
    ("aiohttp", lambda: aiohttp_with(raise_in_aiohttp), r"failed to start: LookupError: no database", "raise_in_aio"),
    ("aiohttp", lambda: aiohttp_with(hang_in_aiohttp), r"did not start: .* not through after 0\.2 s", "create_future"),
]  # fmt: skip


@pytest.mark.parametrize(("server", "application", "line", "where"), FAILING_STARTS)
def test_start_that_fails(server: str, application: Callable[[], Any], line: str, where: str) -> None:
    pytest.importorskip(server)

    async def main(worker: StandIn) -> None:
        drained = asyncio.get_running_loop().create_future()
        await serve_and_drain(server, application(), worker, drained)

    with listening() as (_, sockets):
        worker = StandIn(sockets, start_timeout=0.2)
        with pytest.raises(TargetError, match=line) as raised:
            hoop.run(main(worker))
    assert not worker.on_ready.is_set()
    assert "\n" not in str(raised.value)
    assert raised.value.detail is not None and where in raised.value.detail


def test_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "hoop.adapters.uvicorn", raising=False)
    with pytest.raises(TargetError, match="uvicorn is not installed: pip install uvicorn"):
        serve_by("uvicorn", asgi_3)


@pytest.mark.parametrize(
    ("server", "application"), [("aiohttp", asgi_3), ("uvicorn", Protocol), ("main", 5), ("hypercorn", Protocol)]
)
def test_application_of_another_kind(server: str, application: Any) -> None:
    with pytest.raises(TargetError, match=f"server {server} (serves|needs) an? "):
        serve_by(server, application)
