from hoop.transport cimport Transport
from hoop.writing cimport WritingTransport


cdef class ReadPipeTransport(Transport):
    cdef bint is_always_ready   # a device that the poller cannot watch, since it never blocks: read it turn by turn
    cdef bint is_read_scheduled

    cdef bint wants_data(self) noexcept
    cdef int read_soon(self) except -1
    cdef int on_readable(self) except -1


cdef class WritePipeTransport(WritingTransport):
    cdef bint is_socket
    cdef bint is_reader_visible # the poller tells when the reader leaves: pipes and sockets, not terminals
    cdef bint is_begun          # connection_made has been called
