from hoop.core.csrc cimport sockaddr, socklen_t
from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor, Watcher
from hoop.net.admission cimport Admission
from hoop.net.proxy_header cimport ProxyHeader


cdef class Listener(Watcher):
    cdef object sock            # the listening socket; its owner closes it after stop()
    cdef object protocol_factory
    cdef object context         # the one that start() was called in: accepted connections begin in a copy
    cdef object server
    cdef Admission admission
    cdef object retry           # the TimerHandle that resumes after accept(2) or the poller failed, or None
    cdef flag is_started        # between start() and stop(), also while it waits to be resumed
    cdef unsigned wanted        # readable; exclusively, where this process can hand on what it does not accept
    cdef int batch
    cdef int accepted           # connections since it last let other processes in front

    cdef int accept_up_to(self, int most) except -1
    cdef int accept_one(self, int fd, const sockaddr *peer, socklen_t length) except -1
    cdef int begin_connection(self, int fd, const sockaddr *peer, socklen_t length, ProxyHeader header) except -1
    cdef int step_back(self) except -1
    cdef int hand_on(self) except -1
    cdef int try_later(self, str message, object error) except -1
    cdef int let_others_in_front(self) except -1
    cdef int wait_for_room(self) except -1
    cdef int run_short(self, int result) except -1
