from hoop.core.csrc cimport hoop_datagram
from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor
from hoop.net.addresses cimport KnownAddresses, RawAddress
from hoop.net.transport cimport Transport

cdef enum Route:
    ROUTE_PEER                  # the connected peer: no address is named
    ROUTE_RAW                   # a sockaddr
    ROUTE_SOCKET                # an address that only the socket object can take: names, UNIX paths, wrong ones


cdef class DatagramTransport(Transport):
    cdef object address         # what sendto() is bound to, or None
    cdef int family
    cdef flag is_connected      # the socket is connected: the kernel knows the peer
    cdef flag is_peer_named
    cdef flag is_shared         # others may hold the socket: it came from a caller, or was given out
    cdef flag is_backing_off    # the poller said writable, the kernel still refused: a timer is set
    cdef int refusals           # of that kind, in a row
    cdef object queued          # deque of (bytes, address) that the kernel refused; None when nothing is queued
    cdef Py_ssize_t queued_size
    cdef list arrived           # received and not yet delivered: data, address, data, ...; None when there is nothing
    cdef flag is_deliver_due    # delivery is due, but scheduling it failed for lack of memory
    cdef Py_ssize_t arrived_next
    cdef KnownAddresses known   # senders; None until the first
    cdef object latest_target   # the address last parsed for sendto()
    cdef RawAddress latest_raw
    # Datagrams that are held until the phase ends, for one receiver: all as long as the first, the last maybe shorter.
    cdef list held              # bytes; None when nothing is held
    cdef Py_ssize_t held_length  # of the first
    cdef Py_ssize_t held_size   # of all
    cdef Py_ssize_t longest_joined  # datagrams of more bytes are not held: they, or none at all (0), cannot be joined
    cdef flag is_joining_known  # the kernel has said that it joins, for a socket that nobody else can change
    cdef flag is_run_ended      # a shorter one was held: no other can follow it
    cdef Route held_route
    cdef object held_target
    cdef RawAddress held_raw

    cdef int open(self, Reactor reactor, object sock, object protocol, object address, object waiter) except -1

    cdef int tell_of_sending(self, object addr) except -1
    cdef int send(self, object data, const char *start, Py_ssize_t size, object addr) except? -1
    cdef bint may_hold_datagram(self, Py_ssize_t size) noexcept
    cdef int hold(self, object data, const char *start, Py_ssize_t size, object addr, Route route,
                  const RawAddress *raw) except -1
    cdef bint is_of_held_run(self, Py_ssize_t size, Route route, const RawAddress *raw) noexcept
    cdef int send_held(self) except -1
    cdef int send_first_of(self, const hoop_datagram *datagrams, int count) noexcept
    cdef int send_through_socket(self, object data, object addr) except -1
    cdef Route route(self, object addr, RawAddress *raw) except *
    cdef int queue_datagram(self, object data, object addr) except -1
    cdef int append_datagram(self, object data, object addr) except -1
    cdef int await_room(self) except -1
    cdef int send_queued(self) except? -1
    cdef int send_first_through_socket(self) except? -1
    cdef int drop_queued(self, Py_ssize_t count) except -1
    cdef int on_writable(self) except -1
    cdef int back_off(self) except -1

    cdef int on_readable(self) except -1
    cdef int receive_singly(self) except -1
    cdef int receive_through_socket(self) except -1
    cdef object bytes_or_error(self, Py_ssize_t size, const char *data)
    cdef int deliver_arrived(self) except -1
    cdef int deliver_later(self) except -1
    cdef int deliver_one(self, object data, object addr) except -1
    cdef object sender(self, const void *address, Py_ssize_t length)
