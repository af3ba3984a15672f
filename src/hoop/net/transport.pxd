from hoop.core.csrc cimport sockaddr, socklen_t
from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor, Watcher
from hoop.core.timeouts cimport Guard
from hoop.net.addresses cimport RawAddress
from hoop.net.flow_control cimport FlowControl


cdef enum TransportState:
    TRANSPORT_OPEN
    TRANSPORT_CLOSING           # close() was called, accepted bytes are still being delivered
    TRANSPORT_LOST              # connection_lost is scheduled: nothing is read or written any more
    TRANSPORT_CLOSED            # connection_lost has been called and the descriptor is closed


cdef class Transport(Watcher):
    # In the order of use: what a message does not touch comes first, what it does comes last, beside the fields that
    # subclasses add for each message. So a message touches few cache lines of a connection.
    cdef object __weakref__
    cdef object sock            # the socket object handed in, or one made for get_extra_info; else None
    cdef object server          # counts this connection; None: no server does
    cdef dict extra             # get_extra_info beyond addresses and socket, or None
    cdef RawAddress peer
    cdef RawAddress local
    cdef object loss            # what to tell connection_lost, if scheduling it failed for lack of memory
    cdef int dropped_writes     # writes after the connection was lost
    cdef flag is_sock_borrowed  # sock was made lazily around fd: it must not close it
    cdef flag is_fd_bare        # no socket object has fd
    cdef flag is_fd_duplicate   # fd is not sock's own number, and is closed besides sock
    cdef flag is_loss_due

    cdef dict __dict__          # test suites patch instances
    cdef object protocol
    cdef object context         # the transport's own: callbacks that the loop originates run in it
    cdef Guard guard            # limits it; None: it has no limits
    cdef TransportState state
    cdef flag is_prompt         # send writes at once; do not hold them until the phase has ended
    cdef flag is_reading_started
    cdef flag is_reading_paused
    cdef flag is_protocol_connected
    cdef FlowControl flow

    cdef int adopt(self, Reactor reactor, int fd, object sock, object protocol, object context, object server,
                   dict extra) except -1
    cdef int enter(self, TransportState state) except -1
    cdef int offer_peer(self, const sockaddr *address, socklen_t length) except -1
    cdef int know_peer(self, object address) except -1
    cdef int show_proxied(self, const sockaddr *source, socklen_t source_length, const sockaddr *destination,
                          socklen_t destination_length, dict extra) except -1
    cdef int bind_protocol(self, object protocol) except -1
    cdef Py_ssize_t held_bytes(self) noexcept
    cdef int flush_deferred(self) except -1
    cdef int discard_held(self) except -1
    cdef int update_interest(self) except -1
    cdef int want(self, unsigned interest) except -1
    cdef int start_reading(self) except -1
    cdef int stop_reading(self) except -1

    cdef int begin_life(self, object waiter) except -1
    cdef int connection_made_now(self) except -1
    cdef int check_caller(self) except -1
    cdef int begin_close(self) except -1
    cdef int end_delivered(self) except -1
    cdef int lose(self, object error) except -1
    cdef int fatal(self, object error, str message) except -1
    cdef int callback_failed(self, object error, str message) except -1
    cdef int release(self) except -1
    cdef int disown(self) except -1
    cdef int pause_protocol(self) except -1
    cdef int resume_protocol(self) except -1
    cdef object transport_socket(self)
    cdef int note_dropped_write(self) except -1


cdef int spare_dict(object item) except -1

cdef int count_dropped_write(int *dropped_writes, str warning) except -1

cdef int descriptor_of(object fileobj) except -1
cdef object in_use(Watcher watcher)
cdef int check_unowned(Reactor reactor, object sock) except -1
