"""What the call fuzzer puts into calls: values that suit a parameter by its name, and values that suit none.

Nothing here reaches beyond the process, its own folder and the loopback addresses: paths are relative to a temporary
folder and never begin with a slash or climb out of it; the programs to start are `true` and `cat`; every text that
might be taken for a host is one that is answered without asking the network; every number that might be taken for a
descriptor is one that was opened for that, or none; counts of work (rounds of a key derivation, lengths of a file) are
small or absurd.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import math
import random
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from typing import Any

import hoop

LOCALHOST = "127.0.0.1"
TEXTS = ["", "localhost", LOCALHOST, "\0", "\ud800", "localhost" * 40, "127.0.0.1:0"]
NAMES = ["a", "b", "c", "folder", "folder/a", "folder/b", "link", ".", "", "\0", "a" * 300, "socket"]
BYTES = [b"", b"x", b"line\nline\n", bytes(1000), bytes(70_000)]
# Those in the middle become negative, or nothing, in a C int; none is an amount of bytes that a system would give.
ABSURD = [-1, -(2**31), -(2**63) - 1, 2**62 + 2**31, 2**62, 2**63 - 1, 2**63, 2**64]
SIGNALS = [signal.SIGWINCH, signal.SIGURG, signal.SIGUSR1]
MODES = ["r", "rb", "w", "wb", "a+", "r+b", "x", "q", "rb+", "rt"]
TRANSPORT_FACTS = ["peername", "sockname", "sslcontext", "ssl_object", "cipher", "pipe", "subprocess", "peercert"]


class Odd:
    """Fails in every protocol of the language through which C code asks an object for something."""

    def fail(self, *_: Any, **__: Any) -> Any:
        raise OddError

    __index__ = __float__ = __int__ = __fspath__ = __len__ = __iter__ = __call__ = __await__ = fail
    __bool__ = __eq__ = __lt__ = __str__ = __contains__ = __getitem__ = __buffer__ = fileno = fail
    __hash__ = object.__hash__


class OddError(Exception):
    """What Odd raises, so that it is told from an error of hoop's own."""


class OddNumber(int):
    def __index__(self) -> int:
        raise OddError


class OddBytes(bytes):
    """A subclass, which is not to be held by reference as bytes are."""


class Shrinking(bytearray):
    """A buffer that the caller changes after having given it away."""


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import trustme

    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


class Materials:
    """Values for parameters, chosen by the round's own generator of random numbers; world is who wants them."""

    def __init__(self, random_: random.Random, world: Any) -> None:
        self.random = random_
        self.world = world
        self.suited: dict[str, Callable[[], Any]] = {}
        for names, make in self.table().items():
            self.suited.update(dict.fromkeys(names.split(), make))

    def table(self) -> dict[str, Callable[[], Any]]:
        """Names of parameters, and what makes a value for them."""
        choose, world = self.random.choice, self.world
        return {
            "host local_host server_hostname": lambda: choose([LOCALHOST, "localhost", "::1"]),
            "port": self.port,
            "addr address local_addr remote_addr remote_address sockaddr peer": lambda: (LOCALHOST, self.port()),
            "path src dst folder file_path": lambda: self.shaped(choose(NAMES)),
            "file": lambda: world.file_object(),
            "fd": lambda: choose([*world.numbers(), *world.sockets[-4:], -1, 2**31]),
            "sock": lambda: world.socket(),
            "pipe": lambda: world.pipe_end(),
            "ssl": lambda: choose([None, None, *contexts()]),
            "sslcontext context_": lambda: choose(contexts()),
            "protocol_factory factory": lambda: world.protocol_factory(),
            "protocol": lambda: world.protocol(),
            "transport": lambda: world.thing("Transport"),
            "callback func function on_connection on_connect on_message handler make": lambda: world.callback(),
            "loop": lambda: choose(world.loops),
            "coro future fut aw task main awaitable": lambda: world.awaitable(),
            "delay when timeout seconds period ttl negative_ttl": self.duration,
            "ssl_handshake_timeout ssl_shutdown_timeout happy_eyeballs_delay": self.duration,
            "data text buf buffer messages": self.data,
            "lines list_of_data": lambda: [self.data() for _ in range(3)],
            "n size bufsize nbytes length level count backlog offset high low hint max_size spin_us": self.size,
            "iterations r p dklen": lambda: choose([1, 2, 8, 16]),
            "maxmem": lambda: 0,
            "sig signal signum": lambda: choose([*SIGNALS, 9, 0, 65, -1]),
            "program cmd": lambda: choose(["true", "cat"]),
            "stdin stdout stderr": lambda: choose([None, subprocess.PIPE, subprocess.DEVNULL]),
            "executor": lambda: choose([None, world.thing("Pool")]),
            "limits": self.limits,
            "proxy_protocol": lambda: choose([None, False, hoop.ProxyProtocol(trusted=["127.0.0.0/8"])]),
            "proxy_header": lambda: choose([None, b"PROXY UNKNOWN\r\n", b"PROXY"]),
            "context": lambda: choose([None, world.context]),
            "encoding": lambda: choose([None, "utf-8", "ascii", "no such"]),
            "errors": lambda: choose(["strict", "ignore", "no such"]),
            "format": lambda: choose(["gzip", "zlib", "deflate", "no such"]),
            "mode": lambda: choose(MODES),
            "name": lambda: choose([*TRANSPORT_FACTS, "sha256", "md5", "no such"]),
            "family": lambda: choose([0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]),
            "type proto flags whence interleave buffering": lambda: choose([0, 0, 1, 2]),
            "limit": lambda: choose([1, 100, 65536]),
            "opener newline": lambda: None,  # a number that an opener returns is a descriptor from then on
            "uid gid": lambda: -1,
            "error": lambda: choose([None, ValueError("told"), OSError(errno.EPIPE, "told")]),
            "value result": self.odd,
        }

    # ---- what suits

    def port(self) -> Any:
        return self.random.choice([0, *self.world.ports()[-3:]])

    def duration(self) -> Any:
        return self.random.choice([None, 0, 0.0, -1, 1e-9, 0.001, 0.002, 5, 1e300, math.inf, -math.inf, math.nan])

    def size(self) -> Any:
        return self.random.choice([0, 1, 7, 100, 4096, 65_536, *ABSURD[:3], 2**63 - 1, 2**64])

    def data(self) -> Any:
        data = self.random.choice(BYTES)
        kinds = (bytes, bytearray, memoryview, Shrinking, OddBytes)
        return self.random.choice(kinds)(data) if self.random.random() < 0.9 else memoryview(bytearray(data))[::2]

    def shaped(self, name: str) -> Any:
        """A path as text or as bytes."""
        return name if self.random.random() < 0.8 else name.encode(errors="surrogatepass")

    def limits(self) -> Any:
        if self.random.random() < 0.5:
            return None
        return hoop.Limits(
            max_connections=self.random.choice([1, 2, None]), idle_timeout=self.random.choice([0.002, None])
        )

    # ---- what does not

    def odd(self) -> Any:
        """Anything that is safe whatever it is taken for, so never a small number."""
        simple = [None, math.nan, -1.5, *TEXTS, *BYTES, *ABSURD, (), (1, 2, 3), [], {}, {"a": 1}, object(), int, len]
        made = [
            Odd(),
            OddNumber(2**40),
            bytearray(10),
            memoryview(b"abc"),
            asyncio.Protocol(),
            ValueError,
            self.world.closed,
        ]
        things = self.world.things[-30:]
        return self.random.choice([*simple, *made, *things])

    def for_parameter(self, name: str) -> Any:
        make = self.suited.get(name)
        if make is None or self.random.random() < 0.15:
            return self.odd()
        return make()
