"""The byte-stream transport: how bytes come in and go out of a connected stream socket.

Writing. What one callback writes is held until the callback and its microtasks have ended, then goes out as one
sendmsg(2). Held bytes are flushed at once where waiting could be noticed: outside of the loop's callbacks, when they reach
the high-water mark, and before close, abort, write_eof, set_protocol and get_write_buffer_size. pause_writing() is only
about bytes that the kernel has refused.

Reading. A small read goes to the reactor's shared buffer and leaves as one exact-size bytes object; once a read has filled
that buffer, the next ones go straight into a large bytes object that is then shrunk.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.csrc cimport *
from hoop.errors cimport os_error
from hoop.reactor cimport READ_BUFFER_SIZE, Reactor
from hoop.transport cimport TRANSPORT_CLOSING, TRANSPORT_LOST, TRANSPORT_OPEN, Transport
from libc.errno cimport EAGAIN

import asyncio

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes_object, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *text, Py_ssize_t size) except NULL

cdef enum:
    BULK_READ_SIZE = 256 * 1024
    WITHOUT_GIL_FROM = 64 * 1024  # bytes: below, giving the GIL away costs more than the copy
    KEEP_VIEW_FROM = 4096         # bytes: below, copying a memoryview is cheaper than holding it


cdef class StreamTransport(Transport):
    def __cinit__(self):
        hoop_ring_init(&self.chunks)

    def __dealloc__(self):
        self.discard_held()

    cdef int bind_protocol(self, object protocol) except -1:
        self.protocol = protocol
        self.is_buffered_protocol = isinstance(protocol, asyncio.BufferedProtocol)
        return 0

    cdef Py_ssize_t held_bytes(self) noexcept:
        return self.held

    # ---- writing -------------------------------------------------------------------------------------------------

    def write(self, data):
        """Send bytes, bytearray or memoryview; never blocks. The data may be changed or released afterwards.

        TypeError for anything else; RuntimeError after write_eof(). After the connection is lost, data is dropped.
        """
        if PyBytes_CheckExact(data):
            self.write_chunk(data, PyBytes_GET_SIZE(data))
        else:
            chunk = owned_chunk(data)
            self.write_chunk(chunk, len(chunk))

    def writelines(self, list_of_data):
        """Send the items of an iterable, in one system call where possible. Nothing is sent if one has a wrong type."""
        cdef list chunks = [owned_chunk(data) for data in list_of_data]
        for chunk in chunks:
            if self.is_eof_wanted:
                break  # write_chunk raises
            if self.state == TRANSPORT_OPEN:
                self.hold(chunk, len(chunk))
            else:
                self.note_dropped_write()
        if self.is_eof_wanted:
            self.write_chunk(b"", 0)
        if self.held > 0:
            self.after_write()

    def write_eof(self):
        """Close the writing direction once everything written is delivered; reading goes on. Idempotent."""
        if self.state != TRANSPORT_OPEN or self.is_eof_wanted:
            return
        self.flush_deferred()
        self.is_eof_wanted = True
        if self.held == 0 and self.state == TRANSPORT_OPEN:
            self.on_drained()

    def can_write_eof(self):
        """True: a stream socket can be closed one way."""
        return True

    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1:
        if self.is_eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if size == 0:
            return 0
        if self.state != TRANSPORT_OPEN:
            return self.note_dropped_write()
        self.hold(chunk, size)
        return self.after_write()

    cdef int after_write(self) except -1:
        """Bytes were added: wait for the callback's end, or for the kernel, or send now."""
        if self.is_refused:
            return self.pause_protocol()
        if self.reactor.in_callback and self.held < self.high_water:
            if not self.is_flush_due:
                self.reactor.defer_flush(self)
            return 0
        return self.flush(False)

    cdef int hold(self, object chunk, Py_ssize_t size) except -1:
        if size == 0:
            return 0
        if self.head is None:
            self.head = chunk
        else:
            if hoop_ring_push(&self.chunks, <void *>chunk) < 0:
                raise MemoryError()
            Py_INCREF(chunk)
        self.held += size
        return 0

    cdef int on_flush(self) except -1:
        if self.held > 0 and not self.is_refused:
            self.flush(True)
        return 0

    cdef int flush_deferred(self) except -1:
        if self.held > 0 and not self.is_refused:
            self.flush(False)
        return 0

    cdef int flush(self, bint is_loop_calling) except -1:
        """Give the kernel what is held. What it refuses waits until the socket is writable."""
        cdef Py_ssize_t sent
        while self.held > 0:
            sent = self.send_held()
            if sent == -EAGAIN:
                break
            if sent < 0:
                self.discard_held()
                self.fatal(os_error(sent), "Fatal write error on socket transport")
                return 0
            self.take_sent(sent)
            if self.held > 0 and hoop_ring_size(&self.chunks) < HOOP_NET_MAX_BUFFERS:
                break  # it was given everything and took a part: its buffer is full
        if self.held == 0:
            return 0
        if not self.is_refused:
            self.is_refused = True
            self.update_interest()
            if is_loop_calling:
                self.reactor.enter_context(self.context)
            self.pause_protocol()
        return 0

    cdef Py_ssize_t send_held(self) except? -2:
        """One send(2) or sendmsg(2): bytes taken or -errno."""
        cdef iovec buffers[HOOP_NET_MAX_BUFFERS]
        cdef int count = 1
        cdef Py_ssize_t size, total
        cdef size_t i
        cdef Py_ssize_t result
        cdef int fd = self.fd
        buffers[0].iov_base = chunk_start(<PyObject *>self.head, &size) + self.head_sent
        total = size - self.head_sent
        buffers[0].iov_len = <size_t>total
        for i in range(self.chunks.head, self.chunks.tail):
            if count == HOOP_NET_MAX_BUFFERS:
                break
            buffers[count].iov_base = chunk_start(<PyObject *>self.chunks.items[i & (self.chunks.capacity - 1)], &size)
            buffers[count].iov_len = <size_t>size
            total += size
            count += 1
        if total >= WITHOUT_GIL_FROM:
            with nogil:
                result = hoop_net_sendv(fd, buffers, count)
        elif count == 1:
            result = hoop_net_send(fd, buffers[0].iov_base, buffers[0].iov_len)
        else:
            result = hoop_net_sendv(fd, buffers, count)
        return result

    cdef int take_sent(self, Py_ssize_t count) except -1:
        """The kernel has taken count bytes: let go of the chunks that are done."""
        cdef Py_ssize_t size
        cdef PyObject *entry
        self.held -= count
        while self.head is not None:
            chunk_start(<PyObject *>self.head, &size)
            if count < size - self.head_sent:
                self.head_sent += count
                return 0
            count -= size - self.head_sent
            self.head_sent = 0
            entry = <PyObject *>hoop_ring_pop(&self.chunks)
            if entry == NULL:
                self.head = None
            else:
                self.head = <object>entry
                Py_DECREF(<object>entry)
        if self.chunks.capacity > 0:
            hoop_ring_free(&self.chunks)  # an idle connection keeps no storage
        return 0

    cdef int discard_held(self) except -1:
        cdef PyObject *entry = <PyObject *>hoop_ring_pop(&self.chunks)
        self.head = None
        self.head_sent = 0
        self.held = 0
        while entry != NULL:
            Py_DECREF(<object>entry)
            entry = <PyObject *>hoop_ring_pop(&self.chunks)
        hoop_ring_free(&self.chunks)
        return 0

    cdef int on_writable(self) except -1:
        self.flush(True)
        if self.state >= TRANSPORT_LOST:
            return 0
        if self.held == 0:
            self.is_refused = False
            self.update_interest()
        if self.is_protocol_paused:
            self.reactor.enter_context(self.context)
            self.resume_protocol()  # may write, close or abort
        if self.held == 0 and self.state < TRANSPORT_LOST:
            self.on_drained()
        return 0

    cdef int on_drained(self) except -1:
        """Nothing is held: what close() or write_eof() waited for."""
        cdef int result
        if self.state == TRANSPORT_CLOSING:
            return self.lose(None)
        if self.is_eof_wanted:
            result = hoop_net_shutdown_write(self.fd)
            if result < 0:
                return self.fatal(os_error(result), "Fatal error on transport: shutdown failed")
        return 0

    # ---- the beginning -------------------------------------------------------------------------------------------

    cdef int begin_life(self, object waiter) except -1:
        """For a connection made outside of the I/O phase: connection_made, reading and waiter, in the next turn."""
        cdef Reactor reactor = self.reactor
        reactor.schedule(self._connection_made, NULL, 0, self.context)
        reactor.schedule(self._begin_reading, NULL, 0, self.context)
        if waiter is not None:
            reactor.schedule_method(waiter_done, waiter, None)
        return 0

    # ---- reading -------------------------------------------------------------------------------------------------

    def is_reading(self):
        """Whether new data is being delivered."""
        return self.state == TRANSPORT_OPEN and not self.is_reading_paused

    def pause_reading(self):
        """Deliver no more data until resume_reading(). Idempotent."""
        if self.is_reading_paused or self.state != TRANSPORT_OPEN:
            return
        self.is_reading_paused = True
        self.update_interest()

    def resume_reading(self):
        """Undo pause_reading(). Idempotent."""
        if not self.is_reading_paused or self.state != TRANSPORT_OPEN:
            return
        self.is_reading_paused = False
        self.update_interest()

    cdef int start_reading(self) except -1:
        self.is_reading_started = True
        return self.update_interest()

    cdef int stop_reading(self) except -1:
        return self.update_interest()

    cdef int update_interest(self) except -1:
        """Ask the poller for what this state waits for."""
        cdef unsigned interest = 0
        if self.state >= TRANSPORT_LOST:
            return 0
        if (self.state == TRANSPORT_OPEN and self.is_reading_started and not self.is_reading_paused
                and not self.is_eof_received):
            interest = HOOP_READABLE
        if self.is_refused:
            interest |= HOOP_WRITABLE
        if self.is_watched:
            self.reactor.set_interest(self, interest)
        elif interest != 0:
            try:
                self.reactor.watch(self, interest)
            except OSError as error:
                self.fatal(error, "Fatal error on transport: the poller refused its descriptor")
        return 0

    cdef int on_events(self, unsigned events) except -1:
        if events & HOOP_READABLE:
            self.on_readable()
        if events & HOOP_WRITABLE and self.is_refused and self.state < TRANSPORT_LOST:
            self.on_writable()
        return 0

    cdef int on_readable(self) except -1:
        cdef Py_ssize_t result = 0
        cdef object data
        if self.is_buffered_protocol:
            return self.receive_buffered()
        data = self.receive_bulk(&result) if self.was_read_full else self.receive(&result)
        if result <= 0:
            if result == 0:
                return self.on_eof()
            if result == -EAGAIN:
                return 0
            return self.fatal(os_error(result), "Fatal read error on socket transport")
        self.reactor.enter_context(self.context)
        try:
            self.protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.fatal(error, "Fatal error: protocol.data_received() call failed.")
        return 0

    cdef object receive(self, Py_ssize_t *result):
        cdef char *buffer = self.reactor.read_buffer
        cdef Py_ssize_t size = hoop_net_recv(self.fd, buffer, READ_BUFFER_SIZE)
        result[0] = size
        if size <= 0:
            return None
        self.was_read_full = size == READ_BUFFER_SIZE
        return PyBytes_FromStringAndSize(buffer, size)

    cdef object receive_bulk(self, Py_ssize_t *result):
        """Straight into the object that the protocol gets."""
        cdef PyObject *data = new_bytes(NULL, BULK_READ_SIZE)
        cdef char *buffer = PyBytes_AS_STRING(<object>data)
        cdef Py_ssize_t size
        cdef int fd = self.fd
        with nogil:
            size = hoop_net_recv(fd, buffer, BULK_READ_SIZE)
        result[0] = size
        self.was_read_full = size >= READ_BUFFER_SIZE
        _PyBytes_Resize(&data, size if size > 0 else 0)
        owned = <object>data
        Py_DECREF(owned)
        return owned

    cdef int receive_buffered(self) except -1:
        """recv(2) into the buffer of a BufferedProtocol."""
        cdef Py_buffer view
        cdef Py_ssize_t size
        cdef int fd = self.fd
        self.reactor.enter_context(self.context)
        try:
            buffer = self.protocol.get_buffer(-1)
            PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            if view.len == 0:
                PyBuffer_Release(&view)
                raise RuntimeError("get_buffer() returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            return self.fatal(error, "Fatal error: protocol.get_buffer() call failed.")
        if self.fd != fd or fd < 0:
            PyBuffer_Release(&view)
            return 0  # get_buffer() aborted, and a nested turn of events closed the descriptor
        size = hoop_net_recv(fd, view.buf, <size_t>view.len)
        PyBuffer_Release(&view)
        if size == 0:
            return self.on_eof()
        if size == -EAGAIN:
            return 0
        if size < 0:
            return self.fatal(os_error(size), "Fatal read error on socket transport")
        try:
            self.protocol.buffer_updated(size)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.fatal(error, "Fatal error: protocol.buffer_updated() call failed.")
        return 0

    cdef int on_eof(self) except -1:
        self.reactor.enter_context(self.context)
        try:
            keep_open = self.protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            return self.fatal(error, "Fatal error: protocol.eof_received() call failed.")
        if not keep_open:
            return self.begin_close()
        self.is_eof_received = True
        return self.update_interest()


def waiter_done(waiter):
    """The transport is ready: whoever waits in create_connection goes on."""
    if not waiter.done():
        waiter.set_result(None)


# ---- chunks -------------------------------------------------------------------------------------------------------

cdef inline char *chunk_start(PyObject *chunk, Py_ssize_t *size) noexcept:
    """Where the bytes of a held chunk are, and how many."""
    if PyBytes_CheckExact(<object>chunk):
        size[0] = PyBytes_GET_SIZE(<object>chunk)
        return PyBytes_AS_STRING(<object>chunk)
    cdef Py_buffer *view = PyMemoryView_GET_BUFFER(<object>chunk)
    size[0] = view.len
    return <char *>view.buf


cdef object owned_chunk(object data):
    """The data as an object that nobody else can change: itself, a view of our own on immutable bytes, or a copy."""
    cdef Py_buffer *view
    if PyBytes_CheckExact(data):
        return data
    if PyMemoryView_Check(data):
        view = PyMemoryView_GET_BUFFER(data)
        if (view.len >= KEEP_VIEW_FROM and view.obj is not None and PyBytes_CheckExact(view.obj)
                and data.c_contiguous and view.itemsize == 1 and view.ndim == 1):
            return PyMemoryView_FromObject(data)
        return data.tobytes()
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")


cdef StreamTransport accept_stream(Reactor reactor, int fd, object protocol, object context, object server):
    """A transport for a connection that a listener has accepted."""
    cdef StreamTransport transport = StreamTransport.__new__(StreamTransport)
    transport.adopt(reactor, fd, None, protocol, context, server, None)
    return transport
