from hoop.core.reactor cimport Reactor
from hoop.net.stream cimport StreamTransport


cdef enum SocketState:
    SOCKET_UNMADE               # no __init__() yet: nothing works
    SOCKET_CONNECTING
    SOCKET_GIVEN_UP             # there will be no connection: connection_lost() is scheduled
    SOCKET_OPEN
    SOCKET_CLOSED               # on_close has been called, or is about to


cdef class Socket:
    cdef Reactor reactor
    cdef readonly object transport  # StreamTransport, or the TlsTransport over one; None while connecting
    cdef StreamTransport stream     # the same, or the one below TLS
    cdef object on_connection   # the server's callback, until it is called; None on the client's side
    cdef object data_callback
    cdef public object on_connect
    cdef public object on_end
    cdef public object on_drain
    cdef public object on_timeout
    cdef public object on_drain_requested
    cdef public object on_error
    cdef public object on_close
    cdef readonly object error  # why it was lost, or None
    cdef readonly object timeout
    cdef object connecting      # the task that connects, or None
    cdef object context         # for callbacks of a socket that never had a transport
    cdef object unread          # deque of bytes that came before the user wanted them; None when there are none
    cdef list unsent            # chunks written while connecting; None when there are none
    cdef list calls_once_open   # (method, arguments) that need a descriptor
    cdef readonly Py_ssize_t bytes_read
    cdef readonly Py_ssize_t bytes_written
    cdef Py_ssize_t unsent_size
    cdef Py_ssize_t unread_size
    cdef SocketState state
    cdef bint is_half_open_allowed
    cdef bint is_tls
    cdef bint is_flow_wanted    # resume() was called, or on_data was set
    cdef bint is_flowing        # on_data gets bytes at once: the user wants them, and none are unread before them
    cdef bint is_show_due       # _show_unread is scheduled
    cdef bint is_end_unread     # the peer has ended, behind what is unread
    cdef bint is_paused
    cdef bint is_write_paused
    cdef bint is_drain_due      # write() has returned False
    cdef bint is_ended          # end() was called
    cdef bint is_peer_ended
    cdef bint is_unreferenced   # unref() was called before there was a transport
    cdef object __weakref__

    cdef int check_ours(self, str method) except -1

    cdef int enter(self, SocketState state) except -1
    cdef bint is_closing(self) except -1
    cdef int check_initialised(self) except -1
    cdef bint is_wanting(self) except -1
    cdef int update_flow(self) except -1
    cdef int keep_unread(self, object data) except -1
    cdef int note_peer_end(self) except -1
    cdef int call_once_open(self, object method, tuple arguments) except -1
    cdef int send_unsent(self) except -1
    cdef int end_writing(self) except -1
    cdef int call(self, object callback, tuple arguments, str name) except -1
    cdef int schedule_lost(self, object error) except -1
