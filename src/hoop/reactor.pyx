"""The reactor: ready queue, microtasks, timers, descriptors, and the turn that runs them. It knows no transport.

One turn, in asyncio's order (docs/architecture.md says why):

    poll -> callbacks ready by then -> polled I/O, straight into watchers -> timers due by then -> immediates

and after each callback of any kind, settle(): microtasks (all next_ticks, then all microtasks, until both are empty),
then the writes that were deferred. What a turn's callbacks schedule runs in the next turn.

Ownership: every ring, the heap, the inbox and the table of watchers own one reference to each entry. The garbage
collector sees all of them (garbage.pyx), so an abandoned loop is collected with everything that it holds.
"""
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.csrc cimport *
from hoop.errors cimport check, os_error
from hoop.handle cimport Handle, TimerHandle, callback_source, handle_of_node, invoke, new_handle, new_timer_handle
from hoop.cpython_api cimport PyContext_Enter, PyContext_Exit, PyErr_CheckSignals, PyThread_get_thread_ident
from libc.errno cimport EINTR, ENOENT
from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memset

import errno
import os
from asyncio.log import logger

cdef enum:
    EVENT_CAPACITY = 256
    MOST_SKIPPED_POLLS = 7     # turns in a row without a poll, while callbacks are ready
    SHORT_BATCH = 2            # a poll is skipped only after a turn of at most this many callbacks
    STALE_WAITS_ALLOWED = 8    # then the kernel's set holds a registration that cannot be removed: rebuild it


cdef class Watcher:
    def __cinit__(self):
        self.fd = -1

    cdef int on_events(self, unsigned events) except -1:
        raise NotImplementedError("a watcher must handle its events")

    cdef int on_watch_failed(self, int error) except -1:
        raise os_error(-error)

    cdef int on_flush(self) except -1:
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


cdef class Reactor:
    def __cinit__(self, *args, **kwargs):
        hoop_ring_init(&self.ready)
        hoop_ring_init(&self.due)
        hoop_ring_init(&self.next_ticks)
        hoop_ring_init(&self.microtasks)
        hoop_ring_init(&self.immediates)
        hoop_ring_init(&self.flushes)
        hoop_timers_init(&self.timers)
        hoop_inbox_init(&self.inbox)
        self.waker.read_fd = self.waker.write_fd = -1
        self.closed = True  # until __init__ has opened everything
        self.slow_callback_duration = 0.1

    def __init__(self, *, poller=None, clock=None, poll_every_turn=False):
        if clock is not None and not callable(clock):
            raise TypeError(f"clock must be a callable returning nanoseconds, not {clock!r}")
        if self.events != NULL:
            raise RuntimeError("an event loop is initialised once")
        self.clock = clock
        self.poll_every_turn = poll_every_turn
        self.events = <hoop_event *>PyMem_Malloc(EVENT_CAPACITY * sizeof(hoop_event))
        self.read_buffer = <char *>PyMem_Malloc(READ_BUFFER_SIZE)
        if self.events == NULL or self.read_buffer == NULL:
            raise MemoryError()
        name = poller if poller is not None else os.environ.get("HOOP_POLLER") or None
        open_poller(&self.poller, name)
        cdef int result = hoop_waker_open(&self.waker)
        if result >= 0:
            result = hoop_poller_add(&self.poller, self.waker.read_fd, HOOP_READABLE)
        if result < 0:
            hoop_waker_close(&self.waker)
            hoop_poller_close(&self.poller)
            raise os_error(result)
        self.closed = False

    def __dealloc__(self):
        self.release_everything()
        hoop_waker_close(&self.waker)
        hoop_poller_close(&self.poller)
        PyMem_Free(self.events)
        PyMem_Free(self.read_buffer)
        hoop_datagram_reader_close(self.datagram_reader)
        PyMem_Free(self.watchers)

    # ---- time and state -------------------------------------------------------------------------------------------

    cdef int64_t now_ns(self) except? -1:
        if self.clock is None:
            return hoop_clock_ns()
        return <int64_t>self.clock()

    cdef int check_open(self) except -1:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        return 0

    cdef int check_thread(self) except -1:
        """Debug mode: call_soon and its kin belong to the loop's own thread."""
        if not self.may_touch():
            raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one")
        return 0

    cdef bint may_touch(self) noexcept:
        """Whether this thread may change the loop: it is the loop's own, or the loop is not running."""
        return self.thread_id == 0 or self.thread_id == PyThread_get_thread_ident()

    cdef int report(self, dict context) except -1:
        """Hand a problem to the loop's exception handler: the one overridable method that is called from inside."""
        self.leave_context()
        self.call_exception_handler(context)
        return 0

    # ---- what run() waits for -------------------------------------------------------------------------------------

    cdef int ref(self) except -1:
        self.references += 1
        return 0

    cdef int unref(self) except -1:
        if self.references <= 0:
            raise RuntimeError("unref() without a ref() before it")
        self.references -= 1
        return 0

    cdef bint is_alive(self) except -1:
        return (self.references > 0 or self.jobs_in_flight > 0 or hoop_timers_referenced(&self.timers) > 0
                or hoop_ring_size(&self.ready) > 0 or hoop_ring_size(&self.due) > 0
                or hoop_ring_size(&self.immediates) > 0 or self.after_is_due
                or self.arrived != NULL or not hoop_inbox_is_empty(&self.inbox))

    # ---- scheduling -----------------------------------------------------------------------------------------------

    cdef Handle schedule(self, object callback, PyObject **arguments, Py_ssize_t count, object context):
        """A callback for the next turn."""
        if self.thread_id == 0 and not hoop_inbox_is_empty(&self.inbox):
            self.take_inbox()  # posted before: it stays before
        cdef Handle handle = new_handle(self, callback, arguments, count, context)
        push(&self.ready, handle)
        return handle

    cdef Handle schedule_method(self, object callback, object argument, object context):
        cdef PyObject *arguments[1]
        arguments[0] = <PyObject *>argument
        return self.schedule(callback, arguments, 1, context)

    cdef Handle defer(self, hoop_ring *queue, object callback, PyObject **arguments, Py_ssize_t count, object context):
        """A callback for one of the microtask queues."""
        cdef Handle handle = new_handle(self, callback, arguments, count, context)
        push(queue, handle)
        self.after_is_due = True
        return handle

    cdef Handle immediate(self, object callback, PyObject **arguments, Py_ssize_t count, object context):
        """A callback for the end of this turn."""
        cdef Handle handle = new_handle(self, callback, arguments, count, context)
        push(&self.immediates, handle)
        return handle

    cdef TimerHandle schedule_timer(self, int64_t deadline_ns, double when_s, object callback, PyObject **arguments,
                                    Py_ssize_t count, object context):
        cdef TimerHandle handle = new_timer_handle(self, callback, arguments, count, context)
        # loop.time() rounds to a double: make sure that it has reached when_s once the deadline has passed
        while deadline_ns != INT64_MAX and <double>deadline_ns / 1e9 < when_s:
            deadline_ns += 1
        handle.timers = &self.timers
        handle.when_s = when_s
        check(hoop_timers_add(&self.timers, &handle.timer, deadline_ns))
        Py_INCREF(handle)
        handle.is_scheduled = True
        return handle

    cdef Handle post(self, object callback, PyObject **arguments, Py_ssize_t count, object context):
        """A callback from any thread."""
        cdef Handle handle = new_handle(self, callback, arguments, count, context)
        if self.thread_id == PyThread_get_thread_ident():
            push(&self.ready, handle)
            return handle
        Py_INCREF(handle)
        if hoop_inbox_push(&self.inbox, &handle.node):
            check(hoop_waker_wake(&self.waker))
        return handle

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
        if self.entered is not None:
            self.leave_context()
        PyContext_Enter(context)
        self.entered = context
        return 0

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
        self.thread_id = PyThread_get_thread_ident()
        self.must_poll = True
        self.in_callback = True
        try:
            if self.after_is_due:
                self.settle()
            while not until_idle or self.is_alive():
                self.turn()
                if self.stopping:
                    break
        finally:
            self.in_callback = False
            self.flush_writes()
            self.stopping = False
            self.thread_id = 0
            self._current_handle = None
            self.leave_context()
        return 0

    cdef int turn(self) except -1:
        cdef int count = 0
        cdef size_t batch
        self.turn_count += 1
        if not hoop_inbox_is_empty(&self.inbox) or self.arrived != NULL:
            self.take_inbox()
        batch = hoop_ring_size(&self.ready)
        if (batch == 0 or self.must_poll or self.last_batch > SHORT_BATCH or self.skipped_polls >= MOST_SKIPPED_POLLS
                or self.stopping or self.debug or self.poll_every_turn):
            count = self.poll(batch == 0)
            self.skipped_polls = 0
            self.must_poll = False
            if not hoop_inbox_is_empty(&self.inbox):
                self.take_inbox()
            batch = hoop_ring_size(&self.ready)
        else:
            self.skipped_polls += 1
        if self.timers.size > 0:
            self.take_due_timers()
        self.last_batch = batch
        self.run_batch(&self.ready, batch)
        if count > 0:
            self.dispatch(count)
        batch = hoop_ring_size(&self.due)
        if batch > 0:
            self.run_batch(&self.due, batch)
        batch = hoop_ring_size(&self.immediates)
        if batch > 0:
            self.run_batch(&self.immediates, batch)
        if self.entered is not None:
            self.leave_context()
        return 0

    cdef int poll(self, bint may_block) except -1:
        """Fill self.events; their number. Asks without blocking first, under the GIL: giving the GIL away and getting it
        back from a busy thread costs up to a switch interval, and under load there always is an event."""
        cdef int count
        cdef int64_t timeout_ns
        self.poll_count += 1
        count = hoop_poller_wait(&self.poller, self.events, EVENT_CAPACITY, 0)
        if count == 0 and may_block:
            timeout_ns = self.poll_timeout_ns()
            if timeout_ns != 0 and self.jobs_in_flight > 0 and hoop_spin_may(&self.spin):
                self.in_callback = False
                with nogil:
                    count = hoop_spin_for_inbox(&self.spin, &self.inbox, &self.poller, self.events, EVENT_CAPACITY,
                                                timeout_ns)
                self.in_callback = True
                if count != 0:
                    timeout_ns = 0
            if timeout_ns != 0 and hoop_inbox_prepare_sleep(&self.inbox):
                self.in_callback = False
                self.sleep_count += 1
                with nogil:
                    count = hoop_poller_wait(&self.poller, self.events, EVENT_CAPACITY, timeout_ns)
                self.in_callback = True
                hoop_inbox_awake(&self.inbox)
        if count == -EINTR:
            PyErr_CheckSignals()
            return 0
        check(count)
        return count

    cdef int64_t poll_timeout_ns(self) except? -2:
        """How long nothing will be due: -1 for ever."""
        cdef int64_t deadline_ns, now_ns
        if self.stopping or hoop_ring_size(&self.immediates) > 0 or hoop_ring_size(&self.due) > 0:
            return 0
        if self.timers.size == 0:
            return -1
        deadline_ns = hoop_timers_deadline_ns(&self.timers, INT64_MAX)
        if deadline_ns == INT64_MAX:
            return -1
        if self.clock is not None:
            return 0  # a clock of the test's own: its time does not pass while we sleep
        now_ns = hoop_clock_ns()
        return deadline_ns - now_ns if deadline_ns > now_ns else 0

    cdef int take_inbox(self) except -1:
        """Move what other threads posted to the ready queue, in their order."""
        cdef hoop_inbox_node *node
        cdef hoop_inbox_node *last
        cdef hoop_inbox_node *newer = hoop_inbox_take(&self.inbox)
        if self.arrived == NULL:
            self.arrived = newer
        else:
            last = self.arrived
            while last.next != NULL:
                last = last.next
            last.next = newer
        while self.arrived != NULL:
            node = self.arrived
            check(hoop_ring_push(&self.ready, handle_of_node(node)))  # the inbox's reference becomes the ring's
            self.arrived = node.next
        return 0

    cdef int take_due_timers(self) except -1:
        """Move what is due now to a queue of this turn: what callbacks schedule from here on waits for the next turn."""
        cdef int64_t now_ns = self.now_ns()
        cdef hoop_timer *timer
        while hoop_timers_deadline_ns(&self.timers, INT64_MAX) <= now_ns:
            timer = hoop_timers_pop_due(&self.timers, now_ns)
            if timer == NULL:
                break
            push_owned(&self.due, <PyObject *>timer.owner)
        return 0

    cdef int run_batch(self, hoop_ring *queue, size_t count) except -1:
        cdef Handle handle
        cdef PyObject *entry
        while count > 0:
            count -= 1
            entry = <PyObject *>hoop_ring_pop(queue)
            if entry == NULL:
                break  # closed by a callback
            handle = <Handle>entry
            Py_DECREF(handle)  # the ring's reference; `handle` has its own
            if handle.is_cancelled:
                continue
            if self.debug:
                self.run_handle_timed(handle)
            else:
                self.run_handle(handle)
            if self.after_is_due:
                self.settle()
        return 0

    cdef int run_handle(self, Handle handle) except -1:
        if type(handle) is TimerHandle:
            (<TimerHandle>handle).is_scheduled = False
        try:
            self.enter_context(handle.context)
            invoke(handle)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.handle_failed(handle, error)
        return 0

    cdef int run_handle_timed(self, Handle handle) except -1:
        """Debug mode: tell of callbacks that hold the loop for long."""
        self._current_handle = handle
        cdef int64_t began_ns = hoop_clock_ns()
        try:
            self.run_handle(handle)
        finally:
            self._current_handle = None
        cdef double took_s = <double>(hoop_clock_ns() - began_ns) / 1e9
        if took_s >= self.slow_callback_duration:
            logger.warning("Executing %s took %.3f seconds", described(handle), took_s)
        return 0

    cdef int handle_failed(self, Handle handle, object error) except -1:
        context = {"message": f"Exception in callback {callback_source(handle)}", "exception": error, "handle": handle}
        if handle.source_traceback:
            context["source_traceback"] = handle.source_traceback
        return self.report(context)

    cdef int dispatch(self, int count) except -1:
        """Events to watchers. Each is checked again, since callbacks in between may have closed or paused its watcher."""
        cdef int i
        cdef unsigned events
        cdef bint has_stale = False
        cdef hoop_event *event
        cdef Watcher watcher
        for i in range(count):
            event = &self.events[i]
            if event.fd == self.waker.read_fd:
                check(hoop_waker_drain(&self.waker))
                continue
            if hoop_poller_generation(&self.poller, event.fd) != event.generation:
                has_stale = True
                continue
            watcher = self.watcher_of(event.fd)
            if watcher is None:
                continue
            if event.events & HOOP_FAILED:
                self.count_watcher(watcher, False)
                watcher.on_watch_failed(event.error)
            else:
                events = event.events & hoop_poller_interest(&self.poller, event.fd)
                if events == 0:
                    continue
                if self.debug:
                    self.dispatch_timed(watcher, events)
                else:
                    watcher.on_events(events)
            if self.after_is_due:
                self.settle()
        if has_stale:
            self.stale_waits += 1
            if self.stale_waits > STALE_WAITS_ALLOWED:
                self.stale_waits = 0
                check(hoop_poller_rebuild(&self.poller))
        else:
            self.stale_waits = 0
        return 0

    cdef int dispatch_timed(self, Watcher watcher, unsigned events) except -1:
        cdef int64_t began_ns = hoop_clock_ns()
        watcher.on_events(events)
        cdef double took_s = <double>(hoop_clock_ns() - began_ns) / 1e9
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
            self.flush_writes()
        self.after_is_due = False
        return 0

    cdef int flush_writes(self) except -1:
        cdef Watcher watcher
        cdef PyObject *entry = <PyObject *>hoop_ring_pop(&self.flushes)
        while entry != NULL:
            watcher = <Watcher>entry
            Py_DECREF(watcher)
            watcher.is_flush_due = False
            watcher.on_flush()
            entry = <PyObject *>hoop_ring_pop(&self.flushes)
        return 0

    # ---- the end --------------------------------------------------------------------------------------------------

    cdef int release_everything(self) except -1:
        """Let go of every callback and watcher. Runs user code (finalizers), so each entry is out before it is released."""
        cdef int fd
        cdef Watcher watcher
        cdef hoop_timer *timer
        drain(&self.ready)
        drain(&self.due)
        drain(&self.next_ticks)
        drain(&self.microtasks)
        drain(&self.immediates)
        drain(&self.flushes)
        while self.timers.size > 0:
            timer = hoop_timers_pop_due(&self.timers, INT64_MAX)
            (<TimerHandle>timer.owner).is_scheduled = False
            Py_DECREF(<object>timer.owner)
        hoop_timers_free(&self.timers)
        self.take_inbox()
        drain(&self.ready)
        for fd in range(self.watcher_capacity):
            if self.watchers[fd] != NULL:
                hoop_poller_forget(&self.poller, fd)
                self.drop_watcher(fd)
        return 0


# ---- queues of owned references -----------------------------------------------------------------------------------

cdef inline int push(hoop_ring *queue, object entry) except -1:
    cdef int result = hoop_ring_push(queue, <void *>entry)
    if result < 0:
        raise MemoryError()
    Py_INCREF(entry)
    return 0


cdef int hold(Watcher watcher, bint wanted) except -1:
    """The table's reference: a watcher that waits for nothing lives only as long as its users do, as in asyncio."""
    if wanted and not watcher.is_held:
        watcher.is_held = True
        Py_INCREF(watcher)
    elif not wanted and watcher.is_held:
        watcher.is_held = False
        Py_DECREF(watcher)
    return 0


cdef int push_owned(hoop_ring *queue, PyObject *entry) except -1:
    """As push, for a reference that the caller owns and gives away, also when this fails."""
    if hoop_ring_push(queue, entry) < 0:
        Py_DECREF(<object>entry)
        raise MemoryError()
    return 0


cdef int drain(hoop_ring *queue) except -1:
    cdef PyObject *entry = <PyObject *>hoop_ring_pop(queue)
    while entry != NULL:
        Py_DECREF(<object>entry)
        entry = <PyObject *>hoop_ring_pop(queue)
    hoop_ring_free(queue)
    return 0


cdef int run_queued(Reactor reactor, hoop_ring *queue) except -1:
    cdef Handle handle
    cdef PyObject *entry = <PyObject *>hoop_ring_pop(queue)
    handle = <Handle>entry
    Py_DECREF(handle)
    if handle.is_cancelled:
        return 0
    if reactor.debug:
        return reactor.run_handle_timed(handle)
    return reactor.run_handle(handle)


cdef str described(Handle handle):
    """The handle as asyncio's slow-callback warning shows it: the task, where the callback is a task's step."""
    owner = getattr(handle.callback, "__self__", None)
    if owner is not None and hasattr(owner, "get_coro"):
        return repr(owner)
    return str(handle)


cdef int open_poller(hoop_poller *poller, object name) except -1:
    cdef bytes encoded
    cdef int result
    if name is None:
        result = hoop_poller_open(poller, NULL)
    else:
        encoded = name.encode()
        result = hoop_poller_open(poller, encoded)
        if result == -errno.ENOTSUP:
            raise ValueError(f"no poller back end called {name!r} on this platform")
    return check(result)
