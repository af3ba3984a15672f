"""Draining: the phases of hoop.Drain, for one server and for all servers of a loop."""

from __future__ import annotations

import asyncio
import weakref
from asyncio.log import logger
from collections.abc import Iterable
from typing import Any

from hoop.drain import Drain, DrainReport
from hoop.net.server_streams import ask_to_drain, close_stream, silent_streams_of, streams_of
from hoop.server_defaults import ServerDefaults

LOOKS = 4  # in each idle_grace; a connection is silent when that many have seen nothing move
LEAST_LOOK_S = 0.005  # between two looks
LINGER_S = 2.0  # that a connection may wait for its peer to close, where closing first could damage the last answer
ABORT_AFTER_S = 1.0  # from close() at the timeout: the time to send what is written
BATCH = 256  # connections told or closed in one callback: the others must not wait for ten thousand


class ServerDrain:
    """One server's drain: made and run once."""

    def __init__(self, server: Any, drain: Drain) -> None:
        self._server = server
        self._loop: Any = server.get_loop()
        self._drain = drain
        self._began = self._loop.time()
        self._silent: set[asyncio.Transport] = set()  # closed for their silence
        self._cut: list[Any] = []

    async def run(self, keep_listening: bool) -> DrainReport:
        """All phases. Cancelled, it leaves the connections as they are, and the listening sockets stopped."""
        server = self._server
        if self._drain.delay > 0:
            await asyncio.sleep(self._drain.delay)
        closes_at = None if self._drain.timeout is None else self._loop.time() + self._drain.timeout
        connections = server._active_count - server._admitted()
        await server.stop_accepting()
        connections += server._admitted()
        server._is_ending = True
        if not keep_listening:
            server._close_sockets()
        await self._tell(streams_of(self._loop, server))
        await self._wait_for_silence(closes_at)
        if server._active_count > 0:
            await self._cut_off()
        if not keep_listening:
            server.close()
        if self._cut:
            logger.warning("%r: %d connections were cut at the drain's timeout: %r", server, len(self._cut), self._cut)
        return DrainReport(
            connections=connections,
            ended=connections - len(self._silent) - len(self._cut),
            silent=len(self._silent),
            cut=tuple(self._cut),
            seconds=self._loop.time() - self._began,
        )

    async def _tell(self, streams: Iterable[asyncio.Transport]) -> None:
        for index, stream in enumerate(streams):
            if index % BATCH == BATCH - 1:
                await asyncio.sleep(0)
            ask_to_drain(stream)

    async def _wait_for_silence(self, closes_at: float | None) -> None:
        """Until the last connection has ended, or it is closes_at; meanwhile close the silent ones."""
        look_s = max(self._drain.idle_grace / LOOKS, LEAST_LOOK_S)
        while self._server._active_count > 0:
            left_s = look_s if closes_at is None else closes_at - self._loop.time()
            if left_s <= 0:
                return
            if await self._server._wait_for_last(min(left_s, look_s)):
                return
            silent = silent_streams_of(self._loop, self._server, LOOKS)
            self._silent.update(silent)
            await self._close(silent)

    async def _close(self, streams: Iterable[asyncio.Transport]) -> None:
        for index, stream in enumerate(streams):
            if index % BATCH == BATCH - 1:
                await asyncio.sleep(0)
            close_stream(stream)

    async def _cut_off(self) -> None:
        """The timeout has come: close what is open, and abort what that does not end."""
        streams = streams_of(self._loop, self._server)
        self._silent.difference_update(streams)
        self._cut = [stream.get_extra_info("peername") for stream in streams]
        await self._close(streams)
        if not await self._server._wait_for_last(ABORT_AFTER_S):
            self._server.abort_clients()
            await self._server._wait_for_last(ABORT_AFTER_S)


class Drains:
    """drain, draining, is_draining."""

    _server_defaults: ServerDefaults
    _servers: weakref.WeakSet[Any]  # of this loop: Servers that other code still holds or that listen
    _is_draining: bool
    _drain_waiters: list[asyncio.Future[None]]

    def _begin_drains(self) -> None:
        self._servers = weakref.WeakSet()
        self._is_draining = False
        self._drain_waiters = []

    def is_draining(self) -> bool:
        """Whether drain() was called: the program is on its way out, and should look unready to health checks."""
        return self._is_draining

    async def draining(self) -> None:
        """Wait until drain() is called. What never ends by itself, an event stream, waits for this to say goodbye."""
        if not self._is_draining:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._drain_waiters:
                    self._drain_waiters.remove(waiter)

    async def drain(self, drain: Drain | None = None) -> list[DrainReport]:
        """End all servers of this loop gracefully, side by side; a report for each. RuntimeError when called twice.

        drain: the course of it, by default server_defaults.drain, or hoop.Drain(). Servers that drain already, or that
        are made after the call, are left alone.
        """
        course = self._server_defaults.drain_for(drain)
        if self._is_draining:
            raise RuntimeError("this loop is draining already")
        self._is_draining = True
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        servers = [server for server in self._servers if not server.is_draining()]
        return list(await asyncio.gather(*(server.drain(course) for server in servers)))
