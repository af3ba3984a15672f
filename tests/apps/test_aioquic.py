"""aioquic: an HTTP/3 server and client on the loop under test, over UDP on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamReset
from aioquic.tls import SessionTicket

if TYPE_CHECKING:
    from certificates import Certificates

Run = Callable[..., Any]
Payload = Callable[[int], bytes]
Headers = list[tuple[bytes, bytes]]

LARGE = 4 * 1024 * 1024
STREAMS = 60


class Message:
    """One request or one answer, as it arrives."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.complete: asyncio.Future[Message] = asyncio.get_running_loop().create_future()


class HttpProtocol(QuicConnectionProtocol):
    """HTTP/3 on a QUIC connection: puts messages together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.messages: dict[int, Message] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamReset) and (message := self.messages.pop(event.stream_id, None)):
            message.complete.set_exception(ConnectionResetError(f"reset with {event.error_code}"))
        for http_event in self.http.handle_event(event):
            self.http_event_received(http_event)

    def http_event_received(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived):
            return
        message = self.messages.get(event.stream_id) or self.message_begins(event.stream_id)
        if isinstance(event, HeadersReceived):
            message.headers.update(event.headers)
        else:
            message.body += event.data
        if event.stream_ended:
            message.complete.set_result(self.messages.pop(event.stream_id))

    def message_begins(self, stream: int) -> Message:
        self.messages[stream] = Message()
        return self.messages[stream]

    def send(self, stream: int, headers: Headers, body: bytes) -> None:
        self.http.send_headers(stream, headers, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()


class ServerProtocol(HttpProtocol):
    """Answers each request with its body and the checksum; /refused by resetting the stream."""

    def message_begins(self, stream: int) -> Message:
        message = super().message_begins(stream)
        message.complete.add_done_callback(lambda request: self.answer(stream, request.result()))
        return message

    def answer(self, stream: int, request: Message) -> None:
        if request.headers[b":path"] == b"/refused":
            self._quic.reset_stream(stream, 0x010B)
            self.transmit()
            return
        checksum = hashlib.sha256(request.body).hexdigest().encode()
        self.send(stream, [(b":status", b"200"), (b"x-checksum", checksum)], bytes(request.body))


class ClientProtocol(HttpProtocol):
    async def post(self, path: str, body: bytes = b"") -> Message:
        stream = self._quic.get_next_available_stream_id()
        message = self.message_begins(stream)
        method = b"POST" if body else b"GET"
        pseudo = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost")]
        self.send(stream, [*pseudo, (b":path", path.encode())], body)
        return await message.complete


class Service:
    """A server, with the session tickets that it has given out."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.tickets: dict[bytes, SessionTicket] = {}
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self, *, retry: bool = False) -> AsyncIterator[None]:
        configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
        configuration.load_cert_chain(self.certificates.certificate_file, self.certificates.key_file)
        server = await serve(
            "127.0.0.1",
            0,
            configuration=configuration,
            create_protocol=ServerProtocol,
            session_ticket_fetcher=lambda label: self.tickets.pop(label, None),
            session_ticket_handler=lambda ticket: self.tickets.update({ticket.ticket: ticket}),
            retry=retry,
        )
        self.port = server._transport.get_extra_info("sockname")[1]
        try:
            yield
        finally:
            server.close()

    def connection(self, **options: Any) -> contextlib.AbstractAsyncContextManager[Any]:
        ticket = options.pop("ticket", None)
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, server_name="localhost", session_ticket=ticket)
        configuration.load_verify_locations(cafile=str(self.certificates.authority_file))
        return connect("127.0.0.1", self.port, configuration=configuration, create_protocol=ClientProtocol, **options)


@pytest.fixture
def service(certificates: Certificates) -> Service:
    return Service(certificates)


@pytest.mark.parametrize("retry", [False, True])
def test_requests(run: Run, service: Service, retry: bool) -> None:
    async def main() -> None:
        async with service.serving(retry=retry), service.connection() as client:
            for number in range(50):
                answer = await client.post(f"/echo/{number}", b"%d" % number)
                assert (answer.headers[b":status"], bytes(answer.body)) == (b"200", b"%d" % number)

    run(main())


def test_large_bodies_both_ways(run: Run, service: Service, payload: Payload) -> None:
    body = payload(LARGE)

    async def main() -> None:
        async with service.serving(), service.connection() as client:
            answer = await client.post("/echo", body)
            assert answer.headers[b"x-checksum"] == hashlib.sha256(body).hexdigest().encode()
            assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()

    run(main())


def test_many_streams_and_connections(run: Run, service: Service, payload: Payload) -> None:
    async def main() -> None:
        async with service.serving(), contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(service.connection()) for _ in range(5)]

            async def ask(number: int) -> None:
                body = payload(1 + 500 * number)
                answer = await clients[number % len(clients)].post("/echo", body)
                assert bytes(answer.body) == body

            await asyncio.gather(*(ask(number) for number in range(STREAMS)))

    run(main())


def test_stream_that_the_server_resets(run: Run, service: Service) -> None:
    async def main() -> None:
        async with service.serving(), service.connection() as client:
            with pytest.raises(ConnectionResetError):
                await client.post("/refused")
            assert bytes((await client.post("/echo", b"after")).body) == b"after"

    run(main())


def test_resumption_with_early_data(run: Run, service: Service) -> None:
    """The second connection's request leaves before its handshake is complete."""
    given: list[SessionTicket] = []

    async def main() -> None:
        async with service.serving():
            async with service.connection(session_ticket_handler=given.append) as client:
                await client.post("/echo", b"first")
            assert given
            async with service.connection(ticket=given[-1], wait_connected=False) as client:
                answer = await client.post("/echo", b"early")
                assert bytes(answer.body) == b"early"
                assert client._quic.tls.early_data_accepted

    run(main())


def test_client_whose_address_changes(run: Run, service: Service, payload: Payload) -> None:
    """The client goes on from another socket, and the server follows it."""

    async def main() -> None:
        async with service.serving(), service.connection() as client:
            await client.post("/echo", b"before")
            loop = asyncio.get_running_loop()
            first = client._transport
            second, _ = await loop.create_datagram_endpoint(lambda: client, local_addr=("::", 0))
            assert second.get_extra_info("sockname")[1] != first.get_extra_info("sockname")[1]
            client.change_connection_id()
            body = payload(300_000)
            assert bytes((await client.post("/echo", body)).body) == body
            client._transport = first
            second.close()
            assert bytes((await client.post("/echo", b"back")).body) == b"back"

    run(main())
