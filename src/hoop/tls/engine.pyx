"""The interface of TLS engines; engine.pxd has the contract."""


cdef class TlsEngine:
    cdef int note_callbacks(self) except -1:
        cdef object context = getattr(self.ssl_object, "context", None)
        if (getattr(context, "_msg_callback", None) is not None
                or getattr(context, "keylog_filename", None) is not None):
            self.runs_python = True
        return 0

    cdef bint handshake(self, Ciphertext *input) except -1:
        raise NotImplementedError("an engine must shake hands")

    cdef Py_ssize_t pending(self) except -1:
        raise NotImplementedError("an engine must know what it holds")

    cdef bint has_record(self) except -1:
        raise NotImplementedError("an engine must know whether to decrypt")

    cdef Py_ssize_t decrypt(self, Ciphertext *input, char *buffer, Py_ssize_t size) except -2:
        raise NotImplementedError("an engine must decrypt")

    cdef Py_ssize_t encrypt(self, const char *data, Py_ssize_t size) except -2:
        raise NotImplementedError("an engine must encrypt")

    cdef object take_output(self):
        raise NotImplementedError("an engine must hand out what is for the peer")

    cdef int end(self) except -1:
        raise NotImplementedError("an engine must say goodbye")
