"""The control socket of a cluster: who may connect to it may command the master. A file of mode 0600, in the runtime
directory of its user unless a path is given.

A request is a line of JSON, {"command": "scale", "workers": 4}, and so is the answer: {"ok": true, "result": ...} or
{"ok": false, "error": "one line", "detail": "a traceback, or null"}. A connection may ask one thing after the other.
"messages" is answered again and again, with all that workers send from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from hoop.cluster.binds import UnixBind, open_bind
from hoop.cluster.looks import Looks

Json = dict[str, Any]
Unsubscribe = Callable[[], object]

LARGEST_REQUEST = 1 << 16
MOST_UNSENT = 1 << 20  # bytes of messages that a client may leave unread
BACKLOG = 16
LONGEST_NAME = 60  # characters: with its directory a socket's path must not exceed 107
SUFFIX = ".sock"
PROCESS_PREFIX = "pid-"  # of sockets of processes without a cluster: see hoop.inspect


class Commands(Protocol):
    """What the master does for the control socket. Exceptions become answers: str() as the error, and what the
    exception has as an attribute `detail` beside it."""

    def status(self) -> Json:
        """What there is, as JSON: see docs/serving.md."""
        ...

    async def blocked(self) -> Json:
        """What has held the loops of the workers, as JSON; raises if none is monitored."""
        ...

    def look(self, looks: Looks) -> Json:
        """The same, with what has happened since the looks before this one: see docs/looking_inside.md."""
        ...

    async def reload(self) -> None:
        """Returns when every worker has new code; raises if they could not have it."""
        ...

    async def upgrade(self) -> None:
        """Replace the master's own program. Returns if that has begun; raises if the new one would not start."""
        ...

    def scale(self, workers: int) -> None:
        """Begin to have that many workers."""
        ...

    def stop(self) -> None:
        """Begin to end. The end of the connection tells the client that it is over."""
        ...

    def subscribe(self, listener: Callable[[Json], None]) -> Unsubscribe:
        """Have the listener called with what workers send, until the returned function is called."""
        ...


# ---- where it is ----------------------------------------------------------------------------------------------------


def runtime_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where this user's sockets are: `hoop` in XDG_RUNTIME_DIR or /run/user/UID, else hoop-UID in the folder for
    temporary files. Made, for this user only, if it is not there. OSError if somebody else owns it or can enter it."""
    environment = os.environ if environment is None else environment
    uid = os.getuid()
    parents = [environment.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"]
    parent = next((Path(one) for one in parents if one and os.path.isdir(one) and os.access(one, os.W_OK)), None)
    folder = Path(tempfile.gettempdir()) / f"hoop-{uid}" if parent is None else parent / "hoop"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise OSError(errno.EPERM, f"{folder} is not a directory of this user alone: no place for control sockets")
    return folder


def default_path(addresses: Sequence[str], environment: Mapping[str, str] | None = None) -> Path:
    """By the first address that the cluster listens on, so that two masters of one address find one another."""
    name = re.sub(r"[^\w.-]+", "-", addresses[0].removeprefix("tcp://")).strip("-") if addresses else "none"
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST_NAME - 9]}-{digest}"
    return runtime_folder(environment) / f"{name}{SUFFIX}"


def open_control(path: Path) -> socket.socket:
    """The listening socket. A stale file gives way. OSError if a master listens there already."""
    with alone_in(path.parent):
        try:
            return open_bind(UnixBind(str(path), mode=0o600), BACKLOG)[0]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"another cluster is running: its control socket is {path}"
            else:
                text = f"no control socket: {error.strerror}"
            raise OSError(error.errno, text) from error


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other master looks for a stale file there, and replaces it, meanwhile: one would remove the other's."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"no control socket in {folder}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def find_control(wanted: str | None, environment: Mapping[str, str] | None = None) -> Path:
    """The socket to connect to: a path, a name in the runtime directory, HOOP_CONTROL, or the only one that is alive,
    clusters before processes. LookupError, in words for the user, if that is none."""
    environment = os.environ if environment is None else environment
    wanted = wanted or environment.get("HOOP_CONTROL") or None
    if wanted is not None and "/" in wanted:
        return Path(wanted)
    folder = runtime_folder(environment)
    if wanted is not None:
        return folder / f"{wanted.removesuffix(SUFFIX)}{SUFFIX}"
    alive = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if is_alive(path)]
    clusters = [path for path in alive if not path.name.startswith(PROCESS_PREFIX)]
    if len(alive) == 1 or len(clusters) == 1:
        return (clusters or alive)[0]
    if not alive:
        raise LookupError(f"no cluster of yours is running (looked in {folder}; --control names another socket)")
    names = ", ".join(path.name.removesuffix(SUFFIX) for path in alive)
    raise LookupError(
        f"several {'clusters' if clusters else 'processes'} are running: choose by --control one of {names}"
    )


def is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)


def identity_of(path: Path) -> tuple[int, int]:
    """Of a file, whatever its name: another one that takes the name is another."""
    found = path.lstat()
    return found.st_dev, found.st_ino


# ---- the server's half ----------------------------------------------------------------------------------------------


class ControlServer:
    """Answers what comes over the socket, on the master's loop, from start() to close()."""

    def __init__(self, sock: socket.socket, commands: Commands) -> None:
        self.socket = sock
        self._commands = commands
        self._server: asyncio.AbstractServer | None = None
        self.connections: set[Connection] = set()

    async def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """OSError if the loop cannot take the socket."""
        self._server = await loop.create_server(
            lambda: Connection(loop, self._commands, self.connections), sock=self.socket, backlog=BACKLOG
        )

    def close(self) -> None:
        """Accept no more, and drop what is open: clients take the end of their connections as the cluster's. The file
        is for the caller to remove. Idempotent."""
        if self._server is not None:
            self._server.close()
        self.socket.close()
        for connection in list(self.connections):
            connection.close()


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, commands: Commands, connections: set[Connection]) -> None:
        self._loop = loop
        self._commands = commands
        self._connections = connections
        self._unread = b""
        self._transport: asyncio.Transport | None = None
        self._work: asyncio.Task[None] | None = None
        self._unsubscribe: Unsubscribe | None = None
        self._dropped = 0
        self._looks = Looks()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > LARGEST_REQUEST:
            self.close()
        elif self._work is None:
            self._begin_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        if self._unsubscribe is not None:
            self._unsubscribe()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _begin_next(self) -> None:
        line, newline, rest = self._unread.partition(b"\n")
        if newline:
            self._unread = rest
            self._work = self._loop.create_task(self._answer(line))
            self._work.add_done_callback(self._on_answered)

    def _on_answered(self, work: asyncio.Task[None]) -> None:
        self._work = None
        if not work.cancelled():
            work.result()
        if self._transport is not None:
            self._begin_next()

    async def _answer(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a request is an object with a command")
            self._tell({"ok": True, "result": await self._do(request)})
        except Exception as error:
            detail = getattr(error, "detail", None)
            self._tell({"ok": False, "error": str(error) or repr(error), "detail": detail})

    async def _do(self, request: Json) -> Any:
        match request:
            case {"command": "status"}:
                return self._commands.status()
            case {"command": "blocked"}:
                return await self._commands.blocked()
            case {"command": "look"}:
                return self._commands.look(self._looks)
            case {"command": "reload"}:
                return await self._commands.reload()
            case {"command": "upgrade"}:
                return await self._commands.upgrade()
            case {"command": "scale", "workers": int(workers)}:
                return self._commands.scale(workers)
            case {"command": "stop"}:
                return self._commands.stop()
            case {"command": "messages"}:
                if self._unsubscribe is None:
                    self._unsubscribe = self._commands.subscribe(self._pass_on)
                return None
            case {"command": "tasks"}:
                raise ValueError("a master has no tasks to show: HOOP_INSPECT=1 opens a socket in each of its workers")
        raise ValueError(f"unknown command: {json.dumps(request)}")

    def _pass_on(self, message: Json) -> None:
        """A client that does not read loses messages, and is told how many."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > MOST_UNSENT:
            self._dropped += 1
            return
        if self._dropped:
            self._tell({"dropped": self._dropped})
            self._dropped = 0
        self._tell(message)

    def _tell(self, answer: Json) -> None:
        if self._transport is not None:
            self._transport.write(json.dumps(answer).encode() + b"\n")


# ---- the client's half ----------------------------------------------------------------------------------------------


class Refused(Exception):
    """The master has not done what it was asked for. str() is one line."""

    def __init__(self, text: str, detail: str | None = None) -> None:
        super().__init__(text)
        self.detail = detail


class ControlClient:
    """A connection to a master, blocking; a context manager. OSError if nobody listens at the path."""

    def __init__(self, path: Path) -> None:
        self.socket: socket.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(path))
        except OSError as error:
            self.socket.close()
            raise OSError(error.errno, f"no cluster answers at {path}: {error.strerror or error}") from error
        self._answers = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._answers.close()
        self.socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result, when there is one. Refused if the master says so, ConnectionError if it ends before that."""
        self.socket.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        answer = next(self.lines(), None)
        if answer is None:
            raise ConnectionError("the cluster has ended before it answered")
        if not answer["ok"]:
            raise Refused(answer["error"], answer["detail"])
        return answer["result"]

    def lines(self) -> Iterator[Json]:
        """What comes, until the cluster has ended."""
        with contextlib.suppress(ConnectionError):  # killed: the same end
            for line in self._answers:
                yield json.loads(line)
