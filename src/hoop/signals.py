"""Signals: handlers run as callbacks of the loop, and a sleeping loop wakes when any signal arrives.

While run_forever is active in the main thread, CPython writes a byte to the loop's pipe for each signal that arrives
(signal.set_wakeup_fd); the pipe only ends the poll. The Python-level handler, which CPython itself calls in the main thread,
is what schedules the callback, so a signal that arrives while the loop is not running is not lost.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVarTuple, Unpack

from hoop.base_loop import BaseLoop

Ts = TypeVarTuple("Ts")


class Signals(BaseLoop, asyncio.AbstractEventLoop):
    """add_signal_handler and the wake-up descriptor."""

    _signal_handlers: dict[int, tuple[Callable[..., Any], tuple[Any, ...], contextvars.Context]]
    _signal_pipe: tuple[int, int] | None

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], object], *args: Unpack[Ts]) -> None:
        """Call callback(*args) in the loop whenever sig arrives.

        TypeError for a coroutine function or a number that is no int; ValueError for a number that is no signal;
        RuntimeError outside of the main thread and for signals that cannot be caught.
        """
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        if not callable(callback):
            raise TypeError(f"a callable object was expected by add_signal_handler(), got {callback!r}")
        check_signal(sig)
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        former = self._signal_handlers.get(sig)
        self._signal_handlers[sig] = (callback, args, contextvars.copy_context())
        try:
            signal.signal(sig, deliver_to(self))
            signal.siginterrupt(sig, False)
        except (OSError, ValueError) as error:
            if former is None:
                del self._signal_handlers[sig]
            else:
                self._signal_handlers[sig] = former
            if isinstance(error, ValueError):
                raise RuntimeError(str(error)) from None
            raise RuntimeError(f"sig {sig} cannot be caught") from None

    def remove_signal_handler(self, sig: int) -> bool:
        """Restore the default action; whether there was a handler."""
        check_signal(sig)
        if sig not in self._signal_handlers:
            return False
        del self._signal_handlers[sig]
        try:
            signal.signal(sig, signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL)
        except OSError as error:
            raise RuntimeError(f"sig {sig} cannot be caught") from error
        return True

    def _deliver_signal(self, sig: int) -> None:
        handler = self._signal_handlers.get(sig)
        if handler is not None and not self.is_closed():
            callback, args, context = handler
            BaseLoop.call_soon_threadsafe(self, callback, *args, context=context)

    def _install_wakeup(self) -> int | None:
        """The former wake-up descriptor, or None outside of the main thread, where signals do not arrive."""
        if threading.current_thread() is not threading.main_thread():
            return None
        if self._signal_pipe is None:
            self._signal_pipe = os.pipe()
            for fd in self._signal_pipe:
                os.set_blocking(fd, False)
            BaseLoop.add_reader(self, self._signal_pipe[0], drain, self._signal_pipe[0])
            self._reference_reader(self._signal_pipe[0], False)
        return signal.set_wakeup_fd(self._signal_pipe[1], warn_on_full_buffer=False)

    def _restore_wakeup(self, former: int | None) -> None:
        if former is not None and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(former)

    def _close_signals(self, _close_fd: Callable[[int], None] = os.close) -> None:
        if self._signal_handlers:
            if not sys.is_finalizing() and threading.current_thread() is threading.main_thread():
                for sig in list(self._signal_handlers):
                    self.remove_signal_handler(sig)
            self._signal_handlers.clear()
        if self._signal_pipe is not None:
            for fd in self._signal_pipe:
                _close_fd(fd)
            self._signal_pipe = None


def deliver_to(loop: Signals) -> Callable[[int, Any], None]:
    """A handler for signal.signal that does not keep an abandoned loop alive."""
    reference = weakref.ref(loop)

    def deliver(sig: int, frame: Any) -> None:
        target = reference()
        if target is not None:
            target._deliver_signal(sig)

    return deliver


def drain(fd: int) -> None:
    """Empty the pipe. Python's own handlers have run by the time this returns: it is Python code in the main thread."""
    try:
        while len(os.read(fd, 4096)) == 4096:
            pass
    except BlockingIOError:
        pass


def check_signal(sig: object) -> None:
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")
