"""hoop.cluster.Cluster: a cluster to a program that wants more of it than run() gives."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from hoop.adapters.target import TargetError
from hoop.cluster import upgrade
from hoop.cluster.application import load_target, serve_application, serve_role, serve_target
from hoop.cluster.channel import ChannelFull
from hoop.cluster.log import log_to_stderr
from hoop.cluster.master import ClusterError, Master, WorkerRecord
from hoop.cluster.options import Options
from hoop.cluster.template import Preload
from hoop.cluster.thread_master import ThreadMaster
from hoop.cluster.thread_worker import ThreadWorker
from hoop.cluster.threads import ThreadRecord, check_place, noting_gil, warn_of_gil
from hoop.cluster.worker_process import Worker

logger: logging.Logger = logging.getLogger("hoop.cluster")


class Cluster:
    """A cluster of target with the settings of Options. run() it once.

    These are called in the master; they must be quick, and may use the methods below.

    on_start(): every slot serves for the first time.
    on_message(worker, message): a worker has sent a message; worker has slot, pid, generation and send().
    on_exit(worker, how): a worker process has ended; how, in words.

    With kind="threads" the main thread is the master, a worker is a thread, and messages are objects, which are not
    copied.
    """

    def __init__(
        self,
        target: str | Callable[..., Any] | Options,
        *,
        on_start: Callable[[], object] | None = None,
        on_message: Callable[[Any, Any], object] | None = None,
        on_exit: Callable[[Any, str], object] | None = None,
        **settings: Any,
    ) -> None:
        self.options: Options = target if isinstance(target, Options) else Options(target=target, **settings)
        self.on_start = on_start
        self.on_message = on_message
        self.on_exit = on_exit
        self._master: Master | ThreadMaster | None = None

    def run(self) -> int:
        """Serve until the cluster has ended; the exit status for that: 0, or 128 and the number of the signal that has
        cut it short. ClusterError if it cannot start, RuntimeError where a process cannot be forked well."""
        return self._run(goes_on=True)

    def _run(self, *, goes_on: bool) -> int:
        """goes_on: the program does something afterwards, and SIGTERM and SIGINT are to end it as before."""
        if self._master is not None:
            raise RuntimeError("the cluster runs already")
        if asyncio.events._get_running_loop() is not None:
            raise RuntimeError("a cluster cannot run inside of a running event loop")
        if self.options.kind == "threads":
            return self._run_threads()
        if threading.active_count() > 1:
            names = ", ".join(one.name for one in threading.enumerate() if one is not threading.main_thread())
            raise RuntimeError(f"a cluster cannot start in a process with threads: {names}")
        if upgrade.is_check():
            self.options.worker_count()
            self.options.ssl_context()
            upgrade.say_good()
        preload = Preload(self._load, serve_target) if self.options.preload else None
        self._master = Master(
            self.options, serve_in_worker, preload=preload, on_message=self.on_message, on_exit=self.on_exit
        )
        self._master.on_start = self.on_start
        try:
            return self._master.run()
        finally:
            if goes_on:
                self._master.hear_stop_signals()
            self._master = None

    def _run_threads(self) -> int:
        check_place('hoop.cluster.run(..., kind="threads")')
        os.environ.update(self.options.env or {})
        culprits: list[str] = []
        try:
            with noting_gil(culprits):
                found = load_target(self.options)
        except TargetError as error:
            raise ClusterError(str(error), error.detail) from error
        warn_of_gil(culprits)

        async def serve(worker: ThreadWorker) -> None:
            await serve_target(found, worker)

        master = self._master = ThreadMaster(
            self.options, serve, on_start=self.on_start, on_message=self.on_message, on_exit=self.on_exit
        )
        try:
            return master.run_cluster()
        finally:
            self._master = None

    # ---- while it runs, in the master ------------------------------------------------------------------------------

    @property
    def workers(self) -> list[WorkerRecord] | list[ThreadRecord]:
        """Those that serve, by slot."""
        return self._running().serving()

    def broadcast(self, message: Any) -> None:
        """Send a message to each worker that serves, but for those that do not read: see WorkerRecord.send()."""
        for worker in self.workers:
            try:
                worker.send(message)
            except (ChannelFull, ConnectionError) as error:
                logger.warning("worker %d: a message to all did not reach it: %s", worker.slot, error)

    def reload(self) -> None:
        """As SIGHUP: replace each worker by one with the code of now; if that fails the old ones serve on.
        RuntimeError if they are threads."""
        self._processes("reload").begin_reload()

    def scale(self, workers: int) -> None:
        """Have that many workers. ValueError for a number that is none of workers, RuntimeError if they are threads."""
        self._processes("scale").scale(workers)

    def stop(self) -> None:
        """As SIGTERM: drain all workers, then end. Again: at once."""
        self._running().stop()

    def _running(self) -> Master | ThreadMaster:
        if self._master is None:
            raise RuntimeError("the cluster does not run")
        return self._master

    def _processes(self, wish: str) -> Master:
        master = self._running()
        if not isinstance(master, Master):
            raise RuntimeError(
                f"{wish}() is for processes: a cluster of threads has its code, and its size, to its end"
            )
        return master

    # ---- for programs -----------------------------------------------------------------------------------------------

    def _load(self) -> Any:
        """In a template."""
        os.environ.update(self.options.env or {})
        return load_target(self.options)

    def run_logged(self, *, goes_on: bool = False) -> int:
        """As run(), with a log, and a line there in place of a ClusterError: for programs that do nothing else. Unless
        the program goes on, it ignores SIGTERM and SIGINT afterwards: its end has come already."""
        log_to_stderr(self.options.log_format, access=self.options.access_log)
        try:
            return self._run(goes_on=goes_on)
        except ClusterError as error:
            logger.error("%s%s", error, f"\n{error.detail}" if error.detail else "")
            return error.status


async def serve_in_worker(worker: Worker) -> None:
    await (serve_application(worker.options, worker) if worker.role is None else serve_role(worker))
