"""Names and addresses: lookup (getaddrinfo), reverse (getnameinfo), and a Resolver that shares and may keep answers.

    for address in await hoop.dns.lookup("localhost", 80, type=socket.SOCK_STREAM):
        print(address.host, address.port)
    host, service = await hoop.dns.reverse(("127.0.0.1", 80))

Every question goes to the system's resolver (nsswitch, /etc/hosts, name servers) in the pool, where name look-ups hold
at most half of the threads; a question that needs no name server does not wait for silent ones (docs/dns.md). Identical
questions at the same time are one: a caller that stops waiting takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from hoop.core.running import running_loop
from hoop.loop import Loop

__all__ = ["Address", "Name", "Resolver", "ResolverStats", "lookup", "reverse"]

# Lasting answers of a name server; EAI_AGAIN, EAI_FAIL and the like may be gone a moment later.
LASTING_ERRORS = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
}

Question = tuple[Any, ...]
Ask = Callable[..., Coroutine[Any, Any, Any]]


class Address(NamedTuple):
    """One answer of getaddrinfo(3), in the order of socket.getaddrinfo's tuples."""

    family: socket.AddressFamily
    type: socket.SocketKind
    proto: int
    canonname: str  # "" unless AI_CANONNAME was asked for
    sockaddr: Any  # (host, port), or (host, port, flowinfo, scope_id) for IPv6

    @property
    def host(self) -> str:
        """The numeric address."""
        host: str = self.sockaddr[0]
        return host

    @property
    def port(self) -> int:
        """The port number."""
        port: int = self.sockaddr[1]
        return port


class Name(NamedTuple):
    """The answer of getnameinfo(3)."""

    host: str
    service: str


class ResolverStats(NamedTuple):
    """What a Resolver has done so far."""

    hits: int  # calls answered from the cache
    shared: int  # calls that waited for a question already under way
    asked: int  # questions put to the system
    size: int  # answers in the cache now


class Flight:
    """A question under way, and the callers that wait for its answer."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.waiters: set[asyncio.Future[Any]] = set()

    async def wait_for_answer(self) -> Any:
        waiter = self.task.get_loop().create_future()
        self.waiters.add(waiter)
        try:
            return await waiter
        finally:
            self.waiters.discard(waiter)
            if not self.waiters and not self.task.get_loop().is_closed():
                self.task.cancel()  # no caller waits any more (no effect once it is done)

    def tell_waiters(self) -> None:
        """Pass on what the task gave. Each waiter gets an exception of its own: a raised one collects tracebacks."""
        for waiter in self.waiters:
            if waiter.done():
                continue
            if self.task.cancelled():
                waiter.cancel()
            elif error := self.task.exception():
                waiter.set_exception(socket.gaierror(*error.args) if type(error) is socket.gaierror else error)
            else:
                waiter.set_result(self.task.result())


class Resolver:
    """Asks the system, shares identical questions under way, and keeps answers if told to.

    ttl: seconds to keep an answer; 0, the default, keeps none. getaddrinfo(3) does not say how long an answer holds, so
    choose no longer than the answer may be wrong. negative_ttl: the same for "no such name" (other failures are never
    kept). size: the most answers kept; the least recently used goes first. ValueError for a negative time, or a size
    below 1.

    One Resolver may serve several loops one after the other, but one thread at a time. To have a loop's own connections
    use it: `loop.getaddrinfo = resolver.getaddrinfo`.
    """

    def __init__(self, *, ttl: float = 0.0, negative_ttl: float = 0.0, size: int = 1024) -> None:
        if not (ttl >= 0 and negative_ttl >= 0):
            raise ValueError(f"ttl and negative_ttl must be 0 or more seconds, not {ttl!r} and {negative_ttl!r}")
        if size < 1:
            raise ValueError(f"size must be 1 or more, not {size!r}")
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._most = size
        self._kept: OrderedDict[Question, tuple[float, Any]] = OrderedDict()  # oldest use first; (deadline, answer)
        self._flights: dict[Question, Flight] = {}
        self._hits = self._shared = self._asked = 0

    async def lookup(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None = None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Address]:
        """The addresses of host and port, with the arguments and the errors of socket.getaddrinfo (getaddrinfo(3)).

        socket.gaierror if there are none, RuntimeError where no hoop loop runs. Without type=socket.SOCK_STREAM, or
        another type, each address comes once for each type.
        """
        found = await self.getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        return [Address(*info) for info in found]

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, Any, int, str, Any]]:
        """lookup() in the form of loop.getaddrinfo, which it can replace."""
        loop: Loop = running_loop("hoop.dns")
        numeric = loop._answer_literal(host, port, family, type, proto, flags)
        if numeric is not None:
            return numeric
        question = ("lookup", host, port, port.__class__, family, type, proto, flags)
        ask: Ask = loop.getaddrinfo
        if getattr(ask, "__self__", None) is self:  # it replaces the loop's: ask the one that it replaces
            ask = functools.partial(loop.__class__.getaddrinfo, loop)
        ask = functools.partial(ask, host, port, family=family, type=type, proto=proto, flags=flags)
        return list(await self._answer(loop, question, ask))

    async def reverse(self, sockaddr: tuple[Any, ...], flags: int = 0) -> Name:
        """The names of an address and its port, with the arguments and the errors of socket.getnameinfo.

        RuntimeError where no hoop loop runs. (getnameinfo(3).)
        """
        loop: Loop = running_loop("hoop.dns")
        ask = functools.partial(loop.getnameinfo, sockaddr, flags)
        return Name(*await self._answer(loop, ("reverse", sockaddr, flags), ask))

    def clear(self) -> None:
        """Forget all answers. Questions under way go on."""
        self._kept.clear()

    def stats(self) -> ResolverStats:
        """Counters since the Resolver was created."""
        return ResolverStats(self._hits, self._shared, self._asked, len(self._kept))

    async def _answer(self, loop: Loop, question: Question, ask: Ask) -> Any:
        """Answer from the cache, by a flight under way, or by a new one."""
        try:
            hash(question)
        except TypeError:  # a wrong argument: the loop's own method says what is wrong with it
            return await ask()
        kept = self._recall(question, loop.time())
        if kept is not None:
            self._hits += 1
            if isinstance(kept, socket.gaierror):
                raise socket.gaierror(*kept.args)
            return kept
        flight = self._flights.get(question)
        if flight is None or flight.task.get_loop() is not loop or flight.task.cancelling():
            flight = self._take_off(loop, question, ask)
        else:
            self._shared += 1
        return await flight.wait_for_answer()

    def _take_off(self, loop: Loop, question: Question, ask: Ask) -> Flight:
        self._asked += 1
        flight = self._flights[question] = Flight(loop.create_task(ask()))

        def landed(task: asyncio.Task[Any]) -> None:
            if self._flights.get(question) is flight:
                del self._flights[question]
            if not task.cancelled():
                self._keep(question, task, loop.time())
            flight.tell_waiters()

        flight.task.add_done_callback(landed)
        return flight

    # ---- the cache ---------------------------------------------------------------------------------------------------

    def _recall(self, question: Question, now: float) -> Any:
        kept = self._kept.get(question)
        if kept is None:
            return None
        deadline, answer = kept
        if now >= deadline:
            del self._kept[question]
            return None
        self._kept.move_to_end(question)
        return answer

    def _keep(self, question: Question, task: asyncio.Task[Any], now: float) -> None:
        error = task.exception()
        answer = task.result() if error is None else error
        if error is None:
            ttl = self._ttl
        elif isinstance(error, socket.gaierror) and error.errno in LASTING_ERRORS:
            ttl = self._negative_ttl
        else:
            return
        if ttl <= 0:
            return
        self._kept[question] = (now + ttl, answer)
        self._kept.move_to_end(question)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


def resolver_of_loop() -> Resolver:
    """The running loop's own Resolver, which keeps no answers; created at first use."""
    loop: Loop = running_loop("hoop.dns")
    resolver: Resolver | None = loop._resolver
    if resolver is None:
        resolver = loop._resolver = Resolver()
    return resolver


async def lookup(
    host: bytes | str | None,
    port: bytes | str | int | None = None,
    *,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[Address]:
    """Resolver.lookup by the running loop's own resolver, which shares questions under way and keeps no answers."""
    return await resolver_of_loop().lookup(host, port, family=family, type=type, proto=proto, flags=flags)


async def reverse(sockaddr: tuple[Any, ...], flags: int = 0) -> Name:
    """Resolver.reverse by the running loop's own resolver, as lookup()."""
    return await resolver_of_loop().reverse(sockaddr, flags)
