"""Timeouts by the thousand: all that wait equally long share one queue and one timer of the loop.

Noting activity moves a node to the end of its queue (csrc/expiry.h), so it costs the same with ten connections and
ten thousand, and touches no heap. Its time is read from the clock once a turn. The timer is set for the node that
will expire first. When it rings and that node has been active in the meantime, it is set anew, a 64th of the timeout
later at least: so an expiry comes never early and at most that much late, a busy queue costs 64 wake-ups per timeout,
and one in which nothing happens none before something has really expired.

The timer is unreferenced: loop.run() waits for connections, not for their timeouts.
"""
from hoop.core.csrc cimport hoop_expiry_deadline_ns, hoop_expiry_is_empty, hoop_expiry_node, hoop_expiry_pop_due, \
    hoop_expiry_queue_init, hoop_expiry_touch
from hoop.core.reactor cimport Reactor
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.scheduler cimport deadline_after
from libc.stdint cimport INT64_MAX, int64_t

import contextvars
import weakref

cdef enum:
    GRAINS = 64                 # how often at most the timer of a busy queue rings per timeout


cdef class Guard:
    cdef int on_received(self) except -1:
        return 0

    cdef int on_sent(self) except -1:
        return 0

    cdef int on_refused(self, Py_ssize_t unsent) except -1:
        return 0

    cdef int on_answer(self) except -1:
        return 0

    cdef int await_head(self) except -1:
        return 0

    cdef int on_released(self) except -1:
        return 0

    cdef int on_expired(self, hoop_expiry_node *node) except -1:
        raise NotImplementedError("a guard that waits must say what follows")


cdef class TimeoutQueue:
    """Made by timeout_queue() only."""

    cdef int64_t now_ns(self) except? -1:
        """The time of the running turn: one look at the clock serves hundreds of connections."""
        cdef Reactor reactor = self.reactor
        if reactor.clock is not None or not reactor.in_callback:
            return reactor.now_ns()
        if self.stamp_turn != reactor.meter.turns:
            self.stamp_ns = reactor.now_ns()
            self.stamp_turn = reactor.meter.turns
        return self.stamp_ns

    cdef int touch(self, hoop_expiry_node *node) except -1:
        """Have node wait from now on, whether or not it has waited already."""
        if (node == self.waiting.ends.previous and self.stamp_turn == self.reactor.meter.turns
                and self.reactor.in_callback):
            return 0  # what was received in this turn is answered in it
        hoop_expiry_touch(&self.waiting, node, self.now_ns())
        if self.timer is None and not self.reactor.closed:
            self.arm(hoop_expiry_deadline_ns(&self.waiting, INT64_MAX))
        return 0

    cdef int arm(self, int64_t deadline_ns) except -1:
        self.timer = self.reactor.schedule_timer(deadline_ns, self._expire, NULL, 0, self.context)
        self.timer.unref()
        return 0

    def _expire(self):
        """The timer's callback: tell every guard that is due, then wait for the next one."""
        cdef Reactor reactor = self.reactor
        cdef int64_t now_ns = reactor.now_ns()
        cdef hoop_expiry_node *node
        cdef Guard guard
        try:
            while True:
                node = hoop_expiry_pop_due(&self.waiting, now_ns)
                if node == NULL:
                    break
                guard = <Guard>node.owner
                guard.on_expired(node)
                if reactor.after_is_due:
                    reactor.settle()
        finally:
            self.timer = None
            if not hoop_expiry_is_empty(&self.waiting) and not reactor.closed:
                self.arm(max(hoop_expiry_deadline_ns(&self.waiting, INT64_MAX),
                             later(now_ns, self.waiting.timeout_ns // GRAINS)))


cdef int64_t later(int64_t now_ns, int64_t delay_ns) noexcept:
    return INT64_MAX if now_ns > INT64_MAX - delay_ns else now_ns + delay_ns


cdef TimeoutQueue timeout_queue(Reactor reactor, double timeout_s):
    """The loop's queue for that many seconds (more than 0). Its users keep it alive; the loop does not."""
    cdef int64_t timeout_ns = max(deadline_after(0, timeout_s), 1)
    cdef TimeoutQueue queue
    if reactor.timeout_queues is None:
        reactor.timeout_queues = weakref.WeakValueDictionary()
    queue = reactor.timeout_queues.get(timeout_ns)
    if queue is None:
        queue = TimeoutQueue.__new__(TimeoutQueue)
        queue.reactor = reactor
        queue.context = contextvars.Context()
        hoop_expiry_queue_init(&queue.waiting, timeout_ns)
        reactor.timeout_queues[timeout_ns] = queue
    return queue


refuse_instances(TimeoutQueue)
