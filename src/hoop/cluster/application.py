"""From the target of the options to an application that serves, in a worker."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

from hoop.cluster.options import Options
from hoop.cluster.worker_process import Worker


async def serve_application(options: Options, worker: Worker) -> None:
    """Load the target, and have it serve until it ends or is cancelled."""
    target: Any = options.target
    if isinstance(target, str):
        sys.path.insert(0, options.app_dir or "")
        module, _, attribute = target.partition(":")
        target = getattr(importlib.import_module(module), attribute)
    if inspect.signature(target).parameters:
        await target(worker)
    else:
        await target()
