"""An engine made of what Python's ssl offers publicly: an ssl.SSLObject between two ssl.MemoryBIO.

So SNI callbacks, key logs, sessions and a context's own sslobject_class work as they do everywhere.

A MemoryBIO keeps the memory of the most it ever held. This engine therefore takes little more than one record at a
time, encrypts no more than one at a time, and relies on its caller to take the output after each step.

To ask OpenSSL for plaintext when no record is complete costs an exception, more than decrypting a small record does.
feed() therefore reads the records' lengths (RFC 8446, 5.1), and has_record() knows.
"""
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from hoop.core.refuse_instances cimport refuse_instances
from hoop.tls.engine cimport TLS_ENDED, TLS_RECORD_SIZE, TLS_WANTS_INPUT, Ciphertext, TlsEngine

import ssl

cdef enum:
    MOST_HELD = 17 * 1024   # bytes fed and not looked at: a whole record, and little more
    LEAST_FEED = 4096       # but a record that is longer yet must be completed
    HEADER_SIZE = 5
    LONGEST_RECORD = 16384 + 2048  # bytes after the header: RFC 5246, 6.2.3; in TLS 1.3 it is less

cdef object WANTS_MORE = (ssl.SSLWantReadError, ssl.SSLSyscallError)
cdef object ZeroReturnError = ssl.SSLZeroReturnError
cdef object PlainSSLObject = ssl.SSLObject


cdef class MemoryEngine(TlsEngine):
    cdef bint handshake(self, Ciphertext *input) except -1:
        while True:
            if input.size > 0:
                self.feed(input)
            try:
                self.native.do_handshake()
            except WANTS_MORE:
                if input.size > 0:
                    continue
                return False
            self.note_callbacks()
            return True

    cdef int feed(self, Ciphertext *input) except -1:
        """Take from input as much as is to be held."""
        cdef Py_ssize_t size = min(input.size, max(MOST_HELD - <Py_ssize_t>self.incoming.pending, LEAST_FEED))
        self.incoming.write(PyMemoryView_FromMemory(<char *>input.data, size, PyBUF_READ))
        self.find_records(<const unsigned char *>input.data, size)
        input.data += size
        input.size -= size
        return 0

    cdef int find_records(self, const unsigned char *data, Py_ssize_t size) noexcept:
        """Follow the records through the bytes fed."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t step
        while at < size and not self.is_broken:
            if self.tail < HEADER_SIZE:
                self.header[self.tail] = data[at]
                self.tail += 1
                at += 1
                if self.tail < HEADER_SIZE:
                    continue
                self.record_left = (<Py_ssize_t>self.header[3] << 8) | self.header[4]
                self.is_broken = self.record_left > LONGEST_RECORD
            step = min(self.record_left, size - at)
            at += step
            self.record_left -= step
            self.tail += step
            if self.record_left == 0:
                self.tail = 0
                self.is_record_new = True
        return 0

    cdef Py_ssize_t pending(self) except -1:
        return self.incoming.pending + (self.native.pending() if self.may_hold_plaintext else 0)

    cdef bint has_record(self) except -1:
        # What OpenSSL has already taken of the tail is no longer pending: that can only make this say no, rightly.
        if self.is_record_new or self.may_hold_plaintext or self.is_broken:
            return True
        return self.incoming.pending > self.tail

    cdef Py_ssize_t decrypt(self, Ciphertext *input, char *buffer, Py_ssize_t size) except -2:
        cdef Py_ssize_t count
        while True:
            if not self.has_record():
                if input.size == 0:
                    return TLS_WANTS_INPUT
                self.feed(input)
                continue
            self.is_record_new = self.may_hold_plaintext = False
            try:
                count = self.native.read(size, PyMemoryView_FromMemory(buffer, size, PyBUF_WRITE))
                self.may_hold_plaintext = count == size
                return count
            except WANTS_MORE:
                if input.size == 0:
                    return TLS_WANTS_INPUT
                self.feed(input)
            except ZeroReturnError:
                return TLS_ENDED
            except BaseException:
                self.is_broken = True  # OpenSSL fails again when asked again
                raise

    cdef Py_ssize_t encrypt(self, const char *data, Py_ssize_t size) except -2:
        size = min(size, TLS_RECORD_SIZE)
        try:
            return self.native.write(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))
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


cdef TlsEngine new_memory_engine(object ssl_object, object incoming, object outgoing):
    """An engine for ssl_object, which has these two ssl.MemoryBIO."""
    cdef MemoryEngine engine = MemoryEngine.__new__(MemoryEngine)
    engine.name = "safe"
    engine.incoming = incoming
    engine.outgoing = outgoing
    engine.ssl_object = engine.native = ssl_object
    if type(ssl_object) is PlainSSLObject:
        # its methods only pass on to this object; a subclass may do more in them
        engine.native = getattr(ssl_object, "_sslobj", ssl_object)
    engine.note_callbacks()
    return engine


refuse_instances(MemoryEngine)
