from hoop.net.stream cimport StreamFilter


cdef class PlaintextQueue(StreamFilter):
    """The writing half of a session as far as it is only about bytes; what is done with them is the session's."""
    cdef object head            # the first chunk of plaintext to encrypt, or None
    cdef object rest            # a deque of those behind it; None when there are none
    cdef Py_ssize_t head_at     # how much of head is encrypted
    cdef Py_ssize_t queued      # bytes of plaintext in all that are not

    cdef int add_chunk(self, object chunk, Py_ssize_t size) except -1
    cdef object next_piece(self)
    cdef int take_encrypted(self, Py_ssize_t count) except -1
    cdef int drop_queue(self) except -1
