"""The outgoing half of a TLS session: plaintext that write() was given, encrypted and handed to the transport below.

What the callbacks of a phase write is held as plaintext until the phase has ended, then encrypted record by record and
given to the transport below, which sends it with one system call. When that one is full, plaintext waits here, by
reference. pause_writing() counts only bytes that have to wait for the peer, here and below.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from hoop.core.reactor cimport flush_if_deferred, may_hold
from hoop.net.chunks cimport append_chunk, chunk_start, consume_chunks, copy_chunks, drop_chunks
from hoop.net.flow_control cimport pause_above, resume_below
from hoop.net.stream cimport StreamTransport
from hoop.net.transport cimport TRANSPORT_LOST, count_dropped_write
from hoop.tls.engine cimport TLS_ENCRYPT_SIZE, TLS_RECORD_SIZE, TLS_WANTS_INPUT
from hoop.tls.tls_connection cimport TLS_FLUSHING, TLS_LOST, TLS_OPEN, TlsConnection

cdef enum:
    DEFER_BELOW = 16 * 1024     # bytes written by one callback: beyond, they are encrypted at once


cdef class TlsWriting(TlsConnection):
    def __cinit__(self):
        self.marks.high = DEFAULT_TLS_HIGH_WATER
        self.marks.low = DEFAULT_TLS_HIGH_WATER // 4

    def __dealloc__(self):
        drop_chunks(&self.plaintext)

    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1:
        if size == 0:
            return 0
        if self.state > TLS_OPEN:
            return count_dropped_write(&self.dropped_writes, "SSL connection is closed")
        append_chunk(&self.plaintext, chunk, size)
        return self.after_write()

    cdef int after_write(self) except -1:
        """Bytes were added: wait for the callback's end, or for the transport below, or encrypt now."""
        cdef bint is_prompt = self.is_prompt
        if self.state != TLS_OPEN or self.is_lower_paused or self.is_blocked:
            return self.note_refused()
        if self.reactor.in_callback and not is_prompt and self.plaintext.size < DEFER_BELOW:
            if may_hold(self.reactor, self.plaintext.size):
                if not self.is_flush_due:
                    self.reactor.defer_flush(self)
                return 0
            is_prompt = True
        if not is_prompt:
            return self.flush_queue()
        flush_if_deferred(self.reactor)  # what others have written before
        self.flush_queue()
        return flush_if_deferred(self.reactor)

    cdef int set_prompt(self, bint is_prompt) except -1:
        """What set_write_deferral(not is_prompt) does."""
        self.is_prompt = is_prompt
        return flush_if_deferred(self.reactor) if is_prompt else 0

    cdef int on_flush(self, bint is_loop_calling) except -1:
        if self.plaintext.size > 0 and self.state < TLS_LOST:
            if is_loop_calling and self.stream is not None:
                self.reactor.enter_context(self.stream.context)
            self.flush_queue()
        return 0

    # ---- encrypting and sending ----------------------------------------------------------------------------------

    cdef int flush_queue(self) except -1:
        """Encrypt until nothing is left or the transport below is full; then whatever that allows."""
        if self.state != TLS_OPEN and self.state != TLS_FLUSHING:
            return 0
        if self.is_engine_busy:
            self.is_flush_owed = True  # who called the engine goes on with that
            return 0
        self.is_flush_owed = False
        self.encrypt_queue()
        if self.state >= TLS_LOST:
            return 0
        if self.is_writing_paused:
            self.resume_protocol()
        else:
            self.note_refused()
        if self.state == TLS_FLUSHING and self.plaintext.size == 0:
            self.begin_shutdown()
        return 0

    cdef int encrypt_queue(self) except -1:
        cdef object _owner  # keeps the bytes also if a callback of the context drops the queue
        cdef const char *start
        cdef Py_ssize_t size, count
        while (self.plaintext.size > 0 and not self.is_lower_paused and not self.is_blocked
                and self.state < TLS_LOST):
            try:
                _owner = self.next_piece(&start, &size)
                self.is_engine_busy = True
                try:
                    count = self.engine.encrypt(start, size)
                finally:
                    self.is_engine_busy = False
            except BaseException as error:
                return self.callback_failed(error, "Fatal error on SSL protocol")
            if count == TLS_WANTS_INPUT:
                self.is_blocked = True
            elif self.plaintext.size > 0:  # a callback of the context may have dropped it
                consume_chunks(&self.plaintext, count)
                if self.stream is not None and self.stream.guard is not None:
                    self.stream.guard.on_answer()
            self.send_output()
        return 0

    cdef object next_piece(self, const char **start, Py_ssize_t *size):
        """What to encrypt next: whole records, if there is so much, in place or joined from little chunks. Returns the
        object that has the bytes."""
        cdef object head = <object>self.plaintext.head
        cdef Py_ssize_t total = min(self.plaintext.size, TLS_RECORD_SIZE)
        cdef bytes joined
        start[0] = chunk_start(self.plaintext.head, size) + self.plaintext.head_used
        size[0] -= self.plaintext.head_used
        if size[0] >= TLS_RECORD_SIZE:
            size[0] = min(size[0] - size[0] % TLS_RECORD_SIZE, TLS_ENCRYPT_SIZE)
            return head
        if size[0] == total:
            return head
        joined = PyBytes_FromStringAndSize(NULL, total)
        copy_chunks(&self.plaintext, PyBytes_AS_STRING(joined), total)
        start[0] = PyBytes_AS_STRING(joined)
        size[0] = total
        return joined

    cdef int send_output(self) except -1:
        """Hand on what the engine has made."""
        cdef object output = self.engine.take_output()
        if output is None or self.lower is None:
            return 0
        if self.stream is not None:
            return self.stream.write_chunk(output, PyBytes_GET_SIZE(output))
        self.lower.write(output)
        return 0

    cdef int send_output_now(self) except -1:
        """The same, when nothing more follows: where nothing is deferred, the transport below sends it now."""
        self.send_output()
        return flush_if_deferred(self.reactor) if self.is_prompt else 0

    # ---- watermarks ------------------------------------------------------------------------------------------------

    cdef Py_ssize_t unsent(self) except -1:
        """Bytes that the application wrote and the kernel (or a foreign transport below) has not taken."""
        return self.plaintext.size + (self.stream.unsent.size if self.stream is not None else 0)

    cdef int note_refused(self) except -1:
        """Bytes may have to wait: more than the limits allow, or than the high-water mark?"""
        if self.stream is not None and self.stream.guard is not None and (self.is_lower_paused or self.is_blocked):
            self.stream.guard.on_refused(self.unsent())
            if self.stream.state >= TRANSPORT_LOST:
                return 0
        return self.pause_protocol()

    cdef int pause_protocol(self) except -1:
        # Bytes that are only deferred, here or below, do not count.
        if not (self.is_lower_paused or self.is_blocked) or not self.is_connected or self.state > TLS_OPEN:
            return 0
        return pause_above(&self.marks, &self.is_writing_paused, self.unsent(), self.reactor, self.transport,
                           self.protocol)

    cdef int resume_protocol(self) except -1:
        # Not paused below means that what it holds is under our low-water mark (limit_lower).
        if self.is_lower_paused or self.is_blocked:
            return 0
        return resume_below(&self.marks, &self.is_writing_paused, self.plaintext.size, self.reactor, self.transport,
                            self.protocol)

    def pause_writing(self):
        """The transport below is full."""
        self.is_lower_paused = True
        self.pause_protocol()

    def resume_writing(self):
        """The transport below wants more."""
        self.is_lower_paused = False
        self.flush_queue()

    cdef int limit_lower(self) except -1:
        """Have the stream below call resume_writing() no later than our own low-water mark asks for."""
        cdef StreamTransport stream = self.stream
        stream.marks.high = min(stream.marks.high, self.marks.low)
        stream.marks.low = min(stream.marks.low, stream.marks.high // 4)
        return 0
