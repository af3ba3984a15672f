from hoop.core.csrc cimport hoop_expiry_node, hoop_network, sockaddr, sockaddr_storage, socklen_t
from hoop.core.reactor cimport Reactor, Watcher
from hoop.core.timeouts cimport Guard, TimeoutQueue
from hoop.net.listener cimport Listener
from libc.stdint cimport uint8_t, uint64_t


cdef class ProxyGate:
    cdef Reactor reactor
    cdef hoop_network *networks  # whose word counts
    cdef int network_count
    cdef unsigned versions      # HOOP_PROXY_V1 | HOOP_PROXY_V2
    cdef bint ignores_untrusted  # their connections are like those of a server without PROXY protocol
    cdef double timeout_s
    cdef TimeoutQueue timeout
    cdef set told               # what was logged already: the first of its kind only
    cdef uint64_t refused_untrusted
    cdef uint64_t invalid_headers
    cdef uint64_t late_headers
    cdef readonly uint64_t completed  # arrivals of which a connection was made, or that were refused for their header

    cdef bint is_trusted(self, const sockaddr *peer, socklen_t length) noexcept
    cdef int tell(self, str kind, const sockaddr *peer, socklen_t length, str reason) except -1


cdef class ProxyListener(Listener):
    cdef ProxyGate gate
    cdef bint is_local          # it listens on a UNIX socket: the kernel lets in whom the file's mode lets in

    cdef int refuse_untrusted(self, int fd, const sockaddr *peer, socklen_t length) except -1
    cdef int take(self, int fd, const sockaddr *peer, socklen_t length, const uint8_t *data, Py_ssize_t size) except -1
    cdef int refuse_header(self, const sockaddr *peer, socklen_t length, str reason, const uint8_t *data,
                           Py_ssize_t size) except -1


cdef class Arrival(Watcher):
    cdef ProxyListener listener
    cdef Deadline deadline
    cdef sockaddr_storage peer
    cdef socklen_t peer_length
    cdef uint8_t *kept          # the bytes of the header that have come
    cdef Py_ssize_t kept_size
    cdef Py_ssize_t room        # bytes that `kept` has memory for

    cdef int begin(self) except -1
    cdef int make_room(self, Py_ssize_t room) except -1
    cdef int receive(self, Py_ssize_t count) except -1
    cdef int complete(self) except -1
    cdef int refuse(self, str reason) except -1
    cdef int detach(self) except -1
    cdef int drop(self) except -1
    cdef int leave(self) except -1


cdef class Deadline(Guard):
    cdef void *arrival          # an Arrival, borrowed: it owns this
    cdef TimeoutQueue queue
    cdef hoop_expiry_node node
