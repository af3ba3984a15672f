from hoop.core.csrc cimport sockaddr, socklen_t
from hoop.core.flag cimport flag
from hoop.core.reactor cimport Deferred, Reactor
from hoop.net.proxy_header cimport ProxyHeader
from hoop.net.writing cimport WritingTransport


cdef class StreamFilter(Deferred):
    """A compiled protocol that takes a stream's bytes where they are, without an object made of them."""
    cdef flag is_filter         # it takes bytes that way; else it is a protocol like any other
    cdef flag tells_answers     # not all that it sends is the application's: it tells the guard what is

    cdef int on_bytes(self, char *data, Py_ssize_t size) except -1  # in the reactor's read buffer
    cdef int close_from_below(self) except -1                       # the server wants its connections closed
    cdef int drain_from_below(self) except -1                       # the server drains
    cdef object protocol_above(self)                                # the application's, if it knows its connection


cdef class StreamTransport(WritingTransport):
    cdef flag is_filtered       # the protocol is a StreamFilter that takes bytes where they are
    cdef flag is_buffered_protocol
    cdef flag is_asyncio_stream  # the protocol is asyncio's StreamReaderProtocol
    cdef flag is_eof_received   # the peer has ended its half; the protocol kept ours open
    cdef flag is_lingering      # our half is closed; what the peer sends until it closes its own is dropped
    cdef flag is_told_to_drain
    cdef flag is_bulk           # the latest read was large: ask how much there is, and read into an object of that size

    cdef int ask_to_drain(self) except -1
    cdef int expect_no_answer(self) noexcept
    cdef int read_on(self) except -1
    cdef int on_readable(self) except -1
    cdef int drop_input(self) except -1
    cdef int delivery_failed(self) except -1
    cdef int receive_filtered(self) except -1
    cdef int receive_for_reader(self) except -1
    cdef int nothing_received(self, Py_ssize_t result) except -1
    cdef object receive(self, Py_ssize_t *result)
    cdef object receive_bulk(self, Py_ssize_t *result)
    cdef int receive_buffered(self) except -1
    cdef int on_eof(self) except -1


cdef inline StreamFilter filter_of(StreamTransport transport):
    """Return its protocol, if that is a filter; else None."""
    return <StreamFilter>transport.protocol if transport.is_filtered else None


cdef StreamTransport accept_stream(Reactor reactor, int fd, const sockaddr *peer, socklen_t length, object protocol,
                                   object context, object server, ProxyHeader header)
