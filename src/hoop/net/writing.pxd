from hoop.core.csrc cimport iovec
from hoop.core.flag cimport flag
from hoop.net.chunks cimport Chunks
from hoop.net.transport cimport Transport


cdef enum:
    AWAITS_ANSWER = 255         # silence: the peer has sent something, and nothing was written since


cdef class WritingTransport(Transport):
    cdef Chunks unsent          # what write() accepted and the kernel has not taken
    cdef flag is_refused        # the kernel took less than it was given: wait until writable
    cdef flag is_eof_wanted     # write_eof() was called
    cdef unsigned char send_error  # an errno: what sending together with others has come to; flush() goes on with it
    cdef flag is_lent           # sendfile() writes past write(), which is refused meanwhile
    cdef unsigned char silence  # looks of a drain since something was received or written (net/server_streams.pyx)

    cdef Py_ssize_t transmit(self, const iovec *buffers, int count, Py_ssize_t total) except? -2
    cdef str write_failure(self)
    cdef int on_drained(self) except -1

    cdef int check_writable(self, str method) except -1
    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1
    cdef int after_write(self, Py_ssize_t size) except -1
    cdef int send_now(self) except -1
    cdef int send_with_first(self, bytes head) except -1
    cdef int flush(self, bint is_loop_calling) except -1
    cdef int note_refused(self) except -1
    cdef Py_ssize_t send_unsent(self) except? -2
    cdef int on_writable(self) except -1
    cdef int wake_lease(self) except -1


cdef object owned_chunk(object data)
cdef list owned_chunks(object list_of_data)
