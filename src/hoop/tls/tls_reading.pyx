"""The incoming half of a TLS session: ciphertext from the transport below, decrypted and handed to the protocol.

hoop's own stream shows the ciphertext in the reactor's buffer; the engine takes it, and decrypts into the same buffer,
which leaves as one exact-size bytes object (or into the buffer of a BufferedProtocol). When more has come than the
engine takes at once, it decrypts straight into the object that the protocol gets. Pausing pauses the transport below,
at once.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from hoop.core.errors cimport pass_exits_on
from hoop.core.reactor cimport READ_BUFFER_SIZE
from hoop.tls.engine cimport TLS_RECORD_SIZE, TLS_WANTS_INPUT, TlsEngine
from hoop.tls.tls_connection cimport TLS_LOST, TLS_OPEN, TLS_SHUTDOWN
from hoop.tls.tls_writing cimport TlsWriting

import asyncio
from asyncio.log import logger

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes_object, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *text, Py_ssize_t size) except NULL


@cython.final
@cython.auto_pickle(False)
cdef class Inbound:
    cdef int offer(self, char *data, Py_ssize_t size) except -1:
        """Stage data, which must stay where it is until keep()."""
        self.offered = data
        self.offered_size = size
        return self.keep() if self.kept is not None else 0

    cdef int keep(self) except -1:
        """Copy what was offered and is not fed, before anything else may use the memory where it stands."""
        cdef bytes rest
        if self.offered_size == 0:
            return 0
        rest = PyBytes_FromStringAndSize(self.offered, self.offered_size)
        self.offered_size = 0
        self.kept = rest if self.kept is None else self.kept[self.kept_at:] + rest
        self.kept_at = 0
        return 0

    cdef int drop(self) except -1:
        self.offered_size = self.kept_at = 0
        self.kept = None
        return 0

    cdef Py_ssize_t unfed(self) noexcept:
        """How many bytes wait."""
        return self.offered_size + (0 if self.kept is None else PyBytes_GET_SIZE(self.kept) - self.kept_at)

    cdef bint feed_more(self, TlsEngine engine) except -1:
        """Feed the engine as much as it takes; whether there was anything."""
        cdef bytes kept = self.kept
        cdef Py_ssize_t count
        if kept is not None:  # that came before what is offered now
            count = engine.feed(PyBytes_AS_STRING(kept) + self.kept_at, PyBytes_GET_SIZE(kept) - self.kept_at)
            self.kept_at += count
            if self.kept_at == PyBytes_GET_SIZE(kept):
                self.kept = None
                self.kept_at = 0
            return True
        if self.offered_size == 0:
            return False
        count = engine.feed(self.offered, self.offered_size)
        self.offered += count
        self.offered_size -= count
        return True


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
            self.inbound.feed_more(self.engine)
            self.advance()
        finally:
            self.inbound.keep()
        return 0

    cdef int advance(self) except -1:
        """Do what the bytes fed last allow."""
        raise NotImplementedError("a session must know what it waits for")

    def data_received(self, data):
        """Ciphertext from a transport that is not hoop's own stream, or from another TLS transport."""
        cdef bytes chunk = PyBytes_FromObject(data)
        self.on_bytes(PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))

    cdef Py_ssize_t undecrypted(self) except -1:
        """Bytes of ciphertext that have come and wait."""
        return self.inbound.unfed() + self.engine.pending()

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
            if self.is_buffered:
                goes_on = self.deliver_buffered()
            elif self.inbound.offered_size > 0:
                goes_on = self.deliver_bulk()
            else:
                goes_on = self.deliver_bytes()
        if self.state >= TLS_LOST:
            return 0
        self.send_output_now()  # answers of the protocol itself: key updates, tickets, alerts
        if self.is_blocked:
            self.is_blocked = False
            self.flush_queue()
        if self.state == TLS_OPEN and not self.is_reading_paused and (self.has_peer_ended or self.is_eof):
            self.tell_eof()
            self.start_close()
        return 0

    cdef Py_ssize_t fill(self, char *buffer, Py_ssize_t capacity, bint *is_dry) except -2:
        """Decrypt into buffer until it may not take another record, or everything fed is used up."""
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t count
        is_dry[0] = False
        while not is_dry[0] and (size == 0 or capacity - size >= TLS_RECORD_SIZE):
            if not self.engine.has_record():
                is_dry[0] = not self.inbound.feed_more(self.engine)
                continue
            try:
                count = self.engine.decrypt(buffer + size, capacity - size)
            except BaseException as error:
                pass_exits_on(error)
                if size == 0:
                    raise
                break  # deliver what came before; the engine fails again when asked again
            if count > 0:
                size += count
            elif count == TLS_WANTS_INPUT:
                is_dry[0] = not self.inbound.feed_more(self.engine)
            else:
                self.has_peer_ended = True
                is_dry[0] = True
        if not is_dry[0]:
            is_dry[0] = not self.engine.has_record() and self.inbound.unfed() == 0
        return size

    cdef bint deliver_bytes(self) except -1:
        """One data_received; whether there may be more."""
        cdef char *buffer = self.reactor.read_buffer
        cdef bint is_dry = False
        cdef Py_ssize_t size
        try:
            size = self.fill(buffer, READ_BUFFER_SIZE, &is_dry)
            if size > 0:
                self.protocol.data_received(PyBytes_FromStringAndSize(buffer, size))
        except BaseException as error:
            return self.delivery_failed(error)
        return not is_dry

    cdef bint deliver_bulk(self) except -1:
        """As deliver_bytes(), when the reactor's buffer is still in use: straight into the object for the protocol."""
        # No record is longer in the clear.
        cdef Py_ssize_t capacity = self.undecrypted()
        cdef PyObject *data = NULL
        cdef bint is_dry = False
        cdef Py_ssize_t size
        try:
            capacity = max(capacity, TLS_RECORD_SIZE)
            data = new_bytes(NULL, capacity)
            try:
                size = self.fill(PyBytes_AS_STRING(<object>data), capacity, &is_dry)
            except BaseException:
                Py_DECREF(<object>data)
                raise
            self.inbound.keep()
            _PyBytes_Resize(&data, size)
            owned = <object>data
            Py_DECREF(owned)
            if size > 0:
                self.protocol.data_received(owned)
        except BaseException as error:
            return self.delivery_failed(error)
        return not is_dry

    cdef bint deliver_buffered(self) except -1:
        """One buffer_updated; whether there may be more."""
        cdef Py_buffer view
        cdef bint is_dry = False
        cdef Py_ssize_t size = 0
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
        cdef bint is_dry = False
        self.inbound.keep()
        while not is_dry and not self.has_peer_ended:
            try:
                self.fill(self.reactor.read_buffer, READ_BUFFER_SIZE, &is_dry)
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
