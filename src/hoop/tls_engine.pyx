"""TLS engines: the protocol as a function of bytes, apart from any transport.

TlsEngine is the interface. MemoryEngine is the one there is: an ssl.SSLObject between two ssl.MemoryBIO, so that all of
Python's ssl (SNI callbacks, key logs, sessions, a context's own sslobject_class) works as it does everywhere.

A MemoryBIO keeps the memory of the most it ever held. Its user therefore feeds no more than 32 KiB at a time, encrypts
no more than one record at a time, and takes the output after each step: an idle connection is left with two small BIOs.
"""
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory

import ssl

cdef object WANTS_MORE = (ssl.SSLWantReadError, ssl.SSLSyscallError)
cdef object ZeroReturnError = ssl.SSLZeroReturnError
cdef object PlainSSLObject = ssl.SSLObject


cdef class TlsEngine:
    cdef bint handshake(self) except -1:
        raise NotImplementedError

    cdef int feed(self, const char *data, Py_ssize_t size) except -1:
        raise NotImplementedError

    cdef bint has_input(self) except -1:
        raise NotImplementedError

    cdef Py_ssize_t decrypt(self, char *buffer, Py_ssize_t size) except -2:
        raise NotImplementedError

    cdef Py_ssize_t encrypt(self, object data) except -2:
        raise NotImplementedError

    cdef object take_output(self):
        raise NotImplementedError

    cdef int end(self) except -1:
        raise NotImplementedError


cdef class MemoryEngine(TlsEngine):
    cdef bint handshake(self) except -1:
        try:
            self.native.do_handshake()
        except WANTS_MORE:
            return False
        return True

    cdef int feed(self, const char *data, Py_ssize_t size) except -1:
        self.incoming.write(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))
        return 0

    cdef bint has_input(self) except -1:
        return self.incoming.pending > 0

    cdef Py_ssize_t decrypt(self, char *buffer, Py_ssize_t size) except -2:
        try:
            return self.native.read(size, PyMemoryView_FromMemory(buffer, size, PyBUF_WRITE))
        except WANTS_MORE:
            return TLS_WANTS_INPUT
        except ZeroReturnError:
            return TLS_ENDED

    cdef Py_ssize_t encrypt(self, object data) except -2:
        try:
            return self.native.write(data)
        except WANTS_MORE:
            return TLS_WANTS_INPUT  # the peer has asked to negotiate anew

    cdef object take_output(self):
        if self.outgoing.pending == 0:
            return None
        return self.outgoing.read()

    cdef int end(self) except -1:
        try:
            self.ssl_object.unwrap()
        except WANTS_MORE:
            pass
        return 0


cdef TlsEngine new_engine(object context, bint is_server, object server_hostname):
    """An engine for one connection. ValueError and TypeError for names that no certificate can bear."""
    cdef MemoryEngine engine = MemoryEngine.__new__(MemoryEngine)
    engine.incoming = ssl.MemoryBIO()
    engine.outgoing = ssl.MemoryBIO()
    engine.ssl_object = context.wrap_bio(engine.incoming, engine.outgoing, server_side=is_server,
                                         server_hostname=server_hostname)
    engine.native = engine.ssl_object
    if type(engine.ssl_object) is PlainSSLObject:
        # its methods only pass on to this object; a subclass may do more in them
        engine.native = getattr(engine.ssl_object, "_sslobj", engine.ssl_object)
    return engine
