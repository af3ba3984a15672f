"""What a cluster's master decides: events in, actions out. It forks nothing, reads no clock and knows no file.

A slot is a place for a worker, 0 to N-1; a worker is one process in a slot, from its fork to its exit:

    STARTING --ready--> SERVING --asked--> DRAINING --exit--> gone
    STARTING --start_timeout, stop--> KILLED --exit--> gone
    SERVING --blocked--> BLOCKED (its stack is being written) --abort_after--> ABORTED --kill_after--> KILLED
    DRAINING --drain deadline--> KILLED

A slot has at most one worker that serves and one that is to follow it. Three rules hold for every change:

1. The first start fails fast: until every slot has served once, a worker that dies or is not ready in time, in a slot
   that has not served yet, ends the cluster with status 1.
2. A reload keeps the old worker until the new one is ready. If a new one fails, the reload ends, what serves goes on.
3. A later death is mended at once, then after growing delays; no other slot suffers.

One slot at a time is reloaded or recycled (`parallel` at a time, if the user is impatient).

The slots of roles, -1, -2, ..., come after those of the workers that serve. One whose role does not overlap has never
two processes: there the old worker goes before the new one is made, so rule 2 cannot hold for it.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# ---- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forked:
    """The worker that a Fork asked for runs."""

    worker: int


@dataclass(frozen=True)
class ForkFailed:
    """fork(2) found no memory or no process number."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Ready:
    """The worker has said ready()."""

    worker: int


@dataclass(frozen=True)
class Exited:
    """The worker is gone; how, in words for people."""

    worker: int
    how: str


@dataclass(frozen=True)
class Blocked:
    """The worker's loop has not turned for blocked_timeout."""

    worker: int


@dataclass(frozen=True)
class Worn:
    """The worker has reached a limit of its life: connections, memory, age."""

    worker: int
    reason: str


@dataclass(frozen=True)
class ReloadAsked:
    """By a signal or the control socket. A second one during a reload is kept, a third is the same as the second."""


@dataclass(frozen=True)
class ScaleAsked:
    workers: int


@dataclass(frozen=True)
class StopAsked:
    """Once: drain. Again: at once."""


@dataclass(frozen=True)
class TimePassed:
    """It is next_deadline() or later."""


Event = Forked | ForkFailed | Ready | Exited | Blocked | Worn | ReloadAsked | ScaleAsked | StopAsked | TimePassed

# ---- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fork:
    """Make a worker; the answer is Forked or ForkFailed."""

    worker: int
    slot: int
    generation: int


@dataclass(frozen=True)
class Drain:
    """Have the worker accept no more, finish what it has begun, and end."""

    worker: int


@dataclass(frozen=True)
class WriteStack:
    """Have the stack of a blocked worker written to the log."""

    worker: int


@dataclass(frozen=True)
class Kill:
    """With SIGABRT first, for a core, where is_abort; else SIGKILL."""

    worker: int
    is_abort: bool = False


@dataclass(frozen=True)
class GiveUpSlot:
    """The cluster has become smaller: close the sockets of this slot alone. Its worker drains next."""

    slot: int


@dataclass(frozen=True)
class CloseListeners:
    """The cluster stops: close the master's listening sockets. Clients are refused when workers have closed theirs."""


@dataclass(frozen=True)
class ReloadEnded:
    """How; None: every slot serves the new generation."""

    failure: str | None
    generation: int


@dataclass(frozen=True)
class Exit:
    """Nothing is left to supervise."""

    status: int
    reason: str | None


Action = Fork | Drain | WriteStack | Kill | GiveUpSlot | CloseListeners | ReloadEnded | Exit

# ---- the state ------------------------------------------------------------------------------------------------------


class Stage(enum.Enum):
    """Of a worker's life."""

    FORKING = "forking"
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    BLOCKED = "blocked"
    ABORTED = "aborted"
    KILLED = "killed"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds."""

    start_timeout: float = 60.0
    drain_timeout: float | None = 35.0  # hoop.Drain's delay and timeout, and a little; None: never
    abort_after: float = 1.0  # from the wish for a stack to SIGABRT
    kill_after: float = 2.0  # from SIGABRT to SIGKILL
    first_delay: float = 0.1  # before the second restart in a row
    longest_delay: float = 30.0
    calm: float = 60.0  # a worker that lived so long makes its slot's record clean


@dataclass
class Worker:
    number: int  # never used twice
    slot: int
    generation: int
    stage: Stage
    since: float  # in this stage
    deadline: float | None  # of this stage
    follows: bool  # it is to take the place of another worker; its death is no loss to its slot
    has_served: bool = False
    leaves: bool = False  # it was asked to end: its exit is no death
    death: str | None = None  # why it was killed


@dataclass(frozen=True)
class RoleSlot:
    """What the shell knows of a place for a process of a role."""

    name: str  # for people
    overlaps: bool


@dataclass
class Slot:
    number: int
    name: str = ""  # of a role's, for people
    overlaps: bool = True  # whether its next worker may be there before this one goes
    has_served: bool = False  # some worker has
    deaths: int = 0  # in a row
    restart_at: float | None = None  # a worker is missing until then
    worn: str | None = None  # why its worker is to be followed by another one
    vain: int = 0  # successors in a row that failed
    worn_until: float = 0.0  # until then it does not matter how worn its worker is


# What a snapshot has beside workers and slots.
KEPT = (
    "generation",
    "has_started",
    "is_stopping",
    "is_over",
    "is_reloading",
    "is_reload_wanted",
    "failure",
    "_last_number",
    "_last_generation",
    "_former_generation",
)


class Supervisor:
    """handle() each event, do what it returns in that order, and hand it TimePassed at next_deadline()."""

    def __init__(
        self,
        size: int,
        *,
        roles: Sequence[RoleSlot] = (),
        times: Times | None = None,
        parallel: int = 1,
        jitter: random.Random | None = None,
    ) -> None:
        self.times: Times = times or Times()
        self.parallel = parallel
        self.workers: dict[int, Worker] = {}
        self.slots: list[Slot] = [Slot(number) for number in range(size)]
        self.role_slots: list[Slot] = [Slot(-1 - index, role.name, role.overlaps) for index, role in enumerate(roles)]
        self.generation: int = 0  # of the workers that are made
        self.has_started: bool = False  # every slot has served
        self.is_stopping: bool = False
        self.is_over: bool = False
        self.is_reloading: bool = False
        self.is_reload_wanted: bool = False  # another one, after this
        self.failure: str | None = None  # of the first start, or of the end
        self._jitter = jitter or random.Random()
        self._last_number = 0
        self._last_generation = 0
        self._former_generation = 0  # that a reload is to replace

    # ---- a life in two processes ------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All that it knows, as JSON has it: for restore()."""
        return {
            "workers": [
                {**dataclasses.asdict(worker), "stage": worker.stage.value} for worker in self.workers.values()
            ],
            "slots": [dataclasses.asdict(slot) for slot in self.slots],
            "role_slots": [dataclasses.asdict(slot) for slot in self.role_slots],
            **{name: getattr(self, name) for name in KEPT},
        }

    @classmethod
    def restore(
        cls,
        snapshot: dict[str, Any],
        *,
        times: Times | None = None,
        parallel: int = 1,
        jitter: random.Random | None = None,
    ) -> Supervisor:
        """One that goes on where another one was. The clock must be the same."""
        restored = cls(0, times=times, parallel=parallel, jitter=jitter)
        for known in snapshot["workers"]:
            worker = Worker(**{**known, "stage": Stage(known["stage"])})
            restored.workers[worker.number] = worker
        restored.slots = [Slot(**known) for known in snapshot["slots"]]
        restored.role_slots = [Slot(**known) for known in snapshot["role_slots"]]
        for name in KEPT:
            setattr(restored, name, snapshot[name])
        return restored

    def unanswered_forks(self) -> list[Fork]:
        """Those asked for and not answered: for the shell of one that was restored."""
        forking = [worker for worker in self.workers.values() if worker.stage is Stage.FORKING]
        return [Fork(worker.number, worker.slot, worker.generation) for worker in forking]

    # ---- for the shell ----------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """The first workers."""
        return [self._fork(slot, now) for slot in self.all_slots()]

    def handle(self, event: Event, now: float) -> list[Action]:
        """What follows from event. What comes of workers that are gone is stale: nothing follows from it."""
        if self.is_over:
            return []
        return [*self._on_event(event, now), *self._on_time(now), *self._go_on(now)]

    def all_slots(self) -> list[Slot]:
        return [*self.slots, *self.role_slots]

    def name_of(self, number: int) -> str:
        """What people call the workers of a slot, which may be given up by now."""
        return f"worker {number}" if number >= 0 else self.slot_of(number).name

    def slot_of(self, number: int) -> Slot:
        return self.slots[number] if number >= 0 else self.role_slots[-1 - number]

    def next_deadline(self) -> float | None:
        """When to come with TimePassed; None: nothing waits for time."""
        deadlines = [worker.deadline for worker in self.workers.values()] + [
            slot.restart_at for slot in self.all_slots()
        ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # ---- events -----------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case StopAsked():
                yield from self._stop(now)
            case ReloadAsked():
                self.is_reload_wanted = True
            case ScaleAsked(count):
                yield from self._scale(count, now)
            case TimePassed():
                pass
            case _:
                worker = self.workers.get(event.worker)
                if worker is not None:
                    yield from self._on_worker(worker, event, now)

    def _on_worker(self, worker: Worker, event: Event, now: float) -> Iterator[Action]:
        match event:
            case Forked() if worker.stage is Stage.FORKING:
                self._enter(worker, Stage.STARTING, now, self.times.start_timeout)
                if worker.leaves:  # the cluster has changed its mind meanwhile
                    yield self._kill(worker, now, None)
            case ForkFailed(reason=reason) if worker.stage is Stage.FORKING:
                yield from self._on_gone(worker, f"could not be made: {reason}", now)
            case Ready() if worker.stage is Stage.STARTING:
                yield from self._on_ready(worker, now)
            case Exited(how=how) if worker.stage is not Stage.FORKING:
                yield from self._on_gone(worker, worker.death or how, now)
            case Blocked() if worker.stage is Stage.SERVING:
                self._enter(worker, Stage.BLOCKED, now, self.times.abort_after)
                yield WriteStack(worker.number)
            case Worn(reason=reason) if worker.stage is Stage.SERVING:
                slot = self.slot_of(worker.slot)
                if slot.worn is None and now >= slot.worn_until:
                    slot.worn = reason

    def _on_ready(self, worker: Worker, now: float) -> Iterator[Action]:
        """It serves: who served in its slot before may go."""
        self._enter(worker, Stage.SERVING, now, None)
        worker.has_served = True
        worker.follows = False
        slot = self.slot_of(worker.slot)
        slot.has_served = True
        slot.worn = None
        slot.vain = 0
        for other in self._of_slot(worker.slot):
            if other is not worker:
                yield from self._let_go(other, now)
        self._note_start()

    def _note_start(self) -> None:
        self.has_started = self.has_started or all(slot.has_served for slot in self.all_slots())

    def _on_gone(self, worker: Worker, how: str, now: float) -> Iterator[Action]:
        """The process has ended, or was never made."""
        del self.workers[worker.number]
        if worker.leaves:
            self._follow(worker, now)
            return
        slot = self.slot_of(worker.slot)
        reason = f"{self.name_of(worker.slot)} {how}"
        if not self.has_started and not slot.has_served:
            self.failure = reason
            yield from self._stop(now)
            return
        if worker.follows:
            slot.worn = None  # it may show again that it is worn
            slot.worn_until = now + self._delay(slot.vain + 2)
            slot.vain += 1
        else:
            self._restart_later(slot, worker, now)
        if self.is_reloading and not worker.has_served and worker.generation == self.generation:
            yield from self._end_reload(reason, now)

    def _follow(self, worker: Worker, now: float) -> None:
        """A worker is gone that had to go first: its successor's turn."""
        if worker.slot < 0 and not self.is_stopping and not self._of_slot(worker.slot):
            slot = self.slot_of(worker.slot)
            if not slot.overlaps and slot.restart_at is None:
                slot.restart_at = now

    def _restart_later(self, slot: Slot, worker: Worker, now: float) -> None:
        """Have a worker made for one that died: at once for the first, then after growing delays."""
        if worker.stage is Stage.SERVING and now - worker.since >= self.times.calm:
            slot.deaths = 0
        slot.deaths += 1
        for successor in self._of_slot(slot.number):
            if successor.follows and not successor.leaves:
                successor.follows = False  # it comes in time
                return
        slot.restart_at = now + self._delay(slot.deaths)

    def _delay(self, failures: int) -> float:
        """Seconds until another attempt: none after the first failure in a row, then more and more."""
        if failures <= 1:
            return 0.0
        delay = min(self.times.first_delay * 2.0 ** min(failures - 2, 30), self.times.longest_delay)
        return delay * self._jitter.uniform(0.8, 1.2)

    # ---- what time brings -------------------------------------------------------------------------------------------

    def _on_time(self, now: float) -> Iterator[Action]:
        for worker in list(self.workers.values()):
            if worker.deadline is None or now < worker.deadline:
                continue
            match worker.stage:
                case Stage.STARTING:
                    yield self._kill(worker, now, f"was not ready within {self.times.start_timeout:g} s")
                case Stage.BLOCKED:
                    worker.death = "was blocked"
                    self._enter(worker, Stage.ABORTED, now, self.times.kill_after)
                    yield Kill(worker.number, is_abort=True)
                case Stage.DRAINING:
                    why = f"did not end within {self.times.drain_timeout:g} s and was killed"
                    if self.is_stopping and self.failure is None:
                        self.failure = f"{self.name_of(worker.slot)} {why}"
                    yield self._kill(worker, now, why)
                case _:  # aborted
                    yield self._kill(worker, now, worker.death)
        for slot in self.all_slots():
            if slot.restart_at is not None and now >= slot.restart_at:
                slot.restart_at = None
                yield self._fork(slot, now)

    # ---- reload, recycling ------------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> Iterator[Action]:
        """Begin and go on with what is done one slot at a time; and end when nothing is left."""
        if self.is_stopping:
            if not self.workers:
                self.is_over = True
                yield Exit(0 if self.failure is None else 1, self.failure)
            return
        if not self.has_started:
            return
        if self.is_reload_wanted and not self.is_reloading:
            self.is_reload_wanted = False
            self.is_reloading = True
            self._former_generation = self.generation
            self._last_generation += 1
            self.generation = self._last_generation
        for slot in self.all_slots():
            if sum(worker.follows and not worker.leaves for worker in self.workers.values()) >= self.parallel:
                return
            if self._wants_successor(slot):
                yield from self._succeed(slot, now)
        if self.is_reloading and not any(self._is_stale(slot) for slot in self.all_slots()):
            yield from self._end_reload(None, now)
            yield from self._go_on(now)  # perhaps another one

    def _succeed(self, slot: Slot, now: float) -> Iterator[Action]:
        """Have a worker follow the one that serves: beside it, or after it."""
        server = self._server_of(slot)
        if slot.overlaps or server is None:
            yield self._fork(slot, now)
        elif server.stage is Stage.SERVING:  # one that is blocked is killed soon, and followed as one that died
            slot.worn = None
            yield from self._let_go(server, now)

    def _wants_successor(self, slot: Slot) -> bool:
        if any(worker.stage in (Stage.FORKING, Stage.STARTING) for worker in self._of_slot(slot.number)):
            return False
        server = self._server_of(slot)
        return server is not None and (slot.worn is not None or (self.is_reloading and self._is_stale(slot)))

    def _is_stale(self, slot: Slot) -> bool:
        """Whether the new generation does not serve there yet."""
        server = self._server_of(slot)
        return server is None or server.generation != self.generation

    def _end_reload(self, failure: str | None, now: float) -> Iterator[Action]:
        self.is_reloading = False
        yield ReloadEnded(failure, self.generation)
        if failure is not None:
            self.generation = self._former_generation
            for worker in list(self.workers.values()):
                if worker.follows and not worker.leaves and self.slot_of(worker.slot).worn is None:
                    yield from self._let_go(worker, now)

    # ---- size and end -----------------------------------------------------------------------------------------------

    def _scale(self, count: int, now: float) -> Iterator[Action]:
        if count < 1:
            raise ValueError(f"a cluster has at least one worker, not {count}")
        if self.is_stopping:
            return
        for slot in self.slots[count:]:
            yield GiveUpSlot(slot.number)
            for worker in self._of_slot(slot.number):
                yield from self._let_go(worker, now)
        del self.slots[count:]
        self._note_start()
        for number in range(len(self.slots), count):
            self.slots.append(Slot(number))
            yield self._fork(self.slots[-1], now)

    def _stop(self, now: float) -> Iterator[Action]:
        """Drain all; asked again, kill all."""
        is_again = self.is_stopping
        self.is_stopping = True
        if self.is_reloading:
            self.is_reloading = False
            yield ReloadEnded("the cluster stops", self.generation)
        self.is_reload_wanted = False
        if not is_again:
            yield CloseListeners()
        for slot in self.all_slots():
            slot.restart_at = None
        for worker in list(self.workers.values()):
            if not is_again:
                yield from self._let_go(worker, now)
            elif worker.stage not in (Stage.FORKING, Stage.KILLED):
                yield self._kill(worker, now, None)

    # ---- workers ----------------------------------------------------------------------------------------------------

    def _fork(self, slot: Slot, now: float) -> Fork:
        self._last_number += 1
        follows = self._server_of(slot) is not None
        worker = Worker(self._last_number, slot.number, self.generation, Stage.FORKING, now, None, follows)
        self.workers[worker.number] = worker
        return Fork(worker.number, worker.slot, worker.generation)

    def _let_go(self, worker: Worker, now: float) -> Iterator[Action]:
        """End a worker that is not wanted any more: in peace if it serves."""
        if worker.leaves and worker.stage is not Stage.FORKING:
            return
        worker.leaves = True
        match worker.stage:
            case Stage.FORKING:
                pass  # killed when it is there
            case Stage.SERVING:
                self._enter(worker, Stage.DRAINING, now, self.times.drain_timeout)
                yield Drain(worker.number)
            case Stage.STARTING | Stage.BLOCKED:
                yield self._kill(worker, now, None)
            case _:
                pass  # it ends already

    def _kill(self, worker: Worker, now: float, why: str | None) -> Kill:
        worker.death = why
        self._enter(worker, Stage.KILLED, now, None)
        return Kill(worker.number)

    def _enter(self, worker: Worker, stage: Stage, now: float, timeout: float | None) -> None:
        worker.stage = stage
        worker.since = now
        worker.deadline = None if timeout is None else now + timeout

    def _of_slot(self, number: int) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.slot == number]

    def _server_of(self, slot: Slot) -> Worker | None:
        """The worker that serves there."""
        for worker in self._of_slot(slot.number):
            if worker.stage in (Stage.SERVING, Stage.BLOCKED) and not worker.leaves:
                return worker
        return None
