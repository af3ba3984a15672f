from hoop.tls.engine cimport Ciphertext, TlsEngine


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

    cdef int feed(self, Ciphertext *input) except -1
    cdef int find_records(self, const unsigned char *data, Py_ssize_t size) noexcept


cdef TlsEngine new_memory_engine(object ssl_object, object incoming, object outgoing)
