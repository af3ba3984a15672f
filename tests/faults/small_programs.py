"""Small programs of each part of hoop, for runs under faults: each does a little of everything its part can do, and
checks what came of it. They run on asyncio, too, but for those that use what it does not have (NATIVE).

A program is `async def program(log)`. It takes part in a run that may fail at any place: what it opens it closes in
`finally`, and `log` counts what must happen once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import hoop

LARGE = b"x" * 300_000
STREAM = socket.SOCK_STREAM


class Log:
    """What happened. Each name that is noted must be noted at most once, and exactly once if no failure was told."""

    def __init__(self) -> None:
        self.noted: Counter[str] = Counter()
        self.made: list[Peer] = []

    def note(self, name: str) -> None:
        self.noted[name] += 1


class Peer(asyncio.Protocol):
    """Counts its connection's beginning and end."""

    def __init__(self, log: Log, *, echoes: bool = False) -> None:
        self.log = log
        self.echoes = echoes
        self.begun = self.ended = 0
        self.received = bytearray()
        self.transport: Any = None
        self.over = asyncio.get_running_loop().create_future()
        self.ready = asyncio.get_running_loop().create_future()
        log.made.append(self)

    def connection_made(self, transport: Any) -> None:
        self.begun += 1
        self.transport = transport
        settle(self.ready)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.echoes:
            self.transport.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.ended += 1
        settle(self.over)


def settle(future: asyncio.Future[Any], result: Any = None) -> None:
    if not future.done():
        future.set_result(result)


async def callbacks(log: Log) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    for number in range(6):
        loop.call_soon(log.note, f"soon {number}")
    loop.call_soon(log.note, "cancelled").cancel()
    timers = [loop.call_later(0.0001 * number, log.note, f"later {number}") for number in range(6)]
    loop.call_at(loop.time() + 10, log.note, "cancelled").cancel()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(log.note, "posted"))
    thread.start()
    thread.join()
    loop.call_later(0.002, settle, done)
    await done
    assert "cancelled" not in log.noted
    assert sum(timer.cancelled() for timer in timers) == 0


async def tasks(log: Log) -> None:
    async def child(number: int) -> int:
        await asyncio.sleep(0.0001 * (number % 2))
        log.note(f"child {number}")
        return number

    async with asyncio.TaskGroup() as group:
        made = [group.create_task(child(number)) for number in range(4)]
    assert [task.result() for task in made] == [0, 1, 2, 3]
    async with asyncio.timeout(60):
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        await event.wait()


async def tcp(log: Log) -> None:
    """A server and a client, small and large, that write in pieces."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Peer(log, echoes=True), "127.0.0.1", 0)
    client = None
    try:
        _, client = await loop.create_connection(lambda: Peer(log), *server.sockets[0].getsockname())
        for piece in (b"a", b"bc", bytearray(b"def"), memoryview(b"ghi")):
            client.transport.write(piece)
        client.transport.writelines([b"jk", b"l"])
        client.transport.write(LARGE)
        while len(client.received) < 12 + len(LARGE) and not client.over.done():
            await asyncio.sleep(0)
        assert client.received == b"abcdefghijkl" + LARGE
        client.transport.write_eof()
        await client.over
    finally:
        await end(server, client)


async def end(server: asyncio.AbstractServer, client: Peer | None) -> None:
    server.close()
    if client is not None and client.transport is not None:
        client.transport.abort()
        await client.over
    await server.wait_closed()


async def paused(log: Log) -> None:
    """A reader that pauses, a writer that must wait for it."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        ours.setblocking(False)
        transport, peer = await loop.create_connection(lambda: Peer(log), sock=ours)
        try:
            transport.set_write_buffer_limits(high=1000)
            transport.pause_reading()
            transport.write(LARGE)
            theirs.setblocking(False)
            count = 0
            while count < len(LARGE):
                try:
                    count += len(theirs.recv(65536))
                except BlockingIOError:
                    assert not peer.over.done()
                    await asyncio.sleep(0)
            theirs.send(b"hello")
            await asyncio.sleep(0)
            transport.resume_reading()
            theirs.close()
            await peer.over
            assert peer.received == b"hello"
        finally:
            transport.abort()
            await peer.over


async def streams(log: Log) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
        finally:
            writer.close()

    is_hoop = isinstance(asyncio.get_running_loop(), hoop.Loop)
    start, connect = (
        (hoop.start_server, hoop.open_connection) if is_hoop else (asyncio.start_server, asyncio.open_connection)
    )
    server = await start(serve, "127.0.0.1", 0)
    writer = None
    try:
        reader, writer = await connect(*server.sockets[0].getsockname())
        writer.writelines([b"one\n", b"two", b"\n"])
        await writer.drain()
        assert await reader.readline() == b"ONE\n"
        assert await reader.readexactly(4) == b"TWO\n"
        writer.write_eof()
        assert await reader.read() == b""
    finally:
        if writer is not None:
            writer.close()
        server.close()
        await server.wait_closed()


def tls_contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(folder / "authority.pem")
    return served, trusting


async def tls(log: Log) -> None:
    loop = asyncio.get_running_loop()
    served, trusting = tls_contexts(Path(os.environ["CERTIFICATES"]))
    server = await loop.create_server(lambda: Peer(log, echoes=True), "127.0.0.1", 0, ssl=served)
    client = None
    try:
        address = server.sockets[0].getsockname()
        _, client = await loop.create_connection(lambda: Peer(log), *address, ssl=trusting, server_hostname="localhost")
        client.transport.write(b"hello ")
        client.transport.write(LARGE[:40_000])
        while len(client.received) < 40_006 and not client.over.done():
            await asyncio.sleep(0)
        assert len(client.received) == 40_006
        client.transport.close()
        await client.over
    finally:
        await end(server, client)


PARTS = [b"ping", b" and", b"pong"]  # of one callback: the second and the third are joined


class Datagrams(Peer):
    def datagram_received(self, data: bytes, address: Any) -> None:
        self.received += data
        if self.echoes:
            self.transport.sendto(data.upper(), address)
        elif len(self.received) >= len(PARTS) * len(PARTS[0]):
            settle(self.answered)

    def error_received(self, error: Exception) -> None:
        raise error

    @property
    def answered(self) -> Any:
        return self.ready_to_read

    def __init__(self, log: Log, *, echoes: bool = False) -> None:
        super().__init__(log, echoes=echoes)
        self.ready_to_read = asyncio.get_running_loop().create_future()


async def udp(log: Log) -> None:
    loop = asyncio.get_running_loop()
    made: list[Any] = []
    try:
        _, echo = await loop.create_datagram_endpoint(lambda: Datagrams(log, echoes=True), ("127.0.0.1", 0))
        made.append(echo)
        to = echo.transport.get_extra_info("sockname")
        _, asking = await loop.create_datagram_endpoint(lambda: Datagrams(log), remote_addr=to)
        made.append(asking)
        for part in PARTS:
            asking.transport.sendto(part)
        await asking.answered
        assert asking.received == b"PING ANDPONG"
    finally:
        for peer in made:
            peer.transport.close()
            await peer.over


async def pipes(log: Log) -> None:
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe()
    ends = [os.fdopen(read_end, "rb", 0), os.fdopen(write_end, "wb", 0)]
    made: list[Any] = []
    try:
        _, reading = await loop.connect_read_pipe(lambda: Peer(log), ends[0])
        made.append(reading)
        _, writing = await loop.connect_write_pipe(lambda: Peer(log), ends[1])
        made.append(writing)
        writing.transport.write(b"hello")
        writing.transport.write(LARGE)
        writing.transport.close()
        await reading.over
        assert reading.received == b"hello" + LARGE
    finally:
        for peer in made:
            peer.transport.close()
            await peer.over
        for file in ends:
            file.close()


async def child(log: Log) -> None:
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await process.communicate(b"hello")
        assert out == b"hello"
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def sockets(log: Log) -> None:
    """sock_* on plain sockets."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        listening, connecting = (opened.enter_context(socket.socket()) for _ in range(2))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        connecting.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listening))
        try:
            await loop.sock_connect(connecting, listening.getsockname())
            accepted, _ = await accepting
        finally:
            if not accepting.done():
                accepting.cancel()
                await asyncio.wait([accepting])
        opened.enter_context(accepted)
        sending = loop.create_task(loop.sock_sendall(accepted, LARGE))
        try:
            count = 0
            while count < len(LARGE):
                count += len(await loop.sock_recv(connecting, 65536))
        finally:
            if count < len(LARGE):
                sending.cancel()
            await asyncio.wait([sending])
        sending.result()
        accepted.close()
        assert await loop.sock_recv_into(connecting, bytearray(10)) == 0
        left, right = (opened.enter_context(item) for item in socket.socketpair())
        left.setblocking(False)
        loop.add_reader(left, log.note, "readable")
        try:
            right.send(b"x")
            while not log.noted["readable"]:
                await asyncio.sleep(0)
        finally:
            loop.remove_reader(left)
        log.noted["readable"] = 1


async def executor(log: Log) -> None:
    loop = asyncio.get_running_loop()
    jobs = [loop.run_in_executor(None, abs, -number) for number in range(4)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert results == [0, 1, 2, 3]


async def names(log: Log) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.getaddrinfo("127.0.0.1", 80, type=STREAM)
    assert await loop.getaddrinfo("127.1", 80, type=STREAM)
    assert await loop.getaddrinfo("localhost", 80, type=STREAM)
    assert await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)


async def signals(log: Log) -> None:
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, heard.set)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        await heard.wait()
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


async def unix(log: Log) -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        server = await loop.create_unix_server(lambda: Peer(log, echoes=True), path)
        client = None
        try:
            _, client = await loop.create_unix_connection(lambda: Peer(log), path)
            client.transport.write(b"hello")
            while len(client.received) < 5 and not client.over.done():
                await asyncio.sleep(0)
            assert client.received == b"hello"
        finally:
            await end(server, client)


# Hoop's own.


async def native_timers(log: Log) -> None:
    loop: Any = asyncio.get_running_loop()
    done = loop.create_future()
    ticks: list[Any] = []

    def tick() -> None:
        ticks.append(None)
        if len(ticks) == 3:
            interval.close()
            settle(done)

    interval = loop.set_interval(tick, 0.0001)
    try:
        for number in range(3):
            loop.set_timeout(log.note, 0, f"timeout {number}")
            loop.set_immediate(log.note, f"immediate {number}")
            loop.next_tick(log.note, f"next tick {number}")
            loop.queue_microtask(log.note, f"microtask {number}")
        loop.set_timeout(log.note, 10, "never").close()
        await done
        while log.noted["timeout 2"] == 0:
            await asyncio.sleep(0)
    finally:
        interval.close()
    assert log.noted["never"] == 0
    del log.noted["never"]


async def handles(log: Log) -> None:
    """Sockets with callbacks."""
    loop: Any = asyncio.get_running_loop()
    closed = loop.create_future()
    heard = bytearray()

    def serve(peer: hoop.Socket) -> None:
        peer.set_timeout(60)
        peer.on_data = lambda peer, data: peer.write(data.upper())

    def hear(client: hoop.Socket, data: bytes) -> None:
        heard.extend(data)
        client.end()

    def close(client: hoop.Socket) -> None:
        log.note("closed")
        settle(closed)

    server = loop.listen_tcp(serve, "127.0.0.1", 0)
    client = None
    try:
        client = loop.connect_tcp(*server.address)
        client.on_data = hear
        client.on_close = close
        client.write(b"hello")
        await closed
        assert heard == b"HELLO"
    finally:
        if client is not None:
            client.destroy()
        server.close()
        await server.wait_closed()


async def udp_handles(log: Log) -> None:
    loop: Any = asyncio.get_running_loop()
    answered = loop.create_future()
    with contextlib.ExitStack() as opened:
        echo = loop.bind_udp(lambda sock, data, address: sock.send(data.upper(), address))
        opened.callback(echo.close)
        asking = loop.bind_udp(lambda sock, data, address: settle(answered, data))
        opened.callback(asking.close)
        asking.send(b"ping", echo.local_address)
        assert await answered == b"PING"


async def pool(log: Log) -> None:
    loop: Any = asyncio.get_running_loop()
    jobs = [loop.pool.run(abs, -number) for number in range(6)]
    jobs[5].cancel()
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results[:5]:
        if isinstance(result, BaseException):
            raise result
    assert results[:5] == [0, 1, 2, 3, 4]


async def files(log: Log) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        await hoop.fs.write_file(path, b"hello")
        await hoop.fs.append_file(path, LARGE)
        assert await hoop.fs.read_file(path) == b"hello" + LARGE
        assert [entry.name for entry in await hoop.fs.scandir(folder)] == ["file"]
        async with hoop.fs.open(path, "rb") as file:
            assert await file.read(5) == b"hello"
        await hoop.fs.unlink(path)


async def lookups(log: Log) -> None:
    found, again = await asyncio.gather(
        hoop.dns.lookup("localhost", 80, type=STREAM), hoop.dns.lookup("localhost", 80, type=STREAM)
    )
    assert found == again
    resolver = hoop.dns.Resolver(ttl=10)
    assert await resolver.lookup("localhost", 80) == await resolver.lookup("localhost", 80)


async def hashes(log: Log) -> None:
    assert len(await hoop.crypto.pbkdf2_hmac("sha256", b"p", b"s", 10)) == 32
    assert len(await hoop.crypto.random_bytes(16)) == 16
    packed = await hoop.compress.compress(LARGE)
    assert await hoop.compress.decompress(packed) == LARGE


Program = Callable[[Log], Awaitable[None]]

SHARED: dict[str, Program] = {
    program.__name__: program
    for program in (
        *(callbacks, tasks, tcp, paused, streams, tls, udp, pipes, child, sockets, executor, names, signals, unix),
    )
}
NATIVE: dict[str, Program] = {
    program.__name__: program for program in (native_timers, handles, udp_handles, pool, files, lookups, hashes)
}
PROGRAMS = {**SHARED, **NATIVE}
