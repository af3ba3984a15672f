"""A server as a process of its own: its output is kept and can be waited for, and it is gone when the test is over."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STARTING_S = 60.0
STOPPING_S = 20.0


class ServerProcess:
    """`command` as a child process, both of its output streams as one log; `options` are those of Popen.

    As a context manager it terminates the process on leaving, and kills it if that does not help.
    """

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        self.log: list[str] = []
        self.ended = False
        self.spoken = threading.Condition()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.spoken:
                self.log.append(line)
                self.spoken.notify_all()
        with self.spoken:
            self.ended = True
            self.spoken.notify_all()

    @property
    def text(self) -> str:
        return "".join(self.log)

    def find(self, pattern: str, times: int = 1, deadline_s: float = STARTING_S) -> list[re.Match[str]] | None:
        """Wait for `times` lines that match; None if the process ended, or time ran out, without them."""

        def matches() -> list[re.Match[str]]:
            return [match for line in self.log if (match := re.search(pattern, line))]

        with self.spoken:
            self.spoken.wait_for(lambda: self.ended or len(matches()) >= times, deadline_s)
            found = matches()
        return found if len(found) >= times else None

    def wait_for(self, pattern: str, times: int = 1) -> list[re.Match[str]]:
        """As find(), for lines that have to come."""
        found = self.find(pattern, times)
        assert found is not None, f"{times} lines like {pattern!r} did not come:\n{self.text}"
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the process to end, and wait until it has; the exit status as Popen gives it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.reader.join(STOPPING_S)
        assert self.process.stdout is not None
        if not self.reader.is_alive():
            self.process.stdout.close()
        return status


def wait_for_listener(port: int) -> None:
    """Return once something listens on the port: some servers announce it before it is so."""
    deadline = time.monotonic() + STARTING_S
    while True:
        with socket.socket() as probe:
            result = probe.connect_ex(("127.0.0.1", port))
        if result == 0:
            return
        assert time.monotonic() < deadline, f"nobody listens on port {port}"
        time.sleep(0.01)
