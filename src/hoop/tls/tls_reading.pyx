"""The incoming half of a TLS session: ciphertext that has come and is not fed to the engine yet."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from hoop.tls.engine cimport TlsEngine


@cython.final
@cython.auto_pickle(False)
cdef class Inbound:
    cdef int offer(self, char *data, Py_ssize_t size) except -1:
        """Stage data, which must stay where it is until keep()."""
        self.offered = data
        self.offered_size = size
        return self.keep() if self.kept is not None else 0

    cdef int keep(self) except -1:
        """Copy what was offered and is not fed, before anything else may use the memory where it stands."""
        cdef bytes rest
        if self.offered_size == 0:
            return 0
        rest = PyBytes_FromStringAndSize(self.offered, self.offered_size)
        self.offered_size = 0
        self.kept = rest if self.kept is None else self.kept[self.kept_at:] + rest
        self.kept_at = 0
        return 0

    cdef int drop(self) except -1:
        self.offered_size = self.kept_at = 0
        self.kept = None
        return 0

    cdef Py_ssize_t unfed(self) noexcept:
        """How many bytes wait."""
        return self.offered_size + (0 if self.kept is None else PyBytes_GET_SIZE(self.kept) - self.kept_at)

    cdef bint feed_more(self, TlsEngine engine) except -1:
        """Feed the engine as much as it takes; whether there was anything."""
        cdef bytes kept = self.kept
        cdef Py_ssize_t count
        if kept is not None:  # that came before what is offered now
            count = engine.feed(PyBytes_AS_STRING(kept) + self.kept_at, PyBytes_GET_SIZE(kept) - self.kept_at)
            self.kept_at += count
            if self.kept_at == PyBytes_GET_SIZE(kept):
                self.kept = None
                self.kept_at = 0
            return True
        if self.offered_size == 0:
            return False
        count = engine.feed(self.offered, self.offered_size)
        self.offered += count
        self.offered_size -= count
        return True
