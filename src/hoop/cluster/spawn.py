"""A worker process is a fork of the master, made between two runs of the master's loop: nothing of it is on the stack.

The child starts as an exec(2) would have it, but for the interpreter that is there already: no handlers, no blocked
signals, no wake-up descriptor, and no descriptor that the master has opened for itself. What was open before the
cluster began (the standard streams, a log file) stays open.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

EXIT_FAILED = 1
PR_GET_CHILD_SUBREAPER = 37  # prctl(2)
DESCRIPTORS = Path("/dev/fd")  # of this process: Linux (/proc/self/fd), macOS, the BSDs


@dataclass(frozen=True)
class Process:
    """A child as its parent sees it."""

    pid: int
    pidfd: int | None  # None: the system has no such thing, SIGCHLD tells of its end
    channel: socket.socket

    def signal(self, number: int) -> None:
        """Send a signal, never to another process: the child is not reaped yet. None to one that has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)

    @property
    def end_fd(self) -> int | None:
        """Becomes readable when the child has ended. None: something else tells."""
        return self.pidfd

    def exited(self) -> str | None:
        """How it ended, in words; None: it runs. Once it has ended, call close() and nothing else."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has reaped it
            return "ended, nobody knows how"
        return describe_exit(status) if pid else None

    def close(self) -> None:
        """Release what this process holds of it, but for the channel."""
        if self.pidfd is not None:
            os.close(self.pidfd)


def describe_exit(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"was killed by {name}"


def ended_children() -> Iterator[int]:
    """Children of this process that have ended and that nobody has waited for yet. If the caller does not wait for one
    of them, it is the last."""
    seen = None
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        if found is None or found.si_pid == seen:
            return
        seen = found.si_pid
        yield seen


def gets_orphans() -> bool:
    """Whether this process is the parent of processes whose own has ended: process 1 of a container, or a subreaper."""
    if os.getpid() == 1:
        return True
    if sys.platform != "linux":
        return False
    import ctypes

    is_subreaper = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(is_subreaper), 0, 0, 0)
    return is_subreaper.value != 0


def open_descriptors() -> set[int]:
    """Those of this process. The one that lists them is in it, too, and closed by now."""
    return {int(name) for name in os.listdir(DESCRIPTORS)}


def fork_process(run: Callable[[socket.socket], int], keep: Collection[int]) -> Process:
    """Have a child call run(channel) and exit with the status that it returns; keep: the descriptors that it gets.

    OSError when there is no memory, no process number or no descriptor for it; then nothing is left of it.
    """
    own, childs = socket.socketpair()
    try:
        flush_standard_streams()  # a child must not write the parent's lines again
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                live(run, childs, {*keep, childs.fileno()})
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        childs.close()
        try:
            pidfd = open_pidfd(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        return Process(pid, pidfd, own)
    except BaseException:
        own.close()
        childs.close()
        raise


def open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):  # an old kernel; a sandbox
            return None
        raise


# ---- in the child ---------------------------------------------------------------------------------------------------


def live(run: Callable[[socket.socket], int], channel: socket.socket, keep: Collection[int]) -> None:
    """All that the child does. It does not return, whatever happens: the parent's code above must not go on here."""
    status = EXIT_FAILED
    try:
        gc.freeze()  # what the master has made stays as it is, its sockets unclosed and its memory shared
        forget_signals()
        close_other_descriptors(keep)
        status = run(channel)
    except BaseException:
        traceback.print_exc()
    finally:
        flush_standard_streams()
        os._exit(status)


def forget_signals() -> None:
    """Default actions, no wake-up descriptor, nothing blocked. What the master's parent has ignored stays ignored."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_other_descriptors(keep: Collection[int]) -> None:
    for number in open_descriptors() - set(keep):
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(number)


def flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, gone, closed: nothing to lose
            stream.flush()
