"""Where a cluster listens: addresses as text, and the sockets that they become.

    tcp://0.0.0.0:8000   0.0.0.0:8000   [::]:8000   :8000   localhost:8000
    unix:/run/app.sock?mode=0660&owner=www-data&group=www-data   unix:@abstract
    fd://3   (a socket that the parent has opened: a service manager, a test)

The master opens them once and keeps them (see listeners.py); workers get them by fork.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

LAST_PORT = 0xFFFF


@dataclass(frozen=True)
class TcpBind:
    host: str  # numeric, or a name; "" for all interfaces of both families
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    def of_slot(self, slot: int) -> TcpBind:
        """With a port for each worker: ValueError if there is no such port. Port 0 is any port, for each anew."""
        if self.port and self.port + slot > LAST_PORT:
            raise ValueError(f"bind {str(self)!r}: worker {slot} would have the port {self.port + slot}")
        return TcpBind(self.host, self.port + slot if self.port else 0)


@dataclass(frozen=True)
class UnixBind:
    path: str  # abstract: begins with NUL
    mode: int | None = None
    owner: str | None = None
    group: str | None = None

    def __str__(self) -> str:
        return f"unix:{self.path.replace(chr(0), '@', 1)}"

    @property
    def is_file(self) -> bool:
        return self.path[0] != "\0"


@dataclass(frozen=True)
class FdBind:
    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


Bind = TcpBind | UnixBind | FdBind
ReusePort = Literal["first", "further"] | None


def parse_bind(text: str) -> Bind:
    """ValueError, with the text in it, for what is no address."""
    if text.startswith("unix:"):
        return parse_unix(text)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not number.isdecimal():
            raise ValueError(f"bind {text!r}: {number!r} is no descriptor")
        return FdBind(int(number))
    scheme, separator, _ = text.partition("://")
    if separator and scheme != "tcp":
        raise ValueError(f"bind {text!r}: unknown scheme {scheme!r}; tcp, unix and fd are known")
    return parse_tcp(text)


def parse_tcp(text: str) -> TcpBind:
    try:
        parts = urlsplit(text if "://" in text else f"tcp://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"bind {text!r}: {error}") from None
    if port is None or parts.path or parts.query or parts.username is not None:
        raise ValueError(f"bind {text!r} is no HOST:PORT")
    return TcpBind(host, port)


def parse_unix(text: str) -> UnixBind:
    path, _, query = text.removeprefix("unix:").removeprefix("//").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not path or path == "@":
        raise ValueError(f"bind {text!r} names no path")
    mode = options.pop("mode", None)
    owner, group = options.pop("owner", None), options.pop("group", None)
    if options:
        raise ValueError(f"bind {text!r}: unknown option {next(iter(options))!r}; mode, owner and group are known")
    try:
        bits = None if mode is None else int(mode, 8)
    except ValueError:
        bits = -1
    if bits is not None and not 0 <= bits <= 0o777:
        raise ValueError(f"bind {text!r}: mode {mode!r} is no octal number up to 777")
    if path[0] == "@":
        if bits is not None or owner or group:
            raise ValueError(f"bind {text!r}: an abstract socket has no mode and no owner")
        path = "\0" + path[1:]
    return UnixBind(path, bits, owner, group)


def open_bind(bind: Bind, backlog: int, *, reuse_port: ReusePort = None) -> list[socket.socket]:
    """Listening, non-blocking sockets. OSError with the address in its text: in use, not allowed, not there.

    reuse_port: whether others may listen on the same port: "further", with those that do already; "first", later ones.
    """
    try:
        if isinstance(bind, FdBind):
            return [adopt(bind.fd)]
        if isinstance(bind, UnixBind):
            return [open_unix(bind, backlog)]
        return open_tcp(bind, backlog, reuse_port)
    except OSError as error:
        text = error.strerror if isinstance(error, Refused) or error.errno is None else os.strerror(error.errno)
        if isinstance(error, socket.gaierror):
            text = error.strerror
        raise OSError(error.errno, f"cannot listen on {bind}: {text}") from error
    except LookupError as error:  # shutil.chown knows no such user
        raise OSError(errno.EINVAL, f"cannot listen on {bind}: {error.args[0]}") from error


class Refused(OSError):
    """An error that says more than its number."""


def adopt(fd: int) -> socket.socket:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise OSError(errno.ENOTSOCK, "not a socket")
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def open_tcp(bind: TcpBind, backlog: int, reuse_port: ReusePort) -> list[socket.socket]:
    """One for each address that the host has; with port 0 all get the port that the first one gets."""
    infos = socket.getaddrinfo(bind.host or None, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    port = bind.port
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT and len(infos) > 1:  # a system without IPv6
                    continue
                raise
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if reuse_port == "further":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address[0], port, *address[2:]))
            if reuse_port == "first":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.listen(backlog)
            sock.setblocking(False)
            port = sock.getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def open_unix(bind: UnixBind, backlog: int) -> socket.socket:
    """A stale file gives way; one that a server listens on does not."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    is_bound = False
    try:
        if bind.is_file:
            remove_stale(bind.path)
        bind_with_mode(sock, bind)
        is_bound = True
        if bind.owner is not None:
            shutil.chown(bind.path, user=bind.owner)
        if bind.group is not None:
            shutil.chown(bind.path, group=bind.group)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException as error:
        sock.close()
        if is_bound and bind.is_file:
            os.unlink(bind.path)
        if isinstance(error, OSError) and str(error) == "AF_UNIX path too long":
            raise Refused(errno.ENAMETOOLONG, "the path is too long for a socket") from None
        raise
    return sock


def bind_with_mode(sock: socket.socket, bind: UnixBind) -> None:
    """The file has the mode from its first moment on: a chmod(2) later would let others in before it."""
    if bind.mode is None:
        sock.bind(bind.path)
        return
    mask = os.umask(0o777 & ~bind.mode)
    try:
        sock.bind(bind.path)
        os.chmod(bind.path, bind.mode)  # a default ACL of the directory may have changed it
    finally:
        os.umask(mask)


def remove_stale(path: str) -> None:
    """Remove a socket that no server listens on. Refused if one does, or if it is something else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Refused(errno.EADDRINUSE, "something else than a socket has that name")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) in (0, errno.EAGAIN):
            raise Refused(errno.EADDRINUSE, "a server listens there")
    os.unlink(path)
