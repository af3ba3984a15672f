"""The byte-stream transport: how bytes come in and go out of a connected stream socket.

Writing is WritingTransport's, with send(2) or sendmsg(2).

Reading. A small read goes to the reactor's shared buffer and leaves as one exact-size bytes object; once a read was
large, the next ones ask how much there is, and go straight into a bytes object of that size. A StreamFilter (TLS) reads
the shared buffer itself.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from hoop.core.cpython_api cimport PY_VECTORCALL_ARGUMENTS_OFFSET, raw_decref, raw_incref, raw_vectorcall_method
from hoop.core.csrc cimport *
from hoop.core.errors cimport os_error, raise_what_is_set
from hoop.core.reactor cimport READ_BUFFER_SIZE, Deferred, Reactor
from hoop.net.asyncio_streams cimport feed_asyncio_reader, is_asyncio_stream
from hoop.net.chunks cimport chunk_buffers
from hoop.net.proxy_header cimport ProxyHeader
from hoop.net.transport cimport TRANSPORT_CLOSING, TRANSPORT_LOST, TRANSPORT_OPEN, check_unowned
from hoop.net.writing cimport AWAITS_ANSWER, WritingTransport
from libc.errno cimport EAGAIN, ECONNRESET, ENOTCONN

import asyncio
import sys

# Finalizers use it, too: no attribute of this module, which the interpreter's end may have emptied by then.
cdef object BufferedProtocol = asyncio.BufferedProtocol

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes_object, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *text, Py_ssize_t size) except NULL

cdef object DATA_RECEIVED = sys.intern("data_received")

cdef enum:
    BULK_FROM = 32 * 1024       # bytes: from a read of that size on, copying costs more than asking how much there is
    BULK_WHILE = 16 * 1024      # bytes that must be there for the transfer to count as bulk still
    LARGEST_READ = 256 * 1024   # bytes: reading less at once costs more, reading more leaves the processor's cache
    MOST_READS = 4              # that fill their room, one after the other, before other connections have their turn
    READ_ON_FROM = 64 * 1024    # bytes: a buffer of a protocol that is smaller and full says little
    WITHOUT_GIL_FROM = 64 * 1024  # bytes: below, giving the GIL away costs more than the copy


cdef class StreamFilter(Deferred):
    cdef int on_bytes(self, char *data, Py_ssize_t size) except -1:
        raise NotImplementedError("a filter must take its bytes")

    cdef int close_from_below(self) except -1:
        raise NotImplementedError("a filter must know how to close")

    cdef int drain_from_below(self) except -1:
        return 0

    cdef object protocol_above(self):
        return self


cdef class StreamTransport(WritingTransport):
    _start_tls_compatible = True  # start_tls() asks, asyncio's and third-party loops' too
    _sendfile_compatible = asyncio.constants._SendfileMode.TRY_NATIVE  # sendfile() asks, asyncio's and others' too

    cdef int bind_protocol(self, object protocol) except -1:
        self.protocol = protocol
        self.is_filtered = isinstance(protocol, StreamFilter) and (<StreamFilter>protocol).is_filter
        self.is_buffered_protocol = not self.is_filtered and isinstance(protocol, BufferedProtocol)
        self.is_asyncio_stream = is_asyncio_stream(protocol)
        return 0

    # ---- writing -------------------------------------------------------------------------------------------------

    def write_eof(self):
        """Close the writing direction once everything written is delivered; reading goes on. Idempotent."""
        self.check_ours("transport.write_eof")
        if self.state != TRANSPORT_OPEN or self.is_eof_wanted:
            return
        self.flush_deferred()
        self.is_eof_wanted = True
        if self.unsent.size == 0 and self.state == TRANSPORT_OPEN:
            self.on_drained()

    def can_write_eof(self):
        """True: a stream socket can be closed one way."""
        return True

    cdef Py_ssize_t transmit(self, const iovec *buffers, int count, Py_ssize_t total) except? -2:
        cdef Py_ssize_t result
        cdef int fd = self.fd
        if total >= WITHOUT_GIL_FROM:
            with nogil:
                result = hoop_net_sendv(fd, buffers, count)
        elif count == 1:
            result = hoop_net_send(fd, buffers[0].iov_base, buffers[0].iov_len)
        else:
            result = hoop_net_sendv(fd, buffers, count)
        return result

    cdef bint offer(self, hoop_send_batch *batch) noexcept:
        cdef iovec buffers[HOOP_NET_MAX_BUFFERS]
        cdef Py_ssize_t total
        cdef int count
        if self.unsent.size == 0 or self.is_refused or self.send_error != 0:
            return False
        count = chunk_buffers(&self.unsent, buffers, HOOP_NET_MAX_BUFFERS, &total)
        return total < WITHOUT_GIL_FROM and hoop_send_batch_add(batch, self.fd, buffers, count)

    cdef int on_drained(self) except -1:
        """Do what close() or write_eof() left until all held bytes were sent."""
        cdef int result
        if self.state == TRANSPORT_CLOSING:
            return self.end_delivered()
        if self.is_eof_wanted and not self.is_lent:
            result = hoop_net_shutdown_write(self.fd)
            self.reactor.must_poll = True
            if result == -ENOTCONN:
                result = -ECONNRESET  # it was connected: the peer has reset it, as a write would say
            if result < 0:
                return self.fatal(os_error(result), "Fatal error on transport: shutdown failed")
        return 0

    # ---- a server that ends ------------------------------------------------------------------------------------------

    cdef int end_delivered(self) except -1:
        """close() was called, and the kernel has all that was written: end the connection.

        If the server ends but the last answer could be damaged (RFC 9112, 9.6: close(2) resets the connection where
        unread bytes have come, and the peer may lose what it has not read), then linger: end our half, and drop what
        comes until the peer ends its own, or the server has waited long enough.
        """
        if (self.server is None or not self.server._is_ending or self.is_eof_received
                or not hoop_net_close_may_reset(self.fd) or hoop_net_shutdown_write(self.fd) < 0):
            return self.lose(None)
        self.reactor.must_poll = True
        self.is_lingering = True
        self.server._let_linger(self)
        return self.update_interest()

    cdef int drop_input(self) except -1:
        cdef Py_ssize_t result = hoop_net_recv(self.fd, self.reactor.read_buffer, READ_BUFFER_SIZE)
        return 0 if result > 0 or result == -EAGAIN else self.lose(None)

    cdef int ask_to_drain(self) except -1:
        """In the next turn call drain_requested() of the application's protocol, if it has such a method."""
        if self.state == TRANSPORT_OPEN:
            self.reactor.schedule_method(request_drain, self, self.context)
        return 0

    cdef int expect_no_answer(self) noexcept:
        """What was received so far will not be answered: a drain need not wait for that."""
        if self.silence == AWAITS_ANSWER:
            self.silence = 0
        return 0

    # ---- the head of a message, for a server's header_timeout -------------------------------------------------------

    def header_received(self):
        """The head of the peer's message is complete: header_timeout (hoop.Limits) no longer applies. Idempotent.

        Sending an answer says the same.
        """
        if self.guard is not None:
            self.guard.on_answer()

    def expect_header(self):
        """The next message may begin: from now on header_timeout (hoop.Limits) applies again."""
        if self.guard is not None:
            self.guard.await_head()

    # ---- reading -------------------------------------------------------------------------------------------------

    cdef int update_interest(self) except -1:
        """Ask the poller for what this state waits for."""
        cdef unsigned interest = 0
        if self.state >= TRANSPORT_LOST:
            return 0
        if self.is_lingering or (self.state == TRANSPORT_OPEN and self.is_reading_started
                                 and not self.is_reading_paused and not self.is_eof_received):
            interest = HOOP_READABLE
        if self.is_refused or self.owed is not None:
            interest |= HOOP_WRITABLE
        # also when it waits for nothing yet: its server finds it in the table of watchers
        if self.is_watched or interest != 0 or (self.is_reading_started and self.state == TRANSPORT_OPEN):
            return self.want(interest)
        return 0

    cdef int on_events(self, unsigned events) except -1:
        if events & HOOP_READABLE and self.on_readable():
            self.read_on()
        if events & HOOP_WRITABLE and self.state < TRANSPORT_LOST:
            if self.is_refused:
                self.on_writable()
            elif self.owed is not None:
                self.wake_lease()
        return 0

    cdef int read_on(self) except -1:
        """Read again what is there, after a read that has filled its room: what the processor has of this connection,
        it has at hand. Each read is a callback of its own."""
        cdef int reads = 1
        while reads < MOST_READS:
            reads += 1
            if self.reactor.after_is_due:
                self.reactor.settle()
            if self.state != TRANSPORT_OPEN or self.is_reading_paused or not self.on_readable():
                break
        return 0

    cdef int on_readable(self) except -1:
        """Read once. Returns whether that filled all the room there was for it, so that there may be more."""
        cdef Py_ssize_t result = 0
        cdef object data
        if self.is_lingering:
            return self.drop_input()
        if self.is_filtered:
            return self.receive_filtered()
        if self.is_buffered_protocol:
            return self.receive_buffered()
        if self.is_asyncio_stream and not self.is_bulk:
            return self.receive_for_reader()
        data = self.receive_bulk(&result) if self.is_bulk else self.receive(&result)
        if result <= 0:
            return self.nothing_received(result)
        self.silence = AWAITS_ANSWER
        if self.guard is not None:
            self.guard.on_received()
        self.reactor.enter_context(self.context)
        if call_data_received(<PyObject *>self.protocol, <PyObject *>data) < 0:
            self.delivery_failed()
        return result == LARGEST_READ

    cdef int delivery_failed(self) except -1:
        """End the connection: data_received() has raised the exception that is set."""
        try:
            raise_what_is_set()
        except BaseException as error:
            return self.callback_failed(error, "Fatal error: protocol.data_received() call failed.")
        return 0

    cdef int receive_filtered(self) except -1:
        cdef char *buffer = self.reactor.read_buffer
        cdef Py_ssize_t size = hoop_net_recv(self.fd, buffer, READ_BUFFER_SIZE)
        cdef StreamFilter filter = <StreamFilter>self.protocol
        if size <= 0:
            return self.nothing_received(size)
        self.silence = AWAITS_ANSWER
        if self.guard is not None:
            self.guard.on_received()
        self.reactor.enter_context(self.context)
        try:
            filter.on_bytes(buffer, size)
        except BaseException as error:
            return self.callback_failed(error, "Fatal error: protocol.data_received() call failed.")
        return 0

    cdef int receive_for_reader(self) except -1:
        """recv(2) for asyncio's StreamReaderProtocol, whose reader copies what it gets."""
        cdef char *buffer = self.reactor.read_buffer
        cdef object protocol = self.protocol
        cdef Py_ssize_t size = hoop_net_recv(self.fd, buffer, READ_BUFFER_SIZE)
        if size <= 0:
            return self.nothing_received(size)
        self.is_bulk = size >= BULK_FROM
        self.silence = AWAITS_ANSWER
        if self.guard is not None:
            self.guard.on_received()
        self.reactor.enter_context(self.context)
        try:
            if not feed_asyncio_reader(protocol, buffer, size):
                protocol.data_received(PyBytes_FromStringAndSize(buffer, size))
        except BaseException as error:
            return self.callback_failed(error, "Fatal error: protocol.data_received() call failed.")
        return 0

    cdef int nothing_received(self, Py_ssize_t result) except -1:
        """recv(2) has brought no byte: the end, or an error, or another reader of the socket has been faster."""
        if result == 0:
            return self.on_eof()
        if result == -EAGAIN:
            return 0
        return self.fatal(os_error(result), "Fatal read error on socket transport")

    cdef object receive(self, Py_ssize_t *result):
        cdef char *buffer = self.reactor.read_buffer
        cdef Py_ssize_t size = hoop_net_recv(self.fd, buffer, READ_BUFFER_SIZE)
        result[0] = size
        if size <= 0:
            return None
        self.is_bulk = size >= BULK_FROM
        return PyBytes_FromStringAndSize(buffer, size)

    cdef object receive_bulk(self, Py_ssize_t *result):
        """recv(2) straight into the object that the protocol gets, made as large as what is there: a larger one, which
        malloc(3) may have to map, would be shrunk and unmapped again, a page fault for each 4 KiB of it."""
        cdef Py_ssize_t capacity = hoop_net_pending(self.fd)
        cdef Py_ssize_t size
        cdef PyObject *data
        if capacity < BULK_WHILE:  # or the kernel does not say, or the end has come
            return self.receive(result)
        capacity = min(capacity, LARGEST_READ)
        data = new_bytes(NULL, capacity)
        size = receive_into(self.fd, PyBytes_AS_STRING(<object>data), capacity)
        result[0] = size
        if size < capacity:
            _PyBytes_Resize(&data, max(size, 0))  # another reader of the socket has been faster
        owned = <object>data
        Py_DECREF(owned)
        return owned

    cdef int receive_buffered(self) except -1:
        """recv(2) into the buffer of a BufferedProtocol."""
        cdef Py_buffer view
        cdef Py_ssize_t size, capacity
        cdef int fd = self.fd
        self.reactor.enter_context(self.context)
        try:
            buffer = self.protocol.get_buffer(-1)
            PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            if view.len == 0:
                PyBuffer_Release(&view)
                raise RuntimeError("get_buffer() returned an empty buffer")
        except BaseException as error:
            return self.callback_failed(error, "Fatal error: protocol.get_buffer() call failed.")
        if self.fd != fd or fd < 0:
            PyBuffer_Release(&view)
            return 0  # get_buffer() aborted, and a nested turn of events closed the descriptor
        capacity = view.len
        size = receive_into(fd, <char *>view.buf, capacity)
        PyBuffer_Release(&view)
        if size <= 0:
            return self.nothing_received(size)
        self.silence = AWAITS_ANSWER
        if self.guard is not None:
            self.guard.on_received()
        try:
            self.protocol.buffer_updated(size)
        except BaseException as error:
            return self.callback_failed(error, "Fatal error: protocol.buffer_updated() call failed.")
        return size == capacity and size >= READ_ON_FROM

    cdef int on_eof(self) except -1:
        self.reactor.enter_context(self.context)
        try:
            keep_open = self.protocol.eof_received()
        except BaseException as error:
            return self.callback_failed(error, "Fatal error: protocol.eof_received() call failed.")
        self.is_eof_received = True
        return self.update_interest() if keep_open else self.begin_close()


def request_drain(StreamTransport transport not None):
    """The callback of ask_to_drain(). A protocol whose TLS handshake goes on is told afterwards."""
    cdef object protocol = transport.protocol
    if transport.state != TRANSPORT_OPEN or not transport.is_protocol_connected or transport.is_told_to_drain:
        return
    if transport.is_filtered:
        filter_of(transport).drain_from_below()
        protocol = filter_of(transport).protocol_above()
        if protocol is None:
            return
    transport.is_told_to_drain = True
    request = getattr(protocol, "drain_requested", None)
    if request is not None:
        request()


cdef Py_ssize_t receive_into(int fd, char *buffer, Py_ssize_t size) noexcept:
    cdef Py_ssize_t result
    if size < WITHOUT_GIL_FROM:
        return hoop_net_recv(fd, buffer, <size_t>size)
    with nogil:
        result = hoop_net_recv(fd, buffer, <size_t>size)
    return result


cdef int call_data_received(PyObject *protocol, PyObject *data) noexcept:
    """protocol.data_received(data), without a try block around it: -1 with the exception set."""
    cdef PyObject *stack[3]
    cdef PyObject *answer
    stack[0] = NULL
    stack[1] = protocol
    stack[2] = data
    raw_incref(protocol)  # set_protocol() may let go of it meanwhile
    answer = raw_vectorcall_method(<PyObject *>DATA_RECEIVED, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    raw_decref(protocol)
    if answer == NULL:
        return -1
    raw_decref(answer)
    return 0


cdef StreamTransport accept_stream(Reactor reactor, int fd, const sockaddr *peer, socklen_t length, object protocol,
                                   object context, object server, ProxyHeader header):
    """Make the transport of a connection that a listener has accepted, behind a balancer if there is a header. On
    failure, fd stays the caller's."""
    cdef StreamTransport transport = StreamTransport.__new__(StreamTransport)
    transport.offer_peer(peer, length)
    if header is not None:
        header.show_on(transport)
    transport.adopt(reactor, fd, None, protocol, context, server, transport.extra)
    return transport


def make_stream(Reactor reactor not None, sock, protocol, waiter=None, peer=None, bytes head=None):
    """A transport that owns sock (connected, non-blocking). connection_made comes in the next turn, then waiter.

    peer is the address that was connected to, for when the kernel no longer knows it; head is what goes before the
    first bytes. RuntimeError, and sock stays
    open, if another transport owns it already; any other failure closes it.
    """
    cdef StreamTransport transport = None
    check_unowned(reactor, sock)
    try:
        reactor.check_ours("create_connection")
        transport = StreamTransport.__new__(StreamTransport)
        transport.adopt(reactor, sock.fileno(), sock, protocol, None, None, None)
        if peer is not None:
            transport.know_peer(peer)
        if head is not None:
            transport.send_with_first(head)
        transport.begin_life(waiter)
    except BaseException:
        if transport is not None:
            transport.release()  # all of it or, if not adopted, nothing
        sock.close()
        raise
    return transport
