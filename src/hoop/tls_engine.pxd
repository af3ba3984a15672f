cdef enum:
    TLS_ENDED = 0               # decrypt(): the peer has sent close_notify
    TLS_WANTS_INPUT = -1        # nothing can be done before more ciphertext has been fed
    TLS_RECORD_SIZE = 16384     # bytes of plaintext in the largest record


cdef class TlsEngine:
    """Bytes in, bytes out. It knows no transport, waits for nothing and calls only the callbacks of the context."""
    cdef readonly object ssl_object

    cdef bint handshake(self) except -1                                     # whether it is complete
    cdef int feed(self, const char *data, Py_ssize_t size) except -1        # ciphertext from the peer; copied
    cdef bint has_input(self) except -1                                     # fed, and not looked at yet
    cdef Py_ssize_t decrypt(self, char *buffer, Py_ssize_t size) except -2  # bytes, TLS_ENDED or TLS_WANTS_INPUT
    cdef Py_ssize_t encrypt(self, object data) except -2                    # bytes taken, or TLS_WANTS_INPUT
    cdef object take_output(self)                                           # ciphertext for the peer, or None
    cdef int end(self) except -1                                            # close_notify goes to the output


cdef class MemoryEngine(TlsEngine):
    cdef object incoming        # ssl.MemoryBIO
    cdef object outgoing
    cdef object native          # what ssl_object delegates to, or ssl_object itself


cdef TlsEngine new_engine(object context, bint is_server, object server_hostname)
