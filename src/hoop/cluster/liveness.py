"""Which workers are blocked, and which are worn: looks at what their loops have written in, events for the supervisor
out. It reads no clock, no file and no board.

A loop shows on the board when it began the turn that has not ended, and counts its turns. So nobody needs to answer
for it, and it is blocked

- if one turn has lasted for blocked_timeout: the callback sleeps, computes, or waits for the GIL or a lock;
- if it is asleep, but not awake blocked_timeout after a ping: its process is stopped. A loop that has not turned for
  ping_after is pinged; that it turns is the answer.

Time in which nobody looked does not count: the watcher itself was stopped, with its machine or its terminal.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from hoop.cluster.supervisor import Blocked, Worn

LONGEST_INTERVAL = 1.0  # seconds between two looks
SHORTEST_INTERVAL = 0.05
LOOKS_PER_TIMEOUT = 4
LATE = 2.0  # intervals: a look that comes later was kept from coming
LONGEST_SILENCE = 10.0  # seconds without a turn, and then a ping
FIRST_DELAY = 1.0  # seconds until a worn worker is named again, if it is there still: its successor has failed
LONGEST_DELAY = 60.0


@dataclass(frozen=True)
class Ping:
    """Have the worker's loop turn: send it anything."""

    worker: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known of a worker at one moment."""

    turns: int
    busy_since: float | None  # None: asleep
    requests: int = 0
    accepts: int = 0
    rss: int | None = None  # bytes; None: not known


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The limits, as in hoop.cluster.Options. None: none."""

    blocked_timeout: float | None = None
    max_requests: int | None = None
    max_accepts: int | None = None
    max_rss: int | None = None
    max_lifetime: float | None = None
    jitter: float = 0.0

    @property
    def interval(self) -> float | None:
        """Seconds between two looks; None: there is nothing to look for."""
        if self.blocked_timeout is not None:
            return min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, self.blocked_timeout / LOOKS_PER_TIMEOUT))
        limits = (self.max_requests, self.max_accepts, self.max_rss, self.max_lifetime)
        return None if all(limit is None for limit in limits) else LONGEST_INTERVAL

    @property
    def ping_after(self) -> float:
        return LONGEST_SILENCE if self.blocked_timeout is None else min(LONGEST_SILENCE, self.blocked_timeout)


@dataclass
class Watched:
    """A worker that serves."""

    began: float
    limits: dict[str, float]  # its own: shortened at random
    turns: int = -1
    turned_at: float = 0.0  # when the count of turns was first seen
    held_from: float | None = None  # the turn that lasts, less the time in which nobody looked
    pinged_at: float | None = None
    large_looks: int = 0  # in a row with more than max_rss
    worn_at: float | None = None  # not to be named as worn before
    delay: float = FIRST_DELAY


class Liveness:
    """began() when a worker serves, ended() when it is to do so no longer, look() at all of them each terms.interval.

    Starting workers have start_timeout, and draining ones their drain's deadline: those are the supervisor's affair.
    """

    def __init__(self, terms: Terms, jitter: random.Random | None = None) -> None:
        self.terms = terms
        self._jitter = jitter or random.Random()
        self._watched: dict[int, Watched] = {}
        self._looked_at: float | None = None

    def began(self, worker: int, now: float) -> None:
        """It serves from now on. Its limits of requests, connections, memory and age are each the cluster's, less a
        random share of at most terms.jitter, so that workers that began together do not end together."""
        names = ("max_requests", "max_accepts", "max_rss", "max_lifetime")
        if self._looked_at is None:
            self._looked_at = now
        limits = {name: limit for name in names if (limit := getattr(self.terms, name)) is not None}
        own = {name: limit * (1.0 - self._jitter.random() * self.terms.jitter) for name, limit in limits.items()}
        self._watched[worker] = Watched(began=now, limits=own, turned_at=now)

    def ended(self, worker: int) -> None:
        """It is gone, or is to be. Idempotent."""
        self._watched.pop(worker, None)

    def look(self, looks: Mapping[int, Look], now: float) -> list[Ping | Blocked | Worn]:
        """What follows; workers that are not among looks are not looked at."""
        unseen = self._unseen(now)
        self._looked_at = now
        events: list[Ping | Blocked | Worn] = []
        for number, look in looks.items():
            watched = self._watched.get(number)
            if watched is None:
                continue
            if self.terms.blocked_timeout is not None:
                event = self._life_of(number, watched, look, now, unseen)
                if event is not None:
                    events.append(event)
            if reason := self._wear_of(watched, look, now):
                events.append(Worn(number, reason))
        return events

    def _unseen(self, now: float) -> float:
        """For how long nobody could look."""
        if self._looked_at is None or self.terms.interval is None:
            return 0.0
        gap = now - self._looked_at
        return gap - self.terms.interval if gap > LATE * self.terms.interval else 0.0

    def _life_of(self, number: int, watched: Watched, look: Look, now: float, unseen: float) -> Ping | Blocked | None:
        assert self.terms.blocked_timeout is not None
        watched.turned_at += unseen
        if watched.pinged_at is not None:
            watched.pinged_at += unseen
        if look.turns != watched.turns:
            watched.turns, watched.turned_at = look.turns, now
            watched.held_from = watched.pinged_at = None
        if look.busy_since is None:
            watched.held_from = None
            return self._silence_of(number, watched, now)
        watched.pinged_at = None
        if watched.held_from is not None:
            watched.held_from += unseen
        else:
            watched.held_from = look.busy_since if unseen == 0 else now
        return Blocked(number) if now - watched.held_from >= self.terms.blocked_timeout else None

    def _silence_of(self, number: int, watched: Watched, now: float) -> Ping | Blocked | None:
        """It is asleep, or was when it was stopped."""
        assert self.terms.blocked_timeout is not None
        if watched.pinged_at is not None:
            return Blocked(number) if now - watched.pinged_at >= self.terms.blocked_timeout else None
        if now - watched.turned_at < self.terms.ping_after:
            return None
        watched.pinged_at = now
        return Ping(number)

    def _wear_of(self, watched: Watched, look: Look, now: float) -> str | None:
        reason = self._worn_by(watched, look, now)
        if reason is None or (watched.worn_at is not None and now < watched.worn_at):
            return None
        watched.worn_at = now + watched.delay
        watched.delay = min(2 * watched.delay, LONGEST_DELAY)
        return reason

    def _worn_by(self, watched: Watched, look: Look, now: float) -> str | None:
        limits = watched.limits
        is_large = "max_rss" in limits and look.rss is not None and look.rss > limits["max_rss"]
        watched.large_looks = watched.large_looks + 1 if is_large else 0
        if "max_requests" in limits and look.requests >= limits["max_requests"]:
            return f"it has answered {look.requests} requests"
        if "max_accepts" in limits and look.accepts >= limits["max_accepts"]:
            return f"it has accepted {look.accepts} connections"
        if "max_lifetime" in limits and now - watched.began >= limits["max_lifetime"]:
            return f"it has served for {now - watched.began:.0f} s"
        if watched.large_looks >= 2 and look.rss is not None:  # one may be a moment's
            return f"it takes {look.rss / 2**20:.0f} MiB"
        return None
