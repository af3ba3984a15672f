"""What a worker is watched by: a place on the board of its cluster, and a file for its stacks.

The master makes a post, the worker takes it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from hoop.cluster.stacks import StackFile
from hoop.core.board import Board
from hoop.stats import BoardReading


class Post:
    def __init__(self, board: Board, place: int, stacks: StackFile) -> None:
        self.board = board
        self.place = place
        self.stacks = stacks

    def take(self) -> None:
        """In the worker, before anything of the application runs: its stacks can be asked for."""
        self.stacks.register()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the worker: its loop writes on the board from now on."""
        self.board.attach(loop, self.place)

    @property
    def count_request(self) -> Callable[[], None]:
        return functools.partial(self.board.count_requests, self.place)

    def read(self) -> BoardReading:
        return self.board.read(self.place)
