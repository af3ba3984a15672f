from cpython.object cimport PyObject
from hoop.core.cpython_api cimport PyThread_get_thread_ident
from hoop.core.csrc cimport hoop_inbox, hoop_inbox_is_empty, hoop_inbox_node, hoop_meter, hoop_ring, hoop_timers, \
    hoop_waker
from hoop.core.flag cimport flag
from hoop.core.handle cimport GUARDS_POSTED, Handle, Immediate, ScheduledHandle, TimerHandle, new_handle, \
    new_posted_handle
from hoop.core.ownership cimport IS_FREE_THREADED, Owned, hoop_load
from hoop.core.rings cimport push
from libc.math cimport INFINITY, ceil
from libc.stdint cimport INT64_MAX, int64_t, uint64_t


cdef class Errand:
    """An object that the next turn can call without needing memory: a link in the scheduler's list. For what must not
    be lost when scheduling finds no memory."""
    cdef Errand next_errand
    cdef flag is_errand_due
    cdef flag is_flush_due      # a Deferred in the reactor's queue of flushes; here, where it takes no room

    cdef int on_errand(self) except -1  # what it has asked run_errand_later() for


cdef class Scheduler(Owned):
    cdef hoop_ring ready        # Handle: what the next turn runs
    cdef hoop_ring due          # ScheduledHandle: taken from the heap by this turn, not yet run
    cdef hoop_ring next_ticks   # Handle
    cdef hoop_ring microtasks   # Handle
    cdef hoop_ring immediates   # Immediate
    cdef hoop_timers timers     # ScheduledHandle
    cdef hoop_inbox inbox       # Handle, from other threads
    cdef Errand errands         # first in a list of those whose on_errand() is due, or None
    cdef int failed_turns       # in a row, without memory
    cdef uint64_t failed_turn   # the number of the latest
    cdef dict future_keywords   # {"loop": self}, for the futures that are made; None until the first, and once closed
    cdef hoop_inbox_node *arrived  # taken from the inbox, not yet in `ready`
    cdef hoop_waker waker
    cdef bint drains_waker      # each wake-up must be read; else the poller tells of the next one in any case
    cdef hoop_meter meter
    cdef object given_clock     # None, or a callable returning nanoseconds in place of the monotonic clock
    cdef object clock           # who is asked for the time: None (the monotonic clock), given_clock, or REPLACED_TIME
    cdef bint is_time_replaced  # a subclass or a test has put another time() in place of ours: ask that
    cdef Py_ssize_t references  # what run() waits for besides queues and timers: watchers, and each ref()
    cdef size_t jobs_in_flight  # submitted to a pool, and not yet back
    cdef bint after_is_due      # flushes, next_ticks or microtasks hold something
    cdef bint stopping
    cdef bint closed
    cdef bint debug
    cdef int posters            # threads inside post_from_elsewhere(): inbox and waker must stay

    # For work that no queue, timer or watcher shows (a job in the pool, a thread that will post): run() does not
    # return before each ref() has had its unref(). Both in the loop's thread, or while the loop does not run; the
    # unref() of work that has ended belongs into the callback that it posts. RuntimeError when there is nothing to
    # undo.
    cdef int ref(self) except -1
    cdef int unref(self) except -1
    cdef bint is_alive(self) except -1  # whether run() has anything left to wait for

    cdef int64_t now_ns(self) except? -1
    cdef int64_t asked_now_ns(self) except? -1
    cdef double asked_time_s(self) except? -1.0  # what time() says, where another one stands in place of ours
    cdef int look_at_time(self) except -1
    cdef bint has_other_time(self) except -1
    cdef int check_open(self) except -1
    cdef object new_future(self)
    cdef int run_errand_later(self, Errand errand) noexcept
    cdef int run_errands(self) except -1
    cdef int note_failed_turn(self, uint64_t turn, object error) except -1
    cdef int check_ours(self, str method) except -1
    cdef int check_thread(self, str method) except -1
    cdef int refuse_thread(self, str method) except -1
    cdef bint may_touch(self) noexcept
    cdef inline Handle schedule(self, object callback, PyObject **arguments, Py_ssize_t count, object context):
        """A callback for the next turn."""
        if self.thread_id == 0 and not hoop_inbox_is_empty(&self.inbox):
            self.take_inbox()  # what was posted before runs before
        cdef Handle handle = new_handle(self, callback, arguments, count, context)
        push(&self.ready, handle)
        return handle

    cdef Handle schedule_method(self, object callback, object argument, object context)
    cdef Immediate immediate(self, object callback, PyObject **arguments, Py_ssize_t count, object context)
    # The handle's when() is the deadline, or when_s: a deadline in seconds, as the caller has it.
    cdef TimerHandle schedule_timer(self, int64_t deadline_ns, object callback, PyObject **arguments, Py_ssize_t count,
                                    object context)
    cdef TimerHandle schedule_timer_at(self, int64_t deadline_ns, double when_s, object callback, PyObject **arguments,
                                       Py_ssize_t count, object context)
    cdef int arm(self, ScheduledHandle handle, int64_t deadline_ns) except -1
    cdef inline Handle post(self, object callback, PyObject **arguments, Py_ssize_t count, object context):
        """A callback from any thread."""
        if hoop_load(&self.thread_id) != PyThread_get_thread_ident():
            return self.post_from_elsewhere(callback, arguments, count, context)
        cdef Handle handle = new_handle(self, callback, arguments, count, context)
        handle.is_guarded = GUARDS_POSTED
        push(&self.ready, handle)
        return handle

    cdef int await_posters(self) except -1
    cdef Handle post_from_elsewhere(self, object callback, PyObject **arguments, Py_ssize_t count, object context)
    cdef Handle defer(self, hoop_ring *queue, object callback, PyObject **arguments, Py_ssize_t count, object context)

    cdef int take_inbox(self) except -1
    cdef int take_due_timers(self, int64_t now_ns) except -1
    cdef int take_all_timers(self, size_t count) except -1
    cdef bint may_have_due_timers(self) noexcept
    cdef int64_t sleep_limit_ns(self, int64_t now_ns) noexcept
    cdef int release_queues(self) except -1


cdef inline int check_caller(Scheduler loop, str method) except -1:
    """RuntimeError in another thread than the loop's: always without a GIL, in debug mode with it."""
    return loop.refuse_thread(method) if (IS_FREE_THREADED or loop.debug) and not loop.is_ours() else 0


cdef inline int64_t deadline_after(int64_t now_ns, double delay_s) noexcept:
    """Rounded up: never early. A negative delay has passed already, and orders before later ones. What does not fit
    into 64 bits of nanoseconds (285 years) never comes, nor does NaN: INT64_MAX."""
    if not delay_s < 9.0e9:
        return INT64_MAX
    if delay_s <= -9.0e9:
        return -INT64_MAX
    cdef int64_t delay_ns = <int64_t>ceil(delay_s * 1e9)
    if delay_ns > 0 and now_ns > INT64_MAX - delay_ns:
        return INT64_MAX
    return now_ns + delay_ns


cdef inline double seconds_of(int64_t deadline_ns) noexcept:
    """A deadline as when() shows it; one that never comes is infinite."""
    return INFINITY if deadline_ns == INT64_MAX else <double>deadline_ns / 1e9
