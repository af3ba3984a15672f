"""hoop.asgi.Lifecycle: what an ASGI application needs around it to start and to end without losing a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import hoop

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE = (b"connection", b"close")


class Lifecycle:
    """An ASGI application around `app`. (ASGI 3: the HTTP and the lifespan message formats)

    While the program drains (hoop.is_draining(), or after begin_draining() where something else than hoop ends it),
    each answer says `connection: close`, so that clients of HTTP/1 go elsewhere with their next request.
    GET livez is answered 200 as long as the loop runs at all. GET readyz is answered 200 between the end of the
    application's start-up and the beginning of the drain, otherwise 503: load balancers look at it. None for a path
    leaves it to the application.
    """

    def __init__(self, app: Application, *, livez: str | None = "/livez", readyz: str | None = "/readyz") -> None:
        self._app = app
        self._livez = livez
        self._readyz = readyz
        self._is_ending = False
        self._is_up = True  # until a server shows that it knows lifespans
        self.requests: int = 0
        """Requests that the application got, WebSockets among them."""
        self.active: int = 0
        """Those that it has not ended."""

    @property
    def is_draining(self) -> bool:
        """Whether the program is on its way out."""
        return self._is_ending or hoop.is_draining()

    @property
    def is_ready(self) -> bool:
        """Whether new requests are welcome: what readyz says."""
        return self._is_up and not self.is_draining

    def begin_draining(self) -> None:
        """For servers that handle signals themselves: from now on look as if the loop was draining. Idempotent."""
        self._is_ending = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI's."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, self._watching_start(send))
            finally:
                self._is_up = True  # what knows no lifespans raises at once, and the server goes on
            return
        send = self._saying_close(scope, send)
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            if scope["path"] == self._livez:
                await self._answer(send, True)
                return
            if scope["path"] == self._readyz:
                await self._answer(send, self.is_ready)
                return
        self.requests += 1
        self.active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.active -= 1

    def _watching_start(self, send: Send) -> Send:
        self._is_up = False

        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._is_up = True
            await send(message)

        return watched

    def _saying_close(self, scope: Scope, send: Send) -> Send:
        if not closes(scope):
            return send

        def closing(message: Message) -> Awaitable[None]:  # no coroutine of its own, which would cost each message one
            if message["type"] == "http.response.start" and self.is_draining:
                headers = [pair for pair in message.get("headers", ()) if bytes(pair[0]).lower() != CLOSE[0]]
                message = {**message, "headers": [*headers, CLOSE]}
            return send(message)

        return closing

    async def _answer(self, send: Send, is_good: bool) -> None:
        body = b"ok\n" if is_good else b"not ready\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200 if is_good else 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def closes(scope: Scope) -> bool:
    """Whether `connection: close` means something there: HTTP/2 and 3 have no such header."""
    return bool(scope["type"] == "http" and scope.get("http_version", "1.1") in ("1.0", "1.1"))
