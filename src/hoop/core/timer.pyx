"""Timer: what set_timeout and set_interval return, after Node's Timeout.

An interval's deadlines lie on a grid: first deadline + k periods. When the callback has ended, the timer sets its next
deadline to the first point of the grid that is still to come. So a late call does not shift the calls behind it (no
drift), and the timer skips ticks that passed while the loop or the callback was busy: at most one call is ever due.
"""
from hoop.core.csrc cimport hoop_timer_is_pending, hoop_timers_remove
from hoop.core.handle cimport ScheduledHandle, fill, withdraw
from hoop.core.reactor cimport Reactor
from hoop.core.scheduler cimport check_caller, deadline_after, seconds_of
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport INT64_MAX, int64_t


cdef class Timer(ScheduledHandle):
    """A callback scheduled with set_timeout or set_interval. (Node: Timeout)

    Usable in a with statement, which closes it at the end. Belongs to its loop's thread.
    """

    @property
    def active(self):
        """Whether a call is still to come. An interval is active until it is closed."""
        return self.is_scheduled and not self.is_cancelled and not self.reactor.closed

    @property
    def delay(self):
        """The seconds that the timer was set to: until the call, or from one call to the next."""
        return self.delay_s

    @property
    def repeats(self):
        """Whether this is an interval."""
        return self.is_repeating

    def when(self):
        """The latest deadline in seconds of loop.time(); for an interval in its callback, the one that has passed."""
        return self.when_s

    def close(self):
        """Make sure that the callback is not called again. Idempotent. cancel() is the same. (Node: clearTimeout)"""
        withdraw(self)

    def refresh(self):
        """Start anew: the next call comes one delay from now, even if the timeout has already passed. Returns self.

        Cheaper than a new timer. RuntimeError once closed, and for a closed loop. (Node: timeout.refresh)
        """
        if self.reactor is None:
            raise RuntimeError("timers are made by set_timeout() and set_interval()")
        self.reactor.check_open()
        if self.is_cancelled:
            raise RuntimeError(f"a closed timer cannot be refreshed: {self!r}")
        check_caller(self.reactor, "Timer.refresh")
        if hoop_timer_is_pending(&self.timer):
            hoop_timers_remove(self.timers, &self.timer)
            self.is_scheduled = False
            Py_DECREF(self)  # the heap's reference
        self.start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        withdraw(self)

    cdef int start(self) except -1:
        return self.set_deadline(deadline_after(self.reactor.now_ns(), self.delay_s))

    cdef int repeat(self) except -1:
        cdef int64_t now_ns, wait_ns
        if self.is_cancelled or self.reactor.closed or hoop_timer_is_pending(&self.timer):
            return 0  # the last of these: its own callback has refreshed it
        now_ns = self.reactor.now_ns()
        wait_ns = self.period_ns - (now_ns - self.deadline_ns) % self.period_ns
        return self.set_deadline(INT64_MAX if now_ns > INT64_MAX - wait_ns else now_ns + wait_ns)

    cdef int set_deadline(self, int64_t deadline_ns) except -1:
        self.deadline_ns = deadline_ns
        self.when_s = seconds_of(deadline_ns)
        return self.reactor.arm(self, deadline_ns)


cdef Timer new_timer(Reactor reactor, double delay_s, object callback, PyObject **arguments, Py_ssize_t count,
                     object context):
    cdef Timer timer = Timer.__new__(Timer)
    fill(timer, reactor, callback, arguments, count, context)
    timer.reactor = reactor
    timer.delay_s = delay_s
    return timer


cdef Timer set_timeout(Reactor reactor, double delay_s, object callback, PyObject **arguments, Py_ssize_t count,
                       object context):
    cdef Timer timer = new_timer(reactor, delay_s, callback, arguments, count, context)
    timer.start()
    return timer


cdef Timer set_interval(Reactor reactor, double period_s, object callback, PyObject **arguments, Py_ssize_t count,
                        object context):
    cdef Timer timer
    if not period_s > 0:
        raise ValueError(f"period must be more than 0 seconds, not {period_s!r}")
    timer = new_timer(reactor, period_s, callback, arguments, count, context)
    timer.period_ns = deadline_after(0, period_s)
    timer.is_repeating = True
    timer.start()
    return timer
