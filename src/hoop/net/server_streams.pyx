"""The connections that a server has accepted and that are open still: to end them, or to see which are silent.

A drain asks again and again who has been silent (silent_streams_of). A transport notes no time, but for each read that
it received and for each write that it answered; a look counts up where nothing was noted since the last one. A
connection that received and has not answered is busy, however long that takes.
"""
from hoop.core.csrc cimport hoop_net_pending
from hoop.core.reactor cimport Reactor
from hoop.net.stream cimport StreamTransport, filter_of
from hoop.net.transport cimport TRANSPORT_LOST, TRANSPORT_OPEN
from hoop.net.writing cimport AWAITS_ANSWER


cdef StreamTransport stream_of(Reactor reactor, int fd, object server):
    """The open connection with that descriptor if server has accepted it, else None."""
    cdef object watcher = reactor.watcher_of(fd)
    if isinstance(watcher, StreamTransport) and (<StreamTransport>watcher).server is server:
        return <StreamTransport>watcher
    return None


def streams_of(Reactor reactor not None, server):
    """The transports of server's connections, those below TLS."""
    cdef int fd
    cdef StreamTransport transport
    cdef list found = []
    for fd in range(reactor.watcher_capacity):
        transport = stream_of(reactor, fd, server)
        if transport is not None:
            found.append(transport)
    return found


cdef bint is_silent(StreamTransport transport, int looks):
    """Whether nothing has moved for that many looks (1 to 200) before this one, and nothing is under way."""
    if transport.state != TRANSPORT_OPEN:
        return False
    if transport.silence == AWAITS_ANSWER or transport.held_bytes() > 0 or transport.is_lent:
        return False
    if transport.silence < looks:
        transport.silence += 1
        return False
    return hoop_net_pending(transport.fd) <= 0  # else the next request is there, and this turn reads it


def silent_streams_of(Reactor reactor not None, server, int looks):
    """Those of server's connections that are silent (is_silent)."""
    cdef int fd
    cdef StreamTransport transport
    cdef list found = []
    for fd in range(reactor.watcher_capacity):
        transport = stream_of(reactor, fd, server)
        if transport is not None and is_silent(transport, looks):
            found.append(transport)
    return found


def silent_among(streams, int looks):
    """Those of these connections that are silent (is_silent)."""
    cdef StreamTransport transport
    cdef list found = []
    for transport in streams:
        if is_silent(transport, looks):
            found.append(transport)
    return found


def close_stream(StreamTransport transport not None):
    """As the application would: close(), or what the TLS above it does then."""
    if transport.state >= TRANSPORT_LOST:
        return
    if transport.is_filtered:
        filter_of(transport).close_from_below()
    else:
        transport.close()


def ask_to_drain(StreamTransport transport not None):
    """In the next turn call drain_requested() of the application's protocol, if it has such a method."""
    transport.ask_to_drain()
