from hoop.csrc cimport hoop_ring
from hoop.reactor cimport Reactor
from hoop.transport cimport Transport


cdef class StreamTransport(Transport):
    cdef object head            # the first chunk held: bytes, or a memoryview of bytes; None when nothing is held
    cdef hoop_ring chunks       # the chunks behind it, owned; empty when head is None
    cdef Py_ssize_t head_sent   # bytes of head that the kernel has taken
    cdef Py_ssize_t held        # bytes in all that it has not
    cdef bint is_refused        # the kernel took less than it was given: wait until writable
    cdef bint is_reading_paused
    cdef bint is_buffered_protocol
    cdef bint is_eof_wanted     # write_eof() was called
    cdef bint is_eof_received   # the peer will send no more, and writing was kept open
    cdef bint is_reading_started
    cdef bint was_read_full     # the latest read filled the buffer: a bulk transfer

    cdef int begin_life(self, object waiter) except -1
    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1
    cdef int after_write(self) except -1
    cdef int hold(self, object chunk, Py_ssize_t size) except -1
    cdef int flush(self, bint is_loop_calling) except -1
    cdef Py_ssize_t send_held(self) except? -2
    cdef int take_sent(self, Py_ssize_t count) except -1
    cdef int on_drained(self) except -1
    cdef int on_writable(self) except -1
    cdef int on_readable(self) except -1
    cdef object receive(self, Py_ssize_t *result)
    cdef object receive_bulk(self, Py_ssize_t *result)
    cdef int receive_buffered(self) except -1
    cdef int on_eof(self) except -1
    cdef int update_interest(self) except -1


cdef StreamTransport accept_stream(Reactor reactor, int fd, object protocol, object context, object server)
