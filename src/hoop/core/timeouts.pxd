from hoop.core.csrc cimport hoop_expiry_node, hoop_expiry_queue
from hoop.core.handle cimport TimerHandle
from hoop.core.reactor cimport Reactor
from libc.stdint cimport int64_t, uint64_t


cdef class Guard:
    """Hears from a transport what its traffic does, to time it and to bound it. A transport without limits has none."""
    cdef int on_received(self) except -1                        # the kernel had bytes for us
    cdef int on_sent(self) except -1                            # the kernel took bytes
    cdef int on_refused(self, Py_ssize_t unsent) except -1      # so many bytes wait for the kernel
    cdef int on_answer(self) except -1                          # the application answers: it has read a message's head
    cdef int await_head(self) except -1                         # and now it expects the next one
    cdef int on_released(self) except -1                        # the transport is closed
    cdef int on_expired(self, hoop_expiry_node *node) except -1  # this node of the guard's own has waited in vain


cdef class TimeoutQueue:
    cdef Reactor reactor
    cdef hoop_expiry_queue waiting  # nodes whose owner is a Guard (borrowed: a guard leaves before it goes)
    cdef TimerHandle timer          # for the first node, or a little later; None while no node waits
    cdef object context             # empty: callbacks enter their own
    cdef int64_t stamp_ns           # the time that activity in turn stamp_turn is given
    cdef uint64_t stamp_turn
    cdef object __weakref__

    cdef int64_t now_ns(self) except? -1
    cdef int touch(self, hoop_expiry_node *node) except -1
    cdef int arm(self, int64_t deadline_ns) except -1


cdef TimeoutQueue timeout_queue(Reactor reactor, double timeout_s)
