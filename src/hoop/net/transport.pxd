from hoop.core.csrc cimport sockaddr, socklen_t
from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor, Watcher
from hoop.core.timeouts cimport Guard
from hoop.net.addresses cimport KeptAddress
from hoop.net.flow_control cimport Watermarks


cdef enum TransportState:
    TRANSPORT_OPEN
    TRANSPORT_CLOSING           # close() was called, accepted bytes are still being delivered
    TRANSPORT_LOST              # connection_lost is scheduled: nothing is read or written any more
    TRANSPORT_CLOSED            # connection_lost has been called and the descriptor is closed


cdef enum Closer:               # who closes the descriptor
    BARE                        # no socket object has it: the transport
    OWNED                       # the socket object that was handed in
    BORROWED                    # a socket object was made lazily around it: the transport, and it lets the object go
    DUPLICATE                   # it is not the number of the object handed in: both close their own


cdef class Transport(Watcher):
    # In the order of use: what a message does not touch comes first, what it does comes last, beside the fields that
    # subclasses add for each message. So a message touches few cache lines of a connection.
    cdef object __weakref__
    cdef object sock            # the socket object handed in, or one made for get_extra_info; else None
    cdef object server          # counts this connection; None: no server does
    cdef dict extra             # get_extra_info beyond addresses and socket, or None
    cdef KeptAddress peer
    cdef KeptAddress local
    # The future that sendfile() awaits; or, once lost, what connection_lost() must be told where memory was too short
    # to schedule it; else None.
    cdef object owed

    cdef dict __dict__          # test suites patch instances
    cdef object protocol
    cdef object context         # the transport's own: callbacks that the loop originates run in it
    cdef Guard guard            # limits it; None: it has no limits
    cdef flag is_prompt         # send writes at once; do not hold them until the phase has ended
    cdef flag is_reading_started
    cdef flag is_reading_paused
    cdef flag is_protocol_connected
    cdef flag is_writing_paused  # the protocol was told to pause, and not yet to resume
    cdef unsigned char state    # a TransportState
    cdef unsigned char closer   # a Closer
    cdef unsigned char dropped_writes  # writes after the connection was lost, as far as they are counted
    cdef Watermarks marks

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
    cdef int check_ours(self, str method) except -1
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

cdef int count_dropped_write(unsigned char *dropped_writes, str warning) except -1

cdef int descriptor_of(object fileobj) except -1
cdef object in_use(Watcher watcher)
cdef int check_unowned(Reactor reactor, object sock) except -1
