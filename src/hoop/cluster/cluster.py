"""hoop.cluster.Cluster: a cluster to a program that wants more of it than run() gives."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from hoop.cluster.application import load_target, serve_application, serve_target
from hoop.cluster.log import log_to_stderr
from hoop.cluster.master import ClusterError, Master, WorkerRecord
from hoop.cluster.options import Options
from hoop.cluster.template import Preload
from hoop.cluster.worker_process import Worker

logger = logging.getLogger("hoop.cluster")


class Cluster:
    """A cluster of target with the settings of Options. run() it once.

    on_message(worker, message): called in the master for each message that a worker has sent.
    on_exit(worker, how): called in the master when a worker process has ended; how, in words.
    """

    def __init__(
        self,
        target: str | Callable[..., Any] | Options,
        *,
        on_message: Callable[[WorkerRecord, Any], object] | None = None,
        on_exit: Callable[[WorkerRecord, str], object] | None = None,
        **settings: Any,
    ) -> None:
        self.options = target if isinstance(target, Options) else Options(target=target, **settings)
        self.on_message = on_message
        self.on_exit = on_exit

    def run(self) -> int:
        """Serve until the cluster has ended; the exit status for that: 0, or 128 and the number of the signal that has
        cut it short. ClusterError if it cannot start, RuntimeError where a process cannot be forked well."""
        if asyncio.events._get_running_loop() is not None:
            raise RuntimeError("a cluster cannot run inside of a running event loop")
        if threading.active_count() > 1:
            names = ", ".join(one.name for one in threading.enumerate() if one is not threading.main_thread())
            raise RuntimeError(f"a cluster cannot start in a process with threads: {names}")
        preload = Preload(self._load, serve_target) if self.options.preload else None
        self._master = Master(
            self.options, serve_in_worker, preload=preload, on_message=self.on_message, on_exit=self.on_exit
        )
        return self._master.run()

    def _load(self) -> Any:
        """In a template."""
        os.environ.update(self.options.env or {})
        return load_target(self.options)

    def run_logged(self) -> int:
        """As run(), with a log, and a line there in place of a ClusterError: for programs that do nothing else."""
        log_to_stderr(self.options.log_format, access=self.options.access_log)
        try:
            return self.run()
        except ClusterError as error:
            logger.error("%s%s", error, f"\n{error.detail}" if error.detail else "")
            return error.status


async def serve_in_worker(worker: Worker) -> None:
    await serve_application(worker.options, worker)
