"""The servers that are compared: how each is started, told to reload, and asked for its workers."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.build import ROOT
from bench.processes import ChildFailed
from bench.serving.application import code_of

STARTING_S = 30.0  # until every worker has answered
STOPPING_S = 10.0
ANSWER_S = 5.0
TARGET = "served:application"  # the file of that name in the server's folder
HOOP = "hoop"

Command = Callable[[int, int], list[str]]  # of a port and a number of workers


@dataclass(frozen=True)
class ServerKind:
    """A server; `packages` are those whose versions matter, the first is its own. All take SIGHUP as "reload"."""

    name: str
    packages: tuple[str, ...]
    command: Command

    def is_installed(self) -> bool:
        """Whether all of its packages are here."""
        return all(importlib.util.find_spec(name.replace("-", "_")) is not None for name in self.packages)

    def versions(self) -> str:
        """As a table's head has them: "gunicorn 27.0.1, uvicorn-worker 0.4.0"."""
        return ", ".join(f"{name} {_version(name)}" for name in self.packages)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(source tree)"


def _uvicorn(port: int, workers: int) -> list[str]:
    return [*"-m uvicorn --no-access-log --timeout-graceful-shutdown 30".split(), *_where(port, workers), TARGET]


def _gunicorn(port: int, workers: int) -> list[str]:
    options = ["--bind", f"127.0.0.1:{port}", "--workers", str(workers), "-k", "uvicorn_worker.UvicornWorker"]
    return ["-m", "gunicorn", *options, TARGET]


def _granian(port: int, workers: int) -> list[str]:
    return [*"-m granian --interface asgi --respawn-failed-workers".split(), *_where(port, workers), TARGET]


def _hypercorn(port: int, workers: int) -> list[str]:
    options = ["--bind", f"127.0.0.1:{port}", "--workers", str(workers), "-k", "uvloop", "--graceful-timeout", "30"]
    return ["-m", "hypercorn", *options, TARGET]


def _hoop(port: int, workers: int) -> list[str]:
    return ["-m", "hoop", "serve", TARGET, "--bind", f"127.0.0.1:{port}", "--workers", str(workers)]


def _where(port: int, workers: int) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]


# Each as its manual has it, on the fastest loop that it can have, and told to replace workers that die.
SERVERS = {
    kind.name: kind
    for kind in (
        ServerKind("uvicorn", ("uvicorn", "uvloop"), _uvicorn),
        ServerKind("gunicorn", ("gunicorn", "uvicorn-worker", "uvloop"), _gunicorn),
        ServerKind("granian", ("granian", "uvloop"), _granian),
        ServerKind("hypercorn", ("hypercorn", "uvloop"), _hypercorn),
        ServerKind(HOOP, ("hoop", "uvicorn"), _hoop),
    )
}


class Serving:
    """A running server with its folder, in a session of its own."""

    def __init__(self, kind: ServerKind, workers: int, folder: Path) -> None:
        self.kind = kind
        self.workers = workers
        self.folder = folder
        self.generation = 0
        self.port = _free_port()
        self._log = (folder / "log").open("wb")
        self.deploy()
        search = os.pathsep.join(filter(None, [str(folder), str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *kind.command(self.port, workers)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )

    def deploy(self, *, broken: bool = False) -> None:
        """Put the next version of the code in place, as a deploy does; nobody is told."""
        self.generation += 1
        new = self.folder / "new"
        new.write_text(code_of(self.generation, broken=broken))
        new.rename(self.folder / "served.py")

    def reload(self, *, broken: bool = False) -> None:
        """Deploy the next version and tell the server."""
        self.deploy(broken=broken)
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        """All that it has said."""
        return (self.folder / "log").read_text(errors="replace")

    def ask(self, path: str = "/") -> tuple[int, int] | None:
        """(pid, generation) that a new connection is answered by; None without an answer."""
        request = f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode()
        answer = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), ANSWER_S) as sock:
                sock.sendall(request)
                while data := sock.recv(65536):
                    answer += data
        except OSError:
            return None
        return parsed(answer)

    def wait_until_up(self) -> set[int]:
        """The pids of all workers, once each has answered. ChildFailed if they do not come."""
        deadline = time.monotonic() + STARTING_S
        pids: set[int] = set()
        while len(pids) < self.workers:
            if self.process.poll() is not None or time.monotonic() > deadline:
                last = self.log().strip().splitlines()[-1:]
                raise ChildFailed(f"{self.kind.name} has not come up: {' '.join(last)}")
            answer = self.ask()
            if answer is None:
                time.sleep(0.02)
            else:
                pids.add(answer[0])
        return pids

    def stop(self) -> None:
        """End it, by force if need be, with all of its processes."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOPPING_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


@contextlib.contextmanager
def serving(kind: ServerKind, workers: int) -> Iterator[Serving]:
    """The server, up, for the length of the block."""
    with tempfile.TemporaryDirectory() as folder:
        server = Serving(kind, workers, Path(folder))
        try:
            server.wait_until_up()
            yield server
        finally:
            server.stop()


def parsed(answer: bytes) -> tuple[int, int] | None:
    """(pid, generation) of a whole answer with status 200."""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = body.split()
    if not head.startswith(b"HTTP/1.1 200") or len(words) != 2:
        return None
    return int(words[0]), int(words[1])


def children_of(pid: int) -> set[int]:
    """The child processes of a process."""
    found = set()
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return found


def _free_port() -> int:
    """A port below those that the kernel gives to clients, one of which could take it before the server binds it."""
    while True:
        with contextlib.suppress(OSError):
            with socket.create_server(("127.0.0.1", random.randrange(10240, 32768))) as probe:
                return int(probe.getsockname()[1])
