"""Start a cluster in processes of its own, read its log, talk to it, and leave none of its processes behind."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

PATIENCE_S = 60.0
IS_SANITIZED = os.environ.get("HOOP_SANITIZED") == "1"  # slow, and with much memory of its own

# Answers each line: "who" with "PID SLOT GENERATION VERSION"; the other commands are below.
LINES_APP = """
import asyncio, os, signal, sys, time
import hoop, hoop.cluster

VERSION = "1"

def say(*words):  # a line of log in one write(2): other processes write, too
    sys.stdout.write(" ".join(map(str, words)) + "\\n")

async def handle(reader, writer):
    worker = hoop.cluster.worker
    with __import__("contextlib").suppress(ConnectionError):
        while line := await reader.readline():
            command, *words = line.decode().split()
            if command == "who":
                answer = f"{os.getpid()} {worker.id} {worker.generation} {VERSION}"
            elif command == "exit":
                os._exit(int(words[0]))
            elif command == "block":
                time.sleep(float(words[0]))
                answer = "unblocked"
            elif command == "wait":
                await asyncio.sleep(float(words[0]))
                answer = "waited"
            elif command == "run":
                names = {**globals(), "worker": worker}
                exec(line.decode().removeprefix("run "), names)
                answer = str(names.get("answer"))
            writer.write(answer.encode() + b"\\n")
            await writer.drain()
    writer.close()

async def main(worker):
    for sock in worker.sockets:
        await hoop.start_server(handle, sock=sock)
    worker.ready()
    global is_over
    is_over = asyncio.Event()
    await is_over.wait()
"""


class Cluster:
    """A master and its workers, in a process group of their own; what they write is the log."""

    def __init__(self, program: str, folder: Path, env: dict[str, str] | None = None, **popen: Any) -> None:
        # Python takes two versions of a module for one that are of the same second and length.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", program],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **popen,
        )
        assert self.process.stdout is not None
        self._output = self.process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._unread = b""
        self._is_at_end = False
        self.lines: list[str] = []  # of the log, all that were read
        self._seen = 0  # of them, by expect()

    # ---- the log ----------------------------------------------------------------------------------------------------

    def expect(self, pattern: str, patience_s: float = PATIENCE_S) -> re.Match[str]:
        """The next line of the log, after those of earlier calls, that has pattern in it."""
        deadline = time.monotonic() + patience_s
        while True:
            while self._seen < len(self.lines):
                line = self.lines[self._seen]
                self._seen += 1
                if found := re.search(pattern, line):
                    return found
            if self._is_at_end or not self._read(deadline - time.monotonic()):
                raise AssertionError(f"no {pattern!r} in the log:\n" + "\n".join(self.lines))

    def _read(self, patience_s: float) -> bool:
        """Wait for more of the log. False when the time is over."""
        if not self._selector.select(max(patience_s, 0)):
            return False
        data = self._output.read(1 << 16)
        if data is None:
            return True
        self._is_at_end = not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        if self._is_at_end and self._unread:
            lines.append(self._unread)
        self.lines += [line.decode(errors="replace") for line in lines]
        return True

    def rest(self, patience_s: float = PATIENCE_S) -> str:
        """The whole log, when every process that writes it has ended."""
        deadline = time.monotonic() + patience_s
        while not self._is_at_end:
            assert self._read(deadline - time.monotonic()), "a process is left:\n" + "\n".join(self.lines)
        return "\n".join(self.lines)

    # ---- the processes ----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The master's."""
        return self.process.pid

    def send(self, number: int) -> None:
        """Send the master a signal."""
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal, and see that no process is left; the exit status."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """The exit status; every process of it has ended."""
        status = self.process.wait(PATIENCE_S)
        self.rest()
        return status

    def close(self) -> None:
        """End what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._selector.close()
        self._output.close()

    # ---- clients ----------------------------------------------------------------------------------------------------

    def serving(self) -> Address:
        """Wait until all workers serve; where."""
        return address_in(self.expect(r"serving on (\S+?),? ")[1])


Address = tuple[str, int] | str


def address_in(text: str) -> Address:
    """What connect(2) gets for a bind."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:").replace("@", "\0", 1)
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def cluster(
    folder: Path, source: str = LINES_APP, *, env: dict[str, str] | None = None, **settings: Any
) -> Iterator[Cluster]:
    """Two workers of app:main, by default on a port that is free; settings are those of hoop.cluster.Options."""
    (folder / "app.py").write_text(source)
    settings = {"workers": 2, "bind": "127.0.0.1:0", "control": False, **settings}
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    program = f"import hoop, hoop.cluster\nhoop.cluster.run('app:main', {arguments})"
    with started(program, folder, env) as running:
        yield running


@contextlib.contextmanager
def started(program: str, folder: Path, env: dict[str, str] | None = None, **popen: Any) -> Iterator[Cluster]:
    """A program that runs a cluster."""
    running = Cluster(program, folder, env, **popen)
    try:
        yield running
    finally:
        running.close()


class Client:
    """A connection to LINES_APP, one line at a time."""

    def __init__(self, address: Address) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address)
        self._answers = self.socket.makefile("r")

    def ask(self, line: str) -> str:
        """ConnectionError when the connection ends before an answer."""
        self.send(line)
        return self.answer()

    def send(self, line: str) -> None:
        self.socket.sendall(line.encode() + b"\n")

    def answer(self) -> str:
        answer = self._answers.readline()
        if not answer:
            raise ConnectionError("ended without an answer")
        return answer.rstrip("\n")

    def is_ended(self) -> bool:
        """Wait for the end of the connection, with no byte before it."""
        return self._answers.read() == ""

    def close(self) -> None:
        self._answers.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def ask(address: Address, line: str = "who") -> str:
    """The answer on a connection of its own, which does not keep its port for a minute: some tests make thousands."""
    with Client(address) as client:
        answer = client.ask(line)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return answer


@contextlib.contextmanager
def clients_that_lose_nothing(address: Address) -> Iterator[None]:
    """Two clients with a connection for each request, for the length of the block: each is answered."""
    failures: list[BaseException] = []
    is_over = threading.Event()
    answers = [0, 0]

    def come_and_go(number: int) -> None:
        try:
            while not is_over.is_set():
                assert ask(address)
                answers[number] += 1
        except BaseException as error:
            failures.append(error)

    clients = [threading.Thread(target=come_and_go, args=(number,)) for number in (0, 1)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        is_over.set()
        for client in clients:
            client.join(PATIENCE_S)
    assert failures == []
    assert min(answers) > 0


def workers_of(address: Address, count: int) -> dict[int, int]:
    """Ask until that many workers have answered; slot: pid."""
    found: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline, found
        pid, slot, *_ = ask(address).split()
        found[int(slot)] = int(pid)
    return found


def until(is_so: Callable[[], bool]) -> None:
    """Look again and again: what happens in another process soon, and says nothing."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        os.sched_yield()


def refuses(address: Address) -> bool:
    """Whether nobody listens there."""
    try:
        Client(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # ProcessLookupError: it went between open(2) and read(2)
        return False
