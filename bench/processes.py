"""Child processes of the benchmark: each has a time limit, and each is reaped."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bench.build import ROOT
from bench.measure import pinned_to

START_LIMIT_S = 20.0  # until a server says where it listens
STOP_LIMIT_S = 2.0  # after the end of its stdin
CRASH_GRACE_S = 0.3  # a server that crashed may need this long to be gone


class ChildFailed(Exception):
    """A child process did not do what it should; the text is the reason, in one line."""


def python_environment() -> dict[str, str]:
    """The environment of Python children: the benchmark's own modules first on the path."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    return environment


class Child:
    """A running child with a pipe to its stdin and from its stdout; stderr is kept for the reason of a failure."""

    def __init__(self, command: Sequence[str], core: int | None) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (close() closes it)
        self._unread = b""
        with pinned_to(core):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=python_environment()
            )
        self.pid = self._process.pid

    def read_line(self, limit_s: float) -> str | None:
        """The next line of its output, None at the end. ChildFailed if none comes in time."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ChildFailed(f"no answer within {limit_s:g} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                return None
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def read_json(self, limit_s: float) -> dict[str, Any]:
        """The next line of its output as JSON. ChildFailed if it ends, is silent, or says something else."""
        line = self.read_line(limit_s)
        if line is None:
            raise ChildFailed(self.ending(STOP_LIMIT_S) or "closed its output")
        try:
            message = json.loads(line)
        except ValueError:
            raise ChildFailed(f"printed {line[:80]!r} where JSON was expected") from None
        if not isinstance(message, dict):
            raise ChildFailed(f"printed {line[:80]!r} where an object was expected")
        return message

    def write_line(self, line: str) -> None:
        """Write to its stdin. ChildFailed if it has gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChildFailed(self.ending(STOP_LIMIT_S) or str(error)) from None

    def end_input(self) -> None:
        """Close its stdin, by which it learns that it is to end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def ending(self, wait_s: float) -> str | None:
        """How it ended, with the last line of its stderr; None if it still runs after `wait_s`."""
        try:
            status = self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None
        return " ".join(filter(None, [_status_text(status), self._last_error_line()]))

    def _last_error_line(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        return next((line.strip()[:160] for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """End it: by the end of its stdin, else by force. It is reaped when this returns."""
        self.end_input()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._stderr.close()


@contextlib.contextmanager
def running(command: Sequence[str], core: int | None = None) -> Iterator[Child]:
    """A child that ends with the block, however the block ends."""
    child = Child(command, core)
    try:
        yield child
    finally:
        child.close()


def run_client(command: Sequence[str], core: int | None, limit_s: float) -> dict[str, Any]:
    """Run a load generator to its end and return its report. ChildFailed if it does not give one in time."""
    with running(command, core) as client:
        try:
            report = client.read_json(limit_s)
        except ChildFailed as failure:
            raise ChildFailed(f"load generator: {failure}") from None
    return report


def _status_text(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
