"""The master process: a shell around the supervisor. It owns the listening sockets and the worker processes, hears of
signals, exits and messages, hands the supervisor events, and carries out its actions.

One thread, one hoop.Loop. It never imports the application. It forks between two runs of the loop (see fork_wanted()),
the only place where a worker comes from.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import signal
import socket
import ssl as ssl_module
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hoop
from hoop import systemd
from hoop.cluster import supervisor as decisions
from hoop.cluster import upgrade as exchange
from hoop.cluster.binds import parse_bind
from hoop.cluster.channel import Channel, ChannelFull, Message, Rest
from hoop.cluster.desk import Desk
from hoop.cluster.handover import Handover
from hoop.cluster.health import HealthServer, Page
from hoop.cluster.listeners import Listeners
from hoop.cluster.metrics_page import metrics_page, why_replaced
from hoop.cluster.options import MOST_WORKERS, Options, check_bounded
from hoop.cluster.post import Post
from hoop.cluster.roles import places_of, slots_of
from hoop.cluster.spawn import (
    EXIT_FAILED,
    Process,
    ended_children,
    fork_process,
    gets_orphans,
    open_descriptors,
)
from hoop.cluster.supervisor import Stage, Supervisor, Times
from hoop.cluster.template import Preload, Templates
from hoop.cluster.watch import Watch, fields_of
from hoop.cluster.worker_process import Worker, run_worker

EXIT_CUT = 3  # it has ended, but not all that was begun
SAME_WISH = 0.1  # seconds in which a second signal is the same wish as the first
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STATUS_OF_SIGNALS = 128  # a shell's: 128 and the number of the signal that ended the process

logger: logging.Logger = logging.getLogger("hoop.cluster")

Serve = Callable[[Worker], Any]


class ClusterError(Exception):
    """The cluster could not start, or not do what it was asked for. str() is one line."""

    def __init__(self, text: str, detail: str | None = None, status: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.detail = detail  # the traceback of the application, where that is the reason
        self.status = status  # for a program that does nothing else


@dataclass(eq=False)
class WorkerRecord:
    """A worker process as the master knows it."""

    number: int  # the supervisor's
    slot: int
    generation: int
    name: str  # for people
    process: Process
    channel: Channel
    post: Post
    began: float  # the loop's time
    failure: str | None = None  # what it says about its end, in a line
    detail: str | None = field(default=None, repr=False)  # and its traceback

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, message: Any) -> None:
        """Send a message, anything that JSON has: Worker.on_message gets it. ChannelFull when the worker does not read,
        ConnectionError when it is gone, ValueError for a message larger than 1 MiB, TypeError for what is not JSON."""
        self.channel.send({"kind": "message", "message": message})


class Master:
    """Made, run() once. The other methods are for callbacks in its loop."""

    def __init__(
        self,
        options: Options,
        serve: Serve,
        *,
        preload: Preload | None = None,
        on_message: Callable[[WorkerRecord, Any], object] | None = None,
        on_exit: Callable[[WorkerRecord, str], object] | None = None,
    ) -> None:
        self.options = options
        self.records: dict[int, WorkerRecord] = {}  # by the supervisor's number
        self.on_message = on_message
        self.on_exit = on_exit
        self.desk: Desk = Desk(self)
        self.handover: Handover = Handover(self)
        self.on_start: Callable[[], object] | None = None  # when every slot serves for the first time
        self._serve = serve
        self._is_over = False
        self._is_cut = False  # by the end: a connection was, at the drain's timeout
        self._status = 0
        self._reason: str | None = None
        self._detail: str | None = None
        self._stopped_at: float | None = None  # when the first signal came
        self._catches_signals = False
        self.forks: deque[decisions.Fork] = deque()
        self._events: deque[decisions.Event] = deque()
        self._is_handling = False
        self.was_serving: bool = False
        self._pages: list[HealthServer] = []
        self._timer: asyncio.TimerHandle | None = None
        self._contexts: dict[int, ssl_module.SSLContext | None] = {}
        self._preload = preload
        self.templates: Templates | None = None
        self._reloads: list[asyncio.Future[str | None]] = []  # that wait for the end of the one under way
        self._next_reloads: list[asyncio.Future[str | None]] = []  # and of the one after it

    # ---- the whole course -------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the cluster has ended; the exit status. ClusterError if it cannot start."""
        try:
            state = exchange.take()
            self.outer_descriptors: set[int] = open_descriptors() if state is None else set(state["outer"])
            self.size: int = self.options.worker_count()
            if state is None:
                self._contexts[0] = self.options.ssl_context()
            self.notifier: systemd.Notifier = systemd.Notifier()
            self.watch: Watch = Watch(self.options, None if state is None else state["watch"])
            self._open_pages(is_upgraded=state is not None)
            self.listeners: Listeners = self._open_listeners(state)
        except (OSError, ValueError) as error:
            self._close_pages()
            raise ClusterError(in_words(error)) from error
        self.loop: Any = hoop.Loop()
        try:
            self.templates = self._new_templates()
            self.watch.start(self.loop, self.tell)
            for server in self._pages:
                self.loop.run_until_complete(server.start())
            if state is None:
                self._open_desk()
                self._start()
            else:
                with exchange.logged("its control socket"):
                    self._open_desk()
                self.handover.go_on(state)
            self._run_loop()
        finally:
            self._end()
        if self._reason is not None:
            raise ClusterError(self._reason, self._detail, EXIT_CUT if self.supervisor.has_started else EXIT_FAILED)
        return self._status or (EXIT_CUT if self._is_cut else 0)

    def _start(self) -> None:
        self.supervisor: Supervisor = Supervisor(
            self.size,
            roles=slots_of(self.options.roles),
            times=self.times(),
            parallel=self.options.parallel,
            jitter=random.Random(),
        )
        self.catch_signals()
        logger.info("starting %d workers", self.size)
        self._carry_out(self.supervisor.start(self.loop.time()))

    def _run_loop(self) -> None:
        while True:
            self._fork_wanted()
            if self._is_over:
                return
            if self.handover.is_due and not self.forks:
                self.handover.exchange()
            if not self.forks:
                self.loop.run_forever()

    def _end(self) -> None:
        """Leave nothing behind: no process, no file, no descriptor."""
        for record in self.records.values():  # only if the master itself has failed
            record.process.signal(signal.SIGKILL)
        if self.templates is not None:
            self.templates.close()
        self.desk.close()
        self.listeners.close()
        self.listeners.remove_files()
        self._close_pages()
        self.notifier.close()
        for record in self.records.values():
            record.channel.close()
            self.watch.ended(record)
        self._close_loop()

    def _close_loop(self) -> None:
        """And ignore the signals that ask for what has come to pass: the loop leaves them their default action, by
        which one at the last moment would make a failure of an end in order. See hear_stop_signals()."""
        if not self._catches_signals:
            self.loop.close()
            return
        former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self.loop.close()
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def hear_stop_signals(self) -> None:
        """After the end, for a program that goes on: they have their default actions again."""
        if self._catches_signals:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _open_pages(self, *, is_upgraded: bool) -> None:
        """What the master answers over HTTP: one server for each address. After an upgrade it goes on without those
        that cannot be opened."""
        health: dict[str, Page] = {"/livez": self.liveness_page, "/readyz": self.readiness_page}
        metrics: dict[str, Page] = {"/metrics": functools.partial(metrics_page, self)}
        binds: dict[str, dict[str, Page]] = {}
        for bind, pages in ((self.options.health_bind, health), (self.options.metrics_bind, metrics)):
            if bind is not None:
                binds.setdefault(bind, {}).update(pages)
        for bind, pages in binds.items():
            what = " and ".join(
                [name for name, path in (("health", "/livez"), ("metrics", "/metrics")) if path in pages]
            )
            with exchange.logged(f"{what} at {bind}") if is_upgraded else contextlib.nullcontext():
                server = HealthServer(parse_bind(bind), pages)
                self._pages.append(server)
                server.open()
                logger.info("%s at %s", what, ", ".join(server.addresses()))

    def _close_pages(self) -> None:
        for server in self._pages:
            server.close()

    def _open_listeners(self, state: exchange.State | None) -> Listeners:
        given = [] if self.options.bind or state is not None else [one.socket for one in systemd.listen_sockets()]
        binds = [] if given else self.options.binds()
        listeners = Listeners(binds, self.options.balance, self.options.backlog, given)
        if state is None:
            listeners.open(self.size)
        else:
            listeners.restore(state["listeners"])
        return listeners

    def _open_desk(self) -> None:
        try:
            self.desk.open()
        except OSError as error:
            raise ClusterError(error.strerror or str(error)) from error
        self.desk.start()

    def times(self) -> Times:
        options = self.options
        return Times(
            start_timeout=options.start_timeout,
            drain_timeout=options.end_timeout(),
            abort_after=options.abort_after,
            kill_after=options.kill_after,
        )

    def catch_signals(self) -> None:
        catch = self.loop.add_signal_handler
        for number in STOP_SIGNALS:
            catch(number, self._on_stop_signal, number)
        self._catches_signals = True
        catch(signal.SIGHUP, self.begin_reload)
        catch(signal.SIGUSR2, self.handover.begin)
        catch(signal.SIGUSR1, do_nothing)  # others reopen their logs; it must not kill
        catch(signal.SIGTTIN, self._change_size, 1)
        catch(signal.SIGTTOU, self._change_size, -1)
        catch(signal.SIGCHLD, self.reap)

    def _change_size(self, by: int) -> None:
        size = len(self.supervisor.slots) + by
        if 0 < size <= MOST_WORKERS:
            self.scale(size)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        """The first one drains, the second ends at once. One that comes at the heels of the first is the same wish: a
        program such as timeout(1) signals the process, and then its group."""
        now = self.loop.time()
        if self._stopped_at is None:
            self._stopped_at = now
        elif now - self._stopped_at < SAME_WISH:
            return
        else:
            self._status = STATUS_OF_SIGNALS + number
        self.stop()

    # ---- what others ask about it -----------------------------------------------------------------------------------

    def liveness_page(self) -> tuple[int, str]:
        """The master answers: blocked and dead workers are its affair, also while it drains."""
        return 200, "alive"

    def readiness_page(self) -> tuple[int, str]:
        """Whether clients are welcome: enough workers are ready, and it does not end."""
        ready = len(
            {one.slot for one in self.supervisor.workers.values() if one.stage is Stage.SERVING and one.slot >= 0}
        )
        text = f"{ready} of {len(self.supervisor.slots)} workers are ready"
        if self.supervisor.is_stopping:
            return 503, f"it ends; {text}"
        return 200 if ready >= (self.options.min_ready or 1) else 503, text

    # ---- forks: the one place ---------------------------------------------------------------------------------------

    def _fork_wanted(self) -> None:
        """Make the workers that the supervisor wants. No loop runs meanwhile, so none is on a worker's stack."""
        while self.forks:
            wanted = self.forks.popleft()
            try:
                if wanted.slot >= 0:
                    self.listeners.add(wanted.slot)
                self._fork(wanted)
            except (OSError, ValueError) as error:
                self._on_fork_failed(wanted, in_words(error))

    def _fork(self, wanted: decisions.Fork) -> None:
        """By a template process, where there is one."""
        sockets = self.listeners.sockets_of(wanted.slot) if wanted.slot >= 0 else []
        post = self.watch.new_post(wanted.worker)
        worker = self._worker(wanted.slot, wanted.generation, sockets, post)
        keep = self.outer_descriptors | self.watch.descriptors()
        if self.templates is not None and self._preload is not None and wanted.slot >= 0:
            self.templates.fork(wanted, sockets, keep)
            return
        keep |= {post.stacks.fd, *(sock.fileno() for sock in sockets)}
        self._on_forked(wanted, fork_process(lambda channel: run_worker(worker, channel, self._serve), keep))

    def _worker(self, slot: int, generation: int, sockets: list[socket.socket], post: Post) -> Worker:
        context = self._context_of(generation)
        role: str | None = None
        if slot < 0:
            role, slot = self._place_of(slot)
        return Worker(
            id=slot, generation=generation, sockets=sockets, options=self.options, role=role, ssl=context, post=post
        )

    def _place_of(self, slot: int) -> tuple[str, int]:
        """Of a role. ValueError if an upgrade has taken it away: its processes were the former program's."""
        places = places_of(self.options.roles)
        if self.supervisor.role_slots != [] and -slot <= len(places):
            place = places[-1 - slot]
            if self.supervisor.name_of(slot).split()[0] == place[0]:
                return place
        raise ValueError("roles that change take a restart of the cluster")

    def _on_forked(self, wanted: decisions.Fork, process: Process) -> None:
        record = self.record(wanted, process, self.watch.post_of(wanted.worker))
        logger.info("%s: process %d has started", record.name, record.pid, extra=fields_of(record))
        self.tell(decisions.Forked(wanted.worker))

    def _on_fork_failed(self, wanted: decisions.Fork, reason: str, detail: str | None = None) -> None:
        self._detail = detail
        self.watch.give_back(wanted.worker)
        if self.supervisor.has_started:
            logger.error(
                "%s cannot be made: %s%s", self.supervisor.name_of(wanted.slot), reason, f"\n{detail}" if detail else ""
            )
        self.tell(decisions.ForkFailed(wanted.worker, reason))

    def _new_templates(self, *, forks: bool = True) -> Templates | None:
        """forks: not only for the workers of before an upgrade, that were preloaded."""
        if self._preload is None and forks:
            return None
        return Templates(
            self.loop,
            self._worker,
            self._preload,
            self.watch,
            start_timeout=self.options.start_timeout,
            on_forked=self._on_forked,
            on_refused=self._on_fork_failed,
            on_ended=self._on_template_told,
            on_orphaned=self._watch_orphan,
        )

    def _on_template_told(self, pid: int) -> None:
        for record in list(self.records.values()):
            if record.pid == pid:
                self._on_exit(record)

    def _watch_orphan(self, process: Process) -> None:
        for record in self.records.values():
            if record.process is process and process.end_fd is not None:
                self.loop.add_reader(process.end_fd, self._on_exit, record)

    def _context_of(self, generation: int) -> ssl_module.SSLContext | None:
        """One for all workers of a generation: TLS sessions go on with any of them. OSError if it does not load."""
        if generation not in self._contexts:
            self._contexts[generation] = self.options.ssl_context()
            for old in [one for one in self._contexts if one < generation - 1]:
                del self._contexts[old]
        return self._contexts[generation]

    def record(self, wanted: decisions.Fork, process: Process, post: Post, rest: Rest = (b"", ())) -> WorkerRecord:
        number = wanted.worker
        channel = Channel(
            self.loop, process.channel, lambda message, data: self._on_channel(number, message, data), do_nothing, rest
        )
        name = self.supervisor.name_of(wanted.slot)
        record = WorkerRecord(number, wanted.slot, wanted.generation, name, process, channel, post, self.loop.time())
        self.records[number] = record
        if process.end_fd is not None:
            self.loop.add_reader(process.end_fd, self._on_exit, record)
        return record

    # ---- what the supervisor hears ----------------------------------------------------------------------------------

    def tell(self, event: decisions.Event) -> None:
        """Hand the supervisor an event, and do what it says. An event that comes meanwhile is handled after it."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                self._carry_out(self.supervisor.handle(self._events.popleft(), self.loop.time()))
        finally:
            self._is_handling = False
        self._note_start()
        self._set_timer()

    def _note_start(self) -> None:
        if self.supervisor.has_started and not self.was_serving:
            self.was_serving = True
            logger.info(
                "serving on %s with %d workers", ", ".join(self.listeners.addresses()), len(self.supervisor.slots)
            )
            self._tell_manager(self.notifier.ready)
            self.feed_watchdog()
            if self.on_start is not None:
                self.on_start()

    def feed_watchdog(self) -> None:
        """Tell the service manager, twice in the time that it waits, that there are workers: else it starts us anew."""
        interval = self.notifier.watchdog_interval
        if interval is None:
            return
        workers = self.supervisor.workers.values()
        if self.supervisor.is_stopping or any(worker.stage is Stage.SERVING for worker in workers):
            self._tell_manager(self.notifier.watchdog)
        self.loop.call_later(interval, self.feed_watchdog)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.supervisor.next_deadline()
        if deadline is not None and not self._is_over:
            self._timer = self.loop.call_at(deadline, self.tell, decisions.TimePassed())

    def _on_channel(self, number: int, message: Message, data: bytes) -> None:
        record = self.records[number]
        self.desk.hear(record, message)
        match message.get("kind"):
            case "ready":
                logger.info(
                    "%s: ready after %.2f s", record.name, self.loop.time() - record.began,
                    extra=fields_of(record),
                )  # fmt: skip
                self.tell(decisions.Ready(number))
                if self.is_serving(number):
                    self.watch.began(record)
            case "failed":
                record.failure, record.detail = str(message["reason"]), str(message["detail"])
            case "cut":
                self._is_cut = self._is_cut or self.supervisor.is_stopping
                logger.warning(
                    "%s: %d connections were cut at the drain's timeout", record.name, message["connections"],
                    extra=fields_of(record),
                )  # fmt: skip
            case "message" if self.on_message is not None:
                self.on_message(record, message["message"])

    def reap(self) -> None:
        """SIGCHLD: one of the workers, where there is no pidfd, or an orphan that process 1 gets.

        Each is waited for by its number: how an orphan has ended is nobody's business here.
        """
        for record in list(self.records.values()):
            self._on_exit(record)
        own = {record.pid for record in self.records.values()}
        if self.templates is not None:
            self.templates.reap()
            own |= self.templates.pids()
        for pid in ended_children():
            if pid not in own and gets_orphans():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def is_serving(self, number: int) -> bool:
        worker = self.supervisor.workers.get(number)
        return worker is not None and worker.stage is Stage.SERVING

    def _on_exit(self, record: WorkerRecord) -> None:
        """A worker may have ended."""
        if self.records.get(record.number) is not record:
            return
        how = record.process.exited()
        if how is None:
            return
        if record.process.pidfd is not None:
            self.loop.remove_reader(record.process.pidfd)
        record.process.close()
        unsent = record.channel.unsent
        record.channel.read_rest()
        del self.records[record.number]
        self.watch.ended(record)
        if record.failure is not None:
            how = f"failed: {record.failure}"
            self._detail = record.detail
        if unsent:
            logger.warning("%s: %d messages to it are lost", record.name, unsent, extra=fields_of(record))
        self._log_exit(record, how)
        self._count_exit(record)
        self.desk.note_exit(record, how)
        if self.on_exit is not None:
            self.on_exit(record, how)
        self.tell(decisions.Exited(record.number, how))
        if self.templates is not None:
            self.templates.let_go(self.supervisor.generation)

    def _count_exit(self, record: WorkerRecord) -> None:
        worker = self.supervisor.workers.get(record.number)
        reason = None if worker is None else why_replaced(self.supervisor, worker)
        if reason is not None:
            self.watch.accounts.restarts[reason] += 1

    def _log_exit(self, record: WorkerRecord, how: str) -> None:
        worker = self.supervisor.workers.get(record.number)
        is_expected = worker is None or worker.leaves
        level = logging.INFO if is_expected else logging.ERROR
        if not self.supervisor.has_started:
            level = logging.DEBUG  # the first one is why the cluster could not start: run() says so
        detail = f"\n{record.detail}" if record.detail else ""
        logger.log(level, "%s: process %d %s%s", record.name, record.pid, how, detail, extra=fields_of(record))

    # ---- what the supervisor says -----------------------------------------------------------------------------------

    def _carry_out(self, actions: list[decisions.Action]) -> None:
        for action in actions:
            match action:
                case decisions.Fork():
                    self.forks.append(action)
                    self.loop.stop()
                case decisions.Drain(number):
                    self._drain(self.records[number])
                case decisions.Kill(number, is_abort):
                    if is_abort:
                        self.watch.log_stack(self.records[number])
                    self.records[number].process.signal(signal.SIGABRT if is_abort else signal.SIGKILL)
                case decisions.WriteStack(number):
                    self.watch.ask_for_stack(self.records[number])
                case decisions.GiveUpSlot(slot):
                    self.listeners.remove(slot)
                case decisions.CloseListeners():
                    if self.templates is not None:
                        self.templates.stop()
                    self.listeners.close()
                    self._tell_manager(self.notifier.stopping)
                case decisions.ReloadEnded(failure, generation):
                    self._on_reload_ended(failure, generation)
                case decisions.Exit(status, reason):
                    self._status = self._status or status
                    self._reason = reason
                    self._is_over = True
                    self.loop.stop()

    def _drain(self, record: WorkerRecord) -> None:
        self.watch.leaves(record)
        try:
            record.channel.send({"kind": "drain", "is_last": self.supervisor.is_stopping})
        except (ChannelFull, ConnectionError):  # it does not read, or is about to exit
            record.process.signal(signal.SIGTERM)

    def _on_reload_ended(self, failure: str | None, generation: int) -> None:
        self.watch.accounts.reloads["done" if failure is None else "failed"] += 1
        if failure is None:
            logger.info("reloaded: all workers are of generation %d", generation)
        else:
            logger.error("reload failed, the old workers serve on: %s", failure)
        waiting, self._reloads, self._next_reloads = self._reloads, self._next_reloads, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(failure)
        self._tell_manager(self.notifier.ready)

    def _tell_manager(self, tell: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):  # gone or full: it will ask again, or not
            tell()

    # ---- what others may know ---------------------------------------------------------------------------------------

    def stage_of(self, record: WorkerRecord) -> Stage:
        """How far in its life a worker is."""
        worker = self.supervisor.workers.get(record.number)
        return Stage.KILLED if worker is None else worker.stage

    def serving(self) -> list[WorkerRecord]:
        """The workers that serve, by slot."""
        records = [
            record for record in self.records.values() if self.stage_of(record) in (Stage.SERVING, Stage.BLOCKED)
        ]
        return sorted(records, key=lambda record: record.slot)

    # ---- commands ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain all workers, then end. Again: at once."""
        logger.info("stopping" if not self.supervisor.is_stopping else "stopping at once")
        self.tell(decisions.StopAsked())

    async def reload(self) -> None:
        """Replace each worker by one with the code of now. ClusterError, with the reason, if that fails; then the old
        ones serve on."""
        if self.supervisor.is_stopping:
            raise ClusterError("the cluster stops")
        waiter = self.loop.create_future()
        (self._next_reloads if self.supervisor.is_reloading else self._reloads).append(waiter)
        self.begin_reload()
        failure = await waiter
        if failure is not None:
            raise ClusterError(f"reload failed, the old workers serve on: {failure}", self._detail)

    def begin_reload(self) -> None:
        """As reload(), for those who do not wait for the end of it: SIGHUP."""
        if self.supervisor.is_stopping:
            return
        logger.info("reload" if not self.supervisor.is_reloading else "another reload follows the one under way")
        self._tell_manager(self.notifier.reloading)
        self.tell(decisions.ReloadAsked())

    def scale(self, workers: int) -> None:
        """Have that many workers. ValueError for a number that is none of workers."""
        check_bounded("workers", workers, MOST_WORKERS)
        logger.info("scale from %d to %d workers", len(self.supervisor.slots), workers)
        self.tell(decisions.ScaleAsked(workers))


def in_words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def do_nothing() -> None:
    """The end of a channel says nothing new: the descriptor of the process does."""
