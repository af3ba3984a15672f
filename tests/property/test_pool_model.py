"""Pools against a model: loops in several threads submit, cancel and close at random; the pool is closed under them.

The model: a job that was accepted runs at most once. Its future has the job's result or its exception, once it has run
to its end; or is cancelled, and if that was before it ran, it never runs. Closing a loop leaves none of its pool's jobs
behind; closing a pool leaves none at all; what the executor accepted runs, whatever happens to the loop.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import hoop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DEADLINE_S = 60.0

OPERATIONS = st.sampled_from(
    ["pool"] * 6 + ["executor"] * 3 + ["raise"] * 2 + ["cancel"] * 4 + ["await"] * 3 + ["turn"] * 3
)
SCRIPTS = st.lists(st.tuples(OPERATIONS, st.integers(0, 1000)), max_size=60)
ENDINGS = st.sampled_from(["await all", "close", "shut down"])


class OnPurpose(Exception):
    """What some of the jobs raise."""


@dataclass
class Piece:
    """One job, and what the model knows of it."""

    number: int
    fails: bool
    lane: str
    runs: int = 0
    running: bool = False
    future: asyncio.Future[Any] | None = None

    def __call__(self) -> int:
        self.runs += 1
        self.running = True
        sum(range(self.number))  # some work, with chances to lose the GIL
        self.running = False
        if self.fails:
            raise OnPurpose(self.number)
        return -self.number

    def check_future(self) -> None:
        assert self.future is not None and self.future.done()
        if self.future.cancelled():
            assert self.runs <= 1
            return
        assert self.runs == 1
        error = self.future.exception()
        if self.fails:
            assert isinstance(error, OnPurpose) and error.args == (self.number,)
        else:
            assert error is None and self.future.result() == -self.number


@dataclass
class Player:
    """A loop in a thread of its own, and what it did."""

    pool: hoop.Pool
    script: list[tuple[str, int]]
    ending: str
    pieces: list[Piece] = field(default_factory=list)
    refused: int = 0
    failure: BaseException | None = None

    def play(self) -> None:
        try:
            self._play()
        except BaseException as error:
            self.failure = error

    def _play(self) -> None:
        loop = hoop.Loop(pool=self.pool)
        loop.run_until_complete(asyncio.wait_for(self._follow(loop), DEADLINE_S))
        if self.ending == "shut down":
            loop.run_until_complete(loop.shutdown_default_executor())
            assert all(piece.runs == 1 or piece.future.cancelled() for piece in self.of_lane("executor"))
        loop.close()
        for piece in self.of_lane("pool"):
            assert not piece.running
            if piece.runs == 0:
                assert piece.future.cancelled()
        for piece in self.pieces:
            if piece.future.done():
                piece.check_future()

    def of_lane(self, lane: str) -> list[Any]:
        return [piece for piece in self.pieces if piece.lane == lane]

    async def _follow(self, loop: hoop.Loop) -> None:
        for operation, number in self.script:
            if operation in ("pool", "executor", "raise"):
                self._submit(
                    loop, Piece(number, operation == "raise", "executor" if operation == "executor" else "pool")
                )
            elif operation == "turn":
                await asyncio.sleep(0)
            elif self.pieces:
                future = self.pieces[number % len(self.pieces)].future
                assert future is not None
                if operation == "cancel":
                    future.cancel()
                else:
                    await asyncio.wait([future])
        if self.ending == "await all" and self.pieces:
            await asyncio.wait([piece.future for piece in self.pieces if piece.future is not None])
            for piece in self.pieces:
                piece.check_future()

    def _submit(self, loop: hoop.Loop, piece: Piece) -> None:
        try:
            piece.future = self.pool.run(piece) if piece.lane == "pool" else loop.run_in_executor(None, piece)
        except RuntimeError as error:
            assert piece.lane == "pool" and "closed" in str(error)
            self.refused += 1
        else:
            self.pieces.append(piece)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    size=st.integers(1, 4),
    scripts=st.lists(st.tuples(SCRIPTS, ENDINGS), min_size=1, max_size=3),
    closing=st.booleans(),
)
def test_pools_agree_with_the_model(size: int, scripts: list[tuple[list[tuple[str, int]], str]], closing: bool) -> None:
    pool = hoop.Pool(size)
    players = [Player(pool, script, ending) for script, ending in scripts]
    threads = [threading.Thread(target=player.play) for player in players]
    for thread in threads:
        thread.start()
    if closing:
        pool.close()  # at some moment
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    for player in players:
        if player.failure is not None:
            raise player.failure
        assert closing or player.refused == 0
    pool.close()
    stats = pool.stats()
    pieces = [piece for player in players for piece in player.of_lane("pool")]
    assert (stats.queued, stats.running, stats.threads) == (0, 0, 0)
    assert stats.done == sum(piece.runs for piece in pieces)
    assert stats.cancelled == sum(piece.runs == 0 for piece in pieces)
