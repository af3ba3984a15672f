"""A cluster whose workers are threads, as its program and its operator see it: log, health, metrics, exit status."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from hoop import systemd
from hoop.adapters.target import TargetError, application_traceback, in_a_line
from hoop.cluster.binds import parse_bind
from hoop.cluster.health import HealthServer, Page
from hoop.cluster.master import EXIT_CUT, SAME_WISH, STATUS_OF_SIGNALS, ClusterError, in_words
from hoop.cluster.options import Options
from hoop.cluster.stacks import rss_of
from hoop.cluster.thread_worker import Run
from hoop.cluster.threads import ThreadRecord, Threads, listeners_of
from hoop.cluster.worker_process import status_of
from hoop.figures import MEMORY, REQUESTS, WANTED, WORKER_COUNT, Sample, counters_of, gauges_of
from hoop.prometheus import text_of

logger: logging.Logger = logging.getLogger("hoop.cluster")


class ThreadMaster(Threads):
    """What Master is to processes. Made, run() once."""

    same_wish = SAME_WISH

    def __init__(
        self,
        options: Options,
        serve: Run,
        *,
        on_start: Callable[[], object] | None = None,
        on_message: Callable[[ThreadRecord, Any], object] | None = None,
        on_exit: Callable[[ThreadRecord, str], object] | None = None,
    ) -> None:
        given = [] if options.bind else [one.socket for one in systemd.listen_sockets()]
        super().__init__(options, serve, listeners_of(options, given))
        self._on_start = on_start
        self._hear = on_message
        self._on_exit = on_exit
        self._has_started = False
        self._pages: list[HealthServer] = []
        self._notifier = systemd.Notifier()

    def run_cluster(self) -> int:
        """Serve until the cluster has ended; the exit status. ClusterError if it cannot start, or a worker fails."""
        try:
            self.run()
        except (OSError, ValueError) as error:
            raise ClusterError(in_words(error)) from error
        finally:
            self.close_pages()
            self._notifier.close()
        if self.forced_by is not None:
            return STATUS_OF_SIGNALS + self.forced_by
        if self.failures:
            record, failure = self.failures[0]
            raise ClusterError(*described(record, failure), status=status_of(failure) or EXIT_CUT)
        return EXIT_CUT if self.is_cut else 0

    # ---- its course -------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        await self._open_pages()
        logger.info("starting %d workers, in threads", len(self.board))
        self._loop.call_later(self.options.start_timeout, self._check_start)

    async def finish(self) -> None:
        self.close_pages()

    def on_ready(self, record: ThreadRecord) -> None:
        if self._has_started or not all(one.is_ready for one in self.records):
            return
        self._has_started = True
        logger.info("serving on %s with %d workers", ", ".join(self.listeners.addresses()), len(self.records))
        self._tell_manager(self._notifier.ready)
        self._feed_watchdog()
        if self._on_start is not None:
            self._on_start()

    def on_message(self, record: ThreadRecord, message: Any) -> None:
        if self._hear is not None:
            self._hear(record, message)

    def on_returned(self, record: ThreadRecord) -> None:
        self.fail(record, ClusterError(f"{record.name} ended by itself"))

    def on_gone(self, record: ThreadRecord, failure: BaseException | None) -> None:
        how = "ended" if failure is None else f"failed: {in_a_line(failure)}"
        if failure is not None and self.failures and self.failures[0][1] is not failure:
            logger.error("%s %s", record.name, how)  # the first one is told at the end
        if self._on_exit is not None:
            self._on_exit(record, how)

    def _check_start(self) -> None:
        if self._has_started or self.is_ending:
            return
        late = next(record for record in self.records if not record.is_ready)
        self.fail(late, ClusterError(f"{late.name} was not ready within {self.options.start_timeout:g} s"))

    def end(self) -> None:
        if not self.is_ending:
            logger.info("draining %d workers", len(self.records))
            self._tell_manager(self._notifier.stopping)
        super().end()

    def _feed_watchdog(self) -> None:
        interval = self._notifier.watchdog_interval
        if interval is not None:
            self._tell_manager(self._notifier.watchdog)
            self._loop.call_later(interval, self._feed_watchdog)

    def _tell_manager(self, tell: Callable[[], object]) -> None:
        try:
            tell()
        except OSError as error:
            logger.warning("the service manager does not listen: %s", error)

    def stop(self) -> None:
        """As SIGTERM: drain all workers, then end. Again: at once."""
        if self.is_ending:
            self.end_now()
        else:
            self.end()

    # ---- what is asked about it -------------------------------------------------------------------------------------

    def serving(self) -> list[ThreadRecord]:
        return [record for record in self.records if record.is_ready]

    async def _open_pages(self) -> None:
        health: dict[str, Page] = {"/livez": lambda: (200, "alive"), "/readyz": self._readiness_page}
        metrics: dict[str, Page] = {"/metrics": lambda: (200, text_of(samples_of(self)).removesuffix("\n"))}
        binds: dict[str, dict[str, Page]] = {}
        for bind, pages in ((self.options.health_bind, health), (self.options.metrics_bind, metrics)):
            if bind is not None:
                binds.setdefault(bind, {}).update(pages)
        for bind, pages in binds.items():
            server = HealthServer(parse_bind(bind), pages)
            self._pages.append(server)
            server.open()
            await server.start()
            what = "metrics" if "/livez" not in pages else "health" if "/metrics" not in pages else "health and metrics"
            logger.info("%s at %s", what, ", ".join(server.addresses()))

    def close_pages(self) -> None:
        for server in self._pages:
            server.close()
        self._pages.clear()

    def _readiness_page(self) -> tuple[int, str]:
        ready = len(self.serving())
        text = f"{ready} of {len(self.records)} workers are ready"
        if self.is_ending:
            return 503, f"it ends; {text}"
        return 200 if ready >= (self.options.min_ready or 1) else 503, text


def samples_of(master: ThreadMaster) -> Iterator[Sample]:
    """By slot as for processes. Memory is the process's: no thread has some of its own."""
    yield Sample(WANTED, {}, len(master.board))
    serving = len(master.serving())
    yield Sample(WORKER_COUNT, {"state": "serving"}, serving)
    yield Sample(WORKER_COUNT, {"state": "starting"}, sum(not one.has_ended for one in master.records) - serving)
    for record in master.records:
        reading = record.worker.post.read()
        for sample in (*counters_of(reading), *gauges_of(reading), Sample(REQUESTS, {}, reading.requests)):
            yield sample._replace(labels={"slot": str(record.slot), **sample.labels})
    yield Sample(MEMORY, {"slot": "all"}, rss_of(os.getpid()) or 0)


def described(record: ThreadRecord, failure: BaseException) -> tuple[str, str | None]:
    """A line for the log, and what stands below it."""
    if isinstance(failure, ClusterError):
        return str(failure), failure.detail
    if isinstance(failure, TargetError):
        return f"{record.name} failed: {failure}", failure.detail
    if isinstance(failure, TimeoutError) and not failure.__traceback__:
        return str(failure), None
    return f"{record.name} failed: {in_a_line(failure)}", application_traceback(failure)
