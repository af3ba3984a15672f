"""What became of the names that a loop has asked about: it chooses the lane of the pool in which they are asked again.

The lanes (csrc/pool.h) keep names that are answered from waiting behind those that are not. A name starts among those
that this machine may answer by itself; the thread finds that out. Whatever the history says, libc is asked anew.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from typing import Any

from hoop.names.name_jobs import ANSWERED_NAMES, LOCAL_NAMES, OTHER_NAMES

Key = tuple[Any, ...]

MOMENT_S = 60.0  # for how long it counts what a name server did
MOST_NAMES = 1024

# No answer, of which the network may be the cause. All else is one, also "no such name".
NO_ANSWER = (socket.EAI_AGAIN, socket.EAI_FAIL)


class NameHistory:
    """For one loop; times are those of loop.time(). The name that was asked about longest ago goes first."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[Key, tuple[float, int]] = OrderedDict()  # (until when it counts, lane)

    def lane(self, key: Key, now: float) -> int:
        """Where to ask first."""
        until, lane = self._lanes.get(key, (now, LOCAL_NAMES))
        return lane if now < until else LOCAL_NAMES

    def note_answer(self, key: Key, lane: int, now: float) -> None:
        """A question that was asked last in that lane has an answer."""
        self._note(key, lane if lane == LOCAL_NAMES else ANSWERED_NAMES, now)

    def note_error(self, key: Key, lane: int, error: OSError, now: float) -> None:
        """Likewise, an error: which may be an answer, too."""
        if error.errno is None or (isinstance(error, socket.gaierror) and error.errno not in NO_ANSWER):
            self.note_answer(key, lane, now)
        else:
            self._note(key, OTHER_NAMES, now)

    def _note(self, key: Key, lane: int, now: float) -> None:
        self._lanes[key] = (now + MOMENT_S, lane)
        self._lanes.move_to_end(key)
        if len(self._lanes) > MOST_NAMES:
            self._lanes.popitem(last=False)
