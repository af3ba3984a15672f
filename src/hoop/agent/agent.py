"""hoop.Agent: client connections that are kept for the next user, bounded in number, and never handed out dead.

Rules, in the order in which they decide who gets what:

1. Who waits for a host is served in the order of coming; a newcomer queues behind those who wait.
2. A connection that is released, or newly made, goes to the oldest waiter of its host, straight from hand to hand.
3. Each waiter has a connection in the making if the limits allow it. Whichever comes first, that one or a released one,
   serves the oldest waiter; the other becomes free, or serves the next.
4. A place that falls free goes to the oldest waiter who has nothing in the making and whose host has room.
5. A failed attempt is the error of the waiter for whom it was begun, and of no other.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
from asyncio import get_running_loop
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Literal

from hoop.agent.host import Attempt, Host, Waiter
from hoop.agent.lease import Lease
from hoop.agent.pooled import Pooled, Sight, Stage
from hoop.core.checks import check_count, check_seconds
from hoop.core.other_loops import unref
from hoop.handles.socket import Socket
from hoop.stats import AgentStats
from hoop.streams.stream_api import open_connection

MAX_AGE_JITTER = 0.1  # connections made at the same time end at different ones
FIRST_BACK_OFF = 0.1  # seconds until the stock is filled again after a failure
LONGEST_BACK_OFF = 30.0

COUNTED = ("used_new", "created", "failures", "timeouts", "dead", "expired", "closed")

Connect = Callable[..., Awaitable[Any]]

GOOD, EXPIRED, FREE = Sight.GOOD, Sight.EXPIRED, Stage.FREE  # looked up once: acquire() and release() count in µs

forks: int = 0  # that lie between this process and the first one of this program: cheaper than to ask for its number


def count_fork() -> None:
    global forks  # noqa: PLW0603
    forks += 1


os.register_at_fork(after_in_child=count_fork)


class AgentClosed(RuntimeError):
    """acquire() on an agent that is closed, or that was closed while the caller waited."""


class Agent:
    """Keeps client connections and lends them. (Node: http.Agent, for any protocol)

    connect: a coroutine function that makes a connection: (transport, protocol), (reader, writer) or a hoop.Socket. It
        is called with what acquire() is called with. By default hoop.open_connection(host, port, **keywords).
    keep_alive: seconds that a free connection is kept; less than the server keeps it, or requests meet its end. None:
        for ever.
    max_sockets: connections to one host, max_total_sockets: to all of them, both with those in the making.
    max_free_sockets: free connections to one host; further ones are closed when they are released.
    scheduling: "lifo" takes the connection that was used last, so that few are busy and the others go by keep_alive;
        "fifo" takes the one that is free for longest, and spreads the load.
    timeout: seconds that acquire() waits, if it does not say. None: for ever.
    connect_timeout: seconds that making one connection may take, on_connect included.
    max_age: seconds after which a connection is not used again, less up to 10 % by chance. max_uses: how often it is
        lent.
    min_free: free connections that the agent makes by itself to every host that was used once.
    on_connect: a coroutine function, called with each new connection: to log in, say. Its error is the attempt's.
    check: a coroutine function, called with a free connection before it is lent again; what it returns says whether
        the connection is fine. An error says that it is not.

    An agent belongs to the loop in which it is first used. ValueError or TypeError for options that make no sense.
    """

    def __init__(
        self,
        connect: Connect | None = None,
        *,
        keep_alive: float | None = 4.0,
        max_sockets: int | None = None,
        max_total_sockets: int | None = None,
        max_free_sockets: int = 256,
        scheduling: Literal["lifo", "fifo"] = "lifo",
        timeout: float | None = 30.0,
        connect_timeout: float | None = 10.0,
        max_age: float | None = None,
        max_uses: int | None = None,
        min_free: int = 0,
        on_connect: Callable[[Any], Awaitable[object]] | None = None,
        check: Callable[[Any], Awaitable[object]] | None = None,
    ) -> None:
        for name, seconds in (("keep_alive", keep_alive), ("timeout", timeout), ("connect_timeout", connect_timeout)):
            check_seconds(name, seconds)
        check_seconds("max_age", max_age)
        for name, count in (("max_sockets", max_sockets), ("max_total_sockets", max_total_sockets)):
            check_count(name, count)
        check_count("max_uses", max_uses)
        for name, count in (("max_free_sockets", max_free_sockets), ("min_free", min_free)):
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be a number from 0 on, not {count!r}")
        if min_free > max_free_sockets:
            raise ValueError(f"min_free={min_free} is more than max_free_sockets={max_free_sockets}")
        if scheduling not in ("lifo", "fifo"):
            raise ValueError(f"scheduling must be 'lifo' or 'fifo', not {scheduling!r}")
        self._connect: Connect = open_connection if connect is None else connect
        self._is_by_host = connect is None
        self._keep_alive = keep_alive
        self._max_sockets = max_sockets
        self._max_total = max_total_sockets
        self._max_free = max_free_sockets
        self._is_lifo = scheduling == "lifo"
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._max_age = max_age
        self._max_uses = max_uses
        self._min_free = min_free
        self._on_connect = on_connect
        self._check = check

        self._loop: Any = None
        self._context = contextvars.copy_context()  # no user's own: connections outlive them
        self._forks = forks
        self._hosts: dict[Hashable, Host] = {}
        self._idle: OrderedDict[Pooled, None] = OrderedDict()  # the free ones, longest free first
        self._expiry: asyncio.TimerHandle | None = None
        self._total = 0  # connections, and attempts to make one
        self._waiters = 0  # that have ever waited
        self._is_closed = False
        self._all_back: asyncio.Future[None] | None = None
        self._counts = dict.fromkeys(COUNTED, 0)
        self._reused = 0

    # ---- for users ------------------------------------------------------------------------------------------------

    async def acquire(self, *arguments: Hashable, timeout: float | None = -1.0, **keywords: Any) -> Lease:
        """Lend a connection: acquire(host, port, **keywords of create_connection), or what connect takes.

        Arguments and keywords together are the key: connections are shared among calls with equal ones. TLS contexts
        are equal only if they are the same.

        timeout: seconds to wait, connecting included; by default the agent's.

        TimeoutError if that is not enough, AgentClosed if the agent is closed, what connect raises (OSError,
        ssl.SSLError), RuntimeError in another loop, TypeError for arguments that are not hashable.
        """
        if self._loop is not get_running_loop() or self._forks != forks or self._is_closed:
            self._enter()
        key = (arguments, frozenset(keywords.items())) if keywords else arguments
        while True:
            host = self._hosts.get(key)
            if host is None:
                host = self._hosts[key] = self._new_host(key, arguments, keywords)
            if not host.free or (host.waiters and host.has_waiters()):
                return self._lease(await self._wait(host, self._timeout if timeout == -1.0 else timeout))
            pooled, _ = host.free.popitem(last=self._is_lifo)
            del self._idle[pooled]
            host.lent += 1
            now = self._loop.time()
            is_old = pooled.deadline < now or (pooled.worn_at is not None and pooled.worn_at < now)
            sight = EXPIRED if is_old else pooled.look()
            if (sight is GOOD and self._check is None) or await self._passes(pooled, sight):
                return self._lease(pooled)

    def stats(self) -> AgentStats:
        """What there is now, and what has happened so far. In any thread; in others it may be a moment old."""
        hosts = list(self._hosts.values())
        return AgentStats(
            free=len(self._idle),
            lent=sum([host.lent for host in hosts]),
            connecting=sum([len(host.attempts) for host in hosts]),
            waiting=sum([len(host.waiters) for host in hosts]),
            hosts=len(self._hosts),
            reused=self._reused,
            **self._counts,
        )

    async def drain(self) -> None:
        """Close the agent, and wait until every connection that is lent has come back."""
        self._enter(even_closed=True)
        self.close()
        while any(host.lent for host in self._hosts.values()):
            if self._all_back is None:
                self._all_back = self._loop.create_future()
            await asyncio.shield(self._all_back)

    def close(self) -> None:
        """Lend no more: close what is free, give up what is in the making, and let who waits have AgentClosed. A
        connection that is lent is closed when its user releases it. Idempotent."""
        self._is_closed = True
        if self._forks != forks or self._loop is None or self._loop.is_closed():
            self._forget()
            return
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        for host in list(self._hosts.values()):
            while waiter := host.take_waiter():
                waiter.future.set_exception(AgentClosed("the agent was closed"))
            for attempt in host.attempts:
                if attempt.task is not None:
                    attempt.task.cancel()
            if host.refill is not None:
                host.refill.cancel()
                host.refill = None
            while host.free:
                self._end(host.free.popitem()[0])
        self._idle.clear()
        self._prune()

    # ---- waiting --------------------------------------------------------------------------------------------------

    def _enter(self, *, even_closed: bool = False) -> None:
        """Check that this call may use the agent."""
        loop = get_running_loop()
        if self._forks != forks:
            self._forget()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError("an Agent belongs to one loop, and this is another one")
            self._loop = loop
        if self._is_closed and not even_closed:
            raise AgentClosed("the agent is closed")

    def _forget(self) -> None:
        """Have no connection any more, and close none: they are a parent process's, or those of a closed loop."""
        self._forks = forks
        self._loop = self._expiry = None
        self._hosts = {}
        self._idle = OrderedDict()
        self._total = 0

    def _new_host(self, key: Hashable, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Host:
        if self._is_by_host and len(arguments) != 2:
            raise TypeError(f"acquire() takes a host and a port, or the agent needs a connect of yours: {arguments!r}")
        return Host(key, arguments, keywords)

    async def _wait(self, host: Host, timeout: float | None) -> Pooled:
        """Queue for a connection, and have one made if there is room."""
        check_seconds("timeout", timeout)
        self._waiters += 1
        waiter = Waiter(self._waiters, self._loop.create_future())
        host.add_waiter(waiter)
        self._serve(host)
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(timeout, self._timed_out, host, waiter, timeout)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self._hand_on(future.result())  # it came in the very turn in which its user left
            raise
        finally:
            if timer is not None:
                timer.cancel()
            host.waiters.pop(waiter, None)
            if waiter.attempt is not None:
                host.assign(waiter.attempt, host.first_without_attempt())
            self._leave_if_unused(host)

    def _timed_out(self, host: Host, waiter: Waiter, timeout: float) -> None:
        if not waiter.future.done():
            self._counts["timeouts"] += 1
            host.waiters.pop(waiter, None)
            waiter.future.set_exception(
                TimeoutError(
                    f"no connection to {host.key} within {timeout} s: {host.lent} lent, {len(host.attempts)} in the "
                    f"making, {len(host.waiters)} more wait"
                )
            )

    # ---- who gets what --------------------------------------------------------------------------------------------

    def _lease(self, pooled: Pooled) -> Lease:
        if pooled.stage is FREE:
            pooled.go_lent()
        is_reused = pooled.uses > 0
        pooled.uses += 1
        if is_reused:
            self._reused += 1
        else:
            self._counts["used_new"] += 1
        return Lease(pooled, is_reused)

    async def _passes(self, pooled: Pooled, sight: Sight) -> bool:
        """Whether a connection that was free may be lent. If not, close it."""
        is_fine = False
        try:
            if sight is Sight.UNCLEAR:
                await asyncio.sleep(0)  # a turn in which the loop reads what waits: tickets, or the end
                await asyncio.sleep(0)
                sight = Sight.GOOD if pooled.stage is Stage.FREE else Sight.DEAD
            if sight is Sight.GOOD:
                pooled.go_lent()
                is_fine = self._check is None or await self._check_passes(self._check, pooled)
        finally:
            if not is_fine:
                self._counts["expired" if sight is Sight.EXPIRED else "dead"] += 1
                self._discarded(pooled)
        return is_fine

    async def _check_passes(self, check: Callable[[Any], Awaitable[object]], pooled: Pooled) -> bool:
        try:
            return bool(await check(pooled.made)) and pooled.is_clean()
        except Exception:  # that the check fails is its answer
            return False

    def _hand_on(self, pooled: Pooled) -> None:
        """A lent connection is nobody's now: to the oldest waiter of its host, or free, or closed."""
        host = pooled.host
        if self._is_closed or pooled.transport.is_closing():
            self._discarded(pooled)
            return
        waiter = host.take_waiter()
        if waiter is not None:
            self._leave_attempt(host, waiter)
            waiter.future.set_result(pooled)
            return
        host.lent -= 1
        if len(host.free) >= self._max_free or self._is_place_wanted():
            self._end(pooled)
            self._room_for_others(host)
            return
        self._keep(pooled, None)

    def _keep(self, pooled: Pooled, keep_alive: float | None) -> None:
        now = self._loop.time()
        longest = self._keep_alive
        pooled.deadline = float("inf") if longest is None else now + longest
        if keep_alive is not None:
            pooled.deadline = min(pooled.deadline, now + keep_alive)
        pooled.go_free()
        pooled.host.free[pooled] = None
        self._idle[pooled] = None
        if self._expiry is None and longest is not None:
            self._set_expiry(pooled.deadline)
        if self._all_back is not None:
            self._tell_if_all_are_back()

    def _leave_attempt(self, host: Host, waiter: Waiter) -> None:
        """A waiter was served otherwise: what was in the making for it is for the next one who has nothing."""
        if waiter.attempt is not None:
            host.assign(waiter.attempt, host.first_without_attempt())

    def _serve(self, host: Host) -> None:
        """Begin a connection for each waiter of this host who has none in the making, as far as there is room."""
        while (waiter := host.first_without_attempt()) is not None and self._has_room(host):
            self._begin(host, waiter)

    def _has_room(self, host: Host) -> bool:
        """Whether one more connection to this host may be made, perhaps in the place of a free one."""
        if self._max_sockets is not None and host.size >= self._max_sockets:
            return False
        return self._max_total is None or self._total < self._max_total or len(self._idle) > 0

    def _is_place_wanted(self) -> bool:
        """Whether only the limit of all connections keeps a waiter from having one."""
        if self._max_total is None or self._total < self._max_total:
            return False
        return any(
            host.first_without_attempt() is not None and (self._max_sockets is None or host.size < self._max_sockets)
            for host in self._hosts.values()
        )

    def _room_for_others(self, host: Host) -> None:
        """A place is free: rule 4."""
        if self._is_closed:
            self._prune()
            return
        if self._max_total is None:
            self._serve(host)
        else:
            while (oldest := self._oldest_with_room()) is not None:
                self._serve(oldest)
        self._stock_up(host)
        self._leave_if_unused(host)
        if self._all_back is not None:
            self._tell_if_all_are_back()

    def _oldest_with_room(self) -> Host | None:
        """The host of the oldest waiter who has nothing in the making and could have it."""
        best: tuple[int, Host] | None = None
        for host in self._hosts.values():
            waiter = host.first_without_attempt()
            if waiter is not None and (best is None or waiter.number < best[0]) and self._has_room(host):
                best = waiter.number, host
        return None if best is None else best[1]

    # ---- making connections ---------------------------------------------------------------------------------------

    def _begin(self, host: Host, waiter: Waiter | None) -> None:
        if self._max_total is not None and self._total >= self._max_total:
            self._drop_free(next(iter(self._idle)))  # another host's, since this one would use its own
        attempt = Attempt()
        host.assign(attempt, waiter)
        host.attempts.add(attempt)
        self._total += 1
        attempt.task = self._loop.create_task(self._make(host, attempt), context=self._context)

    async def _make(self, host: Host, attempt: Attempt) -> None:
        made: Any = None
        pooled: Pooled | None = None
        error: Exception | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                made = await self._connect(*host.arguments, **host.options)
                if isinstance(made, Socket) and made.is_connecting:
                    await connected(made)
                pooled = Pooled(self, host, made, self._worn_at())
                if self._on_connect is not None:
                    await self._on_connect(made)
        except TimeoutError as failure:
            error = TimeoutError(f"connecting to {host.key} took more than {self._connect_timeout} s")
            error.__cause__ = failure
        except Exception as failure:
            error = failure
        finally:
            host.attempts.discard(attempt)
            self._total -= 1
            if pooled is not None and (error is not None or self._is_closed):
                pooled.transport.abort()
                pooled = None
            if self._is_closed:
                self._prune()
        if pooled is None:
            self._failed(host, attempt, error or AgentClosed("the agent was closed"))
            return
        self._total += 1
        self._counts["created"] += 1
        host.lent += 1
        host.failures = 0
        waiter = attempt.waiter
        host.assign(attempt, None)
        self._hand_on(pooled)
        if waiter is not None and not waiter.future.done():
            self._serve(host)  # an older one got it

    def _failed(self, host: Host, attempt: Attempt, error: Exception) -> None:
        self._counts["failures"] += 1
        waiter = attempt.waiter
        if waiter is not None:
            host.waiters.pop(waiter, None)
            host.assign(attempt, None)
            if not waiter.future.done():
                waiter.future.set_exception(error)
        else:
            host.failures += 1
        self._room_for_others(host)

    def _worn_at(self) -> float | None:
        if self._max_age is None:
            return None
        at: float = self._loop.time() + self._max_age * (1 - MAX_AGE_JITTER * random.random())
        return at

    def _stock_up(self, host: Host) -> None:
        """Make connections until min_free are free; after a failure only some time later."""
        if self._min_free == 0 or self._is_closed or host.refill is not None or host.has_waiters():
            return
        if host.failures > 0:
            delay = min(FIRST_BACK_OFF * 2 ** (host.failures - 1), LONGEST_BACK_OFF) * random.uniform(0.8, 1.2)
            host.refill = self._loop.call_later(delay, self._refill, host)
            unref(host.refill)
            return
        self._refill_now(host)

    def _refill(self, host: Host) -> None:
        host.refill = None
        self._refill_now(host)

    def _refill_now(self, host: Host) -> None:
        while len(host.free) + len(host.attempts) < self._min_free and (
            (self._max_sockets is None or host.size < self._max_sockets)
            and (self._max_total is None or self._total < self._max_total)
        ):
            self._begin(host, None)

    # ---- what becomes of connections ------------------------------------------------------------------------------

    def _released(self, pooled: Pooled, keep_alive: float | None) -> None:
        """Its user is done with it, and it is fit for the next one."""
        if (
            self._is_closed
            or self._forks != forks
            or (self._max_uses is not None and pooled.uses >= self._max_uses)
            or (pooled.worn_at is not None and pooled.worn_at < self._loop.time())
            or not pooled.is_clean()
        ):
            self._discarded(pooled)
            return
        host = pooled.host
        if (
            (host.waiters and host.has_waiters())
            or len(host.free) >= self._max_free
            or (self._max_total is not None and self._is_place_wanted())
        ):
            self._hand_on(pooled)
            return
        host.lent -= 1
        self._keep(pooled, keep_alive)

    def _discarded(self, pooled: Pooled) -> None:
        """A lent connection is to be closed."""
        host: Host = pooled.host
        if self._forks != forks or self._hosts.get(host.key) is not host:
            return  # a child's copy, or of an agent that has forgotten it
        host.lent -= 1
        self._end(pooled)
        self._room_for_others(host)
        if self._all_back is not None:
            self._tell_if_all_are_back()

    def _spoiled(self, pooled: Pooled) -> None:
        """The peer has ended a free connection, or has spoken unasked."""
        if pooled in self._idle:
            self._counts["dead"] += 1
            self._drop_free(pooled)
            self._room_for_others(pooled.host)
        else:
            self._end(pooled)  # acquire() is looking at it, and will see

    def _lost(self, pooled: Pooled) -> None:
        """A free connection broke."""
        if pooled in self._idle:
            self._counts["dead"] += 1
            del self._idle[pooled]
            del pooled.host.free[pooled]
            self._total -= 1
            self._counts["closed"] += 1
            self._room_for_others(pooled.host)

    def _drop_free(self, pooled: Pooled) -> None:
        del self._idle[pooled]
        del pooled.host.free[pooled]
        self._end(pooled)
        self._leave_if_unused(pooled.host)

    def _end(self, pooled: Pooled) -> None:
        if pooled.stage is not Stage.ENDED:
            self._total -= 1
            self._counts["closed"] += 1
            pooled.end()

    def _leave_if_unused(self, host: Host) -> None:
        if host.is_unused and self._hosts.get(host.key) is host:  # another one may have its place by now
            del self._hosts[host.key]

    def _prune(self) -> None:
        for host in list(self._hosts.values()):
            self._leave_if_unused(host)

    def _tell_if_all_are_back(self) -> None:
        if not any(host.lent for host in self._hosts.values()) and self._all_back is not None:
            all_back, self._all_back = self._all_back, None
            if not all_back.done():
                all_back.set_result(None)

    def _is_loop_closed(self) -> bool:
        return self._forks != forks or self._loop is None or bool(self._loop.is_closed())

    # ---- time -----------------------------------------------------------------------------------------------------

    def _set_expiry(self, deadline: float) -> None:
        self._expiry = self._loop.call_at(deadline, self._expire)
        unref(self._expiry)

    def _expire(self) -> None:
        """Close what is free for too long. Lent connections are not among the idle ones, so none is hit."""
        self._expiry = None
        now = self._loop.time()
        while self._idle:
            oldest = next(iter(self._idle))
            if oldest.deadline > now:
                self._set_expiry(oldest.deadline)
                return
            self._counts["expired"] += 1
            self._drop_free(oldest)
            self._room_for_others(oldest.host)


async def connected(socket: Socket) -> None:
    """Wait until a hoop.Socket has connected. The error if it does not."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    on_connect, on_error = socket.on_connect, socket.on_error

    def done(socket: Socket) -> None:
        if on_connect is not None:
            on_connect(socket)
        if not waiter.done():
            waiter.set_result(None)

    def failed(socket: Socket, error: Exception) -> None:
        if not waiter.done():
            waiter.set_exception(error)

    socket.on_connect, socket.on_error = done, failed
    try:
        await waiter
    except BaseException:
        socket.destroy()
        raise
    finally:
        socket.on_connect, socket.on_error = on_connect, on_error
