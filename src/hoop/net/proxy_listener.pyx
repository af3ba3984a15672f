"""Accepts connections that balancers pass on, each with a header of the PROXY protocol in front.

A server owns a ProxyGate, hoop.ProxyProtocol in force, and its listeners ask it. The header is mostly there when the
connection is: then the listener takes it off the socket at once. If not, an Arrival waits for it. Either way it takes
the header's bytes and no others, so what comes behind them is for the transport, as on any connection: TLS too. Only
then are protocol and transport made, so an application that speaks first speaks to the client.

An arrival counts as an open connection of its server. It ends by its header, by what is none, by its peer, by a time
limit, or by the server's close_clients() or abort_clients().
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from hoop.core.csrc cimport AF_UNIX, HOOP_PROXY_V1, HOOP_PROXY_V2, HOOP_READABLE, \
    hoop_expiry_leave, hoop_expiry_node_init, hoop_net_close, hoop_net_contains, hoop_net_host, hoop_net_peek, \
    hoop_net_recv, hoop_proxy_header, hoop_proxy_header_parse, hoop_proxy_header_size
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.timeouts cimport timeout_queue
from hoop.net.addresses cimport address_of
from hoop.net.proxy_header cimport ProxyHeader, new_header, refusal
from libc.errno cimport EAGAIN
from libc.string cimport memcpy

from asyncio.log import logger

cdef enum:
    FIRST_ROOM = 256            # bytes: more than a line of version 1, and most headers of version 2
    SHOWN = 24                  # bytes of what was no header, for the log


cdef class ProxyGate:
    """networks: (bytes of the address, bits) of each; versions: 1, 2."""

    def __cinit__(self, Reactor reactor not None, list networks not None, versions, double timeout_s,
                  bint ignores_untrusted):
        cdef hoop_network *network
        self.reactor = reactor
        self.networks = <hoop_network *>PyMem_Malloc((len(networks) + 1) * sizeof(hoop_network))
        if self.networks == NULL:
            raise MemoryError()
        for host, bits in networks:
            if not isinstance(host, bytes) or len(host) not in (4, 16) or not 0 <= bits <= 8 * len(host):
                raise ValueError(f"no network has {host!r} and {bits!r} bits")
            network = &self.networks[self.network_count]
            network.size = <int>len(host)
            network.bits = bits
            memcpy(network.host, PyBytes_AS_STRING(host), <size_t>network.size)
            self.network_count += 1
        self.versions = (HOOP_PROXY_V1 if 1 in versions else 0) | (HOOP_PROXY_V2 if 2 in versions else 0)
        self.ignores_untrusted = ignores_untrusted
        self.timeout_s = timeout_s
        self.timeout = timeout_queue(reactor, timeout_s)
        self.told = set()

    def __dealloc__(self):
        PyMem_Free(self.networks)

    cdef bint is_trusted(self, const sockaddr *peer, socklen_t length) noexcept:
        cdef uint8_t host[16]
        cdef int index, size = hoop_net_host(peer, length, host)
        for index in range(self.network_count):
            if hoop_net_contains(&self.networks[index], host, size):
                return True
        return False

    cdef int tell(self, str kind, const sockaddr *peer, socklen_t length, str reason) except -1:
        """Log the first refusal of a kind: a server and a balancer that are set up differently must be told apart from
        one without clients. The others are counted."""
        if kind in self.told:
            return 0
        self.told.add(kind)
        logger.warning("PROXY protocol: closed a connection from %s: %s; stats() counts further ones",
                       address_of(peer, length), reason)
        return 0

    def counts(self):
        """The counters, by the names that hoop.ServerStats gives them."""
        return {
            "refused_untrusted": self.refused_untrusted,
            "invalid_proxy_headers": self.invalid_headers,
            "proxy_header_timeouts": self.late_headers,
        }


cdef class ProxyListener(Listener):
    def obey(self, ProxyGate gate not None):
        """Before start(): take gate's word for whom to believe."""
        self.gate = gate
        self.is_local = self.sock.family == AF_UNIX

    def start(self):
        """As Listener.start(); RuntimeError before obey()."""
        if self.gate is None:
            raise RuntimeError("a ProxyListener without a ProxyGate lets everyone in")
        Listener.start(self)

    cdef int accept_one(self, int fd, const sockaddr *peer, socklen_t length) except -1:
        cdef uint8_t *data = <uint8_t *>self.reactor.read_buffer
        cdef Py_ssize_t size, seen
        if not self.is_local and not self.gate.is_trusted(peer, length):
            if self.gate.ignores_untrusted:
                return self.begin_connection(fd, peer, length, None)
            return self.refuse_untrusted(fd, peer, length)
        seen = hoop_net_peek(fd, data, FIRST_ROOM)
        if seen > 0:
            size = hoop_proxy_header_size(data, <size_t>seen, self.gate.versions)
            if 0 < size <= seen and hoop_net_recv(fd, data, <size_t>size) == size:
                return self.take(fd, peer, length, data, size)
        try:
            begin_arrival(self, fd, peer, length)
        except BaseException as error:
            hoop_net_close(fd)
            return self.reactor.callback_failed(error, "Error while a PROXY header was awaited", None, None)
        return 0

    cdef int refuse_untrusted(self, int fd, const sockaddr *peer, socklen_t length) except -1:
        self.gate.refused_untrusted += 1
        hoop_net_close(fd)
        return self.gate.tell("untrusted", peer, length, "not one of the trusted networks")

    cdef int take(self, int fd, const sockaddr *peer, socklen_t length, const uint8_t *data, Py_ssize_t size) except -1:
        """Make a connection of fd, which owns it from now on, with what its header says."""
        cdef hoop_proxy_header parsed
        cdef ProxyHeader header
        cdef int result = hoop_proxy_header_parse(data, <size_t>size, &parsed)
        if result < 0:
            hoop_net_close(fd)
            return self.refuse_header(peer, length, refusal(result), data, size)
        try:
            header = new_header(data, size, peer, length)
        except BaseException as error:
            hoop_net_close(fd)
            return self.reactor.callback_failed(error, "Error while a PROXY header was read", None, None)
        if parsed.source_length > 0:
            return self.begin_connection(fd, <const sockaddr *>&parsed.source, parsed.source_length, header)
        return self.begin_connection(fd, peer, length, header)

    cdef int refuse_header(self, const sockaddr *peer, socklen_t length, str reason, const uint8_t *data,
                           Py_ssize_t size) except -1:
        self.gate.invalid_headers += 1
        shown = PyBytes_FromStringAndSize(<const char *>data, min(size, <Py_ssize_t>SHOWN))
        return self.gate.tell("invalid", peer, length, f"{reason}, it begins with {shown!r}")


@cython.final
cdef class Arrival(Watcher):
    """A connection whose header is not complete yet."""

    def __dealloc__(self):
        if self.fd >= 0:  # the loop was closed
            hoop_net_close(self.fd)
        PyMem_Free(self.kept)

    cdef int begin(self) except -1:
        """Wait for the header. On failure the descriptor is the caller's still."""
        self.make_room(FIRST_ROOM)
        self.deadline.queue.touch(&self.deadline.node)
        self.reactor.watch(self, HOOP_READABLE)
        self.listener.server._attach(self)
        if self.listener.admission.is_guarding:
            self.listener.admission.active += 1
        return 0

    cdef int make_room(self, Py_ssize_t room) except -1:
        cdef void *grown = PyMem_Realloc(self.kept, <size_t>room)
        if grown == NULL:
            raise MemoryError()
        self.kept = <uint8_t *>grown
        self.room = room
        return 0

    cdef int on_events(self, unsigned events) except -1:
        cdef Py_ssize_t size, seen = hoop_net_peek(self.fd, self.kept + self.kept_size,
                                                   <size_t>(self.room - self.kept_size))
        if seen == -EAGAIN:
            return 0
        if seen <= 0 and self.kept_size == 0:
            return self.drop()  # it was looked at whether the server listens
        if seen <= 0:
            return self.refuse("it ended within its header")
        size = hoop_proxy_header_size(self.kept, <size_t>(self.kept_size + seen), self.listener.gate.versions)
        if size < 0:
            self.kept_size += seen
            return self.refuse(refusal(<int>size))
        if size > self.room:
            self.make_room(size)
        return self.receive(seen if size == 0 else min(seen, size - self.kept_size))

    cdef int receive(self, Py_ssize_t count) except -1:
        """Take so many bytes, which are all there and the header's; then go on if it is complete."""
        cdef Py_ssize_t size, taken = hoop_net_recv(self.fd, self.kept + self.kept_size, <size_t>count)
        if taken <= 0:
            return 0 if taken == -EAGAIN else self.refuse("it ended within its header")
        self.kept_size += taken
        size = hoop_proxy_header_size(self.kept, <size_t>self.kept_size, self.listener.gate.versions)
        return self.complete() if size == self.kept_size else 0

    cdef int complete(self) except -1:
        cdef ProxyListener listener = self.listener
        cdef int fd = self.fd
        cdef object server = listener.server
        self.detach()
        if listener.admission.is_guarding:
            listener.admission.active -= 1  # its place is for the connection that comes of it
        try:
            listener.take(fd, <const sockaddr *>&self.peer, self.peer_length, self.kept, self.kept_size)
        finally:
            listener.gate.completed += 1
            server._detach(self)
            listener.admission.resume_stopped()
        return 0

    cdef int refuse(self, str reason) except -1:
        self.listener.refuse_header(<const sockaddr *>&self.peer, self.peer_length, reason, self.kept, self.kept_size)
        return self.drop()

    cdef int detach(self) except -1:
        """Let go of the descriptor, which is open and the caller's."""
        self.reactor.unwatch(self)
        hoop_expiry_leave(&self.deadline.node)
        self.fd = -1
        return 0

    cdef int drop(self) except -1:
        """Close the connection. Idempotent."""
        cdef int fd = self.fd
        if fd < 0:
            return 0
        self.detach()
        hoop_net_close(fd)
        return self.leave()

    cdef int leave(self) except -1:
        """Count it out."""
        if self.listener.admission.is_guarding:
            self.listener.admission.leave(None)
        self.listener.server._detach(self)
        return 0

    cdef int on_failed(self, object error) except -1:
        """Handle an error of an event that no code has caught: mostly a failed allocation."""
        self.reactor.report_failure("Error while a PROXY header was awaited", error, None, None)
        return self.drop()

    cdef int on_descriptor_lost(self) except -1:
        """Other code has closed our descriptor, and the number is in use again: never touch it."""
        hoop_expiry_leave(&self.deadline.node)
        return self.leave()


@cython.final
@cython.no_gc_clear  # the node leaves its queue in __dealloc__: until then the queue must stay
cdef class Deadline(Guard):
    """Ends an arrival whose header does not come in time."""

    def __cinit__(self):
        hoop_expiry_node_init(&self.node, <void *>self)

    def __dealloc__(self):
        hoop_expiry_leave(&self.node)

    cdef int on_expired(self, hoop_expiry_node *node) except -1:
        cdef Arrival arrival
        cdef ProxyGate gate
        if self.arrival == NULL:
            return 0
        arrival = <Arrival>self.arrival
        gate = arrival.listener.gate
        gate.late_headers += 1
        gate.tell("late", <const sockaddr *>&arrival.peer, arrival.peer_length,
                  f"no PROXY header within {gate.timeout_s:g} s")
        return arrival.drop()


cdef int begin_arrival(ProxyListener listener, int fd, const sockaddr *peer, socklen_t length) except -1:
    """Wait for the header of a connection, which owns fd from now on. On failure fd is the caller's still."""
    cdef Arrival arrival
    if listener.admission.is_guarding and not listener.admission.is_welcome(None):
        hoop_net_close(fd)
        return 0
    arrival = Arrival.__new__(Arrival)
    arrival.reactor = listener.reactor
    arrival.listener = listener
    memcpy(&arrival.peer, peer, min(<size_t>length, sizeof(arrival.peer)))
    arrival.peer_length = length
    arrival.deadline = Deadline.__new__(Deadline)
    arrival.deadline.queue = listener.gate.timeout
    arrival.deadline.arrival = <void *>arrival
    arrival.fd = fd
    try:
        arrival.begin()
    except BaseException:
        arrival.detach()
        raise
    return 0


def end_arrivals_of(Reactor reactor not None, server):
    """Close every connection to server whose header has not come."""
    cdef int fd
    for fd in range(reactor.watcher_capacity):
        watcher = reactor.watcher_of(fd)
        if isinstance(watcher, Arrival) and (<Arrival>watcher).listener.server is server:
            (<Arrival>watcher).drop()


refuse_instances(Arrival)
refuse_instances(Deadline)
