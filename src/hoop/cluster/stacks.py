"""The stacks of a process whose Python code cannot run: faulthandler writes them from a signal handler in C."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile
from pathlib import Path

# One that applications do not use, where the system has such: the other one is what a worker keeps for its master.
SIGNAL: int = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR1
LONGEST = 1 << 18  # bytes

STATES = {"T": "stopped by a signal", "t": "stopped by a debugger", "D": "waiting in the kernel", "Z": "dead"}


class StackFile:
    """Where one process writes its stacks and its parent reads them: memory, or a file without a name.

    Made before the fork; the process calls register(), its parent sends it SIGNAL and, a little later, calls read().
    fd: the descriptor of one that is open already.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd: int = open_nameless() if fd is None else fd

    def register(self) -> None:
        """In the process: write the stacks of all threads when SIGNAL comes, whatever runs."""
        faulthandler.register(SIGNAL, file=self.fd, all_threads=True, chain=False)

    def read(self) -> str:
        """What has been written so far."""
        return os.pread(self.fd, LONGEST, 0).decode(errors="replace").rstrip()

    def close(self) -> None:
        """Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_nameless() -> int:
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # an old kernel, a sandbox
            return os.memfd_create("hoop-stacks")
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def state_of(pid: int) -> str | None:
    """What keeps a process from running, in words, where the system tells and there is anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return STATES.get(fields[0])


def cpu_of(pid: int) -> float | None:
    """The seconds of processor time that a process has had, in user mode and in the kernel; None where the system does
    not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


def rss_of(pid: int) -> int | None:
    """The bytes of memory that a process has, shared ones among them; None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None
