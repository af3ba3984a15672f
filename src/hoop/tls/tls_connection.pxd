from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor
from hoop.net.stream cimport StreamFilter, StreamTransport
from hoop.tls.engine cimport TlsEngine


cdef enum TlsState:
    TLS_HANDSHAKE               # also before the connection below is made
    TLS_OPEN
    TLS_FLUSHING                # closing: what was written is still being encrypted and sent
    TLS_SHUTDOWN                # closing: our close_notify is on its way, the peer's is awaited
    TLS_LOST                    # the transport below is closing: nothing is read or written any more
    TLS_CLOSED                  # it has called connection_lost


cdef class TlsConnection(StreamFilter):
    cdef Reactor reactor
    cdef TlsEngine engine
    cdef object transport       # what the application's protocol has; None once closed
    cdef object protocol        # the application's
    cdef object lower           # the transport that carries the ciphertext, or None before there is one
    cdef StreamTransport stream  # the same, if it is hoop's own
    cdef TlsState state
    cdef flag is_connected      # the protocol's connection_made was called
    cdef flag is_engine_busy    # a callback of the context that runs now must not call the engine

    cdef int enter(self, TlsState state) except -1
    cdef int start_close(self) except -1
    cdef int begin_shutdown(self) except -1
    cdef int finish(self) except -1

    cdef object context(self)
    cdef int close_lower(self, object error) except -1
    cdef int fatal(self, object error, str message) except -1
    cdef int callback_failed(self, object error, str message) except -1
