"""The incoming half of a TLS session: ciphertext from the transport below, decrypted and handed to the protocol.

hoop's own stream shows the ciphertext in the reactor's buffer; the engine takes it from there, and decrypts straight
into the object that the protocol gets (or into the buffer of a BufferedProtocol): no record is longer in the clear, so
it is known how large the object must be at most. Pausing pauses the transport below, at once.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from hoop.core.errors cimport pass_exits_on
from hoop.tls.engine cimport TLS_WANTS_INPUT, Ciphertext
from hoop.tls.tls_connection cimport TLS_LOST, TLS_OPEN, TLS_SHUTDOWN
from hoop.tls.tls_writing cimport TlsWriting
from libc.string cimport memcpy

import asyncio
from asyncio.log import logger

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes_object, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *text, Py_ssize_t size) except NULL

cdef enum:
    MOST_DELIVERED = 96 * 1024  # bytes in one data_received(): below the size from which malloc(3) maps memory
    DISCARDED_AT_ONCE = 4096


@cython.final
cdef class Inbound:
    cdef int offer(self, char *data, Py_ssize_t size) except -1:
        """Stage data, which must stay where it is until keep()."""
        self.offered.data = data
        self.offered.size = size
        return 0

    cdef int keep(self) except -1:
        """Copy what was offered and is not taken, before anything else may use the memory where it stands."""
        cdef bytes copy
        cdef Py_ssize_t size = self.untaken()
        if self.offered.size == 0:
            return 0
        copy = PyBytes_FromStringAndSize(NULL, size)
        if self.rest.size > 0:  # else it may stand nowhere
            memcpy(PyBytes_AS_STRING(copy), self.rest.data, <size_t>self.rest.size)
        memcpy(PyBytes_AS_STRING(copy) + self.rest.size, self.offered.data, <size_t>self.offered.size)
        self.offered.size = 0
        self.kept = copy
        self.rest.data = PyBytes_AS_STRING(copy)
        self.rest.size = size
        return 0

    cdef int drop(self) except -1:
        self.offered.size = self.rest.size = 0
        self.kept = None
        return 0

    cdef Py_ssize_t untaken(self) noexcept:
        """How many bytes wait."""
        return self.rest.size + self.offered.size

    cdef Ciphertext *next_piece(self) noexcept:
        """What the engine is to have next; empty if nothing waits."""
        if self.rest.size > 0:
            return &self.rest
        if self.kept is not None:
            self.kept = None
        return &self.offered


cdef class TlsReading(TlsWriting):
    def __cinit__(self):
        self.inbound = Inbound.__new__(Inbound)

    cdef int bind_protocol(self, object protocol) except -1:
        self.protocol = protocol
        self.is_buffered = isinstance(protocol, asyncio.BufferedProtocol)
        return 0

    cdef object protocol_above(self):
        return self.protocol if self.is_connected else None

    # ---- called by the transport below ---------------------------------------------------------------------------

    cdef int on_bytes(self, char *data, Py_ssize_t size) except -1:
        if self.state >= TLS_LOST:
            return 0
        self.inbound.offer(data, size)
        try:
            self.advance()
        finally:
            self.inbound.keep()
        return 0

    cdef int advance(self) except -1:
        """Do what the bytes that have come allow."""
        raise NotImplementedError("a session must know what it waits for")

    def data_received(self, data):
        """Ciphertext from a transport that is not hoop's own stream, or from another TLS transport."""
        cdef bytes chunk = PyBytes_FromObject(data)
        self.on_bytes(PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))

    cdef Py_ssize_t undecrypted(self) except -1:
        """Bytes of ciphertext that have come and wait."""
        return self.inbound.untaken() + self.engine.pending()

    # ---- delivering ------------------------------------------------------------------------------------------------

    cdef int schedule_reading(self) except -1:
        if not self.is_continue_due:
            self.reactor.schedule(self._continue_reading, NULL, 0, self.context())
            self.is_continue_due = True
        return 0

    def _continue_reading(self):
        self.is_continue_due = False
        if self.state == TLS_OPEN:
            self.read_plaintext()

    cdef int read_plaintext(self) except -1:
        """Deliver what can be decrypted, then the end if it has come."""
        cdef bint goes_on = True
        while goes_on and self.state == TLS_OPEN and not self.is_reading_paused:
            goes_on = self.deliver_buffered() if self.is_buffered else self.deliver_bytes()
        if self.state >= TLS_LOST:
            return 0
        self.send_output_now()  # answers of the protocol itself: key updates, tickets, alerts
        if self.is_blocked or self.is_flush_owed:
            self.is_blocked = False
            self.flush_queue()
        if self.state == TLS_OPEN and not self.is_reading_paused and (self.has_peer_ended or self.is_eof):
            self.tell_eof()
            self.start_close()
        return 0

    cdef bint has_more(self) except -1:
        """Whether there may be something to decrypt."""
        return not self.has_peer_ended and (self.inbound.untaken() > 0 or self.engine.has_record())

    cdef Py_ssize_t fill(self, char *buffer, Py_ssize_t capacity, bint *is_dry) except -1:
        """Decrypt until buffer is full or everything that has come is used up (is_dry); the number of bytes."""
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t count
        is_dry[0] = not self.has_more()
        while size < capacity and not is_dry[0]:
            if self.engine.runs_python:
                self.inbound.keep()
            self.is_engine_busy = True
            try:
                count = self.engine.decrypt(self.inbound.next_piece(), buffer + size, capacity - size)
            except BaseException as error:
                pass_exits_on(error)
                if size == 0:
                    raise
                break  # deliver what came before; the engine fails again when asked again
            finally:
                self.is_engine_busy = False
            if count > 0:
                size += count
                is_dry[0] = not self.has_more()
            elif count == TLS_WANTS_INPUT:
                is_dry[0] = self.inbound.untaken() == 0
            else:
                self.has_peer_ended = is_dry[0] = True
        return size

    cdef bint deliver_bytes(self) except -1:
        """One data_received; whether there may be more."""
        cdef Py_ssize_t capacity
        cdef PyObject *data = NULL
        cdef bint is_dry = False
        cdef Py_ssize_t size
        if not self.has_more():
            return False
        try:
            capacity = min(max(self.undecrypted(), 1), MOST_DELIVERED)
            data = new_bytes(NULL, capacity)
            try:
                size = self.fill(PyBytes_AS_STRING(<object>data), capacity, &is_dry)
            except BaseException:
                Py_DECREF(<object>data)
                raise
            _PyBytes_Resize(&data, size)
            owned = <object>data
            Py_DECREF(owned)
            if size > 0:
                self.inbound.keep()
                self.protocol.data_received(owned)
        except BaseException as error:
            return self.delivery_failed(error)
        return not is_dry

    cdef bint deliver_buffered(self) except -1:
        """One buffer_updated; whether there may be more."""
        cdef Py_buffer view
        cdef bint is_dry = False
        cdef Py_ssize_t size = 0
        if not self.has_more():
            return False
        self.inbound.keep()
        try:
            PyObject_GetBuffer(self.protocol.get_buffer(-1), &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                if view.len == 0:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                if self.state == TLS_OPEN and not self.is_reading_paused:  # get_buffer() may have changed that
                    size = self.fill(<char *>view.buf, view.len, &is_dry)
            finally:
                PyBuffer_Release(&view)
            if size > 0:
                self.protocol.buffer_updated(size)
        except BaseException as error:
            return self.delivery_failed(error)
        return not is_dry

    cdef bint delivery_failed(self, object error) except -1:
        """What the engine or the protocol has raised; False: nothing more is delivered."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            self.schedule_reading()  # of the rest, and of the end if that has come
        self.callback_failed(error, "Fatal error on SSL protocol")
        return False

    cdef int discard_input(self) except -1:
        """While closing: only the peer's close_notify is of interest."""
        cdef char discarded[DISCARDED_AT_ONCE]
        cdef bint is_dry = False
        while not is_dry and not self.has_peer_ended:
            try:
                self.fill(discarded, DISCARDED_AT_ONCE, &is_dry)
            except BaseException as error:
                pass_exits_on(error)
                self.has_peer_ended = True  # nothing that could be understood comes any more
        if self.state == TLS_SHUTDOWN and self.has_peer_ended:
            return self.finish()
        return 0

    cdef int tell_eof(self) except -1:
        if self.is_eof_told or not self.is_connected:
            return 0
        self.is_eof_told = True
        try:
            if self.protocol.eof_received():
                logger.warning("returning true from eof_received() has no effect when using ssl")
        except BaseException as error:
            self.callback_failed(error, "Error calling eof_received()")
        return 0
