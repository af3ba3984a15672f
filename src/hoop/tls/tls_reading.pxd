from hoop.core.flag cimport flag
from hoop.tls.engine cimport Ciphertext
from hoop.tls.tls_writing cimport TlsWriting


cdef class Inbound:
    """Ciphertext that has come and the engine has not taken yet: two pieces, in this order."""
    cdef bytes kept             # what had to be copied, or None
    cdef Ciphertext rest        # of kept
    cdef Ciphertext offered     # where it was received

    cdef int offer(self, char *data, Py_ssize_t size) except -1
    cdef int keep(self) except -1
    cdef int drop(self) except -1
    cdef Py_ssize_t untaken(self) noexcept
    cdef Ciphertext *next_piece(self) noexcept


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
    cdef bint has_more(self) except -1
    cdef Py_ssize_t fill(self, char *buffer, Py_ssize_t capacity, bint *is_dry) except -1
    cdef bint deliver_bytes(self) except -1
    cdef bint deliver_buffered(self) except -1
    cdef bint delivery_failed(self, object error) except -1
    cdef int discard_input(self) except -1
    cdef int tell_eof(self) except -1
