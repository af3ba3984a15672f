from hoop.core.flag cimport flag
from hoop.tls.tls_reading cimport TlsReading
from libc.stdint cimport int64_t


cdef class TlsSession(TlsReading):
    cdef object options         # TlsOptions
    cdef object waiter          # a future for the handshake's end, or None
    cdef object timer           # a TimerHandle of the handshake, later of the shutdown, or None
    cdef flag is_handshaken
    cdef double handshake_timeout_s
    cdef double shutdown_timeout_s
    cdef int64_t began_ns       # when the handshake, later the shutdown, began

    cdef int set_timer(self, double delay_s, object callback) except -1
    cdef int stop_timer(self) except -1

    cdef int handshake(self) except -1
    cdef int handshake_done(self) except -1
    cdef int handshake_failed(self, object error) except -1
    cdef int wake_waiter(self, object error) except -1

    cdef int abort(self, object error) except -1
