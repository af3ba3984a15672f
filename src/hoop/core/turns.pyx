"""The turn: runs what the scheduler holds and what the poller reports, each when its time has come.

One turn, in asyncio's order (docs/architecture.md says why):

    poll -> callbacks ready by then -> polled I/O, straight into watchers -> timers due by then -> immediates

and after each callback of any kind, settle() (reactor.pyx); after each of the four phases, end_phase(). What callbacks
of a turn schedule runs in the next turn.
"""
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from hoop.core.cpython_api cimport PyErr_CheckSignals
from hoop.core.csrc cimport *
from hoop.core.errors cimport check, pass_exits_on
from hoop.core.handle cimport Handle, Immediate, ScheduledHandle, begin_guarded, end_guarded
from hoop.core.ownership cimport IS_FREE_THREADED, hoop_load_flag, hoop_store
from hoop.core.reactor cimport Reactor, Watcher, call_one, seconds_since
from libc.errno cimport EINTR
from libc.stdint cimport int64_t

from asyncio.log import logger

cdef enum:
    MOST_SKIPPED_POLLS = 1      # turns in a row without a poll, while callbacks are ready
    MOST_SKIPPED_UNWATCHED = 7  # the same while no descriptor is watched but the waker: a poll could find nothing
    SHORT_BATCH = 2             # a poll is skipped only after a turn of at most this many callbacks
    VAIN_PROBES = 16            # looks in a row that found nothing: from then on the loop sleeps without one
    PROMPT_NS = 2000            # a sleep that ends sooner had nothing to wait for: a look would have found it
    GIVE_WAY_NS = 10000000      # longer than sys.getswitchinterval(), see give_way()
    STALE_WAITS_ALLOWED = 8     # after so many the kernel's set has a registration that we cannot remove: rebuild it


cdef class Turns(Reactor):
    def __init__(self, *, poller=None, clock=None, poll_every_turn=False, cached_reads=True, defer_writes=True,
                 io_uring=True, int spin_us=0):
        Reactor.__init__(self, poller, clock, cached_reads, defer_writes, io_uring)
        self.poll_every_turn = poll_every_turn
        self.event_spin.limit_ns = spin_us * 1000

    cdef int run_turns(self, bint until_idle) except -1:
        """Turn until stop(), or until nothing is left to wait for.

        KeyboardInterrupt and SystemExit pass through. The caller has claimed the loop; it is free again in the end.
        """
        self.look_at_time()
        self.check_open()  # another thread may have closed it since the caller asked
        self.must_poll = True
        self.in_callback = True
        try:
            hoop_meter_start(&self.meter, self.now_ns())
            if self.board.place != NULL:
                hoop_board_tell_run(&self.board, &self.meter, True, hoop_clock_ns())
            self.end_phase()
            while True:
                try:
                    while not until_idle or self.is_alive():
                        self.turn()
                        if self.stopping:
                            break
                    break
                except MemoryError as error:
                    self.turn_failed(error)
        finally:
            self.in_callback = False
            try:
                self.flush_writes(True)
                self.leave_context()
            finally:
                self.stopping = False
                hoop_store(&self.thread_id, 0)
                self._current_handle = None
                hoop_meter_stop(&self.meter, self.now_ns())
                if self.board.place != NULL:
                    hoop_board_tell_run(&self.board, &self.meter, False, hoop_clock_ns())
        return 0

    cdef int turn_failed(self, object error) except -1:
        """The loop itself has run out of memory: report it, and leave the rest of this turn queued. Not for ever."""
        self.note_failed_turn(self.meter.turns, error)
        self.must_poll = True
        return self.report_failure("The event loop found no memory for a turn", error, None, None)

    cdef int turn(self) except -1:
        cdef int count = 0
        cdef size_t batch
        self.meter.turns += 1
        if self.errands is not None:
            self.leave_context()
            self.run_errands()
        if not hoop_inbox_is_empty(&self.inbox) or self.arrived != NULL:
            self.take_inbox()
        batch = hoop_ring_size(&self.ready)
        if (batch == 0 or self.must_poll or self.last_batch > SHORT_BATCH
                or self.skipped_polls >= (MOST_SKIPPED_POLLS if self.poller.live_count > 1 else MOST_SKIPPED_UNWATCHED)
                or self.stopping or self.debug or self.poll_every_turn):
            count = self.poll(batch == 0)
            self.skipped_polls = 0
            self.must_poll = False
            if not hoop_inbox_is_empty(&self.inbox):
                self.take_inbox()
            batch = hoop_ring_size(&self.ready)
            if self.timers.size > 0:
                self.take_due_timers(self.meter.looked_ns)
        else:
            self.skipped_polls += 1
            if self.timers.size > 0 and self.may_have_due_timers():
                self.take_due_timers(self.now_ns())
        self.last_batch = batch
        self.run_ready(batch)
        if self.after_is_due:
            self.end_phase()
        if count > 0:
            self.dispatch(count)
            if self.after_is_due:
                self.end_phase()
        batch = hoop_ring_size(&self.due)
        if batch > 0:
            self.run_due(batch)
            if self.after_is_due:
                self.end_phase()
        batch = hoop_ring_size(&self.immediates)
        if batch > 0:
            self.run_immediates(batch)
            if self.after_is_due:
                self.end_phase()
        return 0

    cdef int poll(self, bint may_block) except -1:
        """Fill self.events, and return their number. Ask without blocking first, under the GIL: releasing the GIL and
        getting it back from a busy thread costs up to a switch interval, and under load there always is an event. A
        loop that has asked in vain for a while does not ask, until sleep() has found an event that was there already.
        """
        cdef int count = 0
        cdef int64_t now_ns
        self.meter.polls += 1
        if self.entered is not None:
            self.leave_context()
        if self.noted_ns - self.gave_way_ns > GIVE_WAY_NS:
            self.give_way()
        if not may_block:  # ready callbacks may be compiled code; sleep() hears them itself, give_way() during events
            self.hear_signals()  # before taking events: it may raise
        if may_block and self.vain_probes >= VAIN_PROBES:
            count = self.sleep(False)
        else:
            count = hoop_poller_wait(&self.poller, self.events, EVENT_CAPACITY, 0)
            may_block = may_block and count == 0
            if may_block:
                self.vain_probes += 1
                count = self.sleep(True)
            else:
                self.vain_probes = 0
        if not may_block:
            now_ns = self.now_ns()
            hoop_meter_looked(&self.meter, now_ns)
            self.noted_ns = now_ns if self.clock is None else hoop_clock_ns()
            if self.board.place != NULL:
                hoop_board_tell_look(&self.board, &self.meter, self.noted_ns, self.jobs_in_flight)
        if count == -EINTR:
            self.hear_signals()
            return 0
        check(count)
        return count

    cdef int hear_signals(self) except -1:
        """Run Python's own signal handlers where no Python code runs, which would do so: else a signal that came during
        compiled code would wait until the loop has slept."""
        PyErr_CheckSignals()
        return self.end_phase()

    cdef int give_way(self) except -1:
        """Let another thread have the GIL if it waits for it. Python code does so by itself; but a loop may be busy
        with compiled callbacks alone, and never sleep.

        A thread that waits asks for the GIL after a switch interval (5 ms), and begins to wait anew when it is let go
        and was not asked for: who lets it go that often is never asked, and takes it back before another thread wakes.
        """
        self.gave_way_ns = self.noted_ns
        with nogil:
            pass
        return self.hear_signals()

    cdef int sleep(self, bint has_probed) except -1:
        """As poll, but wait until something happens or is due; may return -EINTR. Events that come at short intervals
        are waited for with open eyes, which costs less than to sleep and to be woken. The meter counts the wait for
        the GIL as busy."""
        cdef int count = 0
        cdef bint has_own_clock = self.clock is not None
        cdef int64_t now_ns, limit_ns
        cdef hoop_spin *spin
        cdef hoop_spin_for what
        self.hear_signals()
        now_ns = self.now_ns()
        self.noted_ns = hoop_clock_ns() if has_own_clock else now_ns
        limit_ns = self.sleep_limit_ns(now_ns)
        if limit_ns == 0 or hoop_ring_size(&self.ready) > 0:
            hoop_meter_looked(&self.meter, now_ns)
            if self.board.place != NULL:
                hoop_board_tell_look(&self.board, &self.meter, self.noted_ns, self.jobs_in_flight)
            return 0 if has_probed else hoop_poller_wait(&self.poller, self.events, EVENT_CAPACITY, 0)
        hoop_meter_asleep(&self.meter, now_ns)
        if self.board.place != NULL:
            hoop_board_tell_look(&self.board, &self.meter, 0, self.jobs_in_flight)
        self.in_callback = False
        if self.jobs_in_flight > 0:
            spin, what = &self.job_spin, HOOP_SPIN_FOR_NODES
        else:
            spin, what = &self.event_spin, HOOP_SPIN_FOR_BOTH if IS_FREE_THREADED else HOOP_SPIN_FOR_EVENTS
        if hoop_spin_may(spin):
            with nogil:
                count = hoop_spin_before_sleep(spin, &self.inbox, &self.poller, self.events, EVENT_CAPACITY,
                                               &limit_ns, what)
                now_ns = hoop_clock_ns()
            if count == 0:
                self.hear_signals()
        if count == 0 and hoop_ring_size(&self.ready) == 0 and hoop_inbox_prepare_sleep(&self.inbox):
            self.meter.sleeps += 1
            with nogil:
                count = hoop_poller_wait(&self.poller, self.events, EVENT_CAPACITY, limit_ns)
                now_ns = hoop_clock_ns()
                # A thread that has woken the loop needs the GIL for a moment yet: do what needs none meanwhile.
                if count == 1 and self.events[0].fd == self.waker.read_fd and self.drain_waker() == 0:
                    count = 0
                    if what == HOOP_SPIN_FOR_EVENTS:
                        hoop_spin_put_off(spin)
                if self.board.place != NULL:
                    hoop_board_woke(&self.board, now_ns)  # also while another thread keeps the GIL
            hoop_inbox_awake(&self.inbox)
        if count > 0 and now_ns - self.noted_ns < PROMPT_NS:
            self.vain_probes = 0
        self.gave_way_ns = now_ns
        self.in_callback = not self.forked  # a child that goes on from here may end before its callback does
        if not has_own_clock:
            self.noted_ns = now_ns
        hoop_meter_woke(&self.meter, self.now_ns() if has_own_clock else now_ns)
        if self.board.place != NULL:
            hoop_board_woke(&self.board, hoop_clock_ns() if has_own_clock else now_ns)
        return count

    cdef int drain_waker(self) noexcept nogil:
        return hoop_waker_drain(&self.waker) if self.drains_waker else 0

    cdef int run_ready(self, size_t count) except -1:
        cdef PyObject *entry
        while count > 0:
            count -= 1
            entry = <PyObject *>hoop_ring_pop(&self.ready)
            if entry == NULL:
                break  # a callback has closed the loop
            try:
                if hoop_load_flag(&(<Handle>entry).is_cancelled):
                    pass
                elif (<Handle>entry).is_guarded:
                    run_guarded(self, <Handle>entry)
                else:
                    run_one(self, <Handle>entry)
            finally:
                Py_DECREF(<object>entry)  # the ring's reference
        return 0

    cdef int run_due(self, size_t count) except -1:
        cdef ScheduledHandle handle
        cdef PyObject *entry
        while count > 0:
            count -= 1
            entry = <PyObject *>hoop_ring_pop(&self.due)
            if entry == NULL:
                break
            handle = <ScheduledHandle>entry
            Py_DECREF(handle)
            if handle.is_cancelled or not handle.is_scheduled or hoop_timer_is_pending(&handle.timer):
                continue  # the last: an earlier callback of this turn has put it off
            if handle.is_repeating:
                try:
                    call_one(self, handle)
                finally:
                    handle.repeat()
                if self.after_is_due:
                    self.settle()
            else:
                handle.is_scheduled = False
                run_one(self, handle)
        return 0

    cdef int run_immediates(self, size_t count) except -1:
        cdef Immediate handle
        cdef PyObject *entry
        while count > 0:
            count -= 1
            entry = <PyObject *>hoop_ring_pop(&self.immediates)
            if entry == NULL:
                break
            handle = <Immediate>entry
            Py_DECREF(handle)
            handle.is_pending = False
            if not hoop_load_flag(&handle.is_cancelled):
                run_one(self, handle)
        return 0

    cdef int dispatch(self, int count) except -1:
        """Pass events to watchers. An error that a watcher has not caught is its own, and the next one has its turn.
        (One try block for all: one for each would cost each.)"""
        cdef int done = 0
        while True:
            try:
                self.dispatch_from(&done, count)
                break
            except BaseException as error:
                pass_exits_on(error)
                self.event_failed(done - 1, error)
        if self.has_stale:
            self.has_stale = False
            self.stale_waits += 1
            if self.stale_waits > STALE_WAITS_ALLOWED:
                self.stale_waits = 0
                hoop_poller_rebuild(&self.poller)  # fails when we are out of descriptors; retried later
        else:
            self.stale_waits = 0
        return 0

    cdef int event_failed(self, int index, object error) except -1:
        cdef Watcher watcher = None
        if self.is_telling:
            self.is_telling = False
            watcher = self.watcher_of(self.events[index].fd)
        if watcher is not None:
            return watcher.on_failed(error)
        return self.report_failure("Error in an event loop", error, None, None)

    cdef int dispatch_from(self, int *done, int count) except -1:
        """Check each event anew, since callbacks in between may have closed or paused its watcher."""
        cdef unsigned events
        cdef hoop_event *event
        cdef Watcher watcher
        while done[0] < count:
            event = &self.events[done[0]]
            done[0] += 1
            if event.fd == self.waker.read_fd:
                check(self.drain_waker())
                continue
            if hoop_poller_generation(&self.poller, event.fd) != event.generation:
                self.has_stale = True
                continue
            watcher = self.watcher_of(event.fd)
            if watcher is None:
                continue
            self.is_telling = True
            if event.events & HOOP_FAILED:
                self.count_watcher(watcher, False)
                watcher.on_watch_failed(event.error)
            else:
                events = event.events & hoop_poller_interest(&self.poller, event.fd)
                if events == 0:
                    if not hoop_poller_is_applied(&self.poller, event.fd):
                        self.has_stale = True  # fd was closed before unwatch(), and a duplicate lives on
                    continue
                self.meter.events += 1
                if self.debug:
                    self.dispatch_timed(watcher, events)
                else:
                    watcher.on_events(events)
            self.is_telling = False
            if self.after_is_due and done[0] < count:  # end_phase() follows the last one
                self.settle()
        return 0

    cdef int dispatch_timed(self, Watcher watcher, unsigned events) except -1:
        cdef int64_t began_ns = hoop_clock_ns()
        watcher.on_events(events)
        cdef double took_s = seconds_since(began_ns)
        if took_s >= self.slow_callback_duration:
            logger.warning("Executing %r took %.3f seconds", watcher, took_s)
        return 0


# ---- the parts of a turn ------------------------------------------------------------------------------------------

cdef inline int run_one(Reactor reactor, Handle handle) except -1:
    call_one(reactor, handle)
    if reactor.after_is_due:
        reactor.settle()
    return 0


cdef int run_guarded(Reactor reactor, Handle handle) except -1:
    if not begin_guarded(handle):
        return 0
    try:
        call_one(reactor, handle)
    finally:
        end_guarded(handle)
    if reactor.after_is_due:
        reactor.settle()
    return 0
