"""An ASGI application as workers serve it: its start is watched, its requests are counted, and it ends well."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from hoop.adapters.target import TargetError, application_traceback, in_a_line, is_asgi_2
from hoop.asgi import Application, Lifecycle, Message, Receive, Scope, Send

HEALTH = LIVEZ, READYZ = "/livez", "/readyz"
ASIDE = (*HEALTH, None)  # the paths that are not just passed on; a lifespan has none
NOT_FOUND = 404
FAILED = {"type": "lifespan.startup.failed", "message": ""}  # the adapter tells why


class ServedApplication(Lifecycle):
    """The application, ASGI 2 or 3, around which a server may not notice what a worker must know.

    failure: why it has not started, once its lifespan has failed, or has taken longer than start_timeout seconds. An
    exception before the application has taken `lifespan.startup` means that it knows no lifespans, as ASGI says; one
    that comes later is a failed start, though ASGI would have the server go on.

    A request for /livez or /readyz reaches the application; only where that answers 404, the answer is Lifecycle's.
    While the loop drains, /readyz is answered 503 in any case.

    says_close: False where the server itself says `connection: close` in each answer while the loop drains.
    """

    def __init__(
        self,
        app: Any,
        *,
        start_timeout: float | None = None,
        on_request: Callable[[], object],
        says_close: bool = True,
    ) -> None:
        self._application: Application = from_asgi_2(app) if is_asgi_2(app) else app
        super().__init__(self._application, livez=None, readyz=None)
        self._start_timeout = start_timeout
        self._on_request = on_request
        self._says_close = says_close
        self._loop: Any = None  # the one that all requests are served on
        self.failure: TargetError | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """What to await; no coroutine of its own, which would cost each request one more. (The worker counts.)"""
        if scope.get("path") in ASIDE:
            if scope["type"] == "lifespan":
                return self._live(scope, receive, send)
            if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
                self._on_request()
                return self._health(scope, receive, send)
        self._on_request()
        return self._application(scope, receive, self._saying_close(scope, send) if self._says_close else send)

    @property
    def is_draining(self) -> bool:
        """Lifecycle's, with a look at a loop that is known."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        draining: bool = self._is_ending or self._loop.is_draining()
        return draining

    def _saying_close(self, scope: Scope, send: Send) -> Send:
        return super()._saying_close(scope, send) if self._says_close else send

    # ---- health -----------------------------------------------------------------------------------------------------

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_good = scope["path"] == LIVEZ or self.is_ready
        if not is_good:
            await self._answer(self._saying_close(scope, send), False)
            return
        is_missing = False

        async def unless_missing(message: Message) -> None:
            nonlocal is_missing
            if message["type"] == "http.response.start" and message["status"] == NOT_FOUND:
                is_missing = True
            if not is_missing:
                await send(message)

        await super().__call__(scope, receive, unless_missing)
        if is_missing:
            await self._answer(self._saying_close(scope, send), True)

    # ---- lifespan ---------------------------------------------------------------------------------------------------

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        course = LifespanStart(self._start_timeout, self._fail)
        try:
            await super().__call__(scope, course.receiving(receive), course.sending(send))
        except asyncio.CancelledError:
            if not course.is_over_time:
                raise
            await send(FAILED)
        except Exception as error:
            if not course.is_starting:
                raise
            self._fail(
                TargetError(f"the application failed to start: {in_a_line(error)}", application_traceback(error))
            )
            await send(FAILED)
        finally:
            course.close()

    def _fail(self, failure: TargetError) -> None:
        self.failure = failure


class LifespanStart:
    """What passes between a server and the lifespan of an application until that has started."""

    def __init__(self, timeout: float | None, fail: Callable[[TargetError], None]) -> None:
        self.is_starting = False
        self.is_over_time: bool = False
        self._timeout = timeout
        self._fail = fail
        self._timer: asyncio.TimerHandle | None = None

    def receiving(self, receive: Receive) -> Receive:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.is_starting = True
                task = asyncio.current_task()
                if self._timeout is not None and task is not None:
                    self._timer = asyncio.get_running_loop().call_later(self._timeout, self._end, task)
            return message

        return received

    def sending(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.is_starting = False
                self.close()
            elif message["type"] == "lifespan.startup.failed":
                self.close()
                self._fail(refused_start(message.get("message", "")))
            await send(message)

        return sent

    def _end(self, task: asyncio.Task[Any]) -> None:
        text = f"the application did not start: its lifespan was not through after {self._timeout:g} s"
        self._fail(TargetError(text, "".join(["It waits here:\n", *traceback.format_list(awaiting_stack(task))])))
        self.is_over_time = True
        task.cancel()

    def close(self) -> None:
        """No time limit any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def awaiting_stack(task: asyncio.Task[Any]) -> traceback.StackSummary:
    """Where the task waits, outermost first, from the application's first frame on; Task.get_stack() has one only."""
    frames = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            frames.append((frame, frame.f_lineno))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    own = [number for number, (frame, _) in enumerate(frames) if frame.f_code.co_filename == __file__]
    return traceback.StackSummary.extract(frames[own[-1] + 1 :] if own else frames)


def refused_start(message: str) -> TargetError:
    """Frameworks send the traceback as the message; its last line says what it was."""
    lines = message.strip().splitlines()
    reason = lines[-1].strip() if lines else "it gave no reason"
    return TargetError(f"the application failed to start: {reason}", message if len(lines) > 1 else None)


def from_asgi_2(app: Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return application
