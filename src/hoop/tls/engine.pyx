"""The interface of TLS engines; engine.pxd has the contract."""
cimport cython


@cython.auto_pickle(False)
cdef class TlsEngine:
    cdef bint handshake(self) except -1:
        raise NotImplementedError("an engine must shake hands")

    cdef Py_ssize_t feed(self, const char *data, Py_ssize_t size) except -1:
        raise NotImplementedError("an engine must take ciphertext")

    cdef Py_ssize_t pending(self) except -1:
        raise NotImplementedError("an engine must know what it holds")

    cdef bint has_record(self) except -1:
        raise NotImplementedError("an engine must know whether to decrypt")

    cdef Py_ssize_t decrypt(self, char *buffer, Py_ssize_t size) except -2:
        raise NotImplementedError("an engine must decrypt")

    cdef Py_ssize_t encrypt(self, object data) except -2:
        raise NotImplementedError("an engine must encrypt")

    cdef object take_output(self):
        raise NotImplementedError("an engine must hand out what is for the peer")

    cdef int end(self) except -1:
        raise NotImplementedError("an engine must say goodbye")
