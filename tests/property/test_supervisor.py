"""The master's decisions (hoop.cluster.supervisor) in a world of processes that start, hang and die as they like."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hoop.cluster.supervisor import (
    Blocked,
    CloseListeners,
    Drain,
    Event,
    Exit,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    GiveUpSlot,
    Kill,
    Ready,
    ReloadAsked,
    ReloadEnded,
    RoleSlot,
    ScaleAsked,
    StopAsked,
    Supervisor,
    TimePassed,
    Worn,
    WriteStack,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

LONGEST_S = 200.0
LONE, OVERLAPPING = -1, -2  # slots of roles: of the first there are never two processes
ROLES = (RoleSlot("lone", overlaps=False), RoleSlot("overlapping", overlaps=True))


@dataclass
class Process:
    slot: int
    generation: int
    is_forked: bool = False
    is_ready: bool = False
    is_drained: bool = False
    is_killed: bool = False
    is_doomed: bool = False  # while it was being forked it became superfluous: it is killed when it is there


class World(RuleBasedStateMachine):
    """The processes as they are, by the machine's own actions; what it believes is not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.size = 3
        self.processes: dict[int, Process] = {}
        self.exits: list[Exit] = []
        self.are_listeners_closed = False
        self.is_stopping = False
        self.have_served: set[int] = set()  # slots
        self.has_started = False
        self.is_start_failing = False
        self.given_up: list[int] = []
        self.supervisor = Supervisor(self.size, roles=ROLES, jitter=random.Random(1))
        self.carry_out(self.supervisor.start(self.now), None)

    # ---- the world's side -------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        self.carry_out(self.supervisor.handle(event, self.now), event)

    def carry_out(self, actions: list, event: Event | None) -> None:
        for action in actions:
            assert not self.exits, "nothing follows the end"
            match action:
                case Fork(worker, slot, generation):
                    assert worker not in self.processes
                    assert not self.is_stopping
                    assert slot != LONE or not any(other.slot == LONE for other in self.processes.values())
                    self.processes[worker] = Process(slot, generation)
                case Drain(worker):
                    process = self.processes[worker]
                    assert process.is_ready
                    assert not process.is_drained
                    process.is_drained = True
                    assert (
                        self.is_stopping
                        or process.slot >= self.size
                        or process.slot == LONE
                        or self.serving(process.slot)
                    ), "the old one goes only when a new one serves"
                case Kill(worker):
                    assert self.processes[worker].is_forked
                    self.processes[worker].is_killed = True
                case WriteStack(worker):
                    assert event == Blocked(worker)
                case GiveUpSlot(slot):
                    assert slot >= self.size
                case CloseListeners():
                    assert self.is_stopping or self.is_start_failing
                    self.is_stopping = self.are_listeners_closed = True
                case ReloadEnded(failure, _):
                    for process in self.processes.values():
                        if failure is not None and not process.is_forked and self.serving(process.slot):
                            process.is_doomed = True
                case Exit():
                    assert not self.processes
                    assert self.are_listeners_closed
                    self.exits.append(action)

    def slots(self) -> list[int]:
        return [*range(self.size), LONE, OVERLAPPING]

    def serving(self, slot: int) -> list[int]:
        return [
            number
            for number, process in self.processes.items()
            if process.slot == slot and process.is_ready and not (process.is_drained or process.is_killed)
        ]

    def coming(self, slot: int) -> list[Process]:
        return [
            process
            for process in self.processes.values()
            if process.slot == slot and not (process.is_ready or process.is_killed or process.is_doomed)
        ]

    def pick(self, data: st.DataObject, wanted: list[int]) -> int:
        return data.draw(st.sampled_from(sorted(wanted)))

    def those(self, **what: bool) -> list[int]:
        return [
            number
            for number, process in self.processes.items()
            if all(getattr(process, name) == value for name, value in what.items())
        ]

    # ---- what may happen --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.those(is_forked=False))
    @rule(data=st.data(), works=st.sampled_from([True, True, True, False]))
    def fork_is_answered(self, data: st.DataObject, works: bool) -> None:
        number = self.pick(data, self.those(is_forked=False))
        if works:
            self.processes[number].is_forked = True
            self.tell(Forked(number))
        else:
            self.lose(number, ForkFailed(number, "no memory"))

    def lose(self, number: int, event: Event) -> None:
        """Trap C09: one that has served is no failed start, however short it lived, and however many still start."""
        process = self.processes.pop(number)
        is_wanted = not (process.is_drained or process.is_killed or process.is_doomed)
        self.is_start_failing = not self.has_started and process.slot not in self.have_served
        self.tell(event)
        if self.is_start_failing and is_wanted:
            assert self.is_stopping
        elif is_wanted and not self.is_stopping:
            assert self.serving(process.slot) or self.coming(process.slot) or self.waits(process.slot)
        self.is_start_failing = False

    def waits(self, slot: int) -> bool:
        """Whether a worker will be made for a slot when time has passed."""
        return self.supervisor.slot_of(slot).restart_at is not None

    @precondition(lambda self: self.those(is_forked=True, is_ready=False, is_killed=False))
    @rule(data=st.data())
    def one_is_ready(self, data: st.DataObject) -> None:
        number = self.pick(data, self.those(is_forked=True, is_ready=False, is_killed=False))
        self.note_ready(number)

    def note_ready(self, number: int) -> None:
        process = self.processes[number]
        process.is_ready = True
        if not process.is_doomed and not self.is_stopping:
            self.have_served.add(process.slot)
        self.has_started |= set(self.slots()) <= self.have_served
        self.tell(Ready(number))

    @precondition(lambda self: self.those(is_forked=True))
    @rule(data=st.data())
    def one_dies(self, data: st.DataObject) -> None:
        number = self.pick(data, self.those(is_forked=True))
        self.lose(number, Exited(number, "died"))

    @precondition(lambda self: self.those(is_drained=True))
    @rule(data=st.data())
    def one_has_drained(self, data: st.DataObject) -> None:
        number = self.pick(data, self.those(is_drained=True))
        process = self.processes.pop(number)
        self.tell(Exited(number, "ended"))
        if process.slot == LONE and not self.is_stopping:
            assert self.coming(LONE) or self.waits(LONE), "its successor comes when it has gone"

    @precondition(lambda self: self.those(is_ready=True))
    @rule(data=st.data(), worn=st.booleans())
    def one_is_blocked_or_worn(self, data: st.DataObject, worn: bool) -> None:
        number = self.pick(data, self.those(is_ready=True))
        self.tell(Worn(number, "old") if worn else Blocked(number))

    @rule(seconds=st.sampled_from([0.05, 1.0, 10.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(TimePassed())

    @rule()
    def reload_is_asked(self) -> None:
        self.tell(ReloadAsked())

    @precondition(lambda self: not self.is_stopping)
    @rule(count=st.integers(1, 5))
    def scaling_is_asked(self, count: int) -> None:
        for process in self.processes.values():
            process.is_doomed |= process.slot >= count
        self.size = count
        self.have_served &= set(self.slots())
        self.has_started |= set(self.slots()) <= self.have_served
        self.tell(ScaleAsked(count))

    @rule(number=st.integers(1, 50))
    def stale_news_is_ignored(self, number: int) -> None:
        if number not in self.processes and number <= self.supervisor._last_number:
            before = len(self.supervisor.workers)
            for news in (Exited(number, "again"), Forked(number), Ready(number), Blocked(number)):
                self.tell(news)
            assert len(self.supervisor.workers) == before

    @rule(odds=st.integers(0, 15))
    def stop_is_asked(self, odds: int) -> None:
        if odds == 0:
            self.is_stopping = True
            self.tell(StopAsked())

    # ---- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def slot_has_one_that_serves_and_one_that_comes(self) -> None:
        for slot in self.slots():
            assert len(self.serving(slot)) <= 1
            assert len(self.coming(slot)) <= 1 or self.is_stopping or not self.supervisor.has_started

    @invariant()
    def one_slot_at_a_time_has_two(self) -> None:
        both = [slot for slot in self.slots() if self.serving(slot) and self.coming(slot)]
        assert len(both) <= 1

    @invariant()
    def end_comes_with_the_last_process(self) -> None:
        if self.is_stopping:
            assert bool(self.exits) == (not self.processes)

    def teardown(self) -> None:
        """Left alone, the cluster is whole in a while: each slot serves, by the newest code if it reloads."""
        for _ in range(200):
            if self.exits:
                return
            for number in self.those(is_forked=False):
                self.processes[number].is_forked = True
                self.tell(Forked(number))
            for number in self.those(is_forked=True, is_ready=False, is_killed=False):
                self.note_ready(number)
            for number in [*self.those(is_drained=True), *self.those(is_killed=True, is_drained=False)]:
                self.lose(number, Exited(number, "ended"))
            deadline = self.supervisor.next_deadline()
            if deadline is not None:
                assert deadline - self.now <= LONGEST_S
                self.now = max(self.now, deadline)
                self.tell(TimePassed())
        assert not self.supervisor.is_reloading
        assert {len(self.serving(slot)) for slot in self.slots()} == {1}
        assert len(self.processes) == len(self.slots())


World.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
test_any_history = World.TestCase
