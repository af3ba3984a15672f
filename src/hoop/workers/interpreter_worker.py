"""One subinterpreter in a thread of its own, with the face of a worker process. (PEP 734: Python 3.14)"""

from __future__ import annotations

import importlib
import logging
import pickle
import sys
from typing import Any

import hoop_worker

from hoop.workers.process_worker import RemoteTraceback
from hoop.workers.thread_worker import ThreadWorker

logger: logging.Logger = logging.getLogger("hoop.workers")

REFUSED = (
    "Many extension modules do not load in subinterpreters, hoop's among them: hoop.WorkerPool('process') runs what "
    "needs them."
)


class InterpreterWorker(ThreadWorker):
    """Tasks and outcomes go as pickles, as to a process. As a thread, an interpreter cannot be killed: kill() has it
    end after its task, whose outcome is dropped."""

    interpreter: Any = None

    def set_up(self, options: dict[str, Any]) -> None:
        interpreters: Any = importlib.import_module("concurrent.interpreters")
        self.interpreter = interpreters.create()
        self.interpreter.exec(f"import sys; sys.path[:] = {sys.path!r}")
        if options["initializer"] is not None:
            is_result, value = self.perform(options["initializer"])
            if not is_result:
                raise value

    def perform(self, call: Any) -> tuple[bool, Any]:
        try:
            is_result, pickled = self.interpreter.call(hoop_worker.run_pickled, call)
            value = pickle.loads(pickled)
        except Exception as failure:
            return False, failure
        if is_result:
            return True, value
        error, text = value
        error.__cause__ = RemoteTraceback(text)
        if isinstance(error, ImportError) and "subinterpreter" in str(error):
            error.add_note(REFUSED)
        return False, error

    def tear_down(self) -> None:
        if self.interpreter is not None:
            try:
                self.interpreter.close()
            except Exception as error:  # a task has left threads in it
                logger.warning("the interpreter of a worker goes on: %s", error)
