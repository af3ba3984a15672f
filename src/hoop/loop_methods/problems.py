"""What happens to an exception that no caller can receive: the exception handler, as asyncio documents it."""

from __future__ import annotations

import asyncio
import sys
import traceback
from asyncio.log import logger
from collections.abc import Callable
from typing import Any

from hoop.loop_methods.base_loop import BaseLoop

ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


def describe(
    key: str, value: Any, format_list: Callable[[traceback.StackSummary], list[str]] = traceback.format_list
) -> str:
    if key == "source_traceback":
        return "Object created at (most recent call last):\n" + "".join(format_list(value)).rstrip()
    if key == "handle_traceback":
        return "Handle created at (most recent call last):\n" + "".join(format_list(value)).rstrip()
    return repr(value)


class Problems(BaseLoop, asyncio.AbstractEventLoop):
    """set_exception_handler and its kin."""

    _exception_handler: ExceptionHandler | None
    _logger = logger  # no name of the module: a finalizer may come here when that has been emptied

    def _begin_problems(self) -> None:
        self._exception_handler = None

    def get_exception_handler(self) -> ExceptionHandler | None:
        """The handler set, or None for the default one."""
        return self._exception_handler

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Have handler(loop, context) called for problems; None restores the default. TypeError unless callable."""
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def default_exception_handler(
        self, context: dict[str, Any], *, _describe: Callable[[str, Any], str] = describe
    ) -> None:
        """Log the problem, with its traceback and whatever else the context tells."""
        message = context.get("message") or "Unhandled exception in event loop"
        exception = context.get("exception")
        exc_info: Any = (type(exception), exception, exception.__traceback__) if exception is not None else False
        running = self._current_handle
        if "source_traceback" not in context and running is not None and running._source_traceback:
            context["handle_traceback"] = running._source_traceback
        lines = [message]
        for key in sorted(context):
            if key in ("message", "exception"):
                continue
            lines.append(f"{key}: {_describe(key, context[key])}")
        self._logger.error("\n".join(lines), exc_info=exc_info)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell the exception handler. A handler that raises is itself reported, and the loop goes on.

        context has "message" and, as far as they apply, "exception", "future", "task", "handle", "protocol",
        "transport", "socket", "source_traceback", "handle_traceback", "asyncgen".
        """
        handler = self._exception_handler
        if handler is None:
            self._log_problem(context)
            return
        try:
            owner = context.get("task") or context.get("future") or context.get("handle")
            run_in = owner.get_context() if owner is not None and hasattr(owner, "get_context") else None
            # A task that dies with its last step does so inside its own context, which cannot be entered twice.
            if run_in is not None and not self._is_entered(run_in):
                run_in.run(handler, self, context)
            else:
                handler(self, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._log_problem(
                {"message": "Unhandled error in exception handler", "exception": error, "context": context},
                " while handling an unexpected error in custom exception handler",
            )

    def _log_problem(
        self, context: dict[str, Any], occasion: str = "", _is_finalizing: Callable[[], bool] = sys.is_finalizing
    ) -> None:
        try:
            self.default_exception_handler(context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            # default_exception_handler may be overridden, so it may raise
            if not _is_finalizing():
                self._logger.error(f"Exception in default exception handler{occasion}", exc_info=True)
                return
        else:
            return
        # The interpreter ends, and logging with it. What is left to show the problem is who called: a finalizer.
        exception = context.get("exception")
        if exception is not None:
            raise exception
