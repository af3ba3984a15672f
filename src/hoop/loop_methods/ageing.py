"""Limits.max_connection_age: an old connection is drained, while its server goes on."""

from __future__ import annotations

import random
import weakref
from typing import Any

from hoop.loop_methods.drains import LEAST_LOOK_S, LOOKS
from hoop.net.server_streams import ask_to_drain, close_stream, silent_among
from hoop.net.stream import StreamTransport  # type: ignore[attr-defined]

JITTER = 0.1  # the share by which ages differ: clients that came together do not come again together


def random_age(age_s: float) -> float:
    """Seconds that one connection may have."""
    return age_s * (1.0 - JITTER * random.random())


class Ageing:
    """The connections of one server, each with the timer of its age; and those that are old, until they have ended."""

    def __init__(self, loop: Any, age_s: float) -> None:
        self._loop = loop
        self._age_s = age_s
        # Weak: an abandoned connection is the collector's before it is old.
        self._timers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._old: weakref.WeakSet[Any] = weakref.WeakSet()
        self._look_timer: Any = None

    def begin(self, stream: Any) -> None:
        """A connection has come. One whose PROXY header is awaited has an age only after that."""
        if isinstance(stream, StreamTransport):
            timer = self._loop.call_later(random_age(self._age_s), self._grow_old, weakref.ref(stream))
            self._timers[stream] = timer.unref()

    def end(self, stream: Any) -> None:
        """A connection has ended."""
        timer = self._timers.pop(stream, None)
        if timer is not None:
            timer.cancel()
        self._old.discard(stream)

    def stop(self) -> None:
        """The server drains: age does not matter any more."""
        for timer in (*self._timers.values(), self._look_timer):
            if timer is not None:
                timer.cancel()
        self._timers.clear()
        self._old.clear()
        self._look_timer = None

    def _grow_old(self, reference: weakref.ref[Any]) -> None:
        stream = reference()
        if stream is None:
            return
        del self._timers[stream]
        self._old.add(stream)
        ask_to_drain(stream)
        if self._look_timer is None:
            self._look_later()

    def _look_later(self) -> None:
        look_s = max(self._loop.server_defaults.drain_for(None).idle_grace / LOOKS, LEAST_LOOK_S)
        self._look_timer = self._loop.call_later(look_s, self._look).unref()

    def _look(self) -> None:
        """As a drain does: close the silent ones."""
        self._look_timer = None
        for stream in silent_among(list(self._old), LOOKS):
            close_stream(stream)
        if self._old:
            self._look_later()
