"""Applies hoop.Limits: which clients a server accepts, and the limits it puts on each connection.

A server owns an Admission, and its listeners ask it; a connection owns a ConnectionGuard, and its transport reports
traffic to it. A server without limits still has an Admission, which only counts, and its connections have no guard.

A connection that breaks a limit is lost at once: connection_lost() gets the reason, and the server counts it.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from hoop.core.csrc cimport hoop_expiry_leave, hoop_expiry_node, hoop_expiry_node_init, hoop_net_host, \
    sockaddr, socklen_t
from hoop.core.reactor cimport Reactor
from hoop.core.timeouts cimport Guard, timeout_queue
from hoop.net.stream cimport StreamFilter, StreamTransport, filter_of
from hoop.net.transport cimport TRANSPORT_LOST
from libc.stdint cimport uint8_t

import errno


cdef class Admission:
    """limits: a hoop.Limits, or None."""

    def __cinit__(self, Reactor reactor not None, limits):
        self.reactor = reactor
        self.limits = limits
        self.stopped = []
        if limits is None:
            return
        self.is_guarding = True
        self.is_waiting_when_full = limits.when_full == "wait"
        self.max_connections = limits.max_connections or 0
        self.max_per_host = limits.max_connections_per_host or 0
        self.max_unsent = limits.max_write_buffer or 0
        if self.max_per_host > 0:
            self.hosts = {}
        if limits.idle_timeout is not None:
            self.idle = timeout_queue(reactor, limits.idle_timeout)
        if limits.first_byte_timeout is not None:
            self.first_byte = timeout_queue(reactor, limits.first_byte_timeout)
        if limits.header_timeout is not None:
            self.header = timeout_queue(reactor, limits.header_timeout)

    cdef bint must_wait(self) noexcept:
        """Whether the next connection is to stay in the kernel's queue until another one has ended."""
        return self.is_waiting_when_full and 0 < self.max_connections <= self.active

    cdef object host_of(self, const sockaddr *peer, socklen_t length):
        """Bytes that identify the peer's host; None if hosts are not limited or the address has no host."""
        cdef uint8_t host[16]
        cdef int size
        if self.hosts is None:
            return None
        size = hoop_net_host(peer, length, host)
        return PyBytes_FromStringAndSize(<char *>host, size) if size > 0 else None

    cdef bint is_welcome(self, object host) except -1:
        """Whether the limits allow one more connection from that host. Counts it as refused if not."""
        if 0 < self.max_connections <= self.active:
            self.refused_full += 1
            return False
        if host is not None and self.hosts.get(host, 0) >= self.max_per_host:
            self.refused_host += 1
            return False
        return True

    cdef int admit(self, StreamTransport transport, object host) except -1:
        """Count a new connection, start its timeouts. On failure, the caller undoes that: it releases the transport."""
        cdef ConnectionGuard guard
        if not self.is_guarding:
            self.accepted += 1
            return 0
        guard = new_guard(transport)
        if host is not None:
            self.hosts[host] = self.hosts.get(host, 0) + 1
        guard.admission = self
        guard.host = host
        self.active += 1
        self.accepted += 1
        if self.idle is not None:
            self.idle.touch(&guard.idle)
        if self.first_byte is not None:
            self.first_byte.touch(&guard.first_byte)
        if self.header is not None:
            self.header.touch(&guard.header)
        return 0

    cdef int leave(self, object host) except -1:
        """Count out a guarded connection that has ended, and resume listeners that waited for room."""
        self.active -= 1
        if host is not None:
            if self.hosts[host] > 1:
                self.hosts[host] -= 1
            else:
                del self.hosts[host]
        return self.resume_stopped()

    cdef int resume_stopped(self) except -1:
        cdef list stopped
        if self.stopped and not self.must_wait() and not self.reactor.closed:
            stopped, self.stopped = self.stopped, []
            for listener in stopped:
                listener._resume()
        return 0

    def counts(self):
        """The counters, by the names that hoop.ServerStats gives them; active is of connections with limits only."""
        return {
            "accepted": self.accepted,
            "active": self.active,
            "refused_full": self.refused_full,
            "refused_per_host": self.refused_host,
            "pauses": self.pauses,
            "idle_timeouts": self.idle_timeouts,
            "first_byte_timeouts": self.first_byte_timeouts,
            "header_timeouts": self.header_timeouts,
            "write_buffer_overflows": self.unsent_overflows,
        }


@cython.final
@cython.no_gc_clear  # the nodes leave their queues in __dealloc__: until then the queues must stay
cdef class ConnectionGuard(Guard):
    def __cinit__(self):
        hoop_expiry_node_init(&self.idle, <void *>self)
        hoop_expiry_node_init(&self.first_byte, <void *>self)
        hoop_expiry_node_init(&self.header, <void *>self)
        hoop_expiry_node_init(&self.quiet, <void *>self)

    def __dealloc__(self):
        self.leave_queues()

    cdef int leave_queues(self) noexcept:
        hoop_expiry_leave(&self.idle)
        hoop_expiry_leave(&self.first_byte)
        hoop_expiry_leave(&self.header)
        hoop_expiry_leave(&self.quiet)
        return 0

    cdef int on_received(self) except -1:
        hoop_expiry_leave(&self.first_byte)
        return self.on_active()

    cdef int on_sent(self) except -1:
        cdef StreamFilter filter = filter_of(<StreamTransport>self.transport)
        if filter is None or not filter.tells_answers:  # TLS does: its handshake is no answer
            hoop_expiry_leave(&self.header)
        return self.on_active()

    cdef int on_active(self) except -1:
        if self.admission is not None and self.admission.idle is not None:
            self.admission.idle.touch(&self.idle)
        if self.quiet_queue is not None:
            self.quiet_queue.touch(&self.quiet)
        return 0

    cdef int on_answer(self) except -1:
        hoop_expiry_leave(&self.header)
        return 0

    cdef int await_head(self) except -1:
        if self.transport != NULL and self.admission is not None and self.admission.header is not None:
            self.admission.header.touch(&self.header)
        return 0

    cdef int on_refused(self, Py_ssize_t unsent) except -1:
        if self.admission is None or self.admission.max_unsent == 0 or unsent <= self.admission.max_unsent:
            return 0
        self.admission.unsent_overflows += 1
        return self.end(ConnectionAbortedError(
            errno.ECONNABORTED,
            f"{unsent} bytes wait for a peer that does not read; max_write_buffer is {self.admission.max_unsent}"))

    cdef int on_expired(self, hoop_expiry_node *node) except -1:
        cdef StreamTransport transport
        if self.transport == NULL:
            return 0
        transport = <StreamTransport>self.transport
        if transport.state >= TRANSPORT_LOST:
            return 0
        if node == &self.quiet:
            return self.tell_quiet(transport)
        limits = self.admission.limits
        transport.flush_deferred()  # another callback of this phase may have written
        if transport.state >= TRANSPORT_LOST:
            return 0
        if node == &self.first_byte:
            self.admission.first_byte_timeouts += 1
            return self.end(TimeoutError(f"no byte was received within {limits.first_byte_timeout:g} s"))
        if node == &self.header:
            self.admission.header_timeouts += 1
            return self.end(TimeoutError(f"no complete message head was received within {limits.header_timeout:g} s"))
        self.admission.idle_timeouts += 1
        return self.end(TimeoutError(f"the connection was idle for {limits.idle_timeout:g} s"))

    cdef int tell_quiet(self, StreamTransport transport) except -1:
        transport.reactor.enter_context(transport.context)
        try:
            self.on_quiet()
        except BaseException as error:
            return transport.callback_failed(error, "Fatal error: the callback of set_timeout() failed.")
        return 0

    cdef int end(self, object error) except -1:
        """Lose the connection with error as the reason. Drops what is still unsent."""
        cdef StreamTransport transport = <StreamTransport>self.transport
        self.leave_queues()
        return transport.lose(error)

    cdef int on_released(self) except -1:
        cdef Admission admission = self.admission
        self.leave_queues()
        self.transport = NULL
        self.on_quiet = None
        if admission is not None:
            self.admission = None
            admission.leave(self.host)
        return 0


cdef ConnectionGuard new_guard(StreamTransport transport):
    cdef ConnectionGuard guard = ConnectionGuard.__new__(ConnectionGuard)
    guard.transport = <void *>transport
    transport.guard = guard
    return guard


cdef int set_quiet_timeout(StreamTransport transport, double timeout_s, object callback) except -1:
    """Call callback() when no byte was received or sent for timeout_s (0: never), once for each silence."""
    cdef ConnectionGuard guard = <ConnectionGuard>transport.guard
    if transport.state >= TRANSPORT_LOST:
        return 0
    if guard is None:
        if timeout_s == 0:
            return 0
        guard = new_guard(transport)
    hoop_expiry_leave(&guard.quiet)
    guard.on_quiet = None if timeout_s == 0 else callback
    guard.quiet_queue = None if timeout_s == 0 else timeout_queue(transport.reactor, timeout_s)
    if guard.quiet_queue is not None:
        guard.quiet_queue.touch(&guard.quiet)
    return 0
