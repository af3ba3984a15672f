"""Asynchronous generators that a loop iterates: it closes them when the program drops them, or at its end."""

from __future__ import annotations

import asyncio
import sys
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

from hoop.loop_methods.base_loop import BaseLoop

Hooks = tuple[Any, Any]


class AsyncGenerators(BaseLoop, asyncio.AbstractEventLoop):
    """The hooks of sys.set_asyncgen_hooks, and shutdown_asyncgens."""

    _asyncgens: weakref.WeakSet[AsyncGenerator[Any, Any]]
    _asyncgens_shutdown_called: bool

    def _begin_async_generators(self) -> None:
        self._asyncgens = weakref.WeakSet()
        self._asyncgens_shutdown_called = False

    def _install_asyncgen_hooks(self) -> Hooks:
        former = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter, finalizer=self._asyncgen_finalizer)
        return (former.firstiter, former.finalizer)

    def _asyncgen_firstiter(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._asyncgens_shutdown_called:
            warnings.warn(
                f"asynchronous generator {generator!r} was scheduled after loop.shutdown_asyncgens() call",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )
        self._asyncgens.add(generator)

    def _asyncgen_finalizer(
        self, generator: AsyncGenerator[Any, Any], _is_finalizing: Callable[[], bool] = sys.is_finalizing
    ) -> None:
        """Runs in the thread that collects the garbage. At the interpreter's end no loop will run again to close it."""
        if _is_finalizing():
            return
        if self._is_ours():  # else shutdown_asyncgens() may be looking at the set; a generator that is gone leaves it
            self._asyncgens.discard(generator)
        if not self.is_closed():
            self.call_soon_threadsafe(self.create_task, generator.aclose())

    async def shutdown_asyncgens(self) -> None:
        """Close every asynchronous generator that is still open. Errors go to the exception handler."""
        self._asyncgens_shutdown_called = True
        generators = list(self._asyncgens)
        if not generators:
            return
        self._asyncgens.clear()
        results = await asyncio.gather(*(generator.aclose() for generator in generators), return_exceptions=True)
        for generator, result in zip(generators, results, strict=True):
            if isinstance(result, Exception):
                self.call_exception_handler(
                    {
                        "message": f"an error occurred during closing of asynchronous generator {generator!r}",
                        "exception": result,
                        "asyncgen": generator,
                    }
                )
