"""What a call of the matrix needs around it: sockets, pipes, files, protocols, made on demand and closed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from conformance.differences.outcomes import shown_event, shown_report
from conformance.peers import DEADLINE_S, LOCALHOST, tcp_pair

SETTLING_TURNS = 12


class Noting:
    """A protocol that notes in its surroundings what it is told; data runs together."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.transport: Any = None
        self.is_lost = asyncio.Event()

    def note(self, name: str, *arguments: Any) -> None:
        self.around.events.append(shown_event(name, arguments))

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("connection_made", transport)

    def connection_lost(self, error: BaseException | None) -> None:
        self.note("connection_lost", error)
        self.is_lost.set()

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def eof_received(self) -> None:
        self.note("eof_received")


class StreamNoting(Noting, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.note("data_received", data)


class DatagramNoting(Noting, asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, address: Any) -> None:
        self.note("datagram_received", data)

    def error_received(self, error: OSError) -> None:
        self.note("error_received", error)


class ProcessNoting(Noting, asyncio.SubprocessProtocol):
    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.note("pipe_data_received", fd)

    def pipe_connection_lost(self, fd: int, error: BaseException | None) -> None:
        self.note("pipe_connection_lost", fd)

    def process_exited(self) -> None:
        self.note("process_exited")


class Surroundings:
    """Of one call."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.events: list[str] = []
        self.reports: list[str] = []
        self.is_noting = True
        self.streams: Any = asyncio  # the module whose streams are used
        self.peer: Any = None  # the other end of what was made, kept
        self.main: Any = None  # the protocol of what was made
        self.transport: Any = None
        self._stack = contextlib.ExitStack()
        self._folder: str | None = None
        loop.set_exception_handler(lambda _, context: self.reports.append(shown_report(context)))

    def close(self) -> None:
        self._stack.close()

    def owned(self, thing: Any) -> Any:
        """thing, closed at the end."""
        self._stack.callback(closed_quietly, thing)
        return thing

    @property
    def folder(self) -> str:
        if self._folder is None:
            self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        return self._folder

    def path(self, name: str = "socket") -> str:
        return os.path.join(self.folder, name)

    def file(self) -> Any:
        with open(self.path("file"), "wb") as writing:
            writing.write(b"of the file")
        return self.owned(open(self.path("file"), "rb"))

    def protocol(self) -> StreamNoting:
        return StreamNoting(self)

    def datagram_protocol(self) -> DatagramNoting:
        return DatagramNoting(self)

    def process_protocol(self) -> ProcessNoting:
        return ProcessNoting(self)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A TCP connection: ours, non-blocking, with bytes to read, and the peer's."""
        ours, peer = tcp_pair()
        peer.sendall(b"hello")
        return self.owned(ours), self.owned(peer)

    def sock(self) -> socket.socket:
        return self.pair()[0]

    def silent_pair(self) -> tuple[socket.socket, socket.socket]:
        ours, peer = tcp_pair()
        return self.owned(ours), self.owned(peer)

    def closed_sock(self) -> socket.socket:
        sock = self.sock()
        sock.close()
        return sock

    def unix_pair(self) -> tuple[socket.socket, socket.socket]:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        return self.owned(ours), self.owned(peer)

    def udp(self) -> socket.socket:
        """Bound, with a datagram to read."""
        sock = self.owned(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind((LOCALHOST, 0))
        sock.setblocking(False)
        sock.sendto(b"a datagram", sock.getsockname())
        return sock

    def fresh_sock(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = self.owned(socket.socket(socket.AF_INET, kind))
        sock.setblocking(False)
        return sock

    def listener(self, *, is_called: bool = False) -> socket.socket:
        sock = self.owned(socket.socket())
        sock.bind((LOCALHOST, 0))
        sock.listen()
        sock.setblocking(False)
        if is_called:
            self.owned(socket.create_connection(sock.getsockname(), timeout=DEADLINE_S))
        return sock

    def address(self) -> tuple[str, int]:
        return self.listener().getsockname()

    def port(self) -> int:
        return self.address()[1]

    def unix_listener_path(self) -> str:
        sock = self.owned(socket.socket(socket.AF_UNIX))
        sock.bind(self.path("listener"))
        sock.listen()
        return self.path("listener")

    def pipe(self) -> tuple[Any, Any]:
        """(reading, writing) file objects."""
        reading, writing = os.pipe()
        return self.owned(open(reading, "rb", 0)), self.owned(open(writing, "wb", 0))


def closed_quietly(thing: Any) -> None:
    with contextlib.suppress(Exception):
        thing.close()


async def settled(count: int = SETTLING_TURNS) -> None:
    """Let the loop turn until what is under way on the loopback has come."""
    for _ in range(count):
        await asyncio.sleep(0)


def in_thread(function: Callable[[], Any]) -> Any:
    """Call it in another thread while this one, the loop's, waits: its result, or the exception raised."""
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(function())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(DEADLINE_S)
    return result[0]
