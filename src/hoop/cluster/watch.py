"""The master's eyes: looks at what the loops of its workers write on the board, and tells who is blocked or worn.

Looking wakes no worker; one that has been idle for long gets a ping (hoop.cluster.liveness says when, and why).
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from hoop.cluster.accounts import Accounts, place_name
from hoop.cluster.channel import Channel, ChannelFull
from hoop.cluster.liveness import Liveness, Look, Ping, Terms
from hoop.cluster.options import Options
from hoop.cluster.post import Post
from hoop.cluster.stacks import SIGNAL, StackFile, rss_of, state_of
from hoop.cluster.supervisor import Blocked, Worn
from hoop.core.board import Board

PLACES = 4096  # for four times as many workers as a cluster may have: two serve in a slot during a reload

logger: logging.Logger = logging.getLogger("hoop.cluster")


class Record(Protocol):
    """What the watch needs of a worker, as the master knows it."""

    @property
    def number(self) -> int: ...
    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def channel(self) -> Channel: ...
    @property
    def post(self) -> Post: ...
    @property
    def process(self) -> Any: ...


class Watch:
    """OSError if there is no memory or descriptor for its board. snapshot: of the one of the program that this process
    had before."""

    def __init__(self, options: Options, snapshot: dict[str, Any] | None = None) -> None:
        former = None if snapshot is None else former_board(snapshot["board"])
        self.board: Board = Board(PLACES) if former is None else former
        self.accounts: Accounts = Accounts(None if snapshot is None else snapshot.get("accounts"))
        self._terms = Terms(
            blocked_timeout=options.blocked_timeout,
            max_requests=options.max_requests,
            max_accepts=options.max_accepts,
            max_rss=options.max_rss,
            max_lifetime=options.max_lifetime,
            jitter=options.jitter,
        )
        self._liveness = Liveness(self._terms, random.Random())
        self._free = list(reversed(range(PLACES)))
        self._posts: dict[int, Post] = {}  # by the workers' numbers
        self._serving: dict[int, Record] = {}
        for number, place, stacks in () if snapshot is None else snapshot["posts"]:
            os.set_inheritable(stacks, False)
            if former is None:
                os.close(stacks)
            else:
                self._posts[number] = Post(self.board, place, StackFile(stacks))
                self._free.remove(place)

    def snapshot(self) -> dict[str, Any]:
        """For the Watch of another program in this process, that gets handed_on()."""
        return {
            "board": self.board.fileno(),
            "posts": [[number, post.place, post.stacks.fd] for number, post in self._posts.items()],
            "accounts": self.accounts.snapshot(),
        }

    def handed_on(self) -> set[int]:
        """The descriptors of a snapshot."""
        return {*self.descriptors(), *(post.stacks.fd for post in self._posts.values())}

    def start(self, loop: Any, tell: Callable[[Blocked | Worn], None]) -> None:
        """Look from now on; tell(event) is how the supervisor hears."""
        self._loop = loop
        self._tell = tell
        if self._terms.interval is not None:
            loop.call_later(self._terms.interval, self._look)

    # ---- the life of a worker ---------------------------------------------------------------------------------------

    def new_post(self, number: int) -> Post:
        """For the worker of that number. OSError when there is no descriptor for it."""
        place = self._free.pop()
        try:
            self.board.clear(place)
            self._posts[number] = Post(self.board, place, StackFile())
        except BaseException:
            self._free.append(place)
            raise
        return self._posts[number]

    def post_of(self, number: int) -> Post:
        """The one that was made for the worker."""
        return self._posts[number]

    def post_of_former(self, number: int) -> Post:
        """The one that the program before this one has made; another one where boards cannot be handed on."""
        return self._posts[number] if number in self._posts else self.new_post(number)

    def post_at(self, place: int, stacks: int) -> Post:
        """In a process forked of the master's, which has the board, too: a post that the master has made since."""
        return Post(self.board, place, StackFile(stacks))

    def descriptors(self) -> set[int]:
        """Those that each worker needs, besides its stacks'."""
        return {self.board.fileno()} - {-1}

    def give_back(self, number: int) -> None:
        """The worker was not made, or is gone. Idempotent."""
        post = self._posts.pop(number, None)
        if post is not None:
            post.stacks.close()
            self._free.append(post.place)

    def began(self, record: Record) -> None:
        """The worker serves."""
        self._serving[record.number] = record
        self._liveness.began(record.number, self._loop.time())

    def leaves(self, record: Record) -> None:
        """It is to end: its drain has a deadline of its own."""
        self._serving.pop(record.number, None)
        self._liveness.ended(record.number)

    def ended(self, record: Record) -> None:
        """Its process is gone; what it has counted stays."""
        self.leaves(record)
        self.accounts.retire(place_name(record), record.post.read())
        self.give_back(record.number)

    # ---- looks ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._loop.call_later(self._terms.interval, self._look)
        looks = {number: self._look_at(record) for number, record in self._serving.items()}
        for event in self._liveness.look(looks, self._loop.time()):
            match event:
                case Ping(number):
                    self._ping(self._serving[number])
                case Worn(number, reason):
                    record = self._serving[number]
                    logger.info("%s: to be replaced, %s", record.name, reason, extra=fields_of(record))
                    self._tell(event)
                case Blocked():
                    self._tell(event)

    def _look_at(self, record: Record) -> Look:
        reading = record.post.read()
        return Look(
            turns=reading.turns,
            busy_since=reading.busy_since,
            requests=reading.requests,
            accepts=reading.accepts,
            rss=None if self._terms.max_rss is None else rss_of(record.pid),
        )

    def _ping(self, record: Record) -> None:
        with suppress(ChannelFull, ConnectionError):  # it does not read: that shows; it has just ended: so does that
            record.channel.send({"kind": "ping"})

    # ---- the stack of a blocked worker ------------------------------------------------------------------------------

    def ask_for_stack(self, record: Record) -> None:
        """The worker is blocked: have it write its stack, which takes a moment. It will not serve again."""
        self.leaves(record)
        state = state_of(record.pid)
        busy_since = record.post.read().busy_since
        held = 0.0 if busy_since is None else self._loop.time() - busy_since
        what = "does not answer" if busy_since is None else f"has held its loop for {held:.1f} s"
        logger.error(
            "%s: process %d %s%s", record.name, record.pid, what, f": {state}" if state else "",
            extra=fields_of(record),
        )  # fmt: skip
        record.process.signal(SIGNAL)

    def log_stack(self, record: Record) -> None:
        """What it has written by now."""
        stack = record.post.stacks.read()
        if stack:
            logger.error("%s: its stack:\n%s", record.name, stack, extra=fields_of(record))
        else:
            logger.error("%s: it could not write its stack", record.name, extra=fields_of(record))


def former_board(fd: int) -> Board | None:
    """The board of the program before this one; None: it had none that can be handed on, or it was another hoop's."""
    if fd < 0:
        return None
    os.set_inheritable(fd, False)
    try:
        return Board(PLACES, fd=fd)
    except ValueError:
        os.close(fd)
        return None


def fields_of(record: Record) -> dict[str, Any]:
    """For logs that are read by programs."""
    return {"slot": record.slot, "worker_pid": record.pid, "generation": record.generation}
