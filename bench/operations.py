"""The operations whose instructions are counted, each a program: python -m bench.operations NAME COUNT ...

A program performs one operation COUNT times on a hoop loop, then on a new loop as often as the next COUNT says, and
ends. Everything is in one process, and every operation is begun by the end of the one before it, so that the same
instructions run each time: the peer of a connection is a plain socket that the loop watches too, and what the peer
costs (a read and a write by the os module) is in the figure.

Where valgrind runs it, the first COUNT is to warm up, at a speed at which nothing is counted. Each of the others
gives a file of figures.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hoop

from bench.build import is_built, program
from bench.servers.protocol_echo import Echo
from bench.servers.streams_echo import echo as echo_streams

MESSAGE = bytes(range(256)) * 4  # 1 KiB
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BATCH = 100  # callbacks in one turn

Operation = Callable[[Any, int], Awaitable[None]]


class SplitEcho(Echo):
    """Answers in two writes, as a server does that sends head and body apart."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:100])
        self.transport.write(data[100:])


async def ask_again_and_again(loop: Any, peer: socket.socket, count: int, message: bytes, answer_size: int) -> None:
    """Have peer send message and read the whole answer, count times, one after the other."""
    done = loop.create_future()
    fd = peer.fileno()
    left = count
    missing = answer_size

    def answered() -> None:
        nonlocal left, missing
        missing -= len(os.read(fd, 65536))
        if missing:
            return
        left -= 1
        if left == 0:
            done.set_result(None)
        else:
            missing = answer_size
            os.write(fd, message)

    loop.add_reader(fd, answered)
    os.write(fd, message)
    await done
    loop.remove_reader(fd)


async def connected_peer(address: tuple[str, int]) -> socket.socket:
    peer = socket.socket()
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, address)
    return peer


async def ask_server(loop: Any, server: Any, count: int) -> None:
    peer = await connected_peer(server.sockets[0].getsockname())
    await ask_again_and_again(loop, peer, count, MESSAGE, len(MESSAGE))
    peer.close()
    server.close()


async def echo(loop: Any, count: int) -> None:
    await ask_server(loop, await loop.create_server(Echo, "127.0.0.1", 0), count)


async def split_write(loop: Any, count: int) -> None:
    await ask_server(loop, await loop.create_server(SplitEcho, "127.0.0.1", 0), count)


async def own_streams_echo(loop: Any, count: int) -> None:
    await ask_server(loop, await hoop.start_server(echo_streams, "127.0.0.1", 0), count)


async def tls_echo(loop: Any, count: int) -> None:
    from bench.servers.tls_echo import server_context

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate is made for the benchmark, and of no authority
    context.verify_mode = ssl.CERT_NONE

    class Ask(asyncio.Protocol):
        """The client, which has to be one of the loop's own transports: a raw socket speaks no TLS."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.left = count
            self.missing = len(MESSAGE)
            self.done = loop.create_future()
            self.transport.write(MESSAGE)

        def data_received(self, data: bytes) -> None:
            self.missing -= len(data)
            if self.missing:
                return
            self.left -= 1
            if self.left == 0:
                self.done.set_result(None)
            else:
                self.missing = len(MESSAGE)
                self.transport.write(MESSAGE)

    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
    address = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(Ask, *address, ssl=context)
    await protocol.done
    transport.abort()
    server.close()


async def sock_echo(loop: Any, count: int) -> None:
    ours, peer = socket.socketpair()
    for end in (ours, peer):
        end.setblocking(False)

    async def serve() -> None:
        while data := await loop.sock_recv(ours, 65536):
            await loop.sock_sendall(ours, data)

    serving = loop.create_task(serve())
    await ask_again_and_again(loop, peer, count, MESSAGE, len(MESSAGE))
    peer.close()
    await serving
    ours.close()


async def call_soon(loop: Any, count: int) -> None:
    done = loop.create_future()
    left = count

    def one() -> None:
        nonlocal left
        left -= 1

    def batch() -> None:
        if left <= 0:
            done.set_result(None)
            return
        for _ in range(BATCH):
            loop.call_soon(one)
        loop.call_soon(batch)

    batch()
    await done


async def call_soon_chain(loop: Any, count: int) -> None:
    done = loop.create_future()
    left = count

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            done.set_result(None)

    again()
    await done


async def timer(loop: Any, count: int) -> None:
    done = loop.create_future()
    left = count

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_later(0, again)
        else:
            done.set_result(None)

    again()
    await done


async def timer_cancelled(loop: Any, count: int) -> None:
    for _ in range(count):
        loop.call_later(60, never).cancel()


def never() -> None:
    raise AssertionError("a cancelled timer ran")


async def sleep_zero(loop: Any, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def pool_job(loop: Any, count: int) -> None:
    for _ in range(count):
        await loop.run_in_executor(None, int)


async def uvicorn_request(loop: Any, count: int) -> None:
    from bench.servers.uvicorn_plain import make_server

    listener = socket.create_server(("127.0.0.1", 0))
    server = make_server()
    asked = loop.create_future()

    async def main_loop() -> None:
        await server.on_tick(0)
        await asked

    server.main_loop = main_loop  # uvicorn's looks at the clock ten times a second, however slow valgrind is
    serving = loop.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0)
    peer = await connected_peer(listener.getsockname())
    answer_size = await size_of_answer(loop, peer)
    await ask_again_and_again(loop, peer, count, REQUEST, answer_size)
    peer.close()
    asked.set_result(None)
    await serving


async def size_of_answer(loop: Any, peer: socket.socket) -> int:
    await loop.sock_sendall(peer, REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"Hello, world!"):
        answer += await loop.sock_recv(peer, 65536)
    return len(answer)


OPERATIONS: dict[str, Operation] = {
    "echo": echo,
    "split write": split_write,
    "own streams echo": own_streams_echo,
    "TLS echo": tls_echo,
    "sock echo": sock_echo,
    "call_soon": call_soon,
    "call_soon chain": call_soon_chain,
    "timer": timer,
    "timer, cancelled": timer_cancelled,
    "sleep(0)": sleep_zero,
    "pool job": pool_job,
    "uvicorn request": uvicorn_request,
}


def do_nothing() -> None:
    pass


class Marks:
    """Where counting begins and ends: bench/c/marks.c. Nothing where that is not built."""

    def __init__(self) -> None:
        library = ctypes.CDLL(program("marks.so")) if is_built("marks.so") else None
        self.start, self.zero, self.write, self.fill_heap = (
            getattr(library, f"marks_{name}", do_nothing) for name in ("start", "zero", "write", "fill_heap")
        )


def perform(name: str, count: int, marks: Marks) -> None:
    """On a loop of its own. What a loop costs to make and to close is not counted."""
    loop = hoop.new_event_loop()
    if "HOOP_BENCH_WATCHED" in os.environ:  # by bench.metrics_cost: this loop, or one beside it
        from hoop.core.board import place_of  # which the older versions that are compared do not have

        place_of(loop if os.environ["HOOP_BENCH_WATCHED"] == "1" else hoop.new_event_loop())
    gc.collect()
    marks.fill_heap()
    marks.zero()
    loop.run_until_complete(OPERATIONS[name](loop, count))
    marks.write()
    loop.close()


def main() -> None:
    name, *counts = sys.argv[1:]
    marks = Marks()
    sys.setswitchinterval(100)  # seconds: no thread asks for the GIL because valgrind is slow
    for number, count in enumerate(counts):
        perform(name, int(count), marks)
        if number == 0:
            marks.start()
    print(json.dumps({"performed": counts}), flush=True)
    os._exit(0)  # the cost of the interpreter's end belongs to no operation


if __name__ == "__main__":
    main()
