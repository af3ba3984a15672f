from hoop.core.flag cimport flag
from hoop.net.transport cimport Transport
from hoop.net.writing cimport WritingTransport


cdef class ReadPipeTransport(Transport):
    cdef flag is_always_ready   # a device that the poller cannot watch, since it never blocks: read it turn by turn
    cdef flag is_read_scheduled

    cdef bint wants_data(self) noexcept
    cdef int read_soon(self) except -1
    cdef int on_readable(self) except -1


cdef class WritePipeTransport(WritingTransport):
    cdef flag is_socket
    cdef flag is_reader_visible  # the poller tells when the reader leaves: pipes and sockets, not terminals
    cdef flag is_begun           # connection_made has been called
