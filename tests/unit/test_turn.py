"""One turn of the loop: ready callbacks, I/O, timers, immediates; what they queue waits for the next turn.

Most tests run one turn at a time, by stop() before run_forever(). The rule that lets the loop skip polls while
callbacks are ready has tests of its own at the end, on a loop that runs freely.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator

import hoop
import pytest
from stepping import one_turn, run_guarded

DEADLINE_S = 60.0
MOST_TURNS_WITHOUT_A_POLL = 1
MOST_TURNS_WITHOUT_A_POLL_ON_ITS_OWN = 7  # where the loop watches nothing
MILLISECOND_NS = 1_000_000


@pytest.fixture(params=[False, True], ids=["", "poll every turn"])
def loop(request: pytest.FixtureRequest) -> Iterator[hoop.Loop]:
    loop = hoop.Loop(poll_every_turn=request.param)
    yield loop
    loop.close()


class Pair:
    """A socket pair whose left end is watched."""

    def __init__(self, loop: hoop.Loop) -> None:
        self.loop = loop
        self.left, self.right = socket.socketpair()
        self.left.setblocking(False)

    def watch(self, callback: Callable[..., object], *args: object) -> None:
        self.loop.add_reader(self.left, callback, *args)

    def make_readable(self) -> None:
        self.right.send(b"x")

    def drain(self) -> None:
        self.left.recv(100)

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.remove_reader(self.left)
        self.left.close()
        self.right.close()


@pytest.fixture
def pair(loop: hoop.Loop) -> Iterator[Pair]:
    pair = Pair(loop)
    yield pair
    pair.close()


# The order inside one turn.


def test_ready_then_io_then_timers_then_immediates(loop, pair):
    seen: list[str] = []

    def readable() -> None:
        pair.drain()
        seen.append("I/O")

    loop.set_immediate(seen.append, "immediate 1")
    loop.call_at(loop.time() - 1, seen.append, "timer 2")
    loop.call_at(loop.time() - 2, seen.append, "timer 1")
    pair.watch(readable)
    pair.make_readable()
    loop.set_immediate(seen.append, "immediate 2")
    loop.call_soon(seen.append, "ready 1")
    loop.call_soon(seen.append, "ready 2")
    one_turn(loop)
    assert seen == ["ready 1", "ready 2", "I/O", "timer 1", "timer 2", "immediate 1", "immediate 2"]


def test_what_each_kind_queues_runs_in_the_next_turn_in_the_same_order(loop, pair):
    seen: list[str] = []

    def queue(kind: str) -> None:
        seen.append(kind)
        loop.call_at(loop.time() - 1, seen.append, f"timer of {kind}")
        loop.call_soon(seen.append, f"ready of {kind}")

    def readable() -> None:
        pair.drain()
        queue("I/O")

    loop.set_immediate(queue, "immediate")
    loop.call_at(loop.time() - 1, queue, "timer")
    pair.watch(readable)
    pair.make_readable()
    loop.call_soon(queue, "ready")
    one_turn(loop)
    kinds = ["ready", "I/O", "timer", "immediate"]
    assert seen == kinds
    one_turn(loop)
    assert seen == kinds + [f"ready of {kind}" for kind in kinds] + [f"timer of {kind}" for kind in kinds]


def test_immediates_of_all_earlier_kinds_run_at_the_end_of_the_same_turn(loop, pair):
    seen: list[str] = []

    def readable() -> None:
        pair.drain()
        loop.set_immediate(seen.append, "of I/O")

    loop.call_at(loop.time() - 1, loop.set_immediate, seen.append, "of timer")
    pair.watch(readable)
    pair.make_readable()
    loop.call_soon(loop.set_immediate, seen.append, "of ready")
    one_turn(loop)
    assert seen == ["of ready", "of I/O", "of timer"]


def test_a_threadsafe_call_made_before_the_turn_belongs_to_its_batch(loop):
    seen: list[str] = []
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, "threadsafe"))
    thread.start()
    thread.join(DEADLINE_S)
    loop.set_immediate(seen.append, "immediate")
    one_turn(loop)
    assert seen == ["threadsafe", "immediate"]


def test_what_becomes_readable_during_the_batch_is_seen_by_the_next_poll(loop, pair):
    """The poll comes first: a descriptor that a ready callback makes readable waits, as on asyncio."""
    seen: list[str] = []
    pair.watch(seen.append, "I/O")
    loop.call_soon(pair.make_readable)
    one_turn(loop)
    assert seen == []
    one_turn(loop)
    assert seen == ["I/O"]


def test_a_timer_set_in_the_past_by_a_ready_callback_waits_for_the_next_turn(loop):
    seen: list[str] = []
    loop.call_soon(loop.call_at, loop.time() - 10, seen.append, "set by ready")
    loop.call_at(loop.time() - 1, seen.append, "due before")
    one_turn(loop)
    assert seen == ["due before"]
    one_turn(loop)
    assert seen == ["due before", "set by ready"]


# What earlier callbacks of a turn do to later ones.


def test_a_ready_callback_can_remove_the_reader_of_a_polled_event(loop, pair):
    seen: list[str] = []
    pair.watch(seen.append, "I/O")
    pair.make_readable()
    loop.call_soon(loop.remove_reader, pair.left)
    one_turn(loop)
    one_turn(loop)
    assert seen == []


def test_a_ready_callback_can_replace_the_reader_of_a_polled_event(loop, pair):
    """The replaced callback must not run any more; whether the new one runs in this turn or in the next is free."""
    seen: list[str] = []
    pair.watch(seen.append, "old")
    pair.make_readable()
    loop.call_soon(pair.watch, seen.append, "new")
    one_turn(loop)
    one_turn(loop)
    assert "old" not in seen and "new" in seen


def test_a_reader_can_remove_the_other_readers_of_the_same_poll(loop):
    pairs = [Pair(loop) for _ in range(6)]
    seen: list[int] = []

    def readable(number: int) -> None:
        seen.append(number)
        for pair in pairs:
            loop.remove_reader(pair.left)

    for number, pair in enumerate(pairs):
        pair.watch(readable, number)
        pair.make_readable()
    one_turn(loop)
    one_turn(loop)
    assert len(seen) == 1
    for pair in pairs:
        pair.close()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="only epoll reports what was closed behind its back")
def test_stale_events_without_a_descriptor_to_be_had_do_not_end_the_loop():
    """The way out of them needs one. Until then they cost time, and nothing else."""
    loop = hoop.Loop(poller="epoll", poll_every_turn=True)
    (stale, peer), (watched, other) = socket.socketpair(), socket.socketpair()
    held = [os.dup(stale.fileno())]  # keeps the registration alive
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    turns = []

    def turn():
        turns.append(None)
        loop.call_soon(turn if len(turns) < 50 else loop.stop)

    try:
        loop.call_soon(loop.stop)
        loop.run_forever()  # what the loop itself needs is open from here on
        loop.add_reader(stale, int)
        peer.send(b"x")
        os.dup2(watched.fileno(), stale.fileno())
        loop.add_reader(stale.fileno(), int)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held[0], watched.fileno(), other.fileno()) + 20, most))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(held[0]))
        turn()
        loop.run_forever()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        for fd in held:
            os.close(fd)
        for end in (stale, peer, watched, other):
            end.close()
        loop.close()
    assert len(turns) == 50


def test_a_descriptor_closed_and_reused_in_the_turn_gets_no_stale_event(loop):
    """The polled event names a slot and a generation, never just a number."""
    first = Pair(loop)
    seen: list[str] = []
    replacement: list[Pair] = []
    number = first.left.fileno()

    def replace() -> None:
        first.close()
        replacement.append(Pair(loop))
        replacement[0].watch(seen.append, "new owner")

    first.watch(seen.append, "old owner")
    first.make_readable()
    loop.call_soon(replace)
    one_turn(loop)
    one_turn(loop)
    assert seen == []
    assert number in (replacement[0].left.fileno(), replacement[0].right.fileno())
    replacement[0].make_readable()
    one_turn(loop)
    assert seen == ["new owner"]
    replacement[0].close()


def test_a_ready_callback_can_cancel_a_due_timer_and_an_immediate(loop):
    seen: list[str] = []
    timer = loop.call_at(loop.time() - 1, seen.append, "timer")
    immediate = loop.set_immediate(seen.append, "immediate")
    loop.call_soon(timer.cancel)
    loop.call_soon(immediate.cancel)
    one_turn(loop)
    one_turn(loop)
    assert seen == []


def test_an_exit_in_each_kind_keeps_the_rest_of_the_turn(loop, pair):
    def interrupt() -> None:
        raise KeyboardInterrupt

    seen: list[str] = []

    def readable() -> None:
        pair.drain()
        seen.append("I/O")

    loop.call_soon(interrupt)
    loop.call_soon(seen.append, "ready")
    pair.watch(readable)
    pair.make_readable()
    loop.call_at(loop.time() - 2, interrupt)
    loop.call_at(loop.time() - 1, seen.append, "timer")
    loop.set_immediate(interrupt)
    loop.set_immediate(seen.append, "immediate")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    one_turn(loop)
    one_turn(loop)
    assert sorted(seen) == ["I/O", "immediate", "ready", "timer"]


# Blocking.


def test_an_idle_turn_after_stop_does_not_wait(loop, pair):
    pair.watch(print)
    loop.call_later(3600, print)
    for _ in range(5):
        one_turn(loop)


def test_a_sleeping_loop_wakes_for_each_kind(loop, pair):
    seen: list[str] = []

    def readable() -> None:
        pair.drain()
        seen.append("I/O")
        loop.call_later(0.001, timer)

    def timer() -> None:
        seen.append("timer")
        threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,)).start()

    pair.watch(readable)
    loop.call_soon(lambda: threading.Thread(target=pair.make_readable).start())
    run_guarded(loop)
    assert seen == ["I/O", "timer"]


# A clock of the test's own.


def test_the_clock_decides_what_is_due():
    now_ns = [0]
    loop = hoop.Loop(clock=lambda: now_ns[0])
    try:
        seen: list[str] = []
        assert loop.time() == 0.0
        loop.call_later(0.010, seen.append, "10 ms")
        loop.call_later(0.005, seen.append, "5 ms")
        loop.call_at(0.0025, seen.append, "2.5 ms")
        one_turn(loop)
        assert seen == []
        for at_ns, expected in ((2_499_999, 0), (2_500_001, 1), (4_999_999, 1), (9_999_000, 2), (10_000_001, 3)):
            now_ns[0] = at_ns
            assert loop.time() == at_ns / 1e9
            one_turn(loop)
            assert len(seen) == expected, at_ns
        assert seen == ["2.5 ms", "5 ms", "10 ms"]
    finally:
        loop.close()


@pytest.mark.parametrize("wrong", [1, "text", object()], ids=repr)
def test_a_clock_must_be_callable(wrong):
    with pytest.raises(TypeError):
        hoop.Loop(clock=wrong)


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_a_clock_that_raises_reaches_the_caller(error):
    broken: list[bool] = []

    def clock() -> int:
        if broken:
            raise error
        return 0

    loop = hoop.Loop(clock=clock)
    try:
        broken.append(True)
        with pytest.raises(error):
            loop.time()
        with pytest.raises(error):
            loop.call_later(1, print)
        broken.clear()
        one_turn(loop)
    finally:
        loop.close()


def test_timers_of_a_free_running_loop_follow_the_clock():
    """The clock moves with each turn; the order is that of the deadlines and no timer is early."""
    now_ns = [0]
    loop = hoop.Loop(clock=lambda: now_ns[0])
    seen: list[int] = []
    early: list[int] = []

    def fire(deadline_ms: int) -> None:
        seen.append(deadline_ms)
        if now_ns[0] < deadline_ms * MILLISECOND_NS:
            early.append(deadline_ms)

    def tick() -> None:
        now_ns[0] += MILLISECOND_NS
        if now_ns[0] > 200 * MILLISECOND_NS:
            loop.stop()
        else:
            loop.set_immediate(tick)

    try:
        for deadline_ms in (50, 3, 170, 1, 99, 98, 97, 2, 120, 60):
            loop.call_at(deadline_ms / 1000, fire, deadline_ms)
        loop.set_immediate(tick)
        loop.run_forever()
        assert seen == sorted(seen) and len(seen) == 10 and early == []
    finally:
        loop.close()


# Skipping polls while callbacks are ready.


def turns_until_seen(loop: hoop.Loop, pair: Pair, start: int, chain_width: int) -> int:
    """Run chains of callbacks; in turn `start` make the descriptor readable; count turns until its reader runs."""
    turns = [0]
    answer: list[int] = []

    def readable() -> None:
        pair.drain()
        answer.append(turns[0] - start)
        loop.stop()

    def link() -> None:
        loop.call_soon(link)

    def counting_link() -> None:
        turns[0] += 1
        if turns[0] == start:
            pair.make_readable()
        loop.call_soon(counting_link)

    pair.watch(readable)
    loop.call_soon(counting_link)
    for _ in range(chain_width - 1):
        loop.call_soon(link)
    run_guarded(loop)
    return answer[0]


@pytest.mark.parametrize("chain_width", [1, 2, 3, 10])
@pytest.mark.parametrize("start", [1, 2, 8, 9, 100, 101, 103, 107])
def test_a_busy_loop_polls_often_enough(loop, pair, start, chain_width):
    """At most one turn in a row goes without a poll, and only after turns of one or two callbacks."""
    waited = turns_until_seen(loop, pair, start, chain_width)
    assert 0 <= waited <= (MOST_TURNS_WITHOUT_A_POLL + 1 if chain_width <= 2 else 1)


def polls_of_a_chain(loop: hoop.Loop, turns: int) -> int:
    """How often the loop polls while one callback after the other is ready, `turns` times."""
    left = [turns]

    def link() -> None:
        left[0] -= 1
        if left[0] > 0:
            loop.call_soon(link)
        else:
            loop.stop()

    loop.call_soon(link)
    before = loop.metrics().polls
    loop._run_turns()
    return loop.metrics().polls - before


def test_a_chain_polls_in_every_second_turn(pair):
    loop = hoop.Loop()
    own = Pair(loop)
    try:
        own.watch(own.drain)
        assert polls_of_a_chain(loop, 1000) in range(500, 503)
    finally:
        own.close()
        loop.close()


def test_a_loop_that_watches_nothing_polls_less_often():
    """Nothing could be found: what other threads post is looked at in every turn, poll or not."""
    loop = hoop.Loop()
    try:
        assert polls_of_a_chain(loop, 1000) in range(124, 129)
    finally:
        loop.close()


def test_poll_every_turn_is_exact(pair):
    loop = hoop.Loop(poll_every_turn=True)
    own = Pair(loop)
    try:
        assert turns_until_seen(loop, own, 50, 1) == 1
    finally:
        own.close()
        loop.close()


def test_debug_mode_polls_every_turn():
    loop = hoop.Loop()
    loop.set_debug(True)
    own = Pair(loop)
    try:
        assert turns_until_seen(loop, own, 50, 1) == 1
    finally:
        own.close()
        loop.close()


def test_a_registration_is_polled_in_the_next_turn(loop, pair):
    """A descriptor that was readable when it was registered must not wait for a skipped poll."""
    turns = [0]
    answer: list[int] = []
    pair.make_readable()

    def readable() -> None:
        answer.append(turns[0])
        loop.stop()

    def link() -> None:
        turns[0] += 1
        if turns[0] == 50:
            pair.watch(readable)
        loop.call_soon(link)

    loop.call_soon(link)
    run_guarded(loop)
    assert answer == [51]


def test_the_first_turn_of_each_run_polls(loop, pair):
    seen: list[str] = []
    for _ in range(20):
        pair.make_readable()
        pair.watch(lambda: (pair.drain(), seen.append("I/O")))
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert seen == ["I/O"] * 20


def test_timers_and_threads_reach_a_busy_loop(loop):
    seen: list[str] = []

    def link() -> None:
        if len(seen) == 2:
            loop.stop()
        else:
            loop.call_soon(link)

    loop.call_soon(link)
    loop.call_later(0.001, seen.append, "timer")
    threading.Thread(target=loop.call_soon_threadsafe, args=(seen.append, "threadsafe")).start()
    run_guarded(loop)
    assert sorted(seen) == ["threadsafe", "timer"]


def test_a_due_timer_is_not_late_in_turns_while_callbacks_are_ready():
    """Skipped polls skip the poll only: a timer that is due when a turn begins runs in that turn."""
    now_ns = [0]
    loop = hoop.Loop(clock=lambda: now_ns[0])
    turns = [0]
    fired: list[int] = []

    def link() -> None:
        turns[0] += 1
        now_ns[0] += MILLISECOND_NS
        if turns[0] < 100:
            loop.call_soon(link)
        else:
            loop.stop()

    try:
        for deadline in range(10, 90, 7):
            loop.call_at((deadline + 0.5) / 1000, lambda: fired.append(turns[0]))
        loop.call_soon(link)
        loop.run_forever()
        # The clock passes x.5 ms during turn x + 1, so that the timer is due when turn x + 2 begins.
        # A loop that reads its clock after the ready callbacks may run it one turn before.
        assert len(fired) == 12
        for deadline, turn in zip(range(10, 90, 7), fired, strict=True):
            assert turn in (deadline + 1, deadline + 2)
    finally:
        loop.close()


def test_nor_is_it_by_the_real_clock_of_which_most_turns_see_the_latest_tick_only():
    loop = hoop.Loop()
    begun: list[float] = []
    fired: list[int] = []

    def link() -> None:
        begun.append(loop.time())
        if len(fired) == 12:
            loop.stop()
            return
        while loop.time() < begun[-1] + 0.001:
            pass
        loop.call_soon(link)

    try:
        first = loop.time()
        deadlines = [first + number * 0.007 for number in range(1, 13)]
        for deadline in deadlines:
            loop.call_at(deadline, lambda: fired.append(len(begun)))
        loop.call_soon(link)
        run_guarded(loop)
        for deadline, turn in zip(deadlines, fired, strict=True):
            # At most a poll's distance away, should the machine have stood still, and the tick with it.
            assert sum(deadline <= time for time in begun[:turn]) <= MOST_TURNS_WITHOUT_A_POLL_ON_ITS_OWN + 1
    finally:
        loop.close()


def test_a_thread_gets_the_gil_from_a_loop_that_never_sleeps() -> None:
    """Its clock is the test's own, so the loop looks at it in each turn; and there is a timer to look for."""
    loop = hoop.Loop(clock=lambda: MILLISECOND_NS)
    loop.call_later(1.0, loop.stop)

    def take() -> None:
        for _ in range(200):
            select.select([], [], [], 0)  # lets the GIL go
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=take)
    thread.start()
    loop.run_forever()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    loop.close()
