"""One worker thread, with the face of a worker process: for interpreters without the GIL, and code that releases it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from hoop.workers.process_worker import Owner


class ThreadWorker:
    """A thread cannot be killed: kill() has it end after its task, whose outcome is dropped."""

    def __init__(self, loop: Any, owner: Owner) -> None:
        self.loop = loop
        self.owner = owner
        self.calls: queue.SimpleQueue[Any] = queue.SimpleQueue()  # None: there are no more
        self.is_over: bool = False

    def start(self, options: dict[str, Any]) -> None:
        """Start the thread. RuntimeError if the system has no room for it."""
        threading.Thread(target=self.live, args=(options,), name="hoop-worker", daemon=True).start()

    def run(self, call: Any) -> None:
        self.calls.put(call)

    def kill(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.calls.put(None)
            self.loop.call_soon(self.owner.on_end, self, RuntimeError("the worker thread was ended"))

    def stop(self) -> None:
        self.kill()

    # ---- in the thread --------------------------------------------------------------------------------------------

    def live(self, options: dict[str, Any]) -> None:
        try:
            self.set_up(options)
        except BaseException as error:
            self.tell(self.fail, error)
        else:
            self.tell(self.owner.on_ready, self)
            self.serve(options)
        finally:
            self.tear_down()

    def set_up(self, options: dict[str, Any]) -> None:
        function, arguments = options["initializer"]
        if function is not None:
            function(*arguments)

    def perform(self, call: Any) -> tuple[bool, Any]:
        """(whether it returned, what it returned or raised)."""
        function, arguments, keywords = call
        try:
            return True, function(*arguments, **keywords)
        except BaseException as error:
            return False, error

    def tear_down(self) -> None:
        """Whatever has happened: the thread ends."""

    def serve(self, options: dict[str, Any]) -> None:
        done = 0
        while (call := self.calls.get()) is not None:
            is_result, value = self.perform(call)
            del call
            done += 1
            is_last = done == options["max_tasks"]
            self.tell(self.finish, is_result, value, is_last)
            del value
            if is_last:
                return

    def tell(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop was closed: its pool has nobody left to tell
            return

    # ---- in the loop ----------------------------------------------------------------------------------------------

    def finish(self, is_result: bool, value: Any, is_last: bool) -> None:
        if not self.is_over:
            self.owner.on_outcome(self, is_result, value, is_last)
            if is_last:
                self.kill()

    def fail(self, error: BaseException) -> None:
        if not self.is_over:
            self.is_over = True
            self.owner.on_end(self, error)
