"""hoop.systemd: telling the service manager how it goes, and taking the sockets that it listens on.

Nothing here needs systemd, or any other package: without a manager each call says so and does nothing.
(sd_notify(3), sd_listen_fds(3), systemd.socket(5))
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import MutableMapping
from dataclasses import dataclass

FIRST_FD = 3  # SD_LISTEN_FDS_START
MICROSECONDS = 1_000_000
NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The socket of the service manager, as the environment names it when this is made.

    The environment forgets it, so that children do not speak for the service. ValueError for an address that is neither
    a path nor abstract ("@name").
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self.taken: dict[str, str] = {name: environment[name] for name in NOTIFY_VARIABLES if name in environment}
        """What the environment has forgotten: for a program that takes this one's place in its process."""
        address = environment.pop("NOTIFY_SOCKET", "")
        self._watchdog_us = watchdog_us(environment)
        self._socket: socket.socket | None = None
        if not address:
            return
        if address[0] not in "/@" or len(address) < 2:
            raise ValueError(f"NOTIFY_SOCKET={address!r} is neither a path nor an abstract socket")
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    @property
    def is_managed(self) -> bool:
        """Whether there is a manager to tell."""
        return self._socket is not None

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two calls of watchdog(), half of what the manager waits for; None: it does not wait."""
        return None if self._watchdog_us is None else self._watchdog_us / 2 / MICROSECONDS

    def notify(self, *assignments: str) -> bool:
        """Send assignments ("READY=1", "STATUS=..."), in one datagram. False without a manager.

        Never blocks. OSError when the manager's socket is gone or full, ValueError for an assignment with a newline.
        """
        for assignment in assignments:
            if "\n" in assignment or "=" not in assignment:
                raise ValueError(f"an assignment is NAME=VALUE in one line, not {assignment!r}")
        if self._socket is None:
            return False
        self._socket.sendto("\n".join(assignments).encode(), self._address)
        return True

    def ready(self, status: str | None = None) -> bool:
        """The service has started, or has reloaded; status is a line for `systemctl status`. As notify()."""
        return self.notify("READY=1", *status_of(status))

    def reloading(self) -> bool:
        """A reload has begun; ready() ends it. (Type=notify-reload wants the time of it.)"""
        return self.notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str | None = None) -> bool:
        """The service is on its way out."""
        return self.notify("STOPPING=1", *status_of(status))

    def watchdog(self) -> bool:
        """The service lives: due each watchdog_interval."""
        return self.notify("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; later calls do nothing. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def status_of(text: str | None) -> list[str]:
    return [] if text is None else [f"STATUS={text}"]


def watchdog_us(environment: MutableMapping[str, str]) -> int | None:
    """What the manager waits for WATCHDOG=1, if it waits for this process; the environment forgets it."""
    text, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not text or (pid and pid != str(os.getpid())):
        return None
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"WATCHDOG_USEC={text!r} is no number of microseconds")
    return int(text)


@dataclass(frozen=True)
class ListenSocket:
    """A socket that the manager has opened. name is its FileDescriptorName=, by default the socket unit's."""

    name: str
    socket: socket.socket


def listen_sockets(environment: MutableMapping[str, str] | None = None) -> list[ListenSocket]:
    """The sockets of socket activation that are for this process, in the unit's order; none without a manager.

    The first call takes them: they are close-on-exec and non-blocking from then on, and the environment forgets them,
    so that children do not take them again. ValueError when the variables contradict one another, OSError when a
    descriptor is not there or no socket; then all of them stay open and as they were.
    """
    environment = os.environ if environment is None else environment
    pid, count, names = (environment.get(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()):
        return []  # none, or the parent's
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS={count!r} is no number")
    numbers = range(FIRST_FD, FIRST_FD + int(count))
    named = names.split(":") if names else ["unknown"] * len(numbers)  # as sd_listen_fds_with_names()
    if len(named) != len(numbers):
        raise ValueError(f"LISTEN_FDNAMES={names!r} has not a name for each of LISTEN_FDS={count}")
    for number in numbers:
        if not is_socket(number):
            raise OSError(errno.ENOTSOCK, f"descriptor {number} of LISTEN_FDS={count} is no socket")
    taken = [ListenSocket(name, adopted(number)) for name, number in zip(named, numbers, strict=True)]
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environment.pop(name, None)
    return taken


def is_socket(fd: int) -> bool:
    """OSError if fd is not open."""
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


def adopted(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock
