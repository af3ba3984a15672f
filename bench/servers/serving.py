"""What all servers share: arguments, the line that says where they listen, and the end when stdin ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import socket
import sys
import threading
from collections.abc import Awaitable, Callable

from bench.loops import LOOPS, find_loop

BACKLOG = 4096  # connections; the kernel cuts it to net.core.somaxconn

Serve = Callable[[socket.socket], Awaitable[None]]


def run_server(serve: Serve, make_socket: Callable[[], socket.socket] | None = None) -> None:
    """Run `serve(socket)` for ever on the loop named on the command line, until stdin ends.

    The socket listens, unless `make_socket` makes another kind.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", required=True, choices=list(LOOPS))
    parser.add_argument("--fresh", action="store_true", help="leave malloc as a new process has it")
    arguments, _ = parser.parse_known_args()  # a server may have options of its own
    kind = find_loop(arguments.loop)
    descriptor_limit = raise_descriptor_limit()
    if not arguments.fresh:
        settle_allocator()
    kept = block_of_random_size()
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = (make_socket or listen_on_loopback)()
        serving = loop.create_task(_as_coroutine(serve(listener)))
        # What serve() starts is listening by then: the socket itself has been since listen().
        port = listener.getsockname()[1]
        ready = {"port": port, "pid": os.getpid(), "loop": kind.name, "version": kind.version()}
        print(json.dumps(ready | {"descriptor_limit": descriptor_limit}), flush=True)
        await serving

    with asyncio.Runner(loop_factory=kind.factory()) as runner:
        runner.run(main())
    del kept


async def serve_protocol(listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
    """Serve connections with protocols of that factory, for ever."""
    server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=BACKLOG)
    await wait_for_ever()
    server.close()


async def wait_for_ever() -> None:
    """Sleep without a timer, so that an idle server stays idle."""
    await asyncio.get_running_loop().create_future()


def listen_on_loopback() -> socket.socket:
    """A non-blocking TCP socket that listens on a free port of 127.0.0.1."""
    # With the protocol named: asyncio switches off Nagle's delay only for sockets that say IPPROTO_TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def bound_on_loopback() -> socket.socket:
    """A non-blocking UDP socket on a free port of 127.0.0.1."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; returns the limit that holds."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS refuses RLIM_INFINITY here
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def settle_allocator() -> None:
    """Put malloc into the state of a process that has run for a while.

    glibc maps blocks over 128 KiB one by one until a larger one has been freed. asyncio and others allocate 256 KiB for
    each read, and would be two to three times slower in a program so small that it never freed a large block.
    """
    bytearray(16 << 20)  # freed at once


def block_of_random_size() -> bytearray:
    """Keep this, and the heap goes on at another place of its page than in the process before.

    Where a buffer of 256 KiB begins in its page decides how long the kernel copies it: one place in sixteen costs a
    third more. The place follows from all that was allocated before. So without this one build has its luck, good or
    bad, in all its processes.
    """
    return bytearray(120_000 + 16 * random.randrange(256))


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


def _exit_at_end_of_stdin() -> None:
    """The runner holds the other end: however it ends, no server is left behind. No loop takes part in this."""
    try:
        while os.read(sys.stdin.fileno(), 4096):
            pass
    finally:
        os._exit(0)
