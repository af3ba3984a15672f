cdef enum:
    TLS_ENDED = 0               # decrypt(): the peer has sent close_notify
    TLS_WANTS_INPUT = -1        # nothing can be done before more ciphertext has been fed
    TLS_RECORD_SIZE = 16384     # bytes of plaintext in the largest record


cdef class TlsEngine:
    """Bytes in, bytes out. It knows no transport, waits for nothing and calls only the callbacks of the context."""
    cdef readonly object ssl_object
    cdef char *offered          # ciphertext that is not fed yet, where it was received
    cdef Py_ssize_t offered_size
    cdef bytes kept             # ciphertext that is not fed yet and had to be copied, or None
    cdef Py_ssize_t kept_at     # how much of it has been fed

    cdef int offer(self, char *data, Py_ssize_t size) except -1             # data must stay until keep_offered()
    cdef int keep_offered(self) except -1
    cdef int drop_offered(self) except -1
    cdef Py_ssize_t unfed(self) noexcept                                    # bytes offered, and not fed yet
    cdef bint feed_more(self) except -1                                     # whether there was something to feed

    cdef bint handshake(self) except -1                                     # whether it is complete
    cdef int feed(self, const char *data, Py_ssize_t size) except -1        # ciphertext from the peer; copied
    cdef Py_ssize_t pending(self) except -1                                 # bytes fed, and not looked at yet
    cdef bint has_record(self) except -1                                    # decrypt() has something to do
    cdef Py_ssize_t decrypt(self, char *buffer, Py_ssize_t size) except -2  # bytes, TLS_ENDED or TLS_WANTS_INPUT
    cdef Py_ssize_t encrypt(self, object data) except -2                    # bytes taken, or TLS_WANTS_INPUT
    cdef object take_output(self)                                           # ciphertext for the peer, or None
    cdef int end(self) except -1                                            # close_notify goes to the output


cdef class MemoryEngine(TlsEngine):
    cdef object incoming        # ssl.MemoryBIO
    cdef object outgoing
    cdef object native          # what ssl_object delegates to, or ssl_object itself
    cdef Py_ssize_t tail        # bytes fed after the end of the last complete record
    cdef Py_ssize_t record_left  # of the record that the tail begins, as far as its header is known
    cdef unsigned char header[5]  # of that record
    cdef bint is_broken         # this is no TLS, or not any more: whatever comes is for decrypt() to refuse
    cdef bint is_record_new     # a record was completed after the last decrypt()
    cdef bint may_hold_plaintext  # the last decrypt() filled its buffer

    cdef int find_records(self, const unsigned char *data, Py_ssize_t size) noexcept


cdef TlsEngine new_engine(object context, bint is_server, object server_hostname)
