from hoop.tls_session cimport TlsSession


cdef class TlsTransport:
    cdef TlsSession session
    cdef dict __dict__          # test suites patch instances
    cdef object __weakref__
