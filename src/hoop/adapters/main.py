"""Coroutine functions that serve by themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hoop.adapters.serving import ServingWorker
from hoop.adapters.target import positional_arguments


async def serve(main: Callable[..., Awaitable[Any]], worker: ServingWorker) -> None:
    """See hoop.adapters.serving. main() gets the worker if it takes an argument, else it has hoop.cluster.worker.

    It serves on worker.sockets and calls worker.ready(). When the loop has drained it is cancelled.
    """
    needed, most = positional_arguments(main)
    await (main(worker) if needed <= 1 <= most else main())
