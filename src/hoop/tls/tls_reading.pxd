from hoop.tls.engine cimport TlsEngine


cdef class Inbound:
    """Ciphertext that has come and is not fed to the engine yet."""
    cdef char *offered          # where it was received
    cdef Py_ssize_t offered_size
    cdef bytes kept             # what had to be copied, or None
    cdef Py_ssize_t kept_at     # how much of it has been fed

    cdef int offer(self, char *data, Py_ssize_t size) except -1
    cdef int keep(self) except -1
    cdef int drop(self) except -1
    cdef Py_ssize_t unfed(self) noexcept
    cdef bint feed_more(self, TlsEngine engine) except -1
