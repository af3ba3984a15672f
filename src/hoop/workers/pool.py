"""hoop.WorkerPool: CPU work in processes, threads or interpreters that stay, dispatched by the loop itself.

A task waits in the pool's queue, runs in one worker, and ends once: with a result, an error, a timeout, a cancellation
or the death of its worker. No queue is shared with workers, so a death costs the task that ran, and no other.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from hoop_worker import LARGE, Aside, LargeBytes

from hoop.core.checks import check_count, check_seconds
from hoop.core.other_loops import unref
from hoop.core.processors import has_gil, usable_processors
from hoop.jobs.pool import PoolFull
from hoop.stats import WorkerPoolStats
from hoop.workers.interpreter_worker import InterpreterWorker
from hoop.workers.process_worker import ProcessWorker, WorkerDied, pack_call
from hoop.workers.thread_worker import ThreadWorker

T = TypeVar("T")
Worker = Any  # one of these
KINDS: dict[str, Worker] = {"process": ProcessWorker, "thread": ThreadWorker, "interpreter": InterpreterWorker}
NO_MEMORY: Aside = Aside(-1)  # what goes to an interpreter has no memory beside it

FAILED_STARTS = 3  # in a row, after which tasks get the reason instead of waiting for a worker that cannot be


class Stage(enum.Enum):
    """Of a task."""

    QUEUED = 1
    RUNNING = 2
    DONE = 3


class Task:
    __slots__ = ("call", "future", "stage", "timeout", "timer", "worker")

    def __init__(self, future: asyncio.Future[Any], call: Any, timeout: float | None) -> None:
        self.future: asyncio.Future[Any] = future
        self.call: Any = call  # as its kind of worker wants it; None once it runs
        self.stage: Stage = Stage.QUEUED
        self.timeout: float | None = timeout
        self.timer: asyncio.TimerHandle | None = None
        self.worker: Worker = None


class WorkerPool:
    """Runs functions in workers, each of which has one task at a time. (Node: piscina)

    kind: "process"; "thread", for interpreters without the GIL, and functions that release it; "interpreter", a
        subinterpreter with a GIL of its own in a thread (from Python 3.14 on); "auto" takes threads where there is no
        GIL, else processes. Functions, arguments and results of a process must pickle, and a program that uses
        processes needs `if __name__ == "__main__":` around what starts it, as with multiprocessing.
    min_workers: kept when idle. max_workers: at most; by default the processors that this process may use.
    idle_timeout: seconds after which a further idle worker ends. None: never.
    queue_limit: tasks that may wait. None: any number.
    max_tasks_per_worker: after so many it is replaced. max_memory: bytes of resident memory beyond which a process is
        replaced after its task (Linux; elsewhere its peak).
    initializer: called with initargs in each worker before its first task.
    nice: added to the niceness of worker processes, so that they leave the loop its processor (nice(2)).

    A pool belongs to the loop in which it is first used. ValueError or TypeError for options that make no sense.
    """

    def __init__(
        self,
        kind: Literal["auto", "process", "thread", "interpreter"] = "auto",
        *,
        min_workers: int = 0,
        max_workers: int | None = None,
        idle_timeout: float | None = 30.0,
        queue_limit: int | None = None,
        max_tasks_per_worker: int | None = None,
        max_memory: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        nice: int = 0,
    ) -> None:
        if kind not in ("auto", "process", "thread", "interpreter"):
            raise ValueError(f"kind must be 'auto', 'process', 'thread' or 'interpreter', not {kind!r}")
        if kind == "interpreter" and sys.version_info < (3, 14):
            raise ValueError("kind='interpreter' needs Python 3.14 or newer")
        check_count("max_workers", max_workers)
        check_count("max_tasks_per_worker", max_tasks_per_worker)
        check_seconds("idle_timeout", idle_timeout)
        self._max_workers = max_workers or usable_processors()
        for name, count in (("min_workers", min_workers), ("queue_limit", queue_limit or 0)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be a whole number from 0 on, not {count!r}")
        if min_workers > self._max_workers:
            raise ValueError(f"min_workers={min_workers} is more than max_workers={self._max_workers}")
        if max_memory is not None and (not isinstance(max_memory, int) or max_memory <= 0):
            raise ValueError(f"max_memory must be a number of bytes or None, not {max_memory!r}")
        if kind == "auto":
            kind = "process" if has_gil() else "thread"
        if kind != "process" and (max_memory is not None or nice):
            raise ValueError("max_memory and nice are for worker processes")
        self.kind: Literal["process", "thread", "interpreter"] = kind
        self._min_workers = min_workers
        self._idle_timeout = idle_timeout
        self._queue_limit = queue_limit
        self._options = {"max_tasks": max_tasks_per_worker, "max_memory": max_memory, "nice": nice}
        self._initializer = (initializer, initargs)

        self._loop: Any = None
        self._pid = os.getpid()
        self._queue: deque[Task] = deque()
        self._waiting = 0  # of the queue's tasks, those that nobody has cancelled
        self._starting: set[Worker] = set()
        self._idle: dict[Worker, asyncio.TimerHandle | None] = {}  # the one that was busy last is the last
        self._busy: dict[Worker, Task] = {}
        self._ending: set[Worker] = set()  # they get no more tasks
        self._failed_starts = 0
        self._is_closed = False
        self._all_gone: asyncio.Future[None] | None = None
        self._counts = dict.fromkeys(("done", "failed", "cancelled", "timeouts", "refused", "deaths", "started"), 0)

    # ---- for users ------------------------------------------------------------------------------------------------

    async def run(
        self, function: Callable[..., T], *arguments: Any, timeout: float | None = None, **keywords: Any
    ) -> T:
        """What function(*arguments, **keywords) returns in a worker, or what it raises.

        timeout: seconds that it may run; waiting for a worker does not count. If they pass, or the caller is
        cancelled, a process that runs it is killed and replaced (a thread or an interpreter
        goes on, and its outcome is dropped).

        TimeoutError; PoolFull if queue_limit tasks wait; WorkerDied if the process ended; RuntimeError if the pool is
        closed, of another loop, or no worker can start; what pickle raises for what cannot go to another process.
        """
        self._enter()
        check_seconds("timeout", timeout)
        call = self._call_of(function, arguments, keywords)
        if self._queue_limit is not None and not self._idle and self._waiting >= self._queue_limit and self._is_busy():
            self._counts["refused"] += 1
            raise PoolFull(f"{self._waiting} tasks wait already")
        task = Task(self._loop.create_future(), call, timeout)
        self._queue.append(task)
        self._waiting += 1
        self._dispatch()
        try:
            result: T = await task.future
            return result
        except asyncio.CancelledError:
            self._counts["cancelled"] += 1
            self._abort(task)
            raise

    def stats(self) -> WorkerPoolStats:
        """What there is now, and what has happened so far."""
        return WorkerPoolStats(
            starting=len(self._starting),
            idle=len(self._idle),
            running=len(self._busy),
            queued=self._waiting,
            **self._counts,
        )

    async def close(self) -> None:
        """Take no more tasks, wait until those that were taken have ended, then end the workers."""
        self._enter(even_closed=True)
        self._is_closed = True
        self._shrink()
        while self._starting or self._idle or self._busy or self._ending:
            if self._all_gone is None:
                self._all_gone = self._loop.create_future()
            await asyncio.shield(self._all_gone)

    def terminate(self) -> None:
        """End every worker at once. What ran or waited ends with WorkerDied. Idempotent."""
        self._is_closed = True
        if self._loop is None or self._loop.is_closed() or self._pid != os.getpid():
            return
        error = WorkerDied("the pool was terminated")
        while self._queue:
            self._finish(self._queue.popleft(), error=error)
        for task in list(self._busy.values()):
            self._finish(task, error=error)
        for worker in [*self._starting, *self._idle, *self._busy]:
            self._retire(worker)

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.terminate()
        await self.close()

    def executor(self) -> concurrent.futures.Executor:
        """The pool for loop.run_in_executor(), and for other threads. RuntimeError outside of the pool's loop."""
        self._enter()
        return WorkerExecutor(self)

    # ---- taking tasks ---------------------------------------------------------------------------------------------

    def _enter(self, *, even_closed: bool = False) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            for _ in range(self._min_workers):
                self._start()
        if self._loop is not loop or self._pid != os.getpid():
            raise RuntimeError("a WorkerPool belongs to one loop of one process, and this is another one")
        if self._is_closed and not even_closed:
            raise RuntimeError("the pool is closed")

    def _call_of(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.kind == "thread":
            return function, arguments, keywords
        if self.kind == "interpreter":
            if getattr(function, "__module__", None) == "__main__":
                raise ValueError(
                    f"{function!r} is of the main module, which imports hoop, and hoop does not load in "
                    "subinterpreters: put it into a module of its own"
                )
            return function, arguments, keywords
        process = sys.modules.get("multiprocessing.process")  # not loaded: this is no process of a pool
        if process is not None and getattr(process.current_process(), "_inheriting", False):
            raise RuntimeError(
                "a worker process imports the program's main module, which must not start it again: put what starts "
                'the program under `if __name__ == "__main__":`'
            )
        large = tuple([LargeBytes(one) if type(one) is bytes and len(one) >= LARGE else one for one in arguments])
        return function, large, keywords

    def _is_busy(self) -> bool:
        return len(self._starting) + len(self._busy) >= self._max_workers

    # ---- who runs what --------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give waiting tasks to idle workers, and start workers for the others."""
        while self._waiting and self._idle:
            worker, timer = self._idle.popitem()
            if timer is not None:
                timer.cancel()
            task = self._next_task()
            assert task is not None
            self._busy[worker] = task
            self._begin(worker, task)
        while len(self._starting) < self._waiting and self._size() < self._max_workers:
            if not self._start():
                return

    def _next_task(self) -> Task | None:
        while self._queue:
            task = self._queue.popleft()
            if task.stage is Stage.QUEUED:
                self._waiting -= 1
                return task
        return None

    def _begin(self, worker: Worker, task: Task) -> None:
        task.stage, task.worker = Stage.RUNNING, worker
        call, task.call = task.call, None
        if task.timeout is not None:
            task.timer = self._loop.call_later(task.timeout, self._timed_out, task)
        try:
            if self.kind == "thread":
                worker.run(call)
            elif self.kind == "interpreter":
                worker.run(pack_call(call, NO_MEMORY)[0])
            else:
                worker.run(*pack_call(call, worker.tasks))
        except Exception as error:  # it does not pickle: the worker has seen nothing of it
            del self._busy[worker]
            self._finish(task, error=error)
            self._rest(worker)

    def _finish(self, task: Task, *, result: Any = None, error: BaseException | None = None) -> None:
        if task.stage is Stage.QUEUED:
            self._waiting -= 1
        task.stage = Stage.DONE
        task.call = task.worker = None
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None
        if task.future.done():
            return
        if error is None:
            self._counts["done"] += 1
            task.future.set_result(result)
        else:
            self._counts["failed"] += 1
            task.future.set_exception(error)

    def _abort(self, task: Task) -> None:
        """Its user wants it no more: a worker that runs it is worth nothing now."""
        worker = task.worker
        if task.stage is not Stage.DONE:
            self._finish(task)
        if worker is not None and worker in self._busy:
            self._retire(worker)
            self._dispatch()

    def _timed_out(self, task: Task) -> None:
        self._counts["timeouts"] += 1
        worker = task.worker
        self._finish(task, error=TimeoutError(f"the task ran for more than {task.timeout} s"))
        if worker in self._busy:
            self._retire(worker)
            self._dispatch()

    # ---- workers --------------------------------------------------------------------------------------------------

    def _size(self) -> int:
        return len(self._starting) + len(self._idle) + len(self._busy)

    def _start(self) -> bool:
        """Whether a worker starts; if not, and there is none, the tasks get the reason."""
        worker: Worker = KINDS[self.kind](self._loop, self)
        try:
            worker.start(self._worker_options())
        except Exception as error:
            self._start_failed(error)
            return False
        self._counts["started"] += 1
        self._starting.add(worker)
        return True

    def _worker_options(self) -> dict[str, Any]:
        if self.kind == "thread":
            return {**self._options, "initializer": self._initializer}
        if self.kind == "interpreter":
            function, arguments = self._initializer
            initial = None if function is None else pack_call((function, arguments, {}), NO_MEMORY)[0]
            return {**self._options, "initializer": initial}
        from multiprocessing import spawn

        preparation = spawn.get_preparation_data("hoop-worker")
        preparation.pop("authkey", None)  # a secret of multiprocessing's own connections, which do not exist here
        return {
            **self._options,
            "preparation": preparation,
            "initializer": pickle.dumps(self._initializer, 5),
        }

    def _start_failed(self, error: BaseException) -> None:
        self._failed_starts += 1
        if self._size() == 0 or self._failed_starts >= FAILED_STARTS:
            while (task := self._next_task()) is not None:
                task.stage = Stage.RUNNING
                self._finish(task, error=error)
        elif not self._starting:
            self._dispatch()

    def _rest(self, worker: Worker) -> None:
        """A worker has nothing to do."""
        if self._is_closed and not self._waiting:
            self._retire(worker)
            return
        timer = None
        if self._idle_timeout is not None and self._size() + 1 > self._min_workers:
            timer = self._loop.call_later(self._idle_timeout, self._idle_for_too_long, worker)
            unref(timer)
        self._idle[worker] = timer
        self._dispatch()

    def _idle_for_too_long(self, worker: Worker) -> None:
        if worker in self._idle:
            if self._size() > self._min_workers:
                self._retire(worker)
            else:
                self._idle[worker] = None

    def _retire(self, worker: Worker) -> None:
        """It gets no more tasks, and ends."""
        is_idle = worker in self._idle
        timer = self._idle.pop(worker, None)
        if timer is not None:
            timer.cancel()
        self._starting.discard(worker)
        self._busy.pop(worker, None)
        self._ending.add(worker)
        if is_idle:
            worker.stop()
        else:
            worker.kill()

    def _shrink(self) -> None:
        if not self._waiting:
            for worker in [*self._idle, *self._starting]:
                self._retire(worker)

    # ---- called by workers ----------------------------------------------------------------------------------------

    def on_ready(self, worker: Worker) -> None:
        if worker in self._starting:
            self._starting.remove(worker)
            self._failed_starts = 0
            self._rest(worker)

    def on_outcome(self, worker: Worker, is_result: bool, value: Any, is_last: bool) -> None:
        task = self._busy.pop(worker, None)
        if task is None:
            return  # it was given up in the meantime, and the worker with it
        if is_last:
            self._ending.add(worker)
        if is_result:
            self._finish(task, result=value)
        else:
            self._finish(task, error=value)
        if is_last:
            self._dispatch()
            self._shrink_if_closed()
        else:
            self._rest(worker)

    def on_end(self, worker: Worker, error: BaseException) -> None:
        task = self._busy.pop(worker, None)
        timer = self._idle.pop(worker, None)
        if timer is not None:
            timer.cancel()
        if worker in self._starting:
            self._starting.remove(worker)
            self._start_failed(error)
        elif worker not in self._ending:
            self._counts["deaths"] += 1
        self._ending.discard(worker)
        if task is not None:
            self._finish(task, error=error)
        self._dispatch()
        self._shrink_if_closed()

    def _shrink_if_closed(self) -> None:
        if self._is_closed:
            self._shrink()
            if self._all_gone is not None and not (self._starting or self._idle or self._busy or self._ending):
                self._all_gone.set_result(None)
                self._all_gone = None
        elif self._size() < self._min_workers and self._failed_starts == 0:
            self._start()


class WorkerExecutor(concurrent.futures.Executor):
    """What runs as pool.run() does, for those who speak of futures. Cancelling one does what cancelling a task does."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def submit(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(self._pool.run(function, *arguments, **keywords), self._pool._loop)
