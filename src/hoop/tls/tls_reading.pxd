from hoop.core.flag cimport flag
from hoop.tls.engine cimport TlsEngine
from hoop.tls.tls_writing cimport TlsWriting


cdef class Inbound:
    """Ciphertext that has come and is not fed to the engine yet."""
    cdef char *offered          # where it was received
    cdef Py_ssize_t offered_size
    cdef bytes kept             # what had to be copied, or None
    cdef Py_ssize_t kept_at     # how much of it has been fed

    cdef int offer(self, char *data, Py_ssize_t size) except -1
    cdef int keep(self) except -1
    cdef int drop(self) except -1
    cdef Py_ssize_t unfed(self) noexcept
    cdef bint feed_more(self, TlsEngine engine) except -1


cdef class TlsReading(TlsWriting):
    cdef Inbound inbound
    cdef flag is_buffered       # the protocol is a BufferedProtocol
    cdef flag is_reading_paused
    cdef flag is_continue_due   # _continue_reading is scheduled
    cdef flag is_eof            # nothing more comes from below
    cdef flag has_peer_ended    # the peer has sent close_notify
    cdef flag is_eof_told       # eof_received was called

    cdef int bind_protocol(self, object protocol) except -1
    cdef object protocol_above(self)
    cdef int advance(self) except -1
    cdef Py_ssize_t undecrypted(self) except -1

    cdef int schedule_reading(self) except -1
    cdef int read_plaintext(self) except -1
    cdef Py_ssize_t fill(self, char *buffer, Py_ssize_t capacity, bint *is_dry) except -2
    cdef bint deliver_bytes(self) except -1
    cdef bint deliver_bulk(self) except -1
    cdef bint deliver_buffered(self) except -1
    cdef bint delivery_failed(self, object error) except -1
    cdef int discard_input(self) except -1
    cdef int tell_eof(self) except -1
