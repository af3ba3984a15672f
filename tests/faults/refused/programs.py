"""Small programs, one for each part of hoop, that run while system calls are refused.

Each returns when all went well, and raises what went wrong: its own operation's error, or, where the refused call was
that of the other end, ConnectionError or EOFError. None may wait for ever: what ends a connection is told to both ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import hoop
from hoop import fs

LOCALHOST = "127.0.0.1"
DATA = bytes(range(256)) * 2000  # more than a socket's buffers take at once


class Echo(asyncio.Protocol):
    """Sends back what comes, and closes at the end."""

    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Asking(asyncio.Protocol):
    """Sends DATA, and waits until it has come back, or the connection is lost."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.received = bytearray()
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.data)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= len(self.data) and not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)
        if not self.answered.done():
            self.answered.set_exception(exc or EOFError("the connection was closed before the answer"))

    async def finish(self) -> None:
        try:
            await self.answered
        finally:
            self.transport.close()
            await self.lost
        assert self.received == self.data, "wrong bytes"


async def until_closed(server: Any) -> None:
    server.close()
    await server.wait_closed()


async def tcp(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, LOCALHOST, 0)
    try:
        _, protocol = await loop.create_connection(Asking, *server.sockets[0].getsockname())
        await protocol.finish()
    finally:
        await until_closed(server)


async def unix(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(Echo, folder / "socket")
    try:
        _, protocol = await loop.create_unix_connection(Asking, folder / "socket")
        await protocol.finish()
    finally:
        await until_closed(server)
        (folder / "socket").unlink(missing_ok=True)


async def streams(folder: Path, contexts: Any) -> None:
    async def handle(reader: Any, writer: Any) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
            writer.write_eof()
        except OSError:  # this end's own: the other end sees the connection go
            pass
        finally:
            writer.close()

    server = await hoop.start_server(handle, LOCALHOST, 0)
    try:
        reader, writer = await hoop.open_connection(*server.sockets[0].getsockname())
        try:
            for number in range(10):
                writer.write(b"line %d\n" % number)
                await writer.drain()
                line = await reader.readline()
                if line != b"line %d\n" % number:
                    raise EOFError(f"the connection ended with {line!r}")
            writer.write_eof()
            assert await reader.read() == b""
        finally:
            writer.close()
        await writer.wait_closed()
    finally:
        await until_closed(server)


async def tls(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    server_context, client_context = contexts
    server = await loop.create_server(Echo, LOCALHOST, 0, ssl=server_context)
    try:
        connecting = loop.create_connection(
            lambda: Asking(DATA[:100_000]),
            *server.sockets[0].getsockname(),
            ssl=client_context,
            server_hostname="localhost",
        )
        _, protocol = await connecting
        await protocol.finish()
    finally:
        await until_closed(server)


class Datagrams(asyncio.DatagramProtocol):
    """Sends back what comes, or notes it. A refused call is told to error_received."""

    def __init__(self, is_echo: bool) -> None:
        self.is_echo = is_echo
        self.received: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.is_echo:
            self.transport.sendto(data, addr)
        else:
            self.received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        self.received.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.received.put_nowait(exc or EOFError("closed"))


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Any, Datagrams, Datagrams]]:
    """A client's endpoint, its protocol, and that of the server it is connected to."""
    loop = asyncio.get_running_loop()
    server, echo = await loop.create_datagram_endpoint(lambda: Datagrams(True), local_addr=(LOCALHOST, 0))
    try:
        client, protocol = await loop.create_datagram_endpoint(
            lambda: Datagrams(False), remote_addr=server.get_extra_info("sockname")
        )
        try:
            yield client, protocol, echo
        finally:
            client.close()
    finally:
        server.close()


async def udp(folder: Path, contexts: Any) -> None:
    async with echoing() as (client, protocol, echo):
        for number in range(5):
            await answered(client, protocol, echo, [b"%d" % number])


async def bursts(folder: Path, contexts: Any) -> None:
    """What one callback sends, and the answers to one batch, are held and joined."""
    async with echoing() as (client, protocol, echo):
        for length in (40, 10):
            await answered(client, protocol, echo, [bytes([number]) * length for number in range(6)])


async def answered(client: Any, protocol: Datagrams, echo: Datagrams, datagrams: list[bytes]) -> None:
    """A datagram may be lost, so each is sent until it is answered."""
    missing = list(datagrams)
    for _ in range(20):
        for data in missing:
            client.sendto(data)
        while missing:
            try:
                answer = await asyncio.wait_for(protocol.received.get(), 0.2)
            except TimeoutError:
                break
            if isinstance(answer, Exception):
                raise answer  # which may be a TimeoutError, too: ETIMEDOUT
            if answer in missing:
                missing.remove(answer)
        if not missing:
            return
        if not echo.received.empty():
            error = echo.received.get_nowait()
            if isinstance(error, Exception):
                raise error
    raise AssertionError("no datagram is answered any more")


async def together(folder: Path, contexts: Any) -> None:
    """What one phase writes to many connections may leave by one call."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, LOCALHOST, 0)
    clients: list[Asking] = []
    try:
        for number in range(12):
            _, client = await loop.create_connection(
                lambda number=number: Asking(bytes([number]) * 1000), *server.sockets[0].getsockname()
            )
            clients.append(client)
        await asyncio.gather(*(client.answered for client in clients))
        for client in clients:
            client.answered = loop.create_future()
            client.data *= 2
            client.transport.write(client.data[1000:])
        await asyncio.gather(*(client.answered for client in clients))
    finally:
        await asyncio.gather(*(client.finish() for client in clients))
        await until_closed(server)


async def pipes(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    receiving, sending = os.pipe()
    with open(receiving, "rb", 0) as source, open(sending, "wb", 0) as sink:
        writing, _ = await loop.connect_write_pipe(asyncio.Protocol, sink)
        try:
            reading, protocol = await loop.connect_read_pipe(Receiving, source)
            try:
                writing.write(DATA)
                writing.close()
                await protocol.ended
                if len(protocol.received) < len(DATA):
                    raise EOFError("the pipe ended early")
            finally:
                reading.close()
        finally:
            writing.abort()
            await asyncio.sleep(0.001)  # connection_lost closes the files


class Receiving(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(exc)


async def child(folder: Path, contexts: Any) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    output, _ = await process.communicate(DATA)
    if process.returncode != 0:
        raise AssertionError(f"cat ended with {process.returncode}")
    if output != DATA:
        raise EOFError(f"{len(output)} bytes came back")


async def raw(folder: Path, contexts: Any) -> None:
    """sock_accept, sock_connect, sock_recv, sock_sendall and theirs."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listener, socket.socket() as ours:
        for sock in (listener, ours):
            sock.setblocking(False)
        listener.bind((LOCALHOST, 0))
        listener.listen()
        accepting = loop.create_task(loop.sock_accept(listener))
        try:
            await loop.sock_connect(ours, listener.getsockname())
        except BaseException:
            accepting.cancel()
            raise
        theirs, _ = await accepting
        with theirs:
            tasks = [loop.create_task(loop.sock_sendall(ours, DATA)), loop.create_task(take_all(theirs))]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            await loop.sock_sendall(theirs, b"answer")
            assert await loop.sock_recv(ours, 100) == b"answer"


async def take_all(sock: socket.socket) -> None:
    received, buffer = 0, bytearray(70_000)
    while received < len(DATA):
        count = await asyncio.get_running_loop().sock_recv_into(sock, buffer)
        assert buffer[:count] == DATA[received : received + count]
        received += count


async def files(folder: Path, contexts: Any) -> None:
    path = folder / "file"
    try:
        await fs.write_file(path, DATA)
        await fs.append_file(path, b"x")
        assert await fs.read_file(path) == DATA + b"x"
        await fs.write_file(path, b"small", atomic=True, fsync=True)
        assert await fs.read_file(path) == b"small"
        await fs.copy_file(path, folder / "copy")
        assert sorted(await fs.listdir(folder)) == ["copy", "file"]
        assert (await fs.stat(path)).st_size == 5
        async with fs.open(path, "r+b") as opened:
            assert await opened.read() == b"small"
            await opened.write(b"er")
    finally:
        for name in os.listdir(folder):
            os.unlink(folder / name)


async def names(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert await loop.getaddrinfo(LOCALHOST, 80)
    await loop.getnameinfo((LOCALHOST, 80), socket.NI_NUMERICHOST)


async def signals(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):
        heard = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        await heard.wait()
    loop.remove_signal_handler(signal.SIGUSR1)


async def threadsafe(folder: Path, contexts: Any) -> None:
    """The loop sleeps each time that a thread calls it."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[int] = asyncio.Queue()
    go = threading.Semaphore(0)

    def post() -> None:
        for number in range(5):
            go.acquire()
            loop.call_soon_threadsafe(arrived.put_nowait, number)

    thread = threading.Thread(target=post)
    thread.start()
    for number in range(5):
        loop.call_later(0.001, go.release)
        assert await arrived.get() == number
    thread.join()


async def executor(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    assert await asyncio.gather(*(loop.run_in_executor(None, abs, -number) for number in range(8))) == list(range(8))


async def timers(folder: Path, contexts: Any) -> None:
    """Waits that are no whole number of milliseconds."""
    loop = asyncio.get_running_loop()
    for _ in range(5):
        began = loop.time()
        await asyncio.sleep(0.0013)
        assert loop.time() - began >= 0.0013


async def sendfile(folder: Path, contexts: Any) -> None:
    loop = asyncio.get_running_loop()
    path = folder / "sent"
    path.write_bytes(DATA)
    server = await loop.create_server(Echo, LOCALHOST, 0)
    try:
        transport, protocol = await loop.create_connection(lambda: Asking(b""), *server.sockets[0].getsockname())
        protocol.data = DATA
        try:
            if transport.is_closing():  # sendfile() would call that a RuntimeError, as asyncio does
                raise EOFError("the connection was closed already")
            with path.open("rb") as file:
                await loop.sendfile(transport, file)
        finally:
            if sys.exc_info()[0] is not None:
                transport.abort()
            await asyncio.gather(protocol.finish(), return_exceptions=sys.exc_info()[0] is not None)
    finally:
        await until_closed(server)
        path.unlink()


async def handles(folder: Path, contexts: Any) -> None:
    """Socket handles: callbacks instead of protocols."""
    loop: Any = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()
    received = bytearray()
    problems: list[Exception] = []

    def serve(handle: hoop.Socket) -> None:
        handle.on_data = lambda handle, data: handle.write(data)
        handle.on_error = lambda handle, error: problems.append(error)

    def take(handle: hoop.Socket, data: bytes) -> None:
        received.extend(data)
        if len(received) >= len(DATA):
            handle.end()

    server = loop.listen_tcp(serve)
    client = loop.connect_tcp(*server.address)
    client.on_data = take
    client.on_error = lambda handle, error: problems.append(error)
    client.on_close = lambda handle: closed.set_result(None)
    client.write(DATA)
    try:
        await closed
    finally:
        client.destroy()
        server.close()
        await server.wait_closed()
    if received != DATA:
        raise problems[0] if problems else EOFError(f"{len(received)} bytes came back")


async def readers(folder: Path, contexts: Any) -> None:
    """add_reader and add_writer."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    with left, right:
        for sock in (left, right):
            sock.setblocking(False)
        for number in range(3):
            readable, writable = asyncio.Event(), asyncio.Event()
            loop.add_writer(left, writable.set)
            await writable.wait()
            left.send(b"%d" % number)
            try:
                loop.add_reader(right, readable.set)
                await readable.wait()
            finally:
                loop.remove_writer(left)
                loop.remove_reader(right)
            assert right.recv(10) == b"%d" % number


Program = Callable[[Path, tuple[ssl.SSLContext, ssl.SSLContext]], Awaitable[None]]
PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (
        *(tcp, unix, streams, tls, udp, bursts, together, pipes, child, raw),
        *(files, names, signals, threadsafe, executor, timers, sendfile),
        *(handles, readers),
    )
}
