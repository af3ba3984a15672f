"""The writing half of a byte-stream transport: the chunks that write() was given and the kernel has not taken.

A transport holds what the callbacks of a phase write until the phase has ended, or until a bound is reached between two
of them (Reactor.settle), then sends it in one system call. It sends at once where a peer could notice the wait
(docs/writes.md): outside of the loop's callbacks, when held bytes reach the high-water mark, when a write finds that
bytes were held for long, and before close, abort, write_eof, set_protocol and get_write_buffer_size, of this transport
or of another. pause_writing() is only about bytes that the kernel has refused.

A kind of transport that writes defines how (transmit), what it waits for (update_interest; for writability while
is_refused), and what follows once all held bytes are sent (on_drained).
"""
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_FromObject, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from hoop.core.csrc cimport *
from hoop.core.errors cimport os_error
from hoop.core.ownership cimport IS_FREE_THREADED
from hoop.core.reactor cimport Reactor, flush_if_deferred, may_hold
from hoop.net.chunks cimport append_chunk, chunk_buffers, consume_chunks, drop_chunks, views_of_chunks
from hoop.net.transport cimport TRANSPORT_CLOSED, TRANSPORT_LOST, TRANSPORT_OPEN, Transport
from libc.errno cimport EAGAIN

import sys

cdef enum:
    KEEP_VIEW_FROM = 4096  # bytes: below, copying a memoryview is cheaper than holding it


# Up to Python 3.11 asyncio's writelines() is a write().
cdef str METHOD_NAMED_FOR_LINES = "writelines" if sys.version_info >= (3, 12) else "write"


cdef class WritingTransport(Transport):
    def __dealloc__(self):
        self.discard_held()

    cdef Py_ssize_t held_bytes(self) noexcept:
        return self.unsent.size

    # ---- what kinds of transport define --------------------------------------------------------------------------

    cdef Py_ssize_t transmit(self, const iovec *buffers, int count, Py_ssize_t total) except? -2:
        """Make one system call with count buffers of total bytes; return the bytes taken, or -errno."""
        raise NotImplementedError("each kind of transport says how it writes")

    cdef str write_failure(self):
        """The message of the log when transmit() fails."""
        return "Fatal write error on socket transport"

    cdef int on_drained(self) except -1:
        """Do what close() or write_eof() left until all held bytes were sent."""
        return 0

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
        cdef list chunks
        cdef bytes joined
        self.check_ours("transport.writelines")
        self.check_writable(METHOD_NAMED_FOR_LINES)
        if are_few_bytes(list_of_data):
            joined = b"".join(list_of_data)
            self.write_chunk(joined, PyBytes_GET_SIZE(joined))
            return
        chunks = owned_chunks(list_of_data)
        for chunk in chunks:
            if self.is_eof_wanted or self.is_lent:
                break
            if self.state == TRANSPORT_OPEN:
                if len(chunk) > 0:
                    append_chunk(&self.unsent, chunk, len(chunk))
            else:
                self.note_dropped_write()
        self.check_writable(METHOD_NAMED_FOR_LINES)
        if self.unsent.size > 0:
            self.after_write(self.unsent.size)

    cdef int check_writable(self, str method) except -1:
        """RuntimeError, in asyncio's words, after write_eof() and while sendfile() has the descriptor."""
        if self.is_eof_wanted:
            raise RuntimeError(f"Cannot call {method}() after write_eof()")
        if self.is_lent:
            raise RuntimeError(f"unable to {method}; sendfile is in progress")
        return 0

    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1:
        if self.is_eof_wanted or self.is_lent:
            self.check_writable("write")
        if size == 0:
            return 0
        if self.state != TRANSPORT_OPEN:
            return self.note_dropped_write()
        if IS_FREE_THREADED or self.reactor.debug:
            self.check_ours("transport.write")
        append_chunk(&self.unsent, chunk, size)
        return self.after_write(size)

    cdef int after_write(self, Py_ssize_t size) except -1:
        """Hold size new bytes until the phase ends or the kernel takes more; else send them now."""
        cdef Reactor reactor = self.reactor
        self.silence = 0
        if self.is_refused:
            return self.note_refused()
        if (reactor.in_callback and not self.is_prompt and self.unsent.size < self.marks.high
                and may_hold(reactor, size)):
            if not self.is_flush_due:
                reactor.defer_flush(self)
            return 0
        return self.send_now()

    cdef int send_now(self) except -1:
        """Send what this transport holds, after what others hold that have written before."""
        flush_if_deferred(self.reactor)
        if self.unsent.size > 0 and not self.is_refused:
            self.flush(False)
        return 0

    cdef int send_with_first(self, bytes head) except -1:
        """Before begin_life(): send head before everything else, in one system call with what comes in the first turns.

        It waits as bytes that the kernel has refused do: until the descriptor is found writable, which is looked for
        from begin_reading() on, and so after the caller of create_connection() has written.
        """
        append_chunk(&self.unsent, head, len(head))
        self.is_refused = True
        return 0

    cdef int on_flush(self, bint is_loop_calling) except -1:
        if self.unsent.size > 0 and not self.is_refused:
            self.flush(is_loop_calling)
        return 0

    cdef int on_sent(self, Py_ssize_t result) except -1:
        if result > 0:
            consume_chunks(&self.unsent, result)
            if self.guard is not None:
                self.guard.on_sent()
        elif result != -EAGAIN:  # which the next call of the kernel says again
            self.send_error = <unsigned char>-result
        return 0

    cdef int flush_deferred(self) except -1:
        if self.state == TRANSPORT_CLOSED or not self.reactor.may_touch():
            return 0  # one that never was open has no loop; another thread may ask for figures
        return self.send_now()

    cdef int flush(self, bint is_loop_calling) except -1:
        """Give the kernel what is held. What the kernel refuses waits until the descriptor is writable."""
        cdef Py_ssize_t sent
        cdef bint is_all
        while self.unsent.size > 0:
            is_all = hoop_ring_size(&self.unsent.rest) < HOOP_NET_MAX_BUFFERS  # what send_unsent() gives, with the head
            sent = self.send_unsent() if self.send_error == 0 else -<Py_ssize_t>self.send_error
            if sent == -EAGAIN:
                break
            if sent < 0:
                self.discard_held()
                self.fatal(os_error(sent), self.write_failure())
                return 0
            consume_chunks(&self.unsent, sent)
            self.reactor.must_poll = True  # the peer may be watched by this very loop
            if self.guard is not None:
                self.guard.on_sent()
            if self.unsent.size > 0 and is_all:
                break  # the kernel was given everything and took a part: its buffer is full
        if self.unsent.size == 0:
            return 0
        if not self.is_refused:
            self.is_refused = True
            self.update_interest()
            if is_loop_calling:
                self.reactor.enter_context(self.context)
            self.note_refused()
        return 0

    cdef int note_refused(self) except -1:
        """Check what waits for the kernel against the limits and the high-water mark."""
        if self.guard is not None:
            self.guard.on_refused(self.unsent.size)  # may end the connection; then nothing is held
        return self.pause_protocol()

    cdef Py_ssize_t send_unsent(self) except? -2:
        """Send the first chunks, as many as one system call takes; return the bytes taken, or -errno."""
        cdef iovec buffers[HOOP_NET_MAX_BUFFERS]
        cdef Py_ssize_t total
        cdef int count = chunk_buffers(&self.unsent, buffers, HOOP_NET_MAX_BUFFERS, &total)
        return self.transmit(buffers, count, total)

    cdef int discard_held(self) except -1:
        return drop_chunks(&self.unsent)

    cdef int on_writable(self) except -1:
        self.flush(True)
        if self.state >= TRANSPORT_LOST:
            return 0
        if self.unsent.size == 0:
            self.is_refused = False
            self.update_interest()
        if self.is_writing_paused:
            self.reactor.enter_context(self.context)
            self.resume_protocol()  # may write, close or abort
        if self.unsent.size == 0 and self.state < TRANSPORT_LOST:
            self.on_drained()
        return 0

    @property
    def _buffer(self):
        """What is held, as asyncio's transports show it: a copy, for looking at."""
        return views_of_chunks(&self.unsent)

    @property
    def _eof(self):
        return self.is_eof_wanted

    # ---- lending the descriptor to sendfile() ----------------------------------------------------------------------

    def _lend(self):
        """Refuse write() until _take_back(). RuntimeError if the descriptor is lent already."""
        if self.is_lent:
            raise RuntimeError("sendfile is in progress already")
        self.flush_deferred()
        self.is_lent = True

    def _lent_descriptor(self):
        """Where to write. ConnectionError once the connection is lost: another file may have the number by then."""
        if self.state >= TRANSPORT_LOST:
            raise ConnectionError("the connection was closed while a file was being sent")
        self.reactor.must_poll = True
        return self.fd

    def _note_file_sent(self):
        """The kernel has taken some of the file."""
        if self.guard is not None:
            self.guard.on_sent()

    def _when_writable(self, waiter):
        """Set waiter, a future, when the kernel has taken all that write() accepted, and takes more."""
        self._lent_descriptor()
        self.owed = waiter
        self.update_interest()

    def _take_back(self):
        """Allow write() again."""
        self.is_lent = False
        if self.state < TRANSPORT_LOST:  # after that, connection_lost() may be owed
            self.owed = None
            self.update_interest()
            if self.unsent.size == 0:
                self.on_drained()  # write_eof() has waited

    cdef int wake_lease(self) except -1:
        cdef object waiter = self.owed
        self.owed = None
        self.update_interest()
        if not waiter.done():
            waiter.set_result(None)
        return 0

    cdef int lose(self, object error) except -1:
        cdef object waiter = self.owed
        if waiter is not None and self.state < TRANSPORT_LOST:
            if not waiter.done():
                waiter.set_exception(error or ConnectionError("the connection was closed while a file was being sent"))
            self.owed = None  # not before: where memory was too short, the caller may try again
        return Transport.lose(self, error)


cdef bint are_few_bytes(object items) except -1:
    """Whether this is a list or tuple of bytes, so few in all that sending them would join them anyway."""
    cdef Py_ssize_t size = 0
    if type(items) is not list and type(items) is not tuple:
        return False
    for item in items:
        if not PyBytes_CheckExact(item):
            return False
        size += PyBytes_GET_SIZE(item)
    return size <= HOOP_NET_JOINED_MOST


cdef list owned_chunks(object list_of_data):
    cdef list chunks = []
    for data in list_of_data:
        chunks.append(owned_chunk(data))
    return chunks


cdef object owned_chunk(object data):
    """The data as an object that no other code can change: itself, a view of our own on immutable bytes, or a copy."""
    cdef Py_buffer *view
    if PyBytes_CheckExact(data):
        return data
    if PyMemoryView_Check(data):
        view = PyMemoryView_GET_BUFFER(data)
        # data's own attributes: ValueError once it is released, and None where no object owns the memory
        if (view.len >= KEEP_VIEW_FROM and data.c_contiguous and PyBytes_CheckExact(data.obj)
                and view.itemsize == 1 and view.ndim == 1):
            return PyMemoryView_FromObject(data)
        return data.tobytes()
    if isinstance(data, (bytes, bytearray)):
        return PyBytes_FromObject(data)  # the bytes themselves: __bytes__ may return a subclass again
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
