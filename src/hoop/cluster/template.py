"""Preloading: for each generation of workers a template, a process that has imported the application and then does
nothing but fork workers of itself.

So the workers share the memory of what was imported, and start without importing it; the master has imported nothing
that could hurt it; and a reload imports the code of now, in a new template. A template lives as long as its generation
is wanted or one of its workers lives: it waits for them, and tells the master how each has ended.

The master sends lines of JSON, each with the descriptors of a new worker, and gets lines of JSON. The end of the stream
is the end of the template; its workers hear of the master's end themselves.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from hoop.adapters.target import TargetError, application_traceback, in_a_line
from hoop.cluster.post import Post
from hoop.cluster.spawn import (
    EXIT_FAILED,
    Process,
    describe_exit,
    flush_standard_streams,
    fork_process,
    live,
    open_pidfd,
)
from hoop.cluster.supervisor import Fork
from hoop.cluster.worker_process import Worker, ignore_signals_of_the_master, run_worker

READ_SIZE = 1 << 16
MOST_DESCRIPTORS = 250  # in one message; the kernel takes 253
CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
LONGEST_DETAIL = 1 << 16  # characters of a traceback

logger: logging.Logger = logging.getLogger("hoop.cluster")

MakeWorker = Callable[[int, int, "list[socket.socket]", Post], Worker]  # of slot, generation, listening sockets


@dataclass(frozen=True)
class Preload:
    """What to do with an application."""

    load: Callable[[], Any]
    serve: Callable[[Any, Worker], Coroutine[Any, Any, None]]  # what was loaded


@dataclass(frozen=True)
class TemplateChild(Process):
    """A worker as the master sees it: the child of a template, which waits for it."""

    template: Template

    @property
    def end_fd(self) -> int | None:
        """The template tells, as long as it lives."""
        return self.pidfd if self.template.is_gone else None

    def exited(self) -> str | None:
        """How it ended, in words; None: it runs."""
        how = self.template.ends.get(self.pid)
        if how is None and self.template.is_gone and (self.pidfd is None or is_readable(self.pidfd)):
            return "ended, and its template before it, so nobody knows how"
        return how

    def close(self) -> None:
        super().close()
        self.template.forget(self.pid)


class Template:
    """One template as the master sees it."""

    def __init__(self, owner: Templates, generation: int, process: Process) -> None:
        self.generation = generation
        self.process = process
        self.is_ready: bool = False
        self.is_gone: bool = False
        self.failure: tuple[str, str] | None = None  # why it could not load the application: a line, a traceback
        self.waiting: dict[int, tuple[Fork, list[socket.socket]]] = {}  # for it to be ready; by the worker's number
        self.asked: dict[int, tuple[Fork, socket.socket]] = {}  # of it, and not answered; with our end of the channel
        self.children: dict[int, TemplateChild] = {}
        self.known_children: set[int] = set()  # whom the master has from before its upgrade
        self.ends: dict[int, str] = {}  # how children have ended whom the master still has
        self._owner = owner
        self._unread = b""
        self._descriptors: list[int] = []  # received, and not taken by a message yet
        process.channel.setblocking(False)
        owner.loop.add_reader(process.channel, self._on_readable)

    def snapshot(self) -> dict[str, Any]:
        """For a master that goes on with another program."""
        return {
            "generation": self.generation,
            "pid": self.process.pid,
            "channel": self.process.channel.fileno(),
            "unread": self._unread.decode(),
            "children": list(self.children),
            "ends": list(self.ends.items()),
        }

    def fork(self, wanted: Fork, sockets: list[socket.socket]) -> None:
        """Have a worker forked, as soon as the application is loaded. OSError if that cannot be."""
        if self.is_ready:
            self._ask(wanted, sockets)
        else:
            self.waiting[wanted.worker] = (wanted, sockets)

    def take_over(self, known: dict[str, Any]) -> None:
        """Go on where a snapshot was taken."""
        self._unread = known["unread"].encode()
        self.ends = dict(known["ends"])
        self.known_children = set(known["children"])

    def give_up(self, reason: str) -> None:
        """Unless the application is loaded: it is not waited for any longer."""
        if not self.is_ready and not self.is_gone:
            self.failure = reason, ""
            self.process.signal(signal.SIGKILL)

    def _ask(self, wanted: Fork, sockets: list[socket.socket]) -> None:
        own, childs = socket.socketpair()
        try:
            request = {"worker": wanted.worker, "slot": wanted.slot, "generation": wanted.generation}
            post = self._owner.posts.post_of(wanted.worker)
            line = json.dumps({**request, "place": post.place}).encode() + b"\n"
            descriptors = [childs.fileno(), post.stacks.fd, *(sock.fileno() for sock in sockets)]
            if socket.send_fds(self.process.channel, [line], descriptors) < len(line):
                raise OSError("the template does not read")
        except BaseException:
            own.close()
            raise
        finally:
            childs.close()
        self.asked[wanted.worker] = (wanted, own)

    def forget(self, pid: int) -> None:
        """The master is done with a worker."""
        self.ends.pop(pid, None)
        self.children.pop(pid, None)

    def end(self) -> None:
        """Let it go: the end of the stream tells it."""
        self._owner.loop.remove_reader(self.process.channel)
        self.process.channel.close()

    # ---- what it says -----------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self.process.channel, READ_SIZE, MOST_DESCRIPTORS, CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors += descriptors
        if not data:
            self._on_end()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._on_message(json.loads(line))

    def _on_message(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "ready":
                self.is_ready = True
                waiting, self.waiting = self.waiting, {}
                logger.info("generation %d: process %d has loaded the application", self.generation, self.process.pid)
                for wanted, sockets in waiting.values():
                    self._owner.try_to_fork(self, wanted, sockets)
            case "failed":
                self.failure = message["reason"], message["detail"]
            case "forked":
                wanted, channel = self.asked.pop(message["worker"])
                pidfd = self._descriptors.pop(0) if message["has_pidfd"] else None
                child = TemplateChild(message["pid"], pidfd, channel, self)
                self.children[child.pid] = child
                self._owner.on_forked(wanted, child)
            case "refused":
                wanted, channel = self.asked.pop(message["worker"])
                channel.close()
                self._owner.on_refused(wanted, message["reason"], None)
            case "ended":
                self.ends[message["pid"]] = describe_exit(message["status"])
                self._owner.on_ended(message["pid"])

    def _on_end(self) -> None:
        self.is_gone = True
        self._owner.loop.remove_reader(self.process.channel)
        reason, detail = self.failure or ("the process that loads the application has ended", None)
        for wanted, _ in self.waiting.values():
            self._owner.on_refused(wanted, reason, detail)
        for wanted, channel in self.asked.values():
            channel.close()
            self._owner.on_refused(wanted, reason, detail)
        self.waiting, self.asked = {}, {}
        for child in list(self.children.values()):
            self._owner.on_orphaned(child)
        self._owner.reap()


class Posts(Protocol):
    """What new workers are watched by."""

    def post_of(self, number: int) -> Post: ...
    def post_at(self, place: int, stacks: int) -> Post: ...


class Templates:
    """The templates of a master, by generation."""

    def __init__(
        self,
        loop: Any,
        make_worker: MakeWorker,
        preload: Preload | None,  # None: no more templates are made
        posts: Posts,
        *,
        start_timeout: float,
        on_forked: Callable[[Fork, Process], object],
        on_refused: Callable[[Fork, str, str | None], object],  # with a reason, and a traceback if it is that
        on_ended: Callable[[int], object],  # the process of that number
        on_orphaned: Callable[[Process], object],  # from now on its own descriptor tells of its end
    ) -> None:
        self.loop = loop
        self.on_forked = on_forked
        self.on_refused = on_refused
        self.on_ended = on_ended
        self.on_orphaned = on_orphaned
        self.posts = posts
        self._make_worker = make_worker
        self._preload = preload
        self._start_timeout = start_timeout
        self._current: dict[int, Template] = {}
        self._all: list[Template] = []

    def fork(self, wanted: Fork, sockets: list[socket.socket], keep: Collection[int]) -> None:
        """Have a worker forked. Not while the loop runs: a template may be, too. OSError if that cannot be."""
        template = self._current.get(wanted.generation)
        if template is None or template.is_gone:
            template = self._start(wanted.generation, keep)
        template.fork(wanted, sockets)

    def try_to_fork(self, template: Template, wanted: Fork, sockets: list[socket.socket]) -> None:
        try:
            template.fork(wanted, sockets)
        except (OSError, ValueError) as error:  # ValueError: the sockets were closed meanwhile
            self.on_refused(wanted, str(error), None)

    def _start(self, generation: int, keep: Collection[int]) -> Template:
        make_worker, preload, posts = self._make_worker, self._preload, self.posts
        assert preload is not None
        process = fork_process(lambda channel: run_template(channel, make_worker, preload, posts, keep), keep)
        template = self._current[generation] = Template(self, generation, process)
        self._all.append(template)
        reason = f"the application was not loaded within {self._start_timeout:g} s"
        self.loop.call_later(self._start_timeout, template.give_up, reason).unref()
        return template

    @property
    def are_busy(self) -> bool:
        """Whether one loads the application, or forks."""
        return any(one.waiting or one.asked or not (one.is_ready or one.is_gone) for one in self._all)

    def snapshot(self) -> list[dict[str, Any]]:
        """For a master that goes on with another program."""
        return [template.snapshot() for template in self._all if not template.is_gone]

    def restore(self, snapshot: list[dict[str, Any]]) -> None:
        """The templates are there: this process has made them, by another program."""
        for known in snapshot:
            channel = socket.socket(fileno=known["channel"])
            channel.set_inheritable(False)
            template = Template(self, known["generation"], Process(known["pid"], open_pidfd(known["pid"]), channel))
            template.is_ready = True
            template.take_over(known)
            self._current[template.generation] = template
            self._all.append(template)

    def readopt(self, pid: int, channel: socket.socket) -> Process | None:
        """The worker of one of them; None: it is of none."""
        for template in self._all:
            if pid in template.known_children:
                child = TemplateChild(pid, open_pidfd(pid), channel, template)
                template.children[pid] = child
                return child
        return None

    def stop(self) -> None:
        """No more workers are wanted."""
        for template in self._all:
            template.give_up("the cluster stops")

    def let_go(self, generation: int) -> None:
        """End those of older generations whose workers are gone; reap those that have ended."""
        for template in self._all:
            is_old = template.generation < generation and not template.waiting
            if is_old and not template.is_gone and not template.children and not template.asked:
                template.end()
                template.is_gone = True
        self.reap()

    def reap(self) -> None:
        """Wait for those that have ended: SIGCHLD tells."""
        for template in list(self._all):
            if template.is_gone and not template.children and template.process.exited() is not None:
                template.process.close()
                with contextlib.suppress(OSError):
                    template.process.channel.close()
                self._all.remove(template)

    def pids(self) -> set[int]:
        """Of the templates that are not reaped: nobody else may wait for them."""
        return {template.process.pid for template in self._all}

    def close(self) -> None:
        """Let all go, and wait for their ends: they have nothing to do but to end."""
        for template in self._all:
            if not template.is_gone:
                template.end()
            template.process.signal(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(template.process.pid, 0)
            template.process.close()
        self._all.clear()
        self._current.clear()


def is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


# ---- in the template ------------------------------------------------------------------------------------------------


def run_template(
    channel: socket.socket, make_worker: MakeWorker, preload: Preload, posts: Posts, keep: Collection[int]
) -> int:
    """The whole of a template process, after its fork; the exit status."""
    ignore_signals_of_the_master()
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # to all processes of the service: the master decides
    try:
        loaded = preload.load()
        names = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
        if names:
            raise TargetError(f"importing the application starts threads ({', '.join(names)}): preload cannot fork it")
    except BaseException as error:
        if isinstance(error, TargetError):
            reason, detail = str(error), error.detail or ""
        else:
            reason, detail = in_a_line(error), application_traceback(error)
        say(channel, kind="failed", reason=reason[:LONGEST_DETAIL], detail=detail[-LONGEST_DETAIL:])
        return EXIT_FAILED
    gc.collect()
    gc.freeze()  # the collector must not write to what the workers share
    say(channel, kind="ready")
    return Nursery(channel, make_worker, posts, lambda worker: preload.serve(loaded, worker), keep).run()


def say(channel: socket.socket, descriptors: Collection[int] = (), **message: Any) -> None:
    """To the master. If it is gone, the next look at the stream tells."""
    line = json.dumps(message).encode() + b"\n"
    with contextlib.suppress(OSError):
        sent = socket.send_fds(channel, [line], list(descriptors)) if descriptors else 0
        channel.sendall(line[sent:])


class Nursery:
    """Forks workers, waits for them."""

    def __init__(
        self,
        channel: socket.socket,
        make_worker: MakeWorker,
        posts: Posts,
        run: Callable[[Worker], Coroutine[Any, Any, None]],
        keep: Collection[int],
    ) -> None:
        self._channel = channel
        self._make_worker = make_worker
        self._posts = posts
        self._run = run
        self._keep = keep
        self._children: set[int] = set()

    def run(self) -> int:
        """Until the master is gone, or has let it go; the exit status."""
        woken, wakes = socket.socketpair()
        for sock in (woken, wakes):
            sock.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        for sock in (woken, self._channel):
            poll.register(sock, select.POLLIN)
        unread, descriptors = b"", []
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if woken.fileno() in ready:
                woken.recv(READ_SIZE)
                self._reap()
            if self._channel.fileno() not in ready:
                continue
            data, more, _, _ = socket.recv_fds(self._channel, READ_SIZE, MOST_DESCRIPTORS, CLOEXEC)
            if not data:
                return 0
            descriptors += more
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                self._fork(json.loads(line), descriptors)
                descriptors = []

    def _reap(self) -> None:
        for pid in list(self._children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._children.remove(pid)
                say(self._channel, kind="ended", pid=pid, status=status)

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> None:
        number = request["worker"]
        try:
            pid, pidfd = self._make_child(request, descriptors)
        except OSError as error:
            say(self._channel, kind="refused", worker=number, reason=str(error))
            return
        finally:
            for fd in descriptors:
                os.close(fd)
        say(
            self._channel, [] if pidfd is None else [pidfd],
            kind="forked", worker=number, pid=pid, has_pidfd=pidfd is not None,
        )  # fmt: skip
        if pidfd is not None:
            os.close(pidfd)

    def _make_child(self, request: dict[str, Any], descriptors: list[int]) -> tuple[int, int | None]:
        """The worker's process number, and a descriptor of it. OSError: there is none."""
        flush_standard_streams()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._live(request, descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._children.add(pid)
        try:
            return pid, open_pidfd(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            raise

    def _live(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """In the worker. It does not return."""
        channel_fd, stacks, *others = descriptors
        channel, *sockets = (socket.socket(fileno=fd) for fd in (channel_fd, *others))
        post = self._posts.post_at(request["place"], stacks)

        def run(channel: socket.socket) -> int:
            worker = self._make_worker(request["slot"], request["generation"], sockets, post)
            return run_worker(worker, channel, self._run)

        live(run, channel, {*self._keep, *descriptors})
