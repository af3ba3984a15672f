"""Accepts connections: up to a batch for each event, and makes transport and protocol of each at once."""
from hoop.core.cpython_api cimport PyContext_CopyCurrent
from hoop.core.csrc cimport HOOP_EXCLUSIVE, HOOP_READABLE, hoop_net_accept, hoop_net_close, hoop_net_hand_on, \
    hoop_net_is_resource_error, hoop_net_is_transient_accept_error, hoop_net_set_nodelay, hoop_spin_ended, sockaddr, \
    sockaddr_storage, socklen_t
from hoop.core.errors cimport os_error
from hoop.core.reactor cimport Reactor, Watcher
from hoop.core.scheduler cimport deadline_after
from hoop.net.admission cimport Admission
from hoop.net.proxy_header cimport ProxyHeader
from hoop.net.stream cimport StreamTransport, accept_stream
from libc.errno cimport EAGAIN, EBADF
from libc.stdint cimport int64_t

from asyncio.trsock import TransportSocket

cdef enum:
    LARGEST_BATCH = 256         # connections for one event: established ones must not wait for a flood
    STEP = 8                    # where others share the socket: what they could take must not wait for this process
    TURN = 4                    # connections before such a process is let in front

cdef str WATCH_FAILED = "the poller refused a listening socket"

cdef double RETRY_DELAY_S = 1.0  # asyncio.constants.ACCEPT_RETRY_DELAY


cdef class Listener(Watcher):
    """Accepts on one listening socket for a server. start() and stop(); the socket stays its owner's."""

    def __cinit__(self, Reactor reactor not None, sock, protocol_factory, server, int backlog,
                  Admission admission not None):
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
        self.wanted = HOOP_READABLE
        if hoop_net_hand_on(self.fd) == 0:
            self.wanted |= HOOP_EXCLUSIVE  # the process can hand on connections that it does not accept
        self.reactor.watch(self, self.wanted)
        self.is_started = True

    def finish(self, int most):
        """In the next turn accept what waits in the kernel's queue, up to that many, then stop().

        Closing the socket would reset these. At a limit of connections they stay where they are.
        """
        self.reactor.schedule_method(self._accept_and_stop, most, self.context)

    def _accept_and_stop(self, most):
        try:
            self.accept_up_to(most)
        finally:
            self.stop()

    def stop(self):
        """Accept no more. Idempotent."""
        self.is_started = False
        self.step_back()
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None

    cdef int set_referenced(self, bint is_referenced) except -1:
        Watcher.set_referenced(self, is_referenced)
        if self.retry is not None:
            self.retry.ref() if is_referenced else self.retry.unref()
        return 0

    cdef int step_back(self) except -1:
        """Stop watching. Hand on the wake-up that only this process got to a process that shares the socket."""
        if self.is_watched:
            self.reactor.unwatch(self)
            self.hand_on()
        return 0

    cdef int hand_on(self) except -1:
        if self.wanted & HOOP_EXCLUSIVE and self.sock.fileno() == self.fd:
            hoop_net_hand_on(self.fd)  # it worked in start(); if it fails now, no other way exists
        return 0

    cdef int on_loop_closed(self) except -1:
        return self.hand_on()

    def _resume(self):
        """Accept again: a timer or a connection that has ended calls this."""
        self.retry = None
        if not self.is_started or self.is_watched or self.sock.fileno() != self.fd:
            return
        try:
            self.reactor.watch(self, self.wanted)
        except (OSError, MemoryError) as error:
            self.try_later(WATCH_FAILED, error)

    cdef int on_events(self, unsigned events) except -1:
        if not self.wanted & HOOP_EXCLUSIVE:
            return self.accept_up_to(self.batch)
        # A loop that looks for events before it sleeps would get every connection.
        hoop_spin_ended(&self.reactor.event_spin, False)
        self.accept_up_to(min(self.batch, STEP))
        return self.let_others_in_front() if self.accepted >= TURN and self.is_watched else 0

    cdef int accept_up_to(self, int most) except -1:
        cdef int _attempt, fd
        cdef sockaddr_storage peer
        cdef socklen_t length
        for _attempt in range(most):
            if not self.is_watched:
                return 0  # the protocol closed the server
            if self.admission.must_wait():
                return self.wait_for_room()
            fd = hoop_net_accept(self.fd, &peer, &length)
            if fd < 0:
                if fd == -EAGAIN:
                    return 0
                if hoop_net_is_transient_accept_error(fd):
                    continue
                return self.run_short(fd)
            self.accept_one(fd, <sockaddr *>&peer, length)
            self.accepted += 1
            if self.reactor.after_is_due:
                self.reactor.settle()
        return 0

    cdef int let_others_in_front(self) except -1:
        """Go to the end of the kernel's line of exclusive waiters. It wakes them in the order in which they came, and a
        woken one keeps its place: of several idle processes the first would get nearly all connections."""
        self.accepted = 0
        try:
            self.reactor.rewatch(self, self.wanted)
        except (OSError, MemoryError) as error:
            self.hand_on()
            self.try_later(WATCH_FAILED, error)
        return 0

    cdef int accept_one(self, int fd, const sockaddr *peer, socklen_t length) except -1:
        """Go on with a connection that came from peer: it owns fd from now on."""
        return self.begin_connection(fd, peer, length, None)

    cdef int begin_connection(self, int fd, const sockaddr *peer, socklen_t length, ProxyHeader header) except -1:
        """Make a connection of fd, with peer at its far end. A failure ends that connection, not the listener."""
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
            transport = accept_stream(
                self.reactor, fd, peer, length, protocol, PyContext_CopyCurrent(), self.server, header)
            self.admission.admit(transport, host)
        except BaseException as error:
            if transport is None:
                hoop_net_close(fd)
            else:
                transport.release()
            return self.reactor.callback_failed(
                error, "Error on transport creation for incoming connection", None, None)
        transport.connection_made_now()
        if header is not None and self.server._is_ending:  # it came before, but its header only now
            transport.ask_to_drain()
        return 0

    cdef int wait_for_room(self) except -1:
        """Stop accepting at the limit: new connections wait in the kernel's queue, or go to another process."""
        self.admission.stopped.append(self)
        self.admission.pauses += 1
        return self.step_back()

    cdef int run_short(self, int result) except -1:
        """accept(2) failed and would again: report, and retry later (at EMFILE the socket stays readable)."""
        cdef str message = "socket.accept() failed"
        if hoop_net_is_resource_error(result):
            message = "socket.accept() out of system resource"
        return self.try_later(message, os_error(result))

    cdef int try_later(self, str message, object error) except -1:
        """Stop accepting, report, and retry after a delay; until then other processes on the socket accept."""
        cdef int64_t deadline_ns = deadline_after(self.reactor.now_ns(), RETRY_DELAY_S)
        self.retry = self.reactor.schedule_timer(deadline_ns, self._resume, NULL, 0, None)
        if self.is_unreferenced:
            self.retry.unref()
        self.step_back()
        return self.reactor.report({"message": message, "exception": error, "socket": TransportSocket(self.sock)})

    cdef int on_watch_failed(self, int error) except -1:
        """Handle a refused interest that was noted earlier and reached the kernel only when the poller was rebuilt."""
        self.step_back()
        return self.try_later(WATCH_FAILED, os_error(-error))

    cdef int on_failed(self, object error) except -1:
        """Retry after any other error, so that the listener never stays deaf."""
        if self.is_started and not self.is_watched and self.retry is None:
            return self.try_later("Error while accepting connections", error)
        return Watcher.on_failed(self, error)

    cdef int on_descriptor_lost(self) except -1:
        return self.reactor.report({
            "message": "the descriptor of a listening socket was closed behind its server's back",
            "exception": os_error(-EBADF),
            "socket": TransportSocket(self.sock),
        })

    def __repr__(self):
        return f"<Listener {self.sock!r}>"
