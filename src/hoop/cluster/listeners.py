"""The listening sockets of a cluster: the master opens them, keeps them, and hands each worker those of its slot.

A socket outlives the workers that accept from it, so what waits in its queue is never lost: the slot's next worker
takes it on. With balance "shared" all slots have the same sockets, else each has its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from typing import Any, Literal

from hoop.cluster.binds import Bind, FdBind, TcpBind, UnixBind, open_bind

Identity = tuple[int, int]  # of a file: device and inode


class Listeners:
    """Made closed; open() before the first worker. given: sockets that a service manager has opened, in place of
    binds."""

    def __init__(
        self,
        binds: Iterable[Bind],
        balance: Literal["shared", "reuseport", "port_per_worker"],
        backlog: int,
        given: Iterable[socket.socket] = (),
    ) -> None:
        self._binds = list(binds)
        self._balance = balance
        self._backlog = backlog
        self._shared: list[socket.socket] = list(given)
        self._of_slot: dict[int, list[socket.socket]] = {}
        self._first_of_bind: dict[TcpBind, list[socket.socket]] = {}
        self._files: dict[str, Identity] = {}  # of UNIX sockets that were made here
        self.are_closed: bool = False

    def open(self, slots: int) -> None:
        """OSError with the address in its text; then nothing stays open, and no file stays."""
        try:
            if self._balance == "shared":
                for bind in self._binds:
                    self._shared += open_bind(bind, self._backlog)
                    if isinstance(bind, UnixBind) and bind.is_file:
                        self._files[bind.path] = identity_of(bind.path)
            for slot in range(slots):
                self.add(slot)
        except BaseException:
            self.close()
            self.remove_files()
            raise

    def add(self, slot: int) -> None:
        """Open what a further slot needs of its own. OSError, ValueError (no such port): then nothing has changed."""
        if self._balance == "shared" or slot in self._of_slot:
            return
        sockets: list[socket.socket] = []
        try:
            for bind in self._binds:
                assert isinstance(bind, TcpBind)  # Options has looked
                if self._balance == "reuseport":
                    sockets += self._open_another(bind)
                else:
                    sockets += open_bind(bind.of_slot(slot), self._backlog)
        except BaseException:
            close_all(sockets)
            raise
        self._of_slot[slot] = sockets

    def _open_another(self, bind: TcpBind) -> list[socket.socket]:
        """One more socket on the same port, beside those of the other slots.

        The first one is bound alone, so that a port that another program has fails, though that one may share it.
        """
        first = self._first_of_bind.get(bind)
        if first is None:
            sockets = self._first_of_bind[bind] = open_bind(bind, self._backlog, reuse_port="first")
            return sockets
        port = first[0].getsockname()[1]
        return open_bind(TcpBind(bind.host, port), self._backlog, reuse_port="further")

    def sockets_of(self, slot: int) -> list[socket.socket]:
        """What the worker of a slot accepts from."""
        return [*self._shared, *self._of_slot.get(slot, ())]

    def all_sockets(self) -> list[socket.socket]:
        return [*self._shared, *(sock for sockets in self._of_slot.values() for sock in sockets)]

    def remove(self, slot: int) -> None:
        """The slot is given up: its worker has copies, and empties their queues before it closes the last ones."""
        close_all(self._of_slot.pop(slot, ()))

    def addresses(self) -> list[str]:
        """For people, each once: where clients connect to, with the port that was chosen where any was asked for."""
        return list(dict.fromkeys(address_of(sock) for sock in self.all_sockets()))

    def snapshot(self) -> dict[str, Any]:
        """All of it, as JSON has it, with the numbers of the descriptors: for restore() in the same process."""
        return {
            "shared": numbers_of(self._shared),
            "of_slot": [[slot, numbers_of(sockets)] for slot, sockets in self._of_slot.items()],
            "first_of_bind": [[str(bind), numbers_of(sockets)] for bind, sockets in self._first_of_bind.items()],
            "files": [[path, *identity] for path, identity in self._files.items()],
            "are_closed": self.are_closed,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """In place of open(), after an execve(2): the sockets are there."""
        made: dict[int, socket.socket] = {}

        def sockets_of(numbers: list[int]) -> list[socket.socket]:
            for number in numbers:
                if number not in made:
                    made[number] = socket.socket(fileno=number)
                    made[number].set_inheritable(False)
            return [made[number] for number in numbers]

        self._shared = sockets_of(snapshot["shared"])
        self._of_slot = {slot: sockets_of(numbers) for slot, numbers in snapshot["of_slot"]}
        first = dict(snapshot["first_of_bind"])
        for bind in self._binds:
            if isinstance(bind, TcpBind) and str(bind) in first:
                self._first_of_bind[bind] = sockets_of(first[str(bind)])
        self._files = {path: (device, inode) for path, device, inode in snapshot["files"]}
        self.are_closed = snapshot["are_closed"]

    def close(self) -> None:
        """Close the master's copies. Files of UNIX sockets stay: workers may accept for a while. Idempotent."""
        self.are_closed = True
        close_all(self.all_sockets())
        self._shared.clear()
        self._of_slot.clear()

    def remove_files(self) -> None:
        """Remove the files of UNIX sockets that were made here, unless another socket has taken the name meanwhile."""
        for path, identity in self._files.items():
            with contextlib.suppress(OSError):  # gone, or its directory is
                if identity_of(path) == identity:
                    os.unlink(path)
        self._files.clear()


def address_of(sock: socket.socket) -> str:
    """A bind that names this socket."""
    name = sock.getsockname()
    if sock.family == getattr(socket, "AF_UNIX", None):
        return str(UnixBind(os.fsdecode(name))) if name else str(FdBind(sock.fileno()))
    return str(TcpBind(name[0], name[1]))


def numbers_of(sockets: Iterable[socket.socket]) -> list[int]:
    return [sock.fileno() for sock in sockets]


def close_all(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def identity_of(path: str) -> Identity:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
