"""An engine that calls OpenSSL itself, on the connection inside the ssl.SSLObject that a context has made.

The object stays whole: it shakes hands, says goodbye and answers questions by its own methods, so callbacks, sessions
and errors are those of the ssl module. Only SSL_read_ex and SSL_write_ex are called directly, over a channel
(csrc/openssl.h) that takes ciphertext where it was received and puts records into the bytes that are sent. If one of
them does anything but move bytes or ask for more, or if the context has callbacks that Python must hear of, the
object's own read() or write() is called, over the same channel.

Whatever is not known for certain keeps a connection with the safe engine: find_refusal() is about the process,
new_direct_engine() about an object.
"""
cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_XDECREF
from hoop.core.csrc cimport (
    HOOP_OPENSSL_DIVIDED,
    HOOP_OPENSSL_INCOMPLETE,
    HOOP_OPENSSL_NOT_SHARED,
    HOOP_OPENSSL_OUT_OF_MEMORY,
    HOOP_OPENSSL_READY,
    HOOP_OPENSSL_STATIC,
    hoop_openssl_find,
    hoop_openssl_is_connection,
    hoop_openssl_version,
    hoop_tls_attach,
    hoop_tls_decrypted,
    hoop_tls_detach,
    hoop_tls_is_within_record,
    hoop_tls_read,
    hoop_tls_write,
)
from hoop.core.refuse_instances cimport refuse_instances
from hoop.tls.engine cimport TLS_ENDED, TLS_RECORD_SIZE, TLS_WANTS_INPUT, Ciphertext, TlsEngine
from libc.stdlib cimport free
from libc.string cimport memcpy

import os
import ssl

import _ssl

from hoop.tls.ssl_layouts import known_layout

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *text, Py_ssize_t size) except NULL
    void set_size "Py_SET_SIZE" (object sized, Py_ssize_t size) noexcept

cdef enum:
    LONGEST_OVERHEAD = 64       # of a record, in bytes, as a rule: what is longer finds its place, too
    OLDEST_OPENSSL = 0x10101000
    FIRST_UNKNOWN_OPENSSL = 0x40000000

cdef object WANTS_MORE = (ssl.SSLWantReadError, ssl.SSLSyscallError)
cdef object ZeroReturnError = ssl.SSLZeroReturnError
cdef object PlainSSLObject = ssl.SSLObject
cdef object NativeSSLObject = getattr(_ssl, "_SSLSocket", None)
cdef object NativeContext = getattr(_ssl, "_SSLContext", None)
cdef object PlainMemoryBIO = ssl.MemoryBIO


cdef class DirectEngine(TlsEngine):
    def __dealloc__(self):
        if self.bio != NULL:
            hoop_tls_detach(self.bio, &self.channel)
        Py_XDECREF(self.room)

    cdef int offer(self, const Ciphertext *input) noexcept:
        """Show OpenSSL what has come, until take_back()."""
        self.channel.in_ = input.data
        self.channel.in_size = <size_t>input.size
        return 0

    cdef int take_back(self, Ciphertext *input) noexcept:
        input.data = self.channel.in_
        input.size = <Py_ssize_t>self.channel.in_size
        self.channel.in_ = NULL
        self.channel.in_size = 0
        return 0

    cdef int check_memory(self) except -1:
        """MemoryError if output was lost: ssl takes that for an error of the system's."""
        if self.channel.is_out_of_memory:
            raise MemoryError
        return 0

    cdef bint handshake(self, Ciphertext *input) except -1:
        self.offer(input)
        try:
            self.native.do_handshake()
        except WANTS_MORE:
            self.check_memory()
            return False
        finally:
            self.take_back(input)
        self.note_callbacks()
        return True

    cdef Py_ssize_t pending(self) except -1:
        return self.held + (<Py_ssize_t>hoop_tls_decrypted(self.ssl) if self.may_hold_plaintext else 0)

    cdef bint has_record(self) except -1:
        return self.may_hold_plaintext or self.is_broken

    cdef Py_ssize_t decrypt(self, Ciphertext *input, char *buffer, Py_ssize_t size) except -2:
        cdef Py_ssize_t offered = input.size
        cdef Py_ssize_t count = -1
        self.offer(input)
        if not self.runs_python:
            with cython.critical_section(self.native):  # other threads may ask the object, if there is no GIL
                count = hoop_tls_read(self.ssl, &self.channel, buffer, <size_t>size)
        if count < 0:
            try:
                count = self.decrypt_by_ssl(buffer, size)
            except BaseException:
                self.is_broken = True
                raise
            finally:
                self.take_back(input)
        else:
            self.take_back(input)
            if count == 0:
                count = TLS_WANTS_INPUT
        self.may_hold_plaintext = count == size
        if count != TLS_WANTS_INPUT:
            self.held = 0
        elif offered > 0:
            self.held = self.held + offered if hoop_tls_is_within_record(self.ssl) else 0
        return count

    cdef Py_ssize_t decrypt_by_ssl(self, char *buffer, Py_ssize_t size) except -2:
        """As decrypt(), by the method of the object, which raises what is to be raised."""
        self.check_memory()
        try:
            return self.native.read(size, PyMemoryView_FromMemory(buffer, size, PyBUF_WRITE))
        except WANTS_MORE:
            self.check_memory()
            if self.channel.in_size > 0:
                raise
            return TLS_WANTS_INPUT
        except ZeroReturnError:
            return TLS_ENDED

    cdef Py_ssize_t encrypt(self, const char *data, Py_ssize_t size) except -2:
        cdef Py_ssize_t count = -1
        self.make_room(size)
        if not self.runs_python:
            with cython.critical_section(self.native):
                count = hoop_tls_write(self.ssl, &self.channel, data, <size_t>size)
        if count >= 0:
            return count if count > 0 else TLS_WANTS_INPUT
        self.check_memory()
        try:
            return self.native.write(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))
        except WANTS_MORE:
            self.check_memory()
            return TLS_WANTS_INPUT  # the peer has asked to negotiate anew

    cdef int make_room(self, Py_ssize_t size) except -1:
        """For the records of size bytes, unless there is some yet."""
        cdef Py_ssize_t room_size
        if self.room != NULL:
            return 0
        room_size = size + LONGEST_OVERHEAD * (size // TLS_RECORD_SIZE + 1)
        self.room = new_bytes(NULL, room_size)
        self.channel.room = PyBytes_AS_STRING(<object>self.room)
        self.channel.room_size = <size_t>room_size
        return 0

    cdef object take_output(self):
        cdef hoop_tls_channel *channel = &self.channel
        cdef Py_ssize_t in_room = <Py_ssize_t>channel.room_used
        cdef bytes output = None
        if channel.spill_size > 0:
            output = PyBytes_FromStringAndSize(NULL, in_room + <Py_ssize_t>channel.spill_size)
            if in_room > 0:  # else there may be no room
                memcpy(PyBytes_AS_STRING(output), channel.room, channel.room_used)
            memcpy(PyBytes_AS_STRING(output) + in_room, channel.spill, channel.spill_size)
            free(channel.spill)
            channel.spill = NULL
            channel.spill_size = channel.spill_capacity = 0
        elif in_room > 0:
            output = <bytes>self.room
            PyBytes_AS_STRING(output)[in_room] = 0
            set_size(output, in_room)  # what it has beyond is little, and goes with it
        if self.room != NULL:
            Py_DECREF(<object>self.room)
            self.room = channel.room = NULL
            channel.room_size = channel.room_used = 0
        return output

    cdef int end(self) except -1:
        try:
            self.ssl_object.unwrap()
        except WANTS_MORE:
            self.check_memory()
        return 0


cdef void *pointer_in(object owner, Py_ssize_t offset) noexcept:
    """What stands at offset in owner. Of a type with room for it: see new_direct_engine()."""
    return (<void **>(<char *><PyObject *>owner + offset))[0]


cdef TlsEngine new_direct_engine(object ssl_object, object incoming, object outgoing):
    """An engine for ssl_object, which has these two ssl.MemoryBIO and has not begun yet; or None, and it is as before.
    """
    cdef DirectEngine engine
    cdef object native, context
    cdef void *connection
    if REFUSAL is not None or type(ssl_object) is not PlainSSLObject:
        return None
    native = getattr(ssl_object, "_sslobj", None)
    if type(native) is not NativeSSLObject or type(incoming) is not PlainMemoryBIO:
        return None
    context = native.context
    if not isinstance(context, NativeContext) or type(outgoing) is not PlainMemoryBIO:
        return None
    connection = pointer_in(native, LAYOUT.connection)
    if not hoop_openssl_is_connection(connection, <PyObject *>native, pointer_in(context, LAYOUT.context),
                                      pointer_in(incoming, LAYOUT.bio), pointer_in(outgoing, LAYOUT.bio)):
        return None
    engine = DirectEngine.__new__(DirectEngine)
    engine.name = "direct"
    engine.ssl_object = ssl_object
    engine.native = native
    engine.ssl = connection
    engine.bio = hoop_tls_attach(connection, &engine.channel)
    if engine.bio == NULL:
        raise MemoryError
    engine.note_callbacks()
    return engine


# ---- the process --------------------------------------------------------------------------------------------------

cdef dict WHY_NOT = {
    HOOP_OPENSSL_NOT_SHARED: "the ssl module is part of the interpreter",
    HOOP_OPENSSL_STATIC: "the ssl module has its OpenSSL inside",
    HOOP_OPENSSL_INCOMPLETE: "the OpenSSL that the ssl module has loaded lacks a function",
    HOOP_OPENSSL_DIVIDED: "the program has another OpenSSL, which the ssl module may use",
    HOOP_OPENSSL_OUT_OF_MEMORY: "OpenSSL was out of memory",
}


cdef str find_refusal(object layout):
    """Why no connection of this process can have a direct engine; None: they can. To be called once."""
    cdef object path = getattr(_ssl, "__file__", None)
    cdef int state
    if isinstance(layout, str):
        return layout
    if not ssl.OPENSSL_VERSION.startswith("OpenSSL "):
        return f"the ssl module uses {ssl.OPENSSL_VERSION}"
    if not OLDEST_OPENSSL <= ssl.OPENSSL_VERSION_NUMBER < FIRST_UNKNOWN_OPENSSL:
        return f"nothing is known of {ssl.OPENSSL_VERSION}"
    if (getattr(NativeSSLObject, "__basicsize__", 0) < layout.connection + sizeof(void *)
            or getattr(NativeContext, "__basicsize__", 0) < layout.context + sizeof(void *)
            or PlainMemoryBIO.__basicsize__ < layout.bio + sizeof(void *)):
        return "the ssl module has other objects than those known"
    if path is None:
        return WHY_NOT[HOOP_OPENSSL_NOT_SHARED]
    state = hoop_openssl_find(os.fsencode(path))
    if state != HOOP_OPENSSL_READY:
        return WHY_NOT[state]
    if hoop_openssl_version() != ssl.OPENSSL_VERSION_NUMBER:
        return f"the OpenSSL that was found is another one than the {ssl.OPENSSL_VERSION} of the ssl module"
    return None


cdef object LAYOUT = known_layout()
cdef str REFUSAL = find_refusal(LAYOUT)


def refusal_of_process():
    """Why no connection can have a direct engine, in words; None: they can."""
    return REFUSAL


refuse_instances(DirectEngine)
