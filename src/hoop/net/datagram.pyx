"""The datagram transport: UDP, and UNIX datagram sockets.

Receiving. A readable socket gives up to a batch of datagrams for one system call (csrc/datagrams.h). Each is a callback
of its own: its microtasks run before the next one. What a batch holds when reading is paused, or when a callback raises
KeyboardInterrupt, is kept and delivered first afterwards; what it holds when the transport is closed is dropped, as is
what the kernel holds. So a batch is taken only from a socket that ends with its transport. One that was handed in, or
given out by get_extra_info(), may live on elsewhere, and there everything that was not delivered here must be found:
from such a socket each datagram is taken by itself.

Sending. sendto() hands each datagram to the kernel at once. Collecting what a callback sends for one sendmmsg(2)
would save nothing measurable (on the loopback the network stack takes all the time), and the errors that asyncio
reports inside sendto() would come later, some never. Only datagrams that the kernel has refused go in batches.

Addresses. Making a tuple from a sockaddr, and a sockaddr from a tuple, takes text and libc; so the tuples of the
latest senders are kept, and a reply to such a tuple finds the sockaddr by the tuple's identity. The socket object
takes over where an address is not plain numbers: its rules, its errors and its name look-ups are then the same as
asyncio's.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromObject, PyBytes_FromStringAndSize, \
    PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from hoop.core.csrc cimport *
from hoop.core.errors cimport datagram_error
from hoop.core.handle cimport new_handle
from hoop.core.reactor cimport Reactor, flush_if_deferred
from hoop.net.addresses cimport RawAddress, address_of, parse_address
from hoop.net.transport cimport TRANSPORT_CLOSED, TRANSPORT_CLOSING, TRANSPORT_LOST, TRANSPORT_OPEN, Transport, \
    check_unowned
from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memcpy

import asyncio
import collections

cdef extern from "Python.h":
    int PySys_Audit(const char *event, const char *format, ...) except -1

cdef enum:
    KNOWN_BITS = 4
    KNOWN_COUNT = 1 << KNOWN_BITS   # senders remembered
    LARGEST_UDP = 64 * 1024         # room per datagram; a UDP payload is shorter
    LARGEST_OTHER = 256 * 1024      # as asyncio's max_size
    HEADER_SIZE = 8                 # what a queued datagram counts beside its data, so that empty ones count too
    LONGEST_BACK_OFF = 5            # doublings of a millisecond


class SocketDatagramTransport(asyncio.DatagramTransport, asyncio.Transport):
    """What isinstance() sees of a datagram transport: as with asyncio's own, a DatagramTransport and a Transport."""

    __slots__ = ()


cdef class DatagramTransport(Transport):
    def __dealloc__(self):
        PyMem_Free(self.known)

    @property
    def __class__(self):
        return SocketDatagramTransport

    cdef int open(self, Reactor reactor, object sock, object protocol, object address, object waiter) except -1:
        """Take over sock. The next turn calls connection_made, begins reading and sets waiter."""
        self.family = sock.family
        self.address = address
        self.is_shared = True
        try:
            peer = sock.getpeername()
            self.is_connected = True
        except OSError:
            peer = None
        self.is_peer_named = bool(peer)
        try:
            local = sock.getsockname()
        except OSError:
            local = None
        self.adopt(reactor, sock.fileno(), sock, protocol, None, None, {"peername": peer, "sockname": local})
        return self.begin_life(waiter)

    def _keep_socket_alone(self):
        """Called by the maker of a socket for this transport: no other code has it, until it is given out."""
        self.is_shared = False

    cdef object transport_socket(self):
        self.is_shared = True
        return Transport.transport_socket(self)

    def _connection_made(self):
        """As asyncio: an endpoint whose connection_made() raises stays open."""
        if self.state == TRANSPORT_CLOSED:
            return  # begin_life() failed on the way
        self.is_protocol_connected = True
        self.protocol.connection_made(self)

    cdef Py_ssize_t held_bytes(self) noexcept:
        return self.queued_size

    cdef int discard_held(self) except -1:
        self.queued = None
        self.queued_size = 0
        self.arrived = None
        return 0

    @property
    def _address(self):
        return self.address

    @property
    def _buffer(self):
        """The datagrams that wait, as asyncio's transports show them: a copy, for looking at."""
        return collections.deque(self.queued or ())

    # ---- methods of streams, which datagrams refuse ----------------------------------------------------------------

    def can_write_eof(self):
        """Raises NotImplementedError: a datagram endpoint is no stream."""
        raise NotImplementedError

    def write(self, data):
        """Raises NotImplementedError: see sendto()."""
        raise NotImplementedError

    def writelines(self, list_of_data):
        """Raises NotImplementedError: see sendto()."""
        self.write(b"".join(list_of_data))

    def write_eof(self):
        """Raises NotImplementedError: a datagram endpoint is no stream."""
        self.check_ours("transport.write_eof")
        raise NotImplementedError

    # ---- sending -------------------------------------------------------------------------------------------------

    def sendto(self, data, addr=None):
        """Send one datagram (bytes, bytearray or memoryview) to addr, or to the address that the endpoint was made for.

        Never blocks: what the kernel has no room for is kept and sent in order. Failures are told to error_received(),
        and the endpoint goes on. TypeError for other data; ValueError for another address than the endpoint's. As with
        asyncio, close() ends it only once nothing waits any more, and an endpoint without an address of its own sends
        until connection_lost() is called, if the kernel has room. After that data is dropped.
        """
        self.check_ours("transport.sendto")
        cdef Py_buffer view
        cdef int result
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self.address is not None:
            if addr is not None and addr != self.address:
                raise ValueError(f"Invalid address: must be None or {self.address}")
            addr = self.address
        if self.state >= TRANSPORT_LOST and (self.address is not None or self.fd < 0):
            self.note_dropped_write()
            return
        if self.queued is not None:
            if not self.is_connected:
                self.tell_of_sending(addr)
            self.queue_datagram(data, addr)
            return
        if PyBytes_CheckExact(data):
            result = self.send(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), addr)
        else:
            try:
                PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            except (BufferError, ValueError) as error:  # not contiguous; released
                self.fatal(error, "Fatal write error on datagram transport")
                return
            try:
                result = self.send(data, <const char *>view.buf, view.len, addr)
            finally:
                PyBuffer_Release(&view)
        if result == -EAGAIN:
            self.queue_datagram(data, addr)
        elif result < 0:
            self.protocol.error_received(datagram_error(result))
        elif result > 0:
            self.send_through_socket(data, addr)

    cdef int tell_of_sending(self, object addr) except -1:
        """Tell the audit hooks, as socket.sendto() does; without hooks, one comparison."""
        return PySys_Audit("socket.sendto", "OO", <PyObject *>self.sock, <PyObject *>addr)

    cdef int send(self, object data, const char *start, Py_ssize_t size, object addr) except? -1:
        """0, -errno, or 1 where only the socket object can send to addr. Calls no method of the protocol."""
        cdef RawAddress raw
        cdef hoop_datagram datagram
        cdef Route route = self.route(addr, &raw)
        if route == ROUTE_SOCKET:
            return 1  # the socket object tells the audit hooks itself
        if route == ROUTE_RAW:
            self.tell_of_sending(addr)
        flush_if_deferred(self.reactor)
        self.reactor.must_poll = True  # the receiver may be watched by this very loop
        datagram.data = start
        datagram.size = size
        set_target(&datagram, route, &raw)
        return hoop_datagram_send(self.fd, &datagram)

    cdef int send_through_socket(self, object data, object addr) except -1:
        """Let the socket object send, by its own rules for addr. Looking up a host name blocks, as in asyncio."""
        self.reactor.must_poll = True
        try:
            if addr is None and self.is_connected:
                self.sock.send(data)
            else:
                self.sock.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            self.queue_datagram(data, addr)
        except OSError as error:
            self.protocol.error_received(error)
        except BaseException as error:
            self.callback_failed(error, "Fatal write error on datagram transport")
        return 0

    cdef Route route(self, object addr, RawAddress *raw) except *:
        cdef int i
        if self.is_connected and (addr is None or self.is_peer_named):
            return ROUTE_PEER
        if self.family != AF_INET and self.family != AF_INET6:
            return ROUTE_SOCKET
        if addr is not None and addr is self.latest_target:
            raw[0] = self.latest_raw
            return ROUTE_RAW
        if self.known_tuples is not None and addr is not None:
            for i in range(KNOWN_COUNT):
                if self.known_tuples[i] is addr:
                    raw[0] = self.known[i]
                    return ROUTE_RAW
        if not parse_address(self.family, addr, raw):
            return ROUTE_SOCKET
        self.latest_target = addr
        self.latest_raw = raw[0]
        return ROUTE_RAW

    cdef int queue_datagram(self, object data, object addr) except -1:
        """Keep the datagram until the kernel has room."""
        if self.state >= TRANSPORT_LOST:
            self.note_dropped_write()
            return 0
        cdef bytes copy = PyBytes_FromObject(data)
        if self.queued is None:
            self.queued = collections.deque()
        self.queued.append((copy, addr))
        self.queued_size += len(copy) + HEADER_SIZE
        self.update_interest()
        if self.state < TRANSPORT_LOST:  # the poller took it
            self.pause_protocol()
        return 0

    cdef int send_queued(self) except? -1:
        """Give the kernel a batch of what is queued; return how many it took or failed on, 0 if it has no room."""
        cdef hoop_datagram datagrams[HOOP_DATAGRAMS_MAX]
        cdef RawAddress raws[HOOP_DATAGRAMS_MAX]
        cdef Route route
        cdef int count = 0
        cdef int result
        self.reactor.must_poll = True
        for data, addr in self.queued:
            route = self.route(addr, &raws[count])
            if route == ROUTE_SOCKET:
                break
            datagrams[count].data = PyBytes_AS_STRING(data)
            datagrams[count].size = PyBytes_GET_SIZE(data)
            set_target(&datagrams[count], route, &raws[count])
            count += 1
            if count == HOOP_DATAGRAMS_MAX:
                break
        if count == 0:
            return self.send_first_through_socket()
        result = hoop_datagrams_send(self.fd, datagrams, count)
        if result == -EAGAIN:
            return 0
        if result > 0:
            self.drop_queued(result)
            return result
        self.drop_queued(1)
        self.reactor.enter_context(self.context)
        self._error_received(datagram_error(result))
        return 1

    cdef int send_first_through_socket(self) except? -1:
        data, addr = self.queued[0]
        try:
            self.sock.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self.drop_queued(1)
            self.reactor.enter_context(self.context)
            self._error_received(error)
            return 1
        except BaseException as error:
            self.callback_failed(error, "Fatal write error on datagram transport")
            return 1
        self.drop_queued(1)
        return 1

    cdef int drop_queued(self, Py_ssize_t count) except -1:
        while count > 0:
            data, _ = self.queued.popleft()
            self.queued_size -= PyBytes_GET_SIZE(data) + HEADER_SIZE
            count -= 1
        if not self.queued:
            self.queued = None
        return 0

    cdef int on_writable(self) except -1:
        cdef int result
        cdef int rounds = 0
        cdef bint has_moved = False
        while self.queued is not None and rounds < HOOP_DATAGRAMS_MAX:
            rounds += 1
            result = self.send_queued()
            if result == 0:
                break
            has_moved = True
        if self.state >= TRANSPORT_LOST:
            return 0
        if has_moved:
            self.refusals = 0
        elif self.queued is not None:
            self.back_off()
        self.update_interest()
        if self.is_writing_paused:
            self.reactor.enter_context(self.context)
            self.resume_protocol()  # may send, close or abort
        if self.queued is None and self.state == TRANSPORT_CLOSING:
            self.lose(None)
        return 0

    cdef int back_off(self) except -1:
        """A socket is writable while it has room itself, also when the receiver's queue is full (UNIX) or the room is
        too small for this datagram: asking again at once would spin."""
        cdef int64_t deadline_ns = self.reactor.now_ns() + (<int64_t>1000000 << self.refusals)
        if self.refusals < LONGEST_BACK_OFF:
            self.refusals += 1
        self.is_backing_off = True
        self.reactor.schedule_timer(deadline_ns, self._try_again, NULL, 0, self.context)
        return 0

    def _try_again(self):
        self.is_backing_off = False
        self.update_interest()

    # ---- receiving -----------------------------------------------------------------------------------------------

    def resume_reading(self):
        """Undo pause_reading(); what was received by then comes first. Idempotent."""
        self.check_ours("transport.resume_reading")
        cdef bint was_paused = self.is_reading_paused
        Transport.resume_reading(self)
        if was_paused and not self.is_reading_paused and self.arrived is not None:
            self.deliver_later()

    cdef int stop_reading(self) except -1:
        self.arrived = None
        return self.update_interest()

    cdef int update_interest(self) except -1:
        """Ask the poller for what this state waits for."""
        cdef unsigned interest = 0
        if self.state >= TRANSPORT_LOST:
            return 0
        if self.state == TRANSPORT_OPEN and self.is_reading_started and not self.is_reading_paused:
            interest = HOOP_READABLE
        if self.queued is not None and not self.is_backing_off:
            interest |= HOOP_WRITABLE
        # also when it waits for nothing yet: the table can own only what stands in it
        if self.is_watched or interest != 0 or (self.is_kept_idle and self.state == TRANSPORT_OPEN):
            return self.want(interest)
        return 0

    cdef int on_events(self, unsigned events) except -1:
        if events & HOOP_READABLE:
            self.on_readable()
        if events & HOOP_WRITABLE and self.queued is not None and self.state < TRANSPORT_LOST:
            self.on_writable()
        return 0

    def _read_ready(self):
        self.on_readable()

    cdef int on_readable(self) except -1:
        cdef hoop_datagram datagrams[HOOP_DATAGRAMS_MAX]
        cdef Reactor reactor = self.reactor
        cdef int count, i
        cdef list arrived
        if self.arrived is not None:
            return self.deliver_arrived()  # deliver older datagrams first
        if self.family != AF_INET and self.family != AF_INET6 and self.family != AF_UNIX:
            return self.receive_through_socket()
        if reactor.datagram_reader == NULL:
            reactor.datagram_reader = hoop_datagram_reader_open()
            if reactor.datagram_reader == NULL:
                raise MemoryError()
        if self.is_shared:
            return self.receive_singly()
        count = hoop_datagram_reader_receive(
            reactor.datagram_reader, self.fd, LARGEST_OTHER if self.family == AF_UNIX else LARGEST_UDP, datagrams)
        if count == -EAGAIN:
            return 0
        if count < 0:
            return self.deliver_one(datagram_error(count), None)
        if count == 1:
            return self.deliver_one(PyBytes_FromStringAndSize(datagrams[0].data, datagrams[0].size),
                                    self.sender(datagrams[0].address, datagrams[0].address_length))
        # copy all of them first: a callback could make another endpoint use the reader
        arrived = []
        for i in range(count):
            arrived.append(self.bytes_or_error(datagrams[i].size, datagrams[i].data))
            arrived.append(self.sender(datagrams[i].address, datagrams[i].address_length))
        self.arrived = arrived
        self.arrived_next = 0
        return self.deliver_arrived()

    cdef int receive_singly(self) except -1:
        """Receive up to a batch, but each only once the one before it is delivered and reading goes on."""
        cdef hoop_datagram datagram
        cdef Py_ssize_t largest = LARGEST_OTHER if self.family == AF_UNIX else LARGEST_UDP
        cdef int result, _attempt
        for _attempt in range(HOOP_DATAGRAMS_MAX):
            result = hoop_datagram_reader_receive_one(self.reactor.datagram_reader, self.fd, <size_t>largest, &datagram)
            if result == -EAGAIN:
                return 0
            if result < 0:
                self.deliver_one(datagram_error(result), None)
            else:
                self.deliver_one(PyBytes_FromStringAndSize(datagram.data, datagram.size),
                                 self.sender(datagram.address, datagram.address_length))
            if self.reactor.after_is_due:
                self.reactor.settle()
            if self.state != TRANSPORT_OPEN or self.is_reading_paused or self.arrived is not None:
                return 0
        return 0

    cdef object bytes_or_error(self, Py_ssize_t size, const char *data):
        return datagram_error(size) if size < 0 else PyBytes_FromStringAndSize(data, size)

    cdef int receive_through_socket(self) except -1:
        """Let the socket module receive: it knows the other families of addresses."""
        try:
            data, addr = self.sock.recvfrom(LARGEST_OTHER)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            return self.deliver_one(error, None)
        return self.deliver_one(data, addr)

    def _deliver(self):
        if self.arrived is not None:
            self.deliver_arrived()

    cdef int deliver_arrived(self) except -1:
        """Deliver what has arrived, one callback each, until none is left or the protocol stops reading."""
        cdef bint is_last = False
        try:
            while self.arrived is not None and self.state == TRANSPORT_OPEN and not self.is_reading_paused:
                data = self.arrived[self.arrived_next]
                addr = self.arrived[self.arrived_next + 1]
                self.arrived_next += 2
                is_last = self.arrived_next == len(self.arrived)
                if is_last:
                    self.arrived = None
                self.deliver_one(data, addr)
                if not is_last and self.reactor.after_is_due:
                    self.reactor.settle()
        except BaseException:
            if self.arrived is not None:
                self.deliver_later()
            raise
        return 0

    cdef int deliver_later(self) except -1:
        try:
            self.reactor.schedule(self._deliver, NULL, 0, self.context)
        except MemoryError:
            self.is_deliver_due = True
            self.reactor.run_errand_later(self)
        return 0

    cdef int on_errand(self) except -1:
        if self.is_deliver_due:
            self.is_deliver_due = False
            self._deliver()
        return Transport.on_errand(self)

    cdef int deliver_one(self, object data, object addr) except -1:
        """datagram_received, or error_received for an exception. The endpoint survives what the protocol raises."""
        self.reactor.enter_context(self.context)
        try:
            if PyBytes_CheckExact(data):
                self.protocol.datagram_received(data, addr)
            else:
                self.protocol.error_received(data)
        except BaseException as error:
            self.reactor.handle_failed(new_handle(self.reactor, self._read_ready, NULL, 0, self.context), error)
        return 0

    def _error_received(self, error):
        """Report the error of a datagram that waited: its sendto() has returned."""
        self.deliver_one(error, None)

    cdef object sender(self, const void *address, Py_ssize_t length):
        """The tuple for a received sockaddr; a path for a UNIX one, None where there is none."""
        cdef RawAddress *raw
        cdef int slot
        if length == 0:
            return None
        if self.family == AF_UNIX:
            return address_of(<const sockaddr *>address, <socklen_t>length)
        if length > <Py_ssize_t>sizeof(sockaddr_in6):
            return None
        if self.known == NULL:
            self.known_tuples = [None] * KNOWN_COUNT
            self.known = <RawAddress *>PyMem_Calloc(KNOWN_COUNT, sizeof(RawAddress))
            if self.known == NULL:
                self.known_tuples = None
                raise MemoryError()
        slot = slot_of(<const char *>address, length)
        raw = &self.known[slot]
        if <Py_ssize_t>raw.length != length or memcmp(&raw.address, address, <size_t>length) != 0:
            found = address_of(<const sockaddr *>address, <socklen_t>length)
            memcpy(&raw.address, address, <size_t>length)
            raw.length = <socklen_t>length
            self.known_tuples[slot] = found
        return self.known_tuples[slot]


# ---- addresses ----------------------------------------------------------------------------------------------------

cdef inline void set_target(hoop_datagram *datagram, Route route, RawAddress *raw) noexcept:
    if route == ROUTE_RAW:
        datagram.address = <const sockaddr *>&raw.address
        datagram.address_length = raw.length
    else:
        datagram.address = NULL
        datagram.address_length = 0


cdef int slot_of(const char *address, Py_ssize_t length) noexcept:
    """A hash over port and host; both families have the port, and IPv4 the host, in the first eight bytes."""
    cdef uint32_t words[7]
    cdef uint32_t mixed
    if length < 8:
        return 0
    words[5] = words[4] = words[3] = 0
    memcpy(words, address, <size_t>min(length, <Py_ssize_t>sizeof(words)))
    mixed = words[0] ^ words[1] * <uint32_t>0x85ebca6b
    if length > 16:  # IPv6
        mixed ^= words[5] * <uint32_t>0xc2b2ae35 ^ words[3]
    return <int>((mixed * <uint32_t>0x9e3779b1) >> (32 - KNOWN_BITS))


def make_datagram(Reactor reactor not None, sock, protocol, address, waiter=None):
    """A transport that owns sock (non-blocking). With an address, sendto() accepts no other.

    On failure, sock stays the caller's, and open.
    """
    cdef DatagramTransport transport = DatagramTransport.__new__(DatagramTransport)
    check_unowned(reactor, sock)
    try:
        reactor.check_ours("create_datagram_endpoint")
        transport.open(reactor, sock, protocol, address, waiter)
    except BaseException:
        transport.disown()
        raise
    return transport
