"""The reactor: descriptors, and the turn that runs what the scheduler holds and what the poller reports. It knows no
transport.

One turn, in asyncio's order (docs/architecture.md says why):

    poll -> callbacks ready by then -> polled I/O, straight into watchers -> timers due by then -> immediates

and after each callback of any kind, settle(): microtasks (all next_ticks, then all microtasks, until both are empty),
then the writes that were deferred. What a turn's callbacks schedule runs in the next turn.

Ownership: like the scheduler's queues, the ring of flushes and the table of watchers own one reference to each entry. The
garbage collector sees all of them (garbage.pyx), so an abandoned loop is collected with everything that it holds.
"""
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.core.cpython_api cimport PyContext_Exit, PyErr_CheckSignals, PyThread_get_thread_ident, \
    raw_context_enter, raw_context_exit, raw_decref, raw_incref
from hoop.core.csrc cimport *
from hoop.core.errors cimport check, os_error, raise_what_is_set
from hoop.core.handle cimport Handle, Immediate, ScheduledHandle, ThreadSafeHandle, callback_source, described, invoke
from hoop.core.poller_choice cimport open_poller
from hoop.core.rings cimport drain, push
from hoop.core.scheduler cimport Errand, Scheduler
from libc.errno cimport EINTR, ENOENT
from libc.stdint cimport int64_t
from libc.string cimport memset

import asyncio
from asyncio.log import logger

cdef enum:
    EVENT_CAPACITY = 256
    MOST_SKIPPED_POLLS = 1     # turns in a row without a poll, while callbacks are ready
    MOST_SKIPPED_UNWATCHED = 7 # the same while no descriptor is watched but the waker: a poll could find nothing
    SHORT_BATCH = 2            # a poll is skipped only after a turn of at most this many callbacks
    STALE_WAITS_ALLOWED = 8    # then the kernel's set holds a registration that cannot be removed: rebuild it


cdef class Watcher(Errand):
    def __cinit__(self):
        self.fd = -1

    cdef int on_events(self, unsigned events) except -1:
        raise NotImplementedError("a watcher must handle its events")

    cdef int on_watch_failed(self, int error) except -1:
        return self.on_failed(os_error(-error))

    cdef int on_failed(self, object error) except -1:
        return self.reactor.report({"message": f"Error while a descriptor's event was handled: {self!r}",
                                    "exception": error})

    cdef int on_loop_closed(self) except -1:
        return 0

    cdef int on_flush(self, bint is_loop_calling) except -1:
        return 0

    cdef int on_descriptor_lost(self) except -1:
        return 0

    cdef int set_referenced(self, bint is_referenced) except -1:
        self.is_unreferenced = not is_referenced
        if self.is_watched:
            self.reactor.count_watcher(self, self.reactor.interest(self) != 0)
        return 0

    def ref(self):
        """Have loop.run() wait for this again, as it does by default. Returns self. (libuv: uv_ref)"""
        self.set_referenced(True)
        return self

    def unref(self):
        """Let loop.run() return although this is still open; nothing else changes. Returns self. (libuv: uv_unref)"""
        self.set_referenced(False)
        return self

    def has_ref(self):
        """Whether loop.run() waits for this as long as it is open and waits for something itself."""
        return not self.is_unreferenced


cdef class Reactor(Scheduler):
    def __cinit__(self, *args, **kwargs):
        hoop_ring_init(&self.flushes)
        self.slow_callback_duration = 0.1

    def __init__(self, *, poller=None, clock=None, poll_every_turn=False, cached_reads=True, defer_writes=True):
        if clock is not None and not callable(clock):
            raise TypeError(f"clock must be a callable returning nanoseconds, not {clock!r}")
        if self.events != NULL:
            raise RuntimeError("an event loop is initialised once")
        self.given_clock = clock
        self.look_at_time()
        self.poll_every_turn = poll_every_turn
        self.defers_writes = defer_writes
        self.reads_cached_files = cached_reads
        self.events = <hoop_event *>PyMem_Malloc(EVENT_CAPACITY * sizeof(hoop_event))
        self.read_buffer = <char *>PyMem_Malloc(READ_BUFFER_SIZE)
        if self.events == NULL or self.read_buffer == NULL:
            raise MemoryError()
        open_poller(&self.poller, poller)
        cdef int result = hoop_waker_open(&self.waker)
        if result >= 0:
            result = hoop_poller_add(&self.poller, self.waker.read_fd, HOOP_READABLE)
        if result < 0:
            hoop_waker_close(&self.waker)
            hoop_poller_close(&self.poller)
            raise os_error(result)
        self.closed = False

    def __dealloc__(self):
        # The collector may look once more before the object is gone (a debug build does): what is freed is out of its sight
        # first.
        cdef PyObject **watchers
        self.release_everything()
        watchers = self.watchers
        self.watchers = NULL
        self.watcher_capacity = 0
        PyMem_Free(watchers)
        hoop_waker_close(&self.waker)
        hoop_poller_close(&self.poller)
        PyMem_Free(self.events)
        PyMem_Free(self.read_buffer)
        hoop_datagram_reader_close(self.datagram_reader)

    cdef int report(self, dict context) except -1:
        """Hand a problem to the loop's exception handler: the one overridable method that is called from inside."""
        self.leave_context()
        self.call_exception_handler(context)
        return 0

    # ---- descriptors ----------------------------------------------------------------------------------------------

    cdef int watch(self, Watcher watcher, unsigned interest) except -1:
        """Enter watcher under its fd. Whoever stood there before has lost its descriptor: the number was reused."""
        cdef int fd = watcher.fd
        if self.forked:
            raise RuntimeError("this event loop belongs to the parent process; make a new one after fork()")
        self.check_open()
        cdef Watcher former = self.watcher_of(fd)
        if former is not None:
            hoop_poller_forget(&self.poller, fd)
            self.drop_watcher(fd)
            former.fd = -1
            former.on_descriptor_lost()
        check(hoop_poller_add(&self.poller, fd, interest))
        if fd >= self.watcher_capacity:
            try:
                self.grow_watchers(fd)
            except MemoryError:
                hoop_poller_remove(&self.poller, fd)
                raise
        self.watchers[fd] = <PyObject *>watcher
        watcher.is_watched = True
        self.count_watcher(watcher, interest != 0)
        hold(watcher, interest != 0 or watcher.is_kept_idle)
        self.must_poll = True
        return 0

    cdef int rewatch(self, Watcher watcher, unsigned interest) except -1:
        """Set the interest at once, not trusting that fd is still the file it was."""
        cdef int result = hoop_poller_rearm(&self.poller, watcher.fd, interest)
        if result < 0:
            if hoop_poller_generation(&self.poller, watcher.fd) == 0:
                self.drop_watcher(watcher.fd)
            raise os_error(result)
        self.count_watcher(watcher, interest != 0)
        self.must_poll = True
        return 0

    cdef int unwatch(self, Watcher watcher) except -1:
        """Forget watcher; its descriptor stays open. Idempotent."""
        if not watcher.is_watched:
            return 0
        if self.forked or self.poller.backend == NULL:
            hoop_poller_forget(&self.poller, watcher.fd)
        else:
            hoop_poller_remove(&self.poller, watcher.fd)  # -ENOENT only: it had already been refused
        self.drop_watcher(watcher.fd)
        self.must_poll = True  # it is likely to be closed now, and its peer may be watched here
        return 0

    cdef int set_interest(self, Watcher watcher, unsigned interest) except -1:
        cdef int result
        if not watcher.is_watched:
            return 0
        result = hoop_poller_set(&self.poller, watcher.fd, interest)
        if result < 0 and result != -ENOENT:
            raise os_error(result)
        self.must_poll = True
        self.count_watcher(watcher, interest != 0)
        hold(watcher, interest != 0 or watcher.is_kept_idle)
        return 0

    cdef unsigned interest(self, Watcher watcher) noexcept:
        return hoop_poller_interest(&self.poller, watcher.fd) if watcher.is_watched else 0

    cdef Watcher watcher_of(self, int fd):
        if fd < 0 or fd >= self.watcher_capacity or self.watchers[fd] == NULL:
            return None
        return <Watcher>self.watchers[fd]

    cdef int drop_watcher(self, int fd) except -1:
        cdef Watcher watcher = <Watcher>self.watchers[fd]
        self.watchers[fd] = NULL
        watcher.is_watched = False
        self.count_watcher(watcher, False)
        hold(watcher, False)
        return 0

    cdef int keep_idle(self, Watcher watcher) except -1:
        """From now on the table owns watcher also while it waits for nothing: until it is unwatched."""
        watcher.is_kept_idle = True
        if watcher.is_watched:
            hold(watcher, True)
        return 0

    cdef int count_watcher(self, Watcher watcher, bint is_waiting) except -1:
        cdef bint counts = is_waiting and not watcher.is_unreferenced
        if counts != watcher.is_counted:
            watcher.is_counted = counts
            if counts:
                self.references += 1
            else:
                self.references -= 1
        return 0

    cdef int grow_watchers(self, int fd) except -1:
        """Room for fd, an open descriptor: the kernel keeps those small."""
        cdef int capacity = max(64, self.watcher_capacity)
        while capacity <= fd:
            capacity = capacity * 2 if capacity < 0x3fffffff else fd + 1
        cdef PyObject **grown = <PyObject **>PyMem_Realloc(self.watchers, <size_t>capacity * sizeof(PyObject *))
        if grown == NULL:
            raise MemoryError()
        memset(grown + self.watcher_capacity, 0, (capacity - self.watcher_capacity) * sizeof(PyObject *))
        self.watchers = grown
        self.watcher_capacity = capacity
        return 0

    cdef int defer_flush(self, Watcher watcher) except -1:
        """Have watcher.on_flush() called when the running callback and its microtasks have ended."""
        if watcher.is_flush_due:
            return 0
        push(&self.flushes, watcher)
        watcher.is_flush_due = True
        self.after_is_due = True
        return 0

    # ---- contexts -------------------------------------------------------------------------------------------------

    cdef int enter_context(self, object context) except -1:
        """Be inside context. It stays entered until another one is needed or the batch ends."""
        if self.entered is context:
            return 0
        return switch_context(self, <PyObject *>context)

    cdef int leave_context(self) except -1:
        cdef object context = self.entered
        if context is not None:
            self.entered = None
            PyContext_Exit(context)
        return 0

    # ---- the turn -------------------------------------------------------------------------------------------------

    cdef int run_turns(self, bint until_idle) except -1:
        """Turn until stop(), or until nothing is left to wait for.

        An exception that no callback may keep (KeyboardInterrupt, SystemExit) passes through.
        """
        self.look_at_time()
        self.check_open()  # another thread may have closed it since the caller asked
        self.thread_id = PyThread_get_thread_ident()
        self.must_poll = True
        self.in_callback = True
        try:
            hoop_meter_start(&self.meter, self.now_ns())
            if self.after_is_due:
                self.settle()
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
                self.thread_id = 0
                self._current_handle = None
                hoop_meter_stop(&self.meter, self.now_ns())
        return 0

    cdef int turn_failed(self, object error) except -1:
        """A step of the loop's own found no memory: tell; what is left of this turn stands in the queues. Not for ever."""
        self.note_failed_turn(self.meter.turns, error)
        self.must_poll = True
        return self.report({"message": "The event loop found no memory for a turn", "exception": error})

    cdef int turn(self) except -1:
        cdef int count = 0
        cdef size_t batch
        self.meter.turns += 1
        if self.errands is not None:
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
            if self.timers.size > 0:
                self.take_due_timers(self.now_ns())
        self.last_batch = batch
        self.run_ready(batch)
        if count > 0:
            self.dispatch(count)
        batch = hoop_ring_size(&self.due)
        if batch > 0:
            self.run_due(batch)
        batch = hoop_ring_size(&self.immediates)
        if batch > 0:
            self.run_immediates(batch)
        if self.entered is not None:
            self.leave_context()
        return 0

    cdef int poll(self, bint may_block) except -1:
        """Fill self.events; their number. Asks without blocking first, under the GIL: giving the GIL away and getting it
        back from a busy thread costs up to a switch interval, and under load there always is an event."""
        cdef int count
        cdef int64_t now_ns
        self.meter.polls += 1
        if not may_block:  # what is ready may all be compiled code; sleep() asks by itself, and events end in Python code
            self.hear_signals()  # before they are taken: it may raise
        count = hoop_poller_wait(&self.poller, self.events, EVENT_CAPACITY, 0)
        if count == 0 and may_block:
            count = self.sleep()
        else:
            now_ns = self.now_ns()
            hoop_meter_looked(&self.meter, now_ns)
            self.noted_ns = now_ns if self.clock is None else hoop_clock_ns()
        if count == -EINTR:
            self.hear_signals()
            return 0
        check(count)
        return count

    cdef int hear_signals(self) except -1:
        """Run Python's own signal handlers, where no Python code runs that they would interrupt by themselves: a signal that
        has come while compiled code ran would otherwise wait until the loop has slept."""
        PyErr_CheckSignals()
        if self.after_is_due:
            self.settle()
        return 0

    cdef int sleep(self) except -1:
        """As poll, blocking until something happens or is due; also -EINTR. What the meter then counts as busy includes
        the wait for the GIL."""
        cdef int count = 0
        cdef bint has_own_clock = self.clock is not None
        cdef int64_t now_ns, limit_ns
        self.hear_signals()
        now_ns = self.now_ns()
        self.noted_ns = hoop_clock_ns() if has_own_clock else now_ns
        limit_ns = self.sleep_limit_ns(now_ns)
        if limit_ns == 0 or hoop_ring_size(&self.ready) > 0:
            hoop_meter_looked(&self.meter, now_ns)
            return 0
        hoop_meter_asleep(&self.meter, now_ns)
        self.in_callback = False
        if self.jobs_in_flight > 0 and hoop_spin_may(&self.spin):
            with nogil:
                count = hoop_spin_for_inbox(&self.spin, &self.inbox, &self.poller, self.events, EVENT_CAPACITY,
                                            &limit_ns)
                now_ns = hoop_clock_ns()
            if count == 0:
                self.hear_signals()
        if count == 0 and hoop_ring_size(&self.ready) == 0 and hoop_inbox_prepare_sleep(&self.inbox):
            self.meter.sleeps += 1
            with nogil:
                count = hoop_poller_wait(&self.poller, self.events, EVENT_CAPACITY, limit_ns)
                now_ns = hoop_clock_ns()
            hoop_inbox_awake(&self.inbox)
        self.in_callback = not self.forked  # a child that goes on in here may be gone before the callback ends
        if not has_own_clock:
            self.noted_ns = now_ns
        hoop_meter_woke(&self.meter, self.now_ns() if has_own_clock else now_ns)
        return count

    cdef int run_ready(self, size_t count) except -1:
        cdef Handle handle
        cdef PyObject *entry
        while count > 0:
            count -= 1
            entry = <PyObject *>hoop_ring_pop(&self.ready)
            if entry == NULL:
                break  # closed by a callback
            handle = <Handle>entry
            Py_DECREF(handle)  # the ring's reference; `handle` has its own
            if handle.is_cancelled:
                continue
            if handle.is_guarded:
                run_guarded(self, handle)
            else:
                run_one(self, handle)
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
                continue  # the last: put off by an earlier callback of this turn
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
            if not handle.is_cancelled:
                run_one(self, handle)
        return 0

    cdef int run_handle(self, Handle handle) except -1:
        return call_handle(self, handle)

    cdef int run_handle_timed(self, Handle handle) except -1:
        """Debug mode: tell of callbacks that hold the loop for long."""
        self._current_handle = handle
        cdef int64_t began_ns = hoop_clock_ns()
        try:
            self.run_handle(handle)
        finally:
            self._current_handle = None
        cdef double took_s = seconds_since(began_ns)
        if took_s >= self.slow_callback_duration:
            logger.warning("Executing %s took %.3f seconds", described(handle), took_s)
        return 0

    cdef int handle_failed(self, Handle handle, object error) except -1:
        context = {"message": f"Exception in callback {callback_source(handle)}", "exception": error, "handle": handle}
        if handle.source_traceback:
            context["source_traceback"] = handle.source_traceback
        return self.report(context)

    cdef int dispatch(self, int count) except -1:
        """Events to watchers. What a watcher itself has not caught is about that watcher, and the next one has its turn.
        (A try block for all of them: one for each would cost each.)"""
        cdef int done = 0
        while True:
            try:
                self.dispatch_from(&done, count)
                break
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.event_failed(done - 1, error)
        if self.has_stale:
            self.has_stale = False
            self.stale_waits += 1
            if self.stale_waits > STALE_WAITS_ALLOWED:
                self.stale_waits = 0
                hoop_poller_rebuild(&self.poller)  # without a descriptor to be had it fails, and is tried again later
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
        return self.report({"message": "Error in an event loop", "exception": error})

    cdef int dispatch_from(self, int *done, int count) except -1:
        """Each is checked again, since callbacks in between may have closed or paused its watcher."""
        cdef unsigned events
        cdef hoop_event *event
        cdef Watcher watcher
        while done[0] < count:
            event = &self.events[done[0]]
            done[0] += 1
            if event.fd == self.waker.read_fd:
                check(hoop_waker_drain(&self.waker))
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
                        self.has_stale = True  # its number was closed before it was taken out, and a duplicate lives on
                    continue
                self.meter.events += 1
                if self.debug:
                    self.dispatch_timed(watcher, events)
                else:
                    watcher.on_events(events)
            self.is_telling = False
            if self.after_is_due:
                self.settle()
        return 0

    cdef int dispatch_timed(self, Watcher watcher, unsigned events) except -1:
        cdef int64_t began_ns = hoop_clock_ns()
        watcher.on_events(events)
        cdef double took_s = seconds_since(began_ns)
        if took_s >= self.slow_callback_duration:
            logger.warning("Executing %r took %.3f seconds", watcher, took_s)
        return 0

    cdef int settle(self) except -1:
        """What follows every callback: microtasks until none is left, then deferred writes; again, if those made more."""
        while True:
            while hoop_ring_size(&self.next_ticks) > 0 or hoop_ring_size(&self.microtasks) > 0:
                while hoop_ring_size(&self.next_ticks) > 0:
                    run_queued(self, &self.next_ticks)
                while hoop_ring_size(&self.microtasks) > 0:
                    run_queued(self, &self.microtasks)
            if hoop_ring_size(&self.flushes) == 0:
                break
            self.flush_writes(True)
        self.after_is_due = False
        return 0

    cdef int flush_deferred(self) except -1:
        """Send, in the order of the first writes, what the callback that is running has written: whoever is about to do
        something that others can see calls this first, whichever transport holds the bytes. From another thread than the
        loop's, which may look at a socket object, nothing happens."""
        return self.flush_writes(False) if self.may_touch() else 0

    cdef int flush_writes(self, bint is_loop_calling) except -1:
        cdef Watcher watcher
        cdef PyObject *entry = <PyObject *>hoop_ring_pop(&self.flushes)
        while entry != NULL:
            watcher = <Watcher>entry
            Py_DECREF(watcher)
            watcher.is_flush_due = False
            watcher.on_flush(is_loop_calling)
            entry = <PyObject *>hoop_ring_pop(&self.flushes)
        return 0

    # ---- the end --------------------------------------------------------------------------------------------------

    cdef int release_everything(self) except -1:
        """Let go of every callback and watcher. Runs user code (finalizers), so each is out before it is released."""
        cdef int fd
        self.future_keywords = None
        self.errands = None
        self.release_queues()
        drain(&self.flushes)
        for fd in range(self.watcher_capacity):
            if self.watchers[fd] != NULL:
                hoop_poller_forget(&self.poller, fd)
                self.drop_watcher(fd)
        return 0


# ---- the parts of a turn ------------------------------------------------------------------------------------------

cdef int hold(Watcher watcher, bint wanted) except -1:
    """The table's reference: a watcher that waits for nothing lives only as long as its users do, as in asyncio."""
    if wanted and not watcher.is_held:
        watcher.is_held = True
        Py_INCREF(watcher)
    elif not wanted and watcher.is_held:
        watcher.is_held = False
        Py_DECREF(watcher)
    return 0


cdef int switch_context(Reactor reactor, PyObject *context) noexcept:
    """Leave the context that is entered, if there is one, and enter another; -1 with the exception set."""
    cdef PyObject *former = <PyObject *>reactor.entered
    cdef int result
    if former != <PyObject *>None:
        raw_incref(former)
        reactor.entered = None
        result = raw_context_exit(former)
        raw_decref(former)
        if result < 0:
            return -1
    if raw_context_enter(context) < 0:
        return -1
    reactor.entered = <object>context
    return 0


cdef inline int call_handle(Reactor reactor, Handle handle) except -1:
    """Without a try block, which would save and restore the state of exceptions around each callback."""
    if reactor.entered is not handle.context and switch_context(reactor, <PyObject *>handle.context) < 0:
        return call_failed(reactor, handle)
    if invoke(handle) < 0:
        return call_failed(reactor, handle)
    return 0


cdef int call_failed(Reactor reactor, Handle handle) except -1:
    """The exception that is set is reported, or passes on."""
    try:
        raise_what_is_set()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        reactor.handle_failed(handle, error)
    return 0


cdef inline int call_one(Reactor reactor, Handle handle) except -1:
    reactor.meter.callbacks += 1
    if reactor.debug:
        return reactor.run_handle_timed(handle)
    return call_handle(reactor, handle)


cdef double seconds_since(int64_t began_ns) noexcept:
    return <double>(hoop_clock_ns() - began_ns) / 1e9


cdef inline int run_one(Reactor reactor, Handle handle) except -1:
    call_one(reactor, handle)
    if reactor.after_is_due:
        reactor.settle()
    return 0


cdef int run_guarded(Reactor reactor, ThreadSafeHandle handle) except -1:
    handle.begin()
    try:
        call_one(reactor, handle)
    finally:
        handle.end()
    if reactor.after_is_due:
        reactor.settle()
    return 0


cdef int run_queued(Reactor reactor, hoop_ring *queue) except -1:
    cdef Handle handle
    cdef PyObject *entry = <PyObject *>hoop_ring_pop(queue)
    handle = <Handle>entry
    Py_DECREF(handle)
    if handle.is_cancelled:
        return 0
    return call_one(reactor, handle)
