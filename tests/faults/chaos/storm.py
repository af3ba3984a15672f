"""The storm itself: what disturbs a loop while it serves. Each disturbance is a coroutine that runs until cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from conformance.tls_peers import server_context
from faults.chaos.plans import piece
from faults.chaos.sessions import Buffered, Ledger, Plain, converse, serve_raw

# The peers call from 127.0.0.1, so no port of theirs can be one of a listener that is closed for a while.
ADDRESS = "127.0.0.2"
SIGNAL_INTERVAL_S = 0.001
POSTING_THREADS = 2
BACKLOG = 200
CHILD_PATIENCE_S = 10.0


class Storm:
    """Servers for every entrance, and the disturbances."""

    def __init__(self, ledger: Ledger, streams: Any, seed: int, folder: Path, most_dialled: int) -> None:
        self.ledger = ledger
        self.streams = streams  # the module that has start_server and open_connection
        self.random = random.Random(f"{seed}:storm")
        self.folder = folder
        self.most_dialled = most_dialled
        self.servers: dict[str, Any] = {}
        self.addresses: dict[str, Any] = {}
        self.tls = server_context()
        self.peers: subprocess.Popen[str] | None = None
        self.peers_address: tuple[str, int] = ("", 0)
        self.dialled: set[asyncio.Task[Any]] = set()
        self.soft, self.hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    # ---- the servers

    async def open(self, entrance: str) -> None:
        """Listen, at the address of the first time."""
        loop = asyncio.get_running_loop()
        ledger = self.ledger
        host, port = self.addresses.get(entrance, (ADDRESS, 0)) if entrance != "unix" else (None, None)
        server: Any
        if entrance == "raw":
            listener = socket.create_server((host, port), backlog=BACKLOG)
            listener.setblocking(False)
            server = loop.create_task(serve_raw(ledger, listener))
            self.addresses[entrance] = listener.getsockname()
        elif entrance == "unix":
            path = str(self.folder / "socket")
            server = await loop.create_unix_server(lambda: Plain(ledger), path, backlog=BACKLOG)
            self.addresses[entrance] = path
        else:
            if entrance == "streams":
                server = await self.streams.start_server(
                    lambda reader, writer: converse(ledger, reader, writer), host, port, backlog=BACKLOG
                )
            else:
                make = Buffered if entrance == "buffered" else Plain
                ssl = self.tls if entrance == "tls" else None
                server = await loop.create_server(lambda: make(ledger), host, port, backlog=BACKLOG, ssl=ssl)
            self.addresses[entrance] = server.sockets[0].getsockname()
        self.servers[entrance] = server

    async def close(self, entrance: str) -> None:
        server = self.servers.pop(entrance, None)
        if isinstance(server, asyncio.Task):
            server.cancel()
            await asyncio.wait({server})
        elif server is not None:
            server.close()

    # ---- the disturbances

    async def close_servers_in_the_rush(self) -> None:
        while True:
            await self.rest(0.1, 1.0)
            entrance = self.random.choice(list(self.addresses))
            await self.close(entrance)
            self.ledger.counts["servers closed"] += 1
            await self.rest(0, 0.1)
            while entrance not in self.servers:
                try:
                    await self.open(entrance)
                except OSError:  # no descriptors
                    await self.rest(0.05, 0.1)

    async def stop_the_loop(self) -> None:
        while True:
            await self.rest(0, 0.2)
            asyncio.get_running_loop().stop()
            self.ledger.counts["stops of the loop"] += 1

    async def run_out_of_descriptors(self) -> None:
        while True:
            await self.rest(1, 3)
            limit = max(map(int, os.listdir("/proc/self/fd"))) + self.random.randrange(1, 8)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, self.soft), self.hard))
            try:
                await self.rest(0.1, 0.5)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.soft, self.hard))
            self.ledger.counts["times without descriptors"] += 1

    async def cancel_tasks(self) -> None:
        while True:
            await self.rest(0, 0.05)
            self.cancel_one()

    def cancel_one(self) -> None:
        tasks = list(self.ledger.tasks | self.dialled)
        if tasks:
            self.random.choice(tasks).cancel()
            self.ledger.counts["cancellations"] += 1

    async def stop_peers(self) -> None:
        assert self.peers is not None
        while True:
            await self.rest(1, 3)
            self.peers.send_signal(signal.SIGSTOP)
            try:
                await self.rest(0.1, 0.6)
            finally:
                self.peers.send_signal(signal.SIGCONT)
            self.ledger.counts["times that peers were stopped"] += 1

    async def collect_garbage(self) -> None:
        while True:
            await self.rest(0, 0.5)
            gc.collect()

    async def abort_clients(self) -> None:
        """Every connection of a server at once (Python 3.13)."""
        while True:
            await self.rest(3, 6)
            self.abort_clients_of(self.random.choice(list(self.servers.values())))

    def abort_clients_of(self, server: Any) -> None:
        if hasattr(server, "abort_clients"):
            for protocol in self.ledger.protocols:
                if isinstance(protocol, Plain | Buffered):
                    protocol.session.is_touched = True
            for session in self.ledger.sessions.values():
                session.is_touched |= not session.is_eof
            self.random.choice((server.abort_clients, server.close_clients))()
            self.ledger.counts["servers whose clients were ended"] += 1

    async def dial(self) -> None:
        """Connections from the loop to the peers; some are cancelled while they are made."""
        while True:
            await self.rest(0, 0.02)
            if len(self.dialled) < self.most_dialled:
                task = asyncio.get_running_loop().create_task(self.dial_one())
                self.dialled.add(task)
                task.add_done_callback(self.dialled.discard)

    async def dial_one(self) -> None:
        loop = asyncio.get_running_loop()
        kind = self.random.choice((Plain, Buffered, None))
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            if kind is not None:
                connecting = loop.create_connection(lambda: kind(self.ledger), *self.peers_address)
                await asyncio.wait_for(connecting, self.random.choice((0, 0.001, 10)))
                self.ledger.counts["connections dialled"] += 1
                return
            reader, writer = await self.streams.open_connection(*self.peers_address)
            self.ledger.counts["connections dialled"] += 1
            await converse(self.ledger, reader, writer)

    async def run_children(self) -> None:
        while True:
            await self.rest(0, 0.5)
            offset, size = self.random.randrange(1000), self.random.randrange(1, 300_000)
            data = piece(self.ledger.seed, 0, offset, size)
            pipe = asyncio.subprocess.PIPE
            try:
                child = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
            except OSError:  # no descriptors
                self.ledger.counts["children refused"] += 1
                continue
            try:
                output, _ = await child.communicate(data)
            finally:
                ending = asyncio.ensure_future(self.end_child(child))
                try:
                    await asyncio.shield(ending)
                finally:  # also where the storm ends meanwhile
                    await ending
            if output != data or child.returncode != 0:
                self.ledger.violate("bytes", f"cat returned {len(output)} of {size}, status {child.returncode}")
            self.ledger.counts["children"] += 1

    async def end_child(self, child: asyncio.subprocess.Process) -> None:
        """Kill a child whose caller was cancelled: wait() is about the child, not unread output (cpython#119710)."""
        if child.returncode is None:
            child.kill()
        try:
            async with asyncio.timeout(CHILD_PATIENCE_S):  # wait_for() of Python 3.11 may swallow the storm's end
                await child.wait()
        except TimeoutError:
            self.ledger.violate("children", "wait() hangs on a child that was killed, since its output is not read")
        await child.communicate()  # else what is unread keeps its pipes open

    async def send_datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        receiver = Datagrams(self.ledger)
        transport, _ = await loop.create_datagram_endpoint(lambda: receiver, local_addr=(ADDRESS, 0))
        sender, _ = await loop.create_datagram_endpoint(
            lambda: Datagrams(self.ledger), remote_addr=transport.get_extra_info("sockname")
        )
        try:
            for number in range(10**9):
                await self.rest(0, 0.01)
                for _ in range(self.random.randrange(40)):
                    sender.sendto(number.to_bytes(8, "big") + piece(self.ledger.seed, number, 0, 200))
        finally:
            transport.close()
            sender.close()

    async def keep_timers(self) -> None:
        """Timers are never early, and none is forgotten or comes twice."""
        loop = asyncio.get_running_loop()

        def ring(deadline: float, rung: list[float]) -> None:
            if loop.time() < deadline - time.get_clock_info("monotonic").resolution:
                self.ledger.violate("timers", f"a timer came {deadline - loop.time()} s early")
            rung.append(deadline)

        while True:
            rung: list[float] = []
            deadlines = [loop.time() + self.random.uniform(-0.01, 0.05) for _ in range(50)]
            timers = [loop.call_at(deadline, ring, deadline, rung) for deadline in deadlines]
            for timer in timers[::3]:
                timer.cancel()
            await asyncio.sleep(0.1)
            while len(rung) < len(timers) - len(timers[::3]):
                await asyncio.sleep(0.05)  # for ever, if one is forgotten: then the run does not end in time
            expected = [deadline for index, deadline in enumerate(deadlines) if index % 3]
            if sorted(rung) != sorted(expected):
                self.ledger.violate("timers", "others came than were set")
            self.ledger.counts["timers"] += len(timers)

    async def rest(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self.random.uniform(least_s, most_s))

    def disturbances(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        return [
            *(self.close_servers_in_the_rush, self.stop_the_loop, self.run_out_of_descriptors, self.cancel_tasks),
            *(self.stop_peers, self.collect_garbage, self.abort_clients, self.dial, self.run_children),
            *(self.send_datagrams, self.keep_timers),
        ]


class Datagrams(asyncio.DatagramProtocol):
    """A datagram is whole, and not before one that was sent earlier (numbers are sent several times)."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.latest = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        number = int.from_bytes(data[:8], "big")
        if number < self.latest:
            self.ledger.violate("datagrams", "out of order")
        if data[8:] != piece(self.ledger.seed, number, 0, 200):
            self.ledger.violate("datagrams", "wrong bytes")
        self.latest = number
        self.ledger.counts["datagrams"] += 1

    def error_received(self, exc: OSError) -> None:
        self.ledger.counts["datagram errors"] += 1


class Posters:
    """Threads that call call_soon_threadsafe all the time: what each posts arrives, in order."""

    def __init__(self, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self.ledger = ledger
        self.loop = loop
        self.posted = [0] * POSTING_THREADS
        self.arrived = [0] * POSTING_THREADS
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.post, args=(index,)) for index in range(POSTING_THREADS)]
        for thread in self.threads:
            thread.start()

    def post(self, index: int) -> None:
        while not self.over.wait(0.001):
            self.posted[index] += 1
            self.loop.call_soon_threadsafe(self.arrive, index, self.posted[index])

    def arrive(self, index: int, number: int) -> None:
        self.arrived[index] += 1
        if number != self.arrived[index]:
            self.ledger.violate("threads", "lost or out of order")

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@contextlib.contextmanager
def signals(ledger: Ledger, loop: asyncio.AbstractEventLoop) -> Any:
    """SIGALRM at 1 kHz, with a handler of the loop; at the end the handler must be heard once more."""

    def heard() -> None:
        ledger.counts["signals heard"] += 1

    loop.add_signal_handler(signal.SIGALRM, heard)
    signal.setitimer(signal.ITIMER_REAL, SIGNAL_INTERVAL_S, SIGNAL_INTERVAL_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def begin_peers(seed: int, connections: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "faults.chaos.peers", str(seed), str(connections)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
