from cpython.object cimport PyObject
from hoop.core.csrc cimport hoop_tls_channel
from hoop.core.flag cimport flag
from hoop.tls.engine cimport Ciphertext, TlsEngine


cdef class DirectEngine(TlsEngine):
    cdef object native          # what ssl_object delegates to
    cdef void *ssl              # the SSL * inside native, which keeps it alive
    cdef void *bio              # ours, over the channel
    cdef hoop_tls_channel channel
    cdef PyObject *room         # bytes that the channel's room is in, or NULL
    cdef Py_ssize_t held        # bytes that OpenSSL has taken of a record that is not complete
    cdef flag may_hold_plaintext  # the last decrypt() filled its buffer
    cdef flag is_broken         # decrypt() has failed

    cdef int offer(self, const Ciphertext *input) noexcept
    cdef int take_back(self, Ciphertext *input) noexcept
    cdef int check_memory(self) except -1
    cdef Py_ssize_t decrypt_by_ssl(self, char *buffer, Py_ssize_t size) except -2
    cdef int make_room(self, Py_ssize_t size) except -1


cdef TlsEngine new_direct_engine(object ssl_object, object incoming, object outgoing)
