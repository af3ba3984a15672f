from hoop.core.csrc cimport hoop_expiry_node, sockaddr, socklen_t
from hoop.core.reactor cimport Reactor
from hoop.core.timeouts cimport Guard, TimeoutQueue
from hoop.net.stream cimport StreamTransport
from libc.stdint cimport uint64_t


cdef class Admission:
    cdef Reactor reactor
    cdef object limits          # hoop.Limits, or None
    cdef dict hosts             # connections by host, where those are limited; else None
    cdef list stopped           # listeners that wait until a connection ends
    cdef TimeoutQueue idle      # None: no such limit
    cdef TimeoutQueue first_byte
    cdef TimeoutQueue header
    cdef Py_ssize_t max_connections  # 0: no such limit
    cdef Py_ssize_t max_per_host
    cdef Py_ssize_t max_unsent
    cdef bint is_guarding       # each connection gets a guard
    cdef bint is_waiting_when_full
    cdef Py_ssize_t active      # guarded connections that are open
    cdef uint64_t accepted
    cdef uint64_t refused_full
    cdef uint64_t refused_host
    cdef uint64_t pauses        # times accepting stopped because the server was full
    cdef uint64_t idle_timeouts
    cdef uint64_t first_byte_timeouts
    cdef uint64_t header_timeouts
    cdef uint64_t unsent_overflows

    cdef bint must_wait(self) noexcept
    cdef object host_of(self, const sockaddr *peer, socklen_t length)
    cdef bint is_welcome(self, object host) except -1
    cdef int admit(self, StreamTransport transport, object host) except -1
    cdef int leave(self, object host) except -1
    cdef int resume_stopped(self) except -1


cdef class ConnectionGuard(Guard):
    cdef void *transport        # a StreamTransport, borrowed: it owns this guard; NULL once released
    cdef Admission admission    # None: only set_quiet_timeout()
    cdef object host
    cdef TimeoutQueue quiet_queue
    cdef object on_quiet
    cdef hoop_expiry_node idle
    cdef hoop_expiry_node first_byte
    cdef hoop_expiry_node header
    cdef hoop_expiry_node quiet

    cdef int leave_queues(self) noexcept
    cdef int on_active(self) except -1
    cdef int tell_quiet(self, StreamTransport transport) except -1
    cdef int end(self, object error) except -1


cdef int set_quiet_timeout(StreamTransport transport, double timeout_s, object callback) except -1
