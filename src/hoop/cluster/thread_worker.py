"""A worker that is a loop in a thread: what it is to the application, and its course.

A worker's loop and the main thread's tell each other things by call_soon_threadsafe(): nothing is copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl as ssl_module
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any

import hoop
from hoop.cluster.channel import Message
from hoop.cluster.options import Options
from hoop.cluster.post import Post
from hoop.cluster.worker_process import Course, Worker, of_context, of_thread, set_up_loop
from hoop.core.board import Board

Run = Callable[["ThreadWorker"], Coroutine[Any, Any, Any]]


class ThreadPost(Post):
    """Only a place on the board: a thread has no stacks that the kernel could be asked for."""

    def __init__(self, board: Board, place: int) -> None:
        self.board = board
        self.place = place


class ThreadWorker(Worker):
    """One loop of a cluster of threads: hoop.cluster.worker in the code that runs there.

    What a worker process is to its application, and state: the object that all workers of the cluster share. What they
    do with it at once is for it to bear: operations of dict, list, set and deque are whole, all else wants a lock.
    """

    def __init__(
        self,
        id: int,
        sockets: Sequence[socket.socket],
        options: Options,
        post: Post,
        ssl: ssl_module.SSLContext | None,
        state: Any,
        report: Callable[[int, Message], object],
    ) -> None:
        super().__init__(id=id, generation=0, sockets=sockets, options=options, post=post, ssl=ssl)
        self.state = state
        self._report = report

    def send(self, message: Any) -> None:
        """Send a message, any object, to the main thread: see Cluster.on_message. It is not copied."""
        self._tell({"kind": "message", "message": message})

    def _tell(self, message: Message) -> None:
        self._report(self.id, message)


class ThreadCourse(Course):
    """end() and the others below are for the worker's loop."""

    def __init__(self, worker: ThreadWorker, application: asyncio.Task[Any]) -> None:
        super().__init__(worker, application)
        self.context: Context = copy_context()

    @property
    def result(self) -> Any:
        """What the application has returned; None if it was cancelled."""
        return None if self._application.cancelled() else self._application.result()

    def hear(self, message: Any) -> None:
        """A message of the main thread."""
        try:
            self._worker._hear(message)
        except Exception as error:  # the user's
            self.loop.call_exception_handler({"message": "a handler of messages failed", "exception": error})

    def end_now(self) -> None:
        """Abort what is open, and have the application end."""
        if self._draining is None:
            self._draining = self.loop.create_task(asyncio.sleep(0))
        self._draining.cancel()
        for server in list(self.loop._servers):
            server.close()
            server.abort_clients()
        self._application.cancel()

    def _on_cut(self, connections: int) -> None:
        self._worker._tell({"kind": "cut", "connections": connections})


async def live(worker: ThreadWorker, run: Run) -> Any:
    """Run the application in the running loop until it ends, or until the worker is to end; what it has returned."""
    loop = set_up_loop(worker)
    course = ThreadCourse(worker, loop.create_task(run(worker)))
    worker._tell({"kind": "begun", "course": course})
    failure = await course.outcome()
    if failure is not None:
        raise failure
    return course.result


def run_in_thread(worker: ThreadWorker, run: Run, debug: bool | None) -> None:
    """The whole of a worker's thread. The main thread is told how it has ended."""
    of_thread.worker = worker
    of_context.set(worker)
    end: Message = {"kind": "ended", "failure": None, "result": None}
    try:
        with asyncio.Runner(debug=debug, loop_factory=hoop.new_event_loop) as runner:
            end["result"] = runner.run(live(worker, run))
    except BaseException as error:  # the main thread raises it
        end["failure"] = error
    for sock in worker.sockets:
        sock.close()
    with contextlib.suppress(ConnectionError):  # the main thread has given up waiting
        worker._tell(end)


def post_to(loop: Any, context: Context, function: Callable[..., object], *arguments: Any) -> bool:
    """Have the loop of another thread call the function, in a context of its own: the caller's says which worker is
    here. Returns whether it can: it may have been closed."""
    try:
        loop.call_soon_threadsafe(functools.partial(function, *arguments), context=context)
    except RuntimeError:
        if loop.is_closed():
            return False
        raise
    return True
