"""The scheduler: what is to run. It has the queues of callbacks, the timers and what other threads have posted; it
runs nothing itself.

Ownership: every ring, the heap and the inbox own one reference to each entry. The garbage collector sees all of them
(garbage.pyx).
"""
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.core.cpython_api cimport PyObject_Call
from hoop.core.csrc cimport *
from hoop.core.errors cimport check
from hoop.core.handle cimport Handle, Immediate, PostedHandle, ScheduledHandle, TimerHandle, handle_of_node, \
    handle_of_timer, new_handle, new_immediate, new_posted_handle, new_timer_handle
from hoop.core.ownership cimport IS_FREE_THREADED, hoop_add, hoop_load_bint, hoop_load_flag, hoop_look_at
from hoop.core.rings cimport drain, make_room, push, push_owned
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

import asyncio

cdef extern from "sched.h":
    int sched_yield() nogil

cdef object REPLACED_TIME = NotImplemented  # neither None nor callable

cdef int64_t LONGEST_SLEEP_NS = 24 * 3600 * 1000000000  # asyncio.base_events.MAXIMUM_SELECT_TIMEOUT

cdef tuple NO_ARGUMENTS = ()

cdef enum:
    MOST_FAILED_TURNS = 16  # in a row


cdef class Errand:
    cdef int on_errand(self) except -1:
        return 0


cdef class Scheduler:
    def __cinit__(self, *args, **kwargs):
        hoop_ring_init(&self.ready)
        hoop_ring_init(&self.due)
        hoop_ring_init(&self.next_ticks)
        hoop_ring_init(&self.microtasks)
        hoop_ring_init(&self.immediates)
        hoop_timers_init(&self.timers)
        hoop_inbox_init(&self.inbox)
        hoop_meter_reset(&self.meter, 0)
        self.waker.read_fd = self.waker.write_fd = -1
        self.closed = True  # until everything is open
        self.own()

    cdef int64_t now_ns(self) except? -1:
        if self.clock is None:
            return hoop_clock_ns()
        return self.asked_now_ns()

    cdef int64_t asked_now_ns(self) except? -1:
        if not self.is_time_replaced:
            return <int64_t>self.clock()
        return deadline_at(self.asked_time_s())

    cdef double asked_time_s(self) except? -1.0:
        return self.time()

    cdef int look_at_time(self) except -1:
        """Find out whether a subclass, an attribute or a test tool has replaced time(). Called when the loop is made,
        when a run begins, and when such an attribute is set; a class that is patched while its loops run is seen by
        their next run."""
        self.is_time_replaced = self.has_other_time()
        self.clock = REPLACED_TIME if self.is_time_replaced else self.given_clock
        return 0

    cdef bint has_other_time(self) except -1:
        return False

    cdef int check_open(self) except -1:
        if hoop_look_at(&self.closed):
            raise RuntimeError("Event loop is closed")
        return 0

    cdef int check_ours(self, str method) except -1:
        """RuntimeError once the loop is closed, and where check_caller() raises."""
        self.check_open()
        return check_caller(self, method)

    cdef int check_thread(self, str method) except -1:
        """Only the loop's own thread may call method, which is not safe from any thread. RuntimeError."""
        return self.refuse_thread(method)

    cdef int refuse_thread(self, str method) except -1:
        """RuntimeError, unless this thread may touch the loop all the same."""
        if self.may_touch():
            return 0
        raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one: "
                           f"{method}() is for the thread of its loop; others hand it the call by "
                           "call_soon_threadsafe(), or a coroutine by asyncio.run_coroutine_threadsafe()")

    cdef bint may_touch(self) noexcept:
        """Whether this thread may change the loop: it is the loop's own, or (under the GIL) the loop is not running."""
        return self.is_ours() or (not IS_FREE_THREADED and self.thread_id == 0)

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
                or hoop_ring_size(&self.ready) > 0 or hoop_ring_size(&self.due) > 0 or self.after_is_due
                or self.errands is not None
                or self.arrived != NULL or not hoop_inbox_is_empty(&self.inbox)
                or hoop_ring_visit(&self.immediates, is_awaited, NULL) != 0)

    # ---- scheduling -----------------------------------------------------------------------------------------------

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

    cdef Immediate immediate(self, object callback, PyObject **arguments, Py_ssize_t count, object context):
        """A callback for the end of this turn."""
        cdef Immediate handle = new_immediate(self, callback, arguments, count, context)
        push(&self.immediates, handle)
        return handle

    cdef TimerHandle schedule_timer(self, int64_t deadline_ns, object callback, PyObject **arguments, Py_ssize_t count,
                                    object context):
        cdef TimerHandle handle = new_timer_handle(self, callback, arguments, count, context)
        handle.when_s = seconds_of(deadline_ns)
        self.arm(handle, deadline_ns)
        return handle

    cdef TimerHandle schedule_timer_at(self, int64_t deadline_ns, double when_s, object callback, PyObject **arguments,
                                       Py_ssize_t count, object context):
        cdef TimerHandle handle
        # loop.time() rounds to a double: make sure that it has reached when_s once the deadline has passed
        while deadline_ns != INT64_MAX and <double>deadline_ns / 1e9 < when_s:
            deadline_ns += 1
        handle = self.schedule_timer(deadline_ns, callback, arguments, count, context)
        handle.when_s = when_s
        return handle

    cdef int arm(self, ScheduledHandle handle, int64_t deadline_ns) except -1:
        """Put handle, which is not in the heap, into it."""
        handle.timers = &self.timers
        check(hoop_timers_add(&self.timers, &handle.timer, deadline_ns))
        Py_INCREF(handle)
        handle.is_scheduled = True
        return 0

    cdef Handle post_from_elsewhere(self, object callback, PyObject **arguments, Py_ssize_t count, object context):
        cdef PostedHandle handle = new_posted_handle(self, callback, arguments, count, context)
        cdef int result = 0
        if IS_FREE_THREADED:  # the loop may be closed meanwhile; close() waits for those who have found it open
            hoop_add(&self.posters, 1)
            if hoop_load_bint(&self.closed):
                hoop_add(&self.posters, -1)
                raise RuntimeError("Event loop is closed")
        Py_INCREF(handle)
        if hoop_inbox_push(&self.inbox, &handle.node):
            result = hoop_waker_wake(&self.waker)
        if IS_FREE_THREADED:
            hoop_add(&self.posters, -1)
        check(result)
        return handle

    cdef int await_posters(self) except -1:
        """Once the loop is closed: wait until no other thread is about to post, no longer than a write(2) takes."""
        while hoop_add(&self.posters, 0) != 0:
            with nogil:
                sched_yield()
        return 0

    cdef object new_future(self):
        """What create_future() returns."""
        if self.future_keywords is not None:
            return PyObject_Call(asyncio.Future, NO_ARGUMENTS, self.future_keywords)
        if not self.closed:
            self.future_keywords = {"loop": self}
        return asyncio.Future(loop=self)

    # ---- when there is no memory ------------------------------------------------------------------------------------

    cdef int run_errand_later(self, Errand errand) noexcept:
        """Have the next turn call errand.on_errand(), without needing memory for it."""
        if not errand.is_errand_due:
            errand.is_errand_due = True
            errand.next_errand = self.errands
            self.errands = errand
        return 0

    cdef int run_errands(self) except -1:
        cdef Errand errand
        while self.errands is not None:
            errand = self.errands
            self.errands = errand.next_errand
            errand.next_errand = None
            errand.is_errand_due = False
            errand.on_errand()
        return 0

    cdef int note_failed_turn(self, uint64_t turn, object error) except -1:
        """Raise error once too many turns in a row have failed."""
        self.failed_turns = self.failed_turns + 1 if turn == self.failed_turn + 1 else 1
        self.failed_turn = turn
        if self.failed_turns > MOST_FAILED_TURNS:
            raise error
        return 0

    # ---- for the turn ---------------------------------------------------------------------------------------------

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

    cdef int take_due_timers(self, int64_t now_ns) except -1:
        """Move what is due to a queue of this turn: what callbacks schedule from here on waits for the next turn."""
        cdef hoop_timer *timer
        cdef int64_t deadline_ns = hoop_timers_deadline_ns(&self.timers, INT64_MAX)
        if self.is_time_replaced:
            now_ns += 1  # sums of floats: asyncio takes what is due within the clock's resolution
        if deadline_ns > now_ns or deadline_ns == INT64_MAX:
            return 0
        hoop_meter_timers_due(&self.meter, deadline_ns, now_ns)
        self.take_all_timers(hoop_timers_all_due(&self.timers, now_ns))
        while hoop_timers_deadline_ns(&self.timers, INT64_MAX) <= now_ns:
            make_room(&self.due)  # first, so that no timer is lost between heap and queue
            timer = hoop_timers_pop_due(&self.timers, now_ns)
            if timer == NULL:
                break
            push_owned(&self.due, handle_of_timer(timer))
        return 0

    cdef int take_all_timers(self, size_t count) except -1:
        """The same for the whole heap, of count timers, which stand in their order; and for none."""
        cdef size_t i
        while self.due.capacity - hoop_ring_size(&self.due) < count:
            if hoop_ring_grow(&self.due) < 0:
                return 0  # they are taken one by one, as far as there is room
        for i in range(count):
            push_owned(&self.due, handle_of_timer(self.timers.entries[i].timer))
        if count > 0:
            hoop_timers_let_go(&self.timers)
        return 0

    cdef bint may_have_due_timers(self) noexcept:
        """False where the kernel's latest tick shows that none is due: it is cheaper to look at than the clock."""
        return (self.clock is not None
                or hoop_timers_deadline_ns(&self.timers, INT64_MAX) <= hoop_clock_tick_ns() + HOOP_CLOCK_TICK_NS)

    cdef int64_t sleep_limit_ns(self, int64_t now_ns) noexcept:
        """How long nothing will be due: -1 for ever."""
        cdef int64_t deadline_ns
        if self.stopping or hoop_ring_size(&self.immediates) > 0 or hoop_ring_size(&self.due) > 0:
            return 0
        deadline_ns = hoop_timers_deadline_ns(&self.timers, INT64_MAX)
        if deadline_ns == INT64_MAX:
            return -1
        if self.is_time_replaced:  # as asyncio does: that time() may follow the real one, with an offset
            return min(deadline_ns - now_ns, LONGEST_SLEEP_NS) if deadline_ns > now_ns else 0
        if self.clock is not None:
            return 0  # a test's own clock stands still while we sleep
        return deadline_ns - now_ns if deadline_ns > now_ns else 0

    cdef int release_queues(self) except -1:
        """Let go of every callback. Runs user code (finalizers), so each entry is out before it is released."""
        cdef PyObject *entry
        drain(&self.ready)
        drain(&self.due)
        drain(&self.next_ticks)
        drain(&self.microtasks)
        drain(&self.immediates)
        while self.timers.size > 0:
            entry = handle_of_timer(hoop_timers_pop_due(&self.timers, INT64_MAX))
            (<ScheduledHandle>entry).is_scheduled = False
            Py_DECREF(<object>entry)
        hoop_timers_free(&self.timers)
        self.take_inbox()
        drain(&self.ready)
        return 0


cdef int64_t deadline_at(double when_s) except? -1:
    """The nanosecond of a time in seconds, as of call_at(): a later time has no earlier one."""
    cdef int64_t deadline_ns
    if when_s != when_s:
        raise ValueError("time() must return a number of seconds, not nan")
    deadline_ns = deadline_after(0, when_s)
    while deadline_ns != INT64_MAX and <double>deadline_ns / 1e9 < when_s:
        deadline_ns += 1
    return deadline_ns


cdef int is_awaited(void *entry, void *arg) noexcept:
    """A visitor of immediates: not 0 at the first that run() waits for."""
    cdef Immediate handle = <Immediate>entry
    return not hoop_load_flag(&handle.is_cancelled) and not handle.is_unreferenced
