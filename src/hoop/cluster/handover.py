"""From one program of the master to the next, in one process: what the old one leaves, what the new one makes of it.

hoop.cluster.upgrade has the check and the exchange themselves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import random
import socket
from typing import Any

import hoop
from hoop.cluster import upgrade
from hoop.cluster.spawn import Process, open_pidfd
from hoop.cluster.supervisor import Fork, Supervisor
from hoop.cluster.upgrade import State, UpgradeError

logger: logging.Logger = logging.getLogger("hoop.cluster")


class Handover:
    """One for a master."""

    def __init__(self, master: Any) -> None:
        self.is_due: bool = False  # exchange() is, as soon as no loop runs
        self._master = master
        self._is_checking = False
        self._task: asyncio.Task[None] | None = None

    # ---- the old program --------------------------------------------------------------------------------------------

    async def upgrade(self) -> None:
        """Replace the master's own program by what its command starts now, then reload. Returns when that is about to
        begin. UpgradeError, with the reason, if the new program would not start: then nothing has changed."""
        if self._is_checking:
            raise UpgradeError("an upgrade is under way")
        self._check_calm()
        self._is_checking = True
        try:
            logger.info("upgrade: looking whether the new program starts")
            await upgrade.check(self._master.options.start_timeout)
            self._check_calm()
        finally:
            self._is_checking = False
        self._master.loop.call_soon(self._end_run)  # whoever asked for it gets the answer first

    def begin(self) -> None:
        """As upgrade(), for those who do not wait: SIGUSR2."""
        self._task = self._master.loop.create_task(self.upgrade())
        self._task.add_done_callback(upgrade.log_failure)

    def _check_calm(self) -> None:
        supervisor, templates = self._master.supervisor, self._master.templates
        if not supervisor.has_started or supervisor.is_stopping:
            raise UpgradeError("no upgrade: the cluster starts or stops")
        if supervisor.is_reloading or (templates is not None and templates.are_busy):
            raise UpgradeError("no upgrade during a reload")

    def _end_run(self) -> None:
        self.is_due = True
        self._master.loop.stop()

    def exchange(self) -> None:
        """Does not return, unless that fails. No loop runs."""
        self.is_due = False
        master = self._master
        logger.info("upgrade: process %d replaces its program", os.getpid())
        with upgrade.signals_held() as mask:
            master.loop.call_soon(master.loop.call_soon, master.loop.stop)
            master.loop.run_forever()  # what came before they were held
            try:
                self._check_calm()
                state = self._state()
                upgrade.execute(state, mask, self._descriptors_of(state), master.notifier.taken)
            except (OSError, UpgradeError) as error:
                logger.error("upgrade failed, the old program goes on: %s", error)

    def _state(self) -> State:
        master = self._master
        return {
            "outer": sorted(master.outer_descriptors),
            "size": master.size,
            "supervisor": master.supervisor.snapshot(),
            "listeners": master.listeners.snapshot(),
            "templates": [] if master.templates is None else master.templates.snapshot(),
            "watch": master.watch.snapshot(),
            "workers": [upgrade.state_of(record) for record in master.records.values()],
        }

    def _descriptors_of(self, state: State) -> set[int]:
        listening = {sock.fileno() for sock in self._master.listeners.all_sockets()}
        channels = {known["channel"] for known in (*state["workers"], *state["templates"])}
        watching: set[int] = self._master.watch.handed_on()
        return listening | channels | watching

    # ---- the new program --------------------------------------------------------------------------------------------

    def go_on(self, state: State) -> None:
        """Where the program before this one has ended."""
        master = self._master
        master.supervisor = Supervisor.restore(
            state["supervisor"], times=master.times(), parallel=master.options.parallel, jitter=random.Random()
        )
        master.was_serving = master.supervisor.has_started
        if master.templates is None and state["templates"]:
            master.templates = master.new_templates(forks=False)
        if master.templates is not None:
            master.templates.restore(state["templates"])
        for known in state["workers"]:
            self._readopt(known)
        master.forks += master.supervisor.unanswered_forks()
        master.catch_signals()
        upgrade.release(state)
        version = platform.python_version()
        logger.info("upgraded: process %d goes on with hoop %s on Python %s", os.getpid(), hoop.__version__, version)
        master.reap()
        master.feed_watchdog()
        if master.size != state["size"]:
            master.scale(master.size)
        master.begin_reload()

    def _readopt(self, known: dict[str, Any]) -> None:
        master = self._master
        channel = socket.socket(fileno=known["channel"])
        channel.set_inheritable(False)
        process: Process | None = None
        if master.templates is not None:
            process = master.templates.readopt(known["pid"], channel)
        if process is None:
            process = Process(known["pid"], open_pidfd(known["pid"]), channel)
        wanted = Fork(known["number"], known["slot"], known["generation"])
        post = master.watch.post_of_former(wanted.worker)
        record = master.record(wanted, process, post, upgrade.rest_in(known))
        record.began, record.failure, record.detail = known["began"], known["failure"], known["detail"]
        if master.is_serving(record.number):
            master.watch.began(record)
