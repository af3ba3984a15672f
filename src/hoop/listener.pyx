"""Accepting connections: as many as the batch allows for each event, each with its transport and protocol at once."""
from hoop.admission cimport Admission
from hoop.cpython_api cimport PyContext_CopyCurrent
from hoop.csrc cimport HOOP_EXCLUSIVE, HOOP_READABLE, hoop_net_accept, hoop_net_close, \
    hoop_net_is_resource_error, hoop_net_is_transient_accept_error, hoop_net_set_nodelay, sockaddr, sockaddr_storage, \
    socklen_t
from hoop.errors cimport os_error
from hoop.reactor cimport Reactor, Watcher
from hoop.stream cimport StreamTransport, accept_stream
from libc.errno cimport EAGAIN

from asyncio.trsock import TransportSocket

cdef enum:
    LARGEST_BATCH = 256         # connections for one event: established ones must not wait for a flood
    TURN = 4                    # connections before another process that shares the socket is let in front

cdef double RETRY_DELAY_S = 1.0  # asyncio.constants.ACCEPT_RETRY_DELAY


cdef class Listener(Watcher):
    """Accepts on one listening socket for a server. start() and stop(); the socket stays its owner's."""

    def __init__(self, Reactor reactor, sock, protocol_factory, server, int backlog, Admission admission):
        self.reactor = reactor
        self.sock = sock
        self.protocol_factory = protocol_factory
        self.server = server
        self.admission = admission
        self.batch = min(max(backlog, 1), LARGEST_BATCH)

    def start(self):
        """Accept from the next turn on. The socket must be listening and non-blocking."""
        self.context = PyContext_CopyCurrent()
        self.fd = self.sock.fileno()
        self.reactor.watch(self, HOOP_READABLE | HOOP_EXCLUSIVE)

    def stop(self):
        """Accept no more. Idempotent."""
        self.reactor.unwatch(self)
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None

    cdef int set_referenced(self, bint is_referenced) except -1:
        Watcher.set_referenced(self, is_referenced)
        if self.retry is not None:
            self.retry.ref() if is_referenced else self.retry.unref()
        return 0

    def _resume(self):
        """Accept again, after a lack of descriptors or of room."""
        self.retry = None
        if self.sock.fileno() >= 0 and not self.is_watched:
            self.reactor.watch(self, HOOP_READABLE | HOOP_EXCLUSIVE)

    cdef int on_events(self, unsigned events) except -1:
        cdef int count, fd
        cdef sockaddr_storage peer
        cdef socklen_t length
        for count in range(self.batch):
            if self.admission.must_wait():
                return self.wait_for_room()
            fd = hoop_net_accept(self.fd, &peer, &length)
            if fd < 0:
                if fd == -EAGAIN:
                    break
                if hoop_net_is_transient_accept_error(fd):
                    continue
                return self.run_short(fd)
            self.accept_one(fd, <sockaddr *>&peer, length)
            if not self.is_watched:
                return 0  # the protocol closed the server
            self.accepted += 1
            if self.reactor.after_is_due:
                self.reactor.settle()
        if self.accepted >= TURN and self.is_watched:
            return self.let_others_in_front()
        return 0

    cdef int let_others_in_front(self) except -1:
        """The kernel wakes the exclusive waiters of a socket in the order in which they came, and a woken one keeps its
        place: of several idle processes the first would get nearly all connections. So go to the end of the line."""
        self.accepted = 0
        return self.reactor.rewatch(self, HOOP_READABLE | HOOP_EXCLUSIVE)

    cdef int accept_one(self, int fd, const sockaddr *peer, socklen_t length) except -1:
        """Make a connection of fd. What fails ends that connection, not the listener."""
        cdef StreamTransport transport = None
        cdef object host = None
        try:
            if self.admission.is_guarding:
                host = self.admission.host_of(peer, length)
                if not self.admission.is_welcome(host):
                    hoop_net_close(fd)
                    return 0
            hoop_net_set_nodelay(fd, True)
            self.reactor.enter_context(self.context)
            protocol = self.protocol_factory()
            transport = accept_stream(self.reactor, fd, peer, length, protocol, PyContext_CopyCurrent(), self.server)
            self.admission.admit(transport, host)
        except BaseException as error:
            if transport is None:
                hoop_net_close(fd)
            else:
                transport.release()
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise
            self.reactor.report({"message": "Error on transport creation for incoming connection", "exception": error})
            return 0
        return transport.connection_made_now()

    cdef int wait_for_room(self) except -1:
        """The server is full: leave what comes in the kernel's queue until a connection ends."""
        self.reactor.unwatch(self)
        self.admission.pauses += 1
        self.admission.stopped.append(self)
        return 0

    cdef int run_short(self, int result) except -1:
        """accept(2) failed and will again: tell, and try later (at EMFILE the pending connection stays readable)."""
        cdef str message = "socket.accept() failed"
        if hoop_net_is_resource_error(result):
            message = "socket.accept() out of system resource"
        self.reactor.unwatch(self)
        self.retry = self.reactor.call_later(RETRY_DELAY_S, self._resume)
        if self.is_unreferenced:
            self.retry.unref()
        return self.reactor.report({"message": message, "exception": os_error(result),
                                    "socket": TransportSocket(self.sock)})

    def __repr__(self):
        return f"<Listener {self.sock!r}>"
