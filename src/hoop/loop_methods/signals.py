"""Signals: handlers run as callbacks of the loop, one call for each byte that the interpreter writes for a signal.

signal_pipe.py has the pipe that gets these bytes and shares them with other owners. A loop without handlers changes
nothing of the process: a signal ends its sleep by EINTR, and Python's own handlers run before it sleeps again.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
import weakref
from asyncio import events
from collections.abc import Callable
from typing import Any, TypeVarTuple

from hoop.loop_methods.base_loop import BaseLoop
from hoop.loop_methods.signal_pipe import SignalPipe

Ts = TypeVarTuple("Ts")


class Signals(BaseLoop, asyncio.AbstractEventLoop):
    """add_signal_handler and the wake-up descriptor."""

    _signal_handlers: dict[int, Any]  # of asyncio.Handle: prompt_toolkit reads their _callback and _args
    _signal_pipe: SignalPipe | None
    _pid: int  # the process that has made the loop

    def _begin_signals(self) -> None:
        self._signal_handlers = {}
        self._signal_pipe = None
        self._pid = os.getpid()

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
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
        try:
            pipe = self._claimed_signal_pipe()
        except (ValueError, OSError) as error:
            raise RuntimeError(str(error)) from None
        former = self._signal_handlers.get(sig)
        self._signal_handlers[sig] = asyncio.Handle(callback, args, self, None)
        try:
            signal.signal(sig, deliver_to(self, pipe))
            signal.siginterrupt(sig, False)
        except OSError:
            if former is None:
                del self._signal_handlers[sig]
            else:
                self._signal_handlers[sig] = former
            if not self._signal_handlers:
                pipe.withdraw()
            raise RuntimeError(f"sig {sig} cannot be caught") from None

    def remove_signal_handler(self, sig: int) -> bool:
        """Restore the default action. Returns whether there was a handler."""
        check_signal(sig)
        pipe = self._signal_pipe
        if pipe is None or sig not in self._signal_handlers:
            return False
        del self._signal_handlers[sig]
        try:
            pipe.restore_default(sig)
        except OSError as error:
            raise RuntimeError(f"sig {sig} cannot be caught") from error
        if not self._signal_handlers:
            pipe.withdraw()
        return True

    def _claimed_signal_pipe(self) -> SignalPipe:
        """Return the pipe, put in front if that is possible. ValueError outside of the main thread."""
        runs_here = events._get_running_loop() is self
        pipe = self._signal_pipe
        if pipe is not None:
            if not pipe.is_in_front:
                self._read_signals()
            pipe.claim(chains=runs_here)
            return pipe
        pipe = SignalPipe()
        try:
            pipe.claim(chains=runs_here)
            if self.is_running() and not runs_here:
                BaseLoop.call_soon_threadsafe(self, self._watch_signal_pipe, pipe)
            else:
                self._watch_signal_pipe(pipe)
        except BaseException:
            pipe.close()
            raise
        self._signal_pipe = pipe
        return pipe

    def _watch_signal_pipe(self, pipe: SignalPipe) -> None:
        BaseLoop.add_reader(self, pipe.reading, self._read_signals)
        self._reference_reader(pipe.reading, False)

    def _read_signals(self) -> None:
        """Schedule a callback for each byte."""
        if self._signal_pipe is not None:
            for sig in self._signal_pipe.read():
                self._handle_signal(sig)

    def _handle_signal(self, sig: int) -> None:
        handle = self._signal_handlers.get(sig)
        if handle is None:
            return
        if handle.cancelled():
            self.remove_signal_handler(sig)
        else:
            BaseLoop.call_soon_threadsafe(self, handle._callback, *handle._args, context=handle._context)

    def _hear_from_python(self, sig: int) -> None:
        """Called by a Python-level handler, in the main thread: handle sig unless the pipe gets its byte."""
        pipe = self._signal_pipe
        if pipe is not None and self._pid == os.getpid():
            for number in pipe.missed(sig):
                self._handle_signal(number)

    def _claim_signals(self) -> None:
        """A run begins: put the pipe in front."""
        pipe = self._signal_pipe
        if pipe is not None and self._signal_handlers and is_main_thread():
            if not pipe.is_in_front:
                self._read_signals()
            pipe.claim(chains=True)

    def _leave_signals(self) -> None:
        """A run ends: give the place back."""
        pipe = self._signal_pipe
        if pipe is not None and self._signal_handlers and is_main_thread():
            if pipe.passes_on():
                self._read_signals()  # the next run may be far
            pipe.leave()

    def _close_signals(self) -> None:
        """Called by close(), perhaps in a finalizer: so it uses no name of this module."""
        pipe = self._signal_pipe
        if pipe is None:
            return
        if pipe.may_change_handlers():
            for sig in self._signal_handlers:
                pipe.restore_default(sig)
        self._signal_handlers.clear()
        pipe.close()
        self._signal_pipe = None

    def _forget_signals(self) -> None:
        """Called in a child after fork(2)."""
        if self._signal_pipe is not None:
            self._signal_pipe.forget_after_fork()


def deliver_to(loop: Signals, pipe: SignalPipe) -> Callable[[int, Any], None]:
    """Return a handler for signal.signal that does not keep an abandoned loop alive."""
    reference = weakref.ref(loop)

    def deliver(sig: int, frame: Any) -> None:
        target = reference()
        if target is not None and not target.is_closed():
            target._hear_from_python(sig)
        else:
            pipe.close()  # its loop was closed where that was not possible

    return deliver


def is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def check_signal(sig: object) -> None:
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")
