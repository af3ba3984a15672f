from hoop.core.flag cimport flag
from hoop.core.step_coroutine cimport StepCoroutine
from hoop.net.stream cimport StreamFilter, StreamTransport
from hoop.streams.reader cimport StreamReader


cdef class StreamReaderProtocol(StreamFilter):
    cdef readonly object _loop
    cdef StreamReader reader
    cdef object client_connected_cb
    cdef object transport
    cdef object task
    cdef object drain_waiters   # list of futures, or None
    cdef object close_waiter    # future, or None until a caller asks
    cdef object lost_with
    cdef flag is_paused
    cdef flag is_lost
    cdef flag is_server_draining
    cdef flag is_over_tls
    cdef dict __dict__
    cdef object __weakref__

    cdef int expect_no_answer(self) except -1


cdef class StreamWriter:
    cdef object stream_transport
    cdef StreamReaderProtocol protocol
    cdef StreamReader reader
    cdef dict __dict__
    cdef object __weakref__

    cdef StreamTransport plain_stream(self)
    cdef bint is_closing_now(self) except -1


cdef class DrainCoroutine(StepCoroutine):
    pass
