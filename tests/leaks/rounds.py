"""Small programs, one for each part of hoop: a loop is opened, used and closed, and again, and again.

    python rounds.py NAME [ROUNDS]     what is left after each round, one line each: descriptors, blocks, references

The rounds before the first line fill what is filled once (caches, free lists, lazily made names). What a debug build
alone can count is 0 elsewhere. Where LeakSanitizer is loaded it is asked at the end, while the interpreter is whole:
then every block that nothing points to has been lost. It does not look at what was allocated before the rounds that
count (importing modules loses blocks in CPython 3.13 and in cffi, once), so no list of exceptions is needed.
"""

from __future__ import annotations

import contextlib
import ctypes

if __name__ == "__main__":
    lsan = ctypes.CDLL(None) if hasattr(ctypes.CDLL(None), "__lsan_disable") else None
    if lsan is not None:
        lsan.__lsan_disable()

import array
import asyncio
import functools
import gc
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import hoop

WARM_UP = 4
LOCALHOST = "127.0.0.1"
BULK = bytes(300_000)  # more than a socket takes at once

ROUNDS: dict[str, Callable[[], None]] = {}


def on_a_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """main() is a round: on a loop that is opened for it."""
    ROUNDS[main.__name__] = lambda: hoop.run(main())
    return main


def by_hand(body: Callable[[hoop.Loop], None]) -> Callable[[hoop.Loop], None]:
    """body(loop) is a round: the loop is not running when body is called."""

    def whole() -> None:
        loop = hoop.Loop()
        try:
            body(loop)
        finally:
            loop.close()

    ROUNDS[body.__name__] = whole
    return body


class Echo(asyncio.Protocol):
    """Sends back what comes, and closes at the end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


class BufferedEcho(asyncio.BufferedProtocol):
    """As Echo, from a buffer of its own."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = bytearray(4096)

    def get_buffer(self, size_hint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.transport.write(self.buffer[:count])  # type: ignore[attr-defined]


class Counting(asyncio.Protocol):
    """Waits until it has got so many bytes, and for the end."""

    def __init__(self, expected: int) -> None:
        self.missing = expected
        self.complete = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing <= 0 and not self.complete.done():
            self.complete.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)


async def exchange(make: Callable[..., Coroutine[Any, Any, Any]], **options: Any) -> None:
    """Connect, get BULK back from an echo, once gently closed and once aborted."""
    for end in ("close", "abort"):
        transport, protocol = await make(functools.partial(Counting, len(BULK)), **options)
        transport.get_extra_info("socket")
        transport.write(BULK[:1000])
        transport.writelines([BULK[1000:2000], bytearray(BULK[2000:])])
        await protocol.complete
        transport.pause_reading()
        transport.resume_reading()
        getattr(transport, end)()
        await protocol.lost


# ---- loops, callbacks, timers


@on_a_loop
async def nothing() -> None:
    pass


@by_hand
def abandoned_callbacks(loop: hoop.Loop) -> None:
    """Closed with everything still queued."""
    loop.call_soon(print)
    loop.call_later(1000, print, "never")
    loop.next_tick(print)
    loop.queue_microtask(print)
    loop.set_immediate(print)
    loop.set_interval(print, 1000.0)
    loop.call_soon_threadsafe(print)
    loop.create_future().add_done_callback(print)


@on_a_loop
async def timers_and_ticks() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, hoop.Loop)
    done = loop.create_future()
    for delay in range(50):
        loop.call_later(delay / 100_000, int)
        loop.call_later(1000 + delay, int).cancel()
    with loop.set_timeout(int, 1000.0) as timer:
        timer.refresh().unref().ref()
    loop.set_interval(int, 1000.0).close()
    loop.next_tick(loop.queue_microtask, loop.set_immediate, done.set_result, None)
    await done
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(int,))
    thread.start()
    await asyncio.to_thread(thread.join)


@by_hand
def errors_in_callbacks(loop: hoop.Loop) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    heard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: heard.append(context))
    loop.call_soon(fail)
    loop.next_tick(fail)
    loop.call_later(0, fail)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    assert len(heard) == 3


@on_a_loop
async def tasks() -> None:
    async def wait() -> None:
        await asyncio.sleep(1000)

    waiting = [asyncio.create_task(wait()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in waiting[:10]:
        task.cancel()
    await asyncio.wait(waiting[:10])
    async with asyncio.timeout(1000):
        await asyncio.sleep(0)


@by_hand
def readers_and_signals(loop: hoop.Loop) -> None:
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, loop.stop)
        loop.add_writer(right, int)
        loop.add_signal_handler(signal.SIGUSR1, right.send, b"x")
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run_forever()
        loop.remove_signal_handler(signal.SIGUSR1)
        loop.remove_reader(left)
        loop.remove_writer(right)
        loop.add_reader(left, int)  # left for close()


# ---- connections


@on_a_loop
async def tcp() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, LOCALHOST, 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        await exchange(loop.create_connection, host=host, port=port)


@on_a_loop
async def tcp_buffered() -> None:
    loop = asyncio.get_running_loop()
    async with await loop.create_server(BufferedEcho, LOCALHOST, 0) as server:
        host, port = server.sockets[0].getsockname()
        await exchange(loop.create_connection, host=host, port=port)


@on_a_loop
async def unix() -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        async with await loop.create_unix_server(Echo, f"{folder}/s"):
            await exchange(loop.create_unix_connection, path=f"{folder}/s")


@on_a_loop
async def abandoned_connections() -> None:
    """The loop closes on connections that are open, with bytes that nobody has read."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, LOCALHOST, 0)
    host, port = server.sockets[0].getsockname()
    for _ in range(3):
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        transport.write(BULK * 4)


@on_a_loop
async def failed_connections() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as closed:
        closed.bind((LOCALHOST, 0))
        for _ in range(3):
            try:
                await loop.create_connection(asyncio.Protocol, *closed.getsockname())
            except ConnectionRefusedError:
                continue
            raise AssertionError("nobody listens there")


@functools.cache
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import trustme

    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@on_a_loop
async def tls() -> None:
    loop = asyncio.get_running_loop()
    server_side, client_side = tls_contexts()
    async with await loop.create_server(Echo, LOCALHOST, 0, ssl=server_side) as server:
        host, port = server.sockets[0].getsockname()
        options = {"host": host, "port": port, "ssl": client_side}
        await exchange(loop.create_connection, **options, server_hostname="localhost")
        loop.set_exception_handler(lambda _, context: None)
        try:
            await loop.create_connection(asyncio.Protocol, **options, server_hostname="other.example")
        except ssl.SSLCertVerificationError:
            return
        raise AssertionError("that is another's certificate")


@on_a_loop
async def streams() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.write(await reader.readexactly(1000))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await hoop.start_server(serve, LOCALHOST, 0) as server:
        reader, writer = await hoop.open_connection(*server.sockets[0].getsockname())
        writer.writelines([b"line\n", bytes(1000)])
        await writer.drain()
        assert len(await reader.read()) == 1005
        writer.close()
        await writer.wait_closed()


@on_a_loop
async def datagrams() -> None:
    loop = asyncio.get_running_loop()
    got = loop.create_future()

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            if data == b"last":
                got.set_result(address)

    receiver, _ = await loop.create_datagram_endpoint(Receiver, (LOCALHOST, 0))
    sender, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=receiver.get_extra_info("sockname")
    )
    for data in (b"", b"x" * 1000, b"last"):
        sender.sendto(data)
    await got
    sender.close()
    receiver.abort()
    await asyncio.sleep(0)


@on_a_loop
async def raw_sockets() -> None:
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        receiving = asyncio.create_task(loop.sock_recv(left, 10))
        await asyncio.sleep(0)
        await loop.sock_sendall(right, b"x")
        await receiving
        waiting = asyncio.create_task(loop.sock_recv_into(left, bytearray(10)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])


@on_a_loop
async def native_handles() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, hoop.Loop)
    ended = loop.create_future()

    def accepted(handle: hoop.Socket) -> None:
        handle.on_data = lambda handle, data: handle.end(data)

    server = loop.listen_tcp(accepted)
    client = loop.connect_tcp(*server.address)
    client.on_data = lambda handle, data: None
    client.on_close = lambda *_: ended.set_result(None)
    client.set_timeout(1000.0)
    client.write(b"hello")
    await ended
    server.close()
    await server.wait_closed()
    udp = loop.bind_udp(None)
    udp.send(b"x", udp.local_address)
    udp.close()
    loop.connect_tcp(LOCALHOST, 1).destroy()


@on_a_loop
async def processes() -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    out, _ = await process.communicate(b"x" * 100_000)
    assert len(out) == 100_000


# ---- the pool


@on_a_loop
async def pool_jobs() -> None:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, int)
    with hoop.Pool(2) as pool:
        await asyncio.gather(*(pool.run(pow, 2, 10) for _ in range(20)))
        for job in [pool.run(int) for _ in range(20)]:
            job.cancel()
        try:
            await pool.run(int, "no number")
        except ValueError:
            return
    raise AssertionError("int() took it")


@on_a_loop
async def files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        await hoop.fs.write_file(path, BULK)
        await hoop.fs.append_file(path, b"more\n")
        await hoop.fs.write_file(path, b"again\nand again\n", atomic=True)
        for _ in range(3):
            assert await hoop.fs.read_file(path) == b"again\nand again\n"
        assert await hoop.fs.read_file(path, encoding="ascii")
        await hoop.fs.makedirs(f"{folder}/a/b")
        await hoop.fs.symlink("a", f"{folder}/link")
        assert len([entry async for entry in hoop.fs.walk(folder)]) == 3
        assert [entry.name for entry in await hoop.fs.scandir(folder)]
        assert await hoop.fs.listdir(os.fsencode(folder))
        with contextlib.suppress(FileNotFoundError):
            await hoop.fs.stat(f"{folder}/missing")
        async with hoop.fs.open(path) as file:
            assert [line async for line in file]
        await hoop.fs.rmtree(f"{folder}/a")


@on_a_loop
async def names_digests_archives() -> None:
    loop = asyncio.get_running_loop()
    await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    await loop.getnameinfo((LOCALHOST, 80))
    await hoop.dns.Resolver(ttl=10.0).lookup("localhost")
    await hoop.crypto.digest("sha256", BULK)
    await hoop.crypto.pbkdf2_hmac("sha256", b"x", b"salt", 10)
    packed = await hoop.compress.compress(BULK)
    assert await hoop.compress.decompress(packed) == BULK


# ---- counting


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def references() -> int:
    """Of all objects, but for those to Cython's own types of compiled coroutines.

    Cython makes those types on the heap, whose objects own a reference to their type, and does not give it back when
    one goes (Cython 3.3, CYTHON_USE_TYPE_SPECS=0). A number grows, and no memory is lost.
    """
    total: Callable[[], int] = getattr(sys, "gettotalrefcount", lambda: 0)
    shared = [module for name, module in sys.modules.items() if name.startswith("_cython_")]
    kinds = [kind for module in shared for kind in vars(module).values() if isinstance(kind, type)]
    return total() - sum(map(sys.getrefcount, kinds)) if total() else 0


def count(body: Callable[[], None], rounds: int) -> None:
    counted = [array.array("q", bytes(8 * rounds)) for _ in range(3)]  # made before, so that they are not counted
    for index in range(-WARM_UP, rounds):
        if index == 0 and lsan is not None:
            lsan.__lsan_enable()
        body()
        gc.collect()
        if index >= 0:
            counted[0][index] = descriptors()
            counted[1][index] = sys.getallocatedblocks()
            counted[2][index] = references()
    for line in zip(*counted, strict=True):
        print(*line)


def main(name: str, rounds: str = "6") -> None:
    count(ROUNDS[name], int(rounds))
    sys.stdout.flush()
    if lsan is not None:
        lsan.__lsan_do_leak_check()  # ends the process if anything is lost


if __name__ == "__main__":
    main(*sys.argv[1:])
