"""The interpreter's wake-up descriptor, and how a loop's pipe shares that place with other owners.

CPython writes the number of each signal that has a Python-level handler to one descriptor of the process
(signal.set_wakeup_fd), whatever that handler is. asyncio learns of signals from these bytes, and so does hoop: it
counts each of them, even after the application has replaced the Python-level handler. But a process has only one such
descriptor, and other libraries want it, too (Twisted for SIGCHLD, trio's guest mode, ros2's launch). So:

- A loop without signal handlers never touches it.
- A pipe replaces another owner's descriptor only while its loop runs, passes on every byte, and puts that descriptor
  back, unless its owner has closed it meanwhile.
- A pipe leaves a descriptor alone that another owner sets during the run. The bytes then do not reach the pipe, so the
  loop goes by the Python-level handlers, which cannot count.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from asyncio.log import logger
from typing import Any, Self


class WakeupFd:
    """Another owner's wake-up descriptor. It notices when its number has come to stand for another file."""

    def __init__(self, fd: int) -> None:
        """OSError if there is no such descriptor."""
        self.fd = fd
        self._identity = identity(fd)

    @classmethod
    def of(cls, fd: int) -> Self | None:
        """None for -1, which is no descriptor, and for a closed one."""
        try:
            return None if fd < 0 else cls(fd)
        except OSError:
            return None

    def is_there(self) -> bool:
        """Whether the number still means what it meant."""
        try:
            return identity(self.fd) == self._identity
        except OSError:
            return False


def identity(fd: int) -> tuple[int, int]:
    """Device and inode: they tell a pipe or socket from the next open file that gets its number."""
    found = os.fstat(fd)
    return (found.st_dev, found.st_ino)


class SignalPipe:
    """A pipe for the numbers of signals, with non-blocking ends. Only the main thread may put it in front."""

    reading: int = -1
    writing: int = -1
    is_in_front: bool = False
    # The class keeps these: close() may run in a finalizer after modules were emptied.
    _set_wakeup_fd = staticmethod(signal.set_wakeup_fd)
    _set_handler = staticmethod(signal.signal)
    _close_fd = staticmethod(os.close)
    _is_finalizing = staticmethod(sys.is_finalizing)
    _thread_id = staticmethod(threading.get_ident)

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._former: WakeupFd | None = None  # the owner we have replaced; gets every byte from us
        self._expected: list[int] = []  # already handled: skip their numbers if they still come
        self._main_thread_id = threading.main_thread().ident
        self._actions: dict[int, Any] = dict.fromkeys(signal.valid_signals(), signal.SIG_DFL)
        self._actions[signal.SIGINT] = signal.default_int_handler
        try:
            os.set_blocking(self.reading, False)
            os.set_blocking(self.writing, False)
        except BaseException:
            self.close()
            raise

    def claim(self, *, chains: bool) -> None:
        """Make the pipe the wake-up descriptor: only if the place is free or, if chains, in front of its present owner.

        The caller must have read what the pipe holds. ValueError outside of the main thread."""
        current = self._set_wakeup_fd(self.writing, warn_on_full_buffer=False)
        if current != self.writing:
            self._former = WakeupFd.of(current)
            self._expected.clear()
        if self._former is not None and not chains:
            self._give_place_to(self._former)
            self._former = None
            return
        self.is_in_front = True

    def leave(self) -> None:
        """A run ends: give the place back to the owner from before, or to the one that came meanwhile. Without another
        owner the pipe stays, as asyncio's does, and keeps what comes before the next run."""
        current = self._set_wakeup_fd(self.writing, warn_on_full_buffer=False)
        self.is_in_front = True
        if current != self.writing:
            self._former = WakeupFd.of(current)
        if self._former is not None and self._former.is_there():
            self._give_place_to(self._former)
        self._former = None

    def withdraw(self) -> None:
        """Give the place up: the loop has no signal handler left. In the main thread."""
        current = self._set_wakeup_fd(-1)
        self.is_in_front = False
        if current != self.writing:
            self._former = WakeupFd.of(current)
        if self._former is not None and self._former.is_there():
            self._give_place_to(self._former)
        self._former = None

    def missed(self, sig: int) -> bytes:
        """Return the numbers that a Python-level handler of sig must handle at once; none if sig comes by the pipe.

        Called in the main thread. If the place is free, the pipe takes it."""
        current = self._set_wakeup_fd(self.writing, warn_on_full_buffer=False)
        if current == self.writing:
            return b""
        theirs = WakeupFd.of(current)
        self._former = None
        self.is_in_front = theirs is None
        if theirs is not None:
            self._give_place_to(theirs)
        numbers = self.read()  # sig's own may have come just before its owner changed the descriptor
        if sig not in numbers:
            numbers += bytes([sig])
            if theirs is not None:  # this owner may pass it on, as we do
                self._expected.append(sig)
        return numbers

    def _give_place_to(self, theirs: WakeupFd) -> None:
        self.is_in_front = False
        try:
            self._set_wakeup_fd(theirs.fd)
        except (ValueError, OSError) as error:  # another thread has made it blocking, or closed it
            logger.warning("the signal wake-up descriptor %d cannot be put back: %s", theirs.fd, error)
            self._set_wakeup_fd(-1)

    def read(self) -> bytes:
        """Read what has come, and return the new numbers, one byte each. The former owner gets all. In any thread."""
        numbers = b""
        try:
            while len(numbers) % 4096 == 0:
                numbers += os.read(self.reading, 4096)
        except BlockingIOError:
            pass
        if self._former is not None and numbers:
            self._pass_on(self._former, numbers)
        return bytes(number for number in numbers if self._is_news(number)) if self._expected else numbers

    def _is_news(self, number: int) -> bool:
        if number not in self._expected:
            return True
        self._expected.remove(number)
        return False

    def _pass_on(self, former: WakeupFd, numbers: bytes) -> None:
        if not former.is_there():
            self._former = None
            return
        try:
            os.write(former.fd, numbers)
        except BlockingIOError:
            pass  # full, so its reader will wake: the interpreter, too, would have dropped them
        except OSError as error:
            self._former = None
            logger.warning("the signal wake-up descriptor %d takes no more bytes: %s", former.fd, error)

    def passes_on(self) -> bool:
        """Whether a former owner gets its bytes from read()."""
        return self._former is not None

    def may_change_handlers(self) -> bool:
        """Whether this is the main thread, and the interpreter is not ending."""
        return not self._is_finalizing() and self._thread_id() == self._main_thread_id

    def restore_default(self, sig: int) -> None:
        """OSError if the signal cannot be caught."""
        self._set_handler(sig, self._actions[sig])

    def forget_after_fork(self) -> None:
        """In a child, give the place up: what the interpreter writes there would reach the parent's loop."""
        if self.is_in_front:
            self._former = None
            self.withdraw()

    def close(self) -> None:
        """Close both ends. Idempotent. Outside of the main thread a pipe in front stays open, since the interpreter
        still writes to that number; the next signal's handler closes it, or its finalizer once the handler has gone."""
        if self.reading < 0:
            return
        if self.is_in_front:
            if self._thread_id() != self._main_thread_id:
                return
            self.withdraw()
        reading, self.reading = self.reading, -1
        writing, self.writing = self.writing, -1
        self._close_fd(reading)
        self._close_fd(writing)

    def __del__(self) -> None:
        if not self._is_finalizing():
            self.close()
