"""From the target of the options to an application that serves, in a worker."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from hoop.adapters.serving import serve_by
from hoop.adapters.target import application_of, find, server_for
from hoop.cluster.options import Options
from hoop.cluster.roles import check_main
from hoop.cluster.worker_process import Worker


def load_target(options: Options) -> Any:
    """Import what the options name: TargetError, with the traceback as its detail, if that fails."""
    if options.reload_on_change:
        sys.dont_write_bytecode = True  # it does not tell two versions apart that are a second old and equally long
    return find(options.target, os.getcwd() if options.app_dir is None else options.app_dir)


async def serve_target(found: Any, worker: Worker) -> None:
    """Make the application of what load_target() has found, and serve it until it ends or is cancelled."""
    options = worker.options
    application = await application_of(found, factory=options.factory)
    server = server_for(application) if options.server == "auto" else options.server
    await serve_by(server, application)(application, worker)


async def serve_role(worker: Worker) -> None:
    """Run what the worker's role is, until it ends or is cancelled."""
    options = worker.options
    assert options.roles is not None and worker.role is not None
    main = find(options.roles[worker.role].target, os.getcwd() if options.app_dir is None else options.app_dir)
    check_main(main)
    running = asyncio.ensure_future(serve_by("main", main)(main, worker))
    await asyncio.sleep(0)
    if not running.done() or running.exception() is None:
        worker.ready()  # it has begun, and what it does first has not failed
    await running


async def serve_application(options: Options, worker: Worker) -> None:
    """Both."""
    await serve_target(load_target(options), worker)
