"""UdpSocket: a UDP endpoint as Node.js and libuv show it, the protocol of the transport that asyncio's endpoints
have."""
from hoop.core.csrc cimport AF_INET, AF_INET6
from hoop.core.reactor cimport Reactor
from hoop.net.addresses cimport RawAddress
from hoop.net.datagram cimport ROUTE_SOCKET, DatagramTransport
from hoop.net.transport cimport TRANSPORT_OPEN

import socket as socket_module

from hoop.net.addresses cimport RawAddress
from hoop.net.datagram import make_datagram


cdef class UdpSocket:
    """One UDP socket; loop.bind_udp() makes it. (Node: dgram.Socket; libuv: uv_udp_t)

    Callbacks, each with the socket as first argument: on_message(socket, data, address); on_error(socket, error),
    after which the socket goes on (an ICMP answer, a datagram that is too long); on_drain, after send() has returned
    False; and last on_close. Microtasks run after each.
    """

    def __init__(self, Reactor loop not None, sock, on_message, remote_address=None):
        if self.transport is not None:
            raise RuntimeError("a UdpSocket is initialised once")
        self.on_message = on_message
        self.transport = make_datagram(loop, sock, self, remote_address)
        self.transport.reactor.keep_idle(self.transport)  # the loop owns an open socket, whether or not it reads

    cdef DatagramTransport its_transport(self):
        if self.transport is None:  # a subclass that forgot super().__init__()
            raise RuntimeError("UdpSocket.__init__() was not called")
        return self.transport

    # ---- called by the transport ---------------------------------------------------------------------------------

    def connection_made(self, transport):
        """The transport calls this: datagrams may come."""

    def datagram_received(self, data, address):
        """The transport calls this with each datagram."""
        self.bytes_read += len(data)
        if self.on_message is not None:
            self.on_message(self, data, address)

    def error_received(self, error):
        """The transport calls this when a send has failed, or the network reports one that has."""
        if self.on_error is not None:
            self.on_error(self, error)

    def pause_writing(self):
        """The transport calls this when the kernel refuses more than the high-water mark."""
        self.is_write_paused = True

    def resume_writing(self):
        """The transport calls this when the kernel has taken most of that."""
        self.is_write_paused = False
        if self.is_drain_due:
            self.is_drain_due = False
            if self.on_drain is not None:
                self.on_drain(self)

    def connection_lost(self, error):
        """The transport calls this last."""
        try:
            if error is not None and self.on_error is not None:
                self.on_error(self, error)
        finally:
            if self.on_close is not None:
                self.on_close(self)

    # ---- for users -----------------------------------------------------------------------------------------------

    def send(self, data, address=None):
        """Send one datagram to address, (host, port), or to the remote address that the socket was made with.

        Never blocks. False when the kernel is full and it is time to wait for on_drain; the datagram is kept all the
        same. TypeError for other data than bytes, bytearray and memoryview; ValueError without an address or with a
        wrong one. After close() or destroy() the datagram is dropped, and the answer is False.
        """
        cdef DatagramTransport transport = self.its_transport()
        cdef RawAddress raw
        if address is None:
            if transport.address is None and not transport.is_connected:
                raise ValueError("send() needs an address: the socket was made without a remote one")
        elif transport.is_connected and transport.is_peer_named:
            check_peer(address, transport.get_extra_info("peername"))
        elif transport.route(address, &raw) == ROUTE_SOCKET:
            check_address(transport.family, address)
        if transport.state != TRANSPORT_OPEN:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"data must be bytes, bytearray or memoryview, not {type(data).__name__!r}")
            return False
        transport.sendto(data, address)
        self.bytes_written += data.nbytes if isinstance(data, memoryview) else len(data)
        if self.is_write_paused:
            self.is_drain_due = True
            return False
        return True

    def close(self):
        """Send what the socket has kept, then close; on_close follows. Idempotent."""
        self.its_transport().close()

    def destroy(self):
        """Close at once; on_close follows. Idempotent."""
        self.its_transport().abort()

    def pause(self):
        """Call on_message no more until resume(). Idempotent."""
        self.its_transport().pause_reading()

    def resume(self):
        """Undo pause(). Idempotent."""
        self.its_transport().resume_reading()

    def set_broadcast(self, enabled=True):
        """Allow sending to broadcast addresses (socket(7): SO_BROADCAST)."""
        cdef DatagramTransport transport = self.its_transport()
        if transport.fd >= 0:  # else the socket is closed, and there is nothing to allow
            transport.sock.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_BROADCAST, int(bool(enabled)))

    def set_write_deferral(self, enabled):
        """Whether send() may hold a datagram that is not the first of its phase of the turn (docs/writes.md). If not,
        each is sent at once, and held ones go now. The default is the loop's.
        """
        self.its_transport().set_write_deferral(enabled)

    def ref(self):
        """Have loop.run() wait for this socket again, as it does by default. Returns self."""
        self.its_transport().ref()
        return self

    def unref(self):
        """Let loop.run() return although this socket is open. Returns self."""
        self.its_transport().unref()
        return self

    def has_ref(self):
        """Whether loop.run() waits for this socket."""
        return self.its_transport().has_ref()

    @property
    def is_closed(self):
        """Whether close() or destroy() was called."""
        return self.its_transport().is_closing()

    @property
    def local_address(self):
        """Our address, as the socket module shows it."""
        return self.its_transport().get_extra_info("sockname")

    @property
    def remote_address(self):
        """The peer's address, if the socket was made with one; else None."""
        return self.its_transport().get_extra_info("peername")

    def __repr__(self):
        return f"<UdpSocket over {self.transport!r}>"


# ---- addresses that the caller gives send(): a wrong one raises, and the socket goes on -----------------------------

cdef int check_peer(object address, object peer) except -1:
    """A connected socket sends to its peer only, whatever the system call is told."""
    if address is peer or address == peer:
        return 0
    if isinstance(address, tuple) and isinstance(peer, tuple) and address[:2] == peer[:2]:
        return 0  # of IPv6, without flow and scope
    raise ValueError(f"send() on a socket that is connected to {peer!r}: the address {address!r} is another one")


cdef int check_address(int family, object address) except -1:
    """Leave names to the socket object; ValueError for what is no address at all."""
    cdef Py_ssize_t count
    if family != AF_INET and family != AF_INET6:
        return 0
    count = len(address) if isinstance(address, tuple) else 0
    if count < 2 or count > (2 if family == AF_INET else 4) or not isinstance(address[0], (str, bytes, bytearray)):
        raise ValueError(f"send() needs (host, port), not {address!r}")
    for number, largest in zip(address[1:], (0xffff, 0xfffff, 0xffffffff)):
        if not isinstance(number, int) or not 0 <= number <= largest:
            raise ValueError(f"send() needs numbers between 0 and {largest} behind the host, not {address!r}")
    return 0
