from hoop.core.flag cimport flag
from hoop.net.chunks cimport Chunks
from hoop.net.flow_control cimport Watermarks
from hoop.tls.tls_connection cimport TlsConnection

cdef enum:
    DEFAULT_TLS_HIGH_WATER = 512 * 1024  # asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE


cdef class TlsWriting(TlsConnection):
    cdef Chunks plaintext       # what is not encrypted yet
    cdef Watermarks marks
    cdef flag is_writing_paused  # the protocol was told to pause, and not yet to resume
    cdef flag is_prompt         # what is written is encrypted and sent at once, not when the callback has ended
    cdef flag is_lower_paused   # the transport below wants no more for now
    cdef flag is_flush_owed     # the queue was to be flushed while the engine was busy
    cdef flag is_blocked        # the engine takes no plaintext before the peer has sent something
    cdef unsigned char dropped_writes

    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1
    cdef int after_write(self) except -1
    cdef int set_prompt(self, bint is_prompt) except -1

    cdef int flush_queue(self) except -1
    cdef int encrypt_queue(self) except -1
    cdef object next_piece(self, const char **start, Py_ssize_t *size)
    cdef int send_output(self) except -1
    cdef int send_output_now(self) except -1

    cdef Py_ssize_t unsent(self) except -1
    cdef int note_refused(self) except -1
    cdef int pause_protocol(self) except -1
    cdef int resume_protocol(self) except -1
    cdef int limit_lower(self) except -1
