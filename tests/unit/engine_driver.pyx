# cython: freethreading_compatible=True
"""Engines of TLS as Python sees them, for the tests of their contract (src/hoop/tls/engine.pxd)."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from hoop.tls.engine cimport TLS_WANTS_INPUT, Ciphertext, TlsEngine
from hoop.tls.engine_choice cimport new_engine


cdef class Driver:
    """One engine. What it is given is overwritten when the call has returned: it may keep none of that."""

    cdef readonly TlsEngine engine

    def __init__(self, context, is_server, server_hostname, is_safe):
        self.engine = new_engine(context, is_server, server_hostname, is_safe)

    @property
    def name(self):
        return self.engine.name

    @property
    def ssl_object(self):
        return self.engine.ssl_object

    def handshake(self, data):
        """Whether it is complete, and what was not taken."""
        cdef bytearray memory = bytearray(data)
        cdef Ciphertext piece
        piece.data = memory
        piece.size = len(memory)
        try:
            is_complete = self.engine.handshake(&piece)
            return is_complete, bytes(memory[len(memory) - piece.size:])
        finally:
            memory[:] = bytes(len(memory))

    def decrypt(self, data, size):
        """The plaintext, b"" for the end or None for want of input; and what was not taken."""
        cdef bytearray memory = bytearray(data)
        cdef bytes room = PyBytes_FromStringAndSize(NULL, size)
        cdef Ciphertext piece
        cdef Py_ssize_t count
        piece.data = memory
        piece.size = len(memory)
        try:
            count = self.engine.decrypt(&piece, PyBytes_AS_STRING(room), size)
            return None if count == TLS_WANTS_INPUT else room[:count], bytes(memory[len(memory) - piece.size:])
        finally:
            memory[:] = bytes(len(memory))

    def encrypt(self, data):
        """How many bytes were taken, or None for want of input."""
        cdef bytearray memory = bytearray(data)
        cdef Py_ssize_t count
        try:
            count = self.engine.encrypt(memory, len(memory))
            return None if count == TLS_WANTS_INPUT else count
        finally:
            memory[:] = bytes(len(memory))

    def has_record(self):
        return self.engine.has_record()

    def pending(self):
        return self.engine.pending()

    def take_output(self):
        return self.engine.take_output()

    def end(self):
        self.engine.end()
