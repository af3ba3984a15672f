from hoop.net.flow_control cimport Watermarks
from hoop.tls.session cimport TlsSession


cdef class TlsTransport:
    cdef TlsSession session
    cdef object sslcontext      # the one given, or the default one
    cdef Watermarks reading    # only shown: pausing is immediate, so nothing piles up
    cdef dict __dict__          # test suites patch instances
    cdef object __weakref__

    cdef int check_ours(self, str method) except -1
