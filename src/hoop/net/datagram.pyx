"""The datagram transport: UDP, and UNIX datagram sockets.

Receiving. A readable socket gives up to a batch of datagrams for one system call (csrc/datagrams.h). Each is a callback
of its own: its microtasks run before the next one. What a batch holds when reading is paused, or when a callback raises
KeyboardInterrupt, is kept and delivered first afterwards; what it holds when the transport is closed is dropped, as is
what the kernel holds. So a batch is taken only from a socket that ends with its transport. One that was handed in, or
given out by get_extra_info(), may live on elsewhere, and there everything that was not delivered here must be found:
from such a socket each datagram is taken by itself.

Sending. sendto() hands the first datagram of a phase to the kernel at once. Those that follow in the same phase are
held until it ends (docs/writes.md), where the kernel can be given several for one receiver as one (UDP_SEGMENT): the
network stack, which takes nearly all the time, is then gone through once. Everywhere else each is sent at once:
sendmmsg(2) would save nothing measurable. The errors of held ones are told later than asyncio's, which come inside
sendto().

Addresses. Making a tuple from a sockaddr, and a sockaddr from a tuple, takes text and libc; so those of the latest
senders are kept. The socket object takes over where an address is not plain numbers: its rules, its errors and its
name look-ups are then the same as asyncio's.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromObject, PyBytes_FromStringAndSize, \
    PyBytes_GET_SIZE
from cpython.object cimport PyObject
from hoop.core.csrc cimport *
from hoop.core.errors cimport datagram_error
from hoop.core.handle cimport new_handle
from hoop.core.reactor cimport Reactor, flush_if_deferred, may_hold
from hoop.net.addresses cimport KnownAddresses, RawAddress, address_of, parse_address
from hoop.net.transport cimport TRANSPORT_CLOSED, TRANSPORT_CLOSING, TRANSPORT_LOST, TRANSPORT_OPEN, Transport, \
    check_unowned
from libc.errno cimport EAGAIN, EIO
from libc.stdint cimport int64_t
from libc.string cimport memcmp

import asyncio
import collections

cdef extern from "Python.h":
    int PySys_Audit(const char *event, const char *format, ...) except -1

cdef enum:
    LARGEST_UDP = 64 * 1024         # room per datagram; a UDP payload is shorter
    LARGEST_OTHER = 256 * 1024      # as asyncio's max_size
    HEADER_SIZE = 8                 # what a queued datagram counts beside its data, so that empty ones count too
    LONGEST_BACK_OFF = 5            # doublings of a millisecond


class SocketDatagramTransport(asyncio.DatagramTransport, asyncio.Transport):
    """What isinstance() sees of a datagram transport: as with asyncio's own, a DatagramTransport and a Transport."""

    __slots__ = ()


cdef class DatagramTransport(Transport):
    @property
    def __class__(self):
        return SocketDatagramTransport

    cdef int open(self, Reactor reactor, object sock, object protocol, object address, object waiter) except -1:
        """Take over sock. The next turn calls connection_made, begins reading and sets waiter."""
        self.family = sock.family
        self.address = address
        self.is_shared = True
        if self.family == AF_INET or self.family == AF_INET6:
            self.longest_joined = HOOP_JOINED_BYTES // 2
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

    cdef int flush_deferred(self) except -1:
        if self.state == TRANSPORT_CLOSED or not self.reactor.may_touch():
            return 0
        return flush_if_deferred(self.reactor)

    cdef int discard_held(self) except -1:
        self.held = None
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
            self.queue_datagram(data, addr)  # or others were refused just now, and it must come behind them
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
        cdef int result
        cdef Route route = self.route(addr, &raw)
        if route == ROUTE_SOCKET:
            return 1  # the socket object tells the audit hooks itself
        if route == ROUTE_RAW:
            self.tell_of_sending(addr)
        if self.may_hold_datagram(size):
            return self.hold(data, start, size, addr, route, &raw)
        flush_if_deferred(self.reactor)
        if self.queued is not None:
            return -EAGAIN
        self.reactor.must_poll = True  # the receiver may be watched by this very loop
        datagram.data = start
        datagram.size = size
        set_target(&datagram, route, &raw)
        result = hoop_datagram_send(self.fd, &datagram)
        if result == 0 and size <= self.longest_joined and self.reactor.in_callback and not self.is_prompt:
            may_hold(self.reactor, 0)
            self.reactor.defer_flush(self)  # which tells the next one of this phase that it is not the first
        return result

    cdef bint may_hold_datagram(self, Py_ssize_t size) noexcept:
        """Whether a datagram may wait for others: it is not the first of this phase, and the bounds allow it."""
        return (self.is_flush_due and self.reactor.in_callback and 0 < size <= self.longest_joined
                and not self.is_prompt and may_hold(self.reactor, size))

    cdef int hold(self, object data, const char *start, Py_ssize_t size, object addr, Route route,
                  const RawAddress *raw) except -1:
        """Hold a datagram, to be sent with those held before, or after them. 0, or -EAGAIN as send() has it."""
        if self.held is not None and not self.is_of_held_run(size, route, raw):
            self.send_held()
            if self.queued is not None:
                return -EAGAIN
        if not PyBytes_CheckExact(data):
            data = PyBytes_FromStringAndSize(start, size)
        if self.held is None:
            self.held = [data]
            self.held_length = size
            self.held_size = size
            self.held_target = addr
            self.held_route = route
            if route == ROUTE_RAW:
                self.held_raw = raw[0]
            self.is_run_ended = False
            return 0
        self.held.append(data)
        self.held_size += size
        self.is_run_ended = size < self.held_length
        return 0

    cdef bint is_of_held_run(self, Py_ssize_t size, Route route, const RawAddress *raw) noexcept:
        """Whether a datagram can be joined with those that are held."""
        if (self.is_run_ended or size > self.held_length or self.held_size + size > HOOP_JOINED_BYTES
                or len(self.held) >= HOOP_JOINED_MAX or route != self.held_route):
            return False
        return route == ROUTE_PEER or (raw.length == self.held_raw.length
                                       and memcmp(&raw.address, &self.held_raw.address, raw.length) == 0)

    cdef int on_flush(self, bint is_loop_calling) except -1:
        if self.held is None:
            return 0
        self.send_held()
        if self.queued is not None:
            if is_loop_calling:
                self.reactor.enter_context(self.context)
            self.await_room()
        return 0

    cdef int send_held(self) except -1:
        """Give the kernel what is held. Calls no method of the protocol: errors are told in the next turn, and of what
        finds no room the caller tells."""
        cdef hoop_datagram datagrams[HOOP_JOINED_MAX]
        cdef list held = self.held
        cdef int count = 0
        cdef int first = 0
        cdef int result
        cdef int errors[HOOP_JOINED_MAX]
        cdef int error_count = 0
        cdef int i
        self.held = None
        self.reactor.must_poll = True
        for data in held:
            datagrams[count].data = PyBytes_AS_STRING(data)
            datagrams[count].size = PyBytes_GET_SIZE(data)
            set_target(&datagrams[count], self.held_route, &self.held_raw)
            count += 1
        while first < count:
            result = self.send_first_of(&datagrams[first], count - first)
            if result == -EAGAIN:
                break
            if result < 0:
                errors[error_count] = result
                error_count += 1
                result = 1
            first += result
        while first < count:
            self.append_datagram(held[first], self.held_target)
            first += 1
        for i in range(error_count):
            self.reactor.schedule_method(self._error_received, datagram_error(errors[i]), self.context)
        return 0

    cdef int send_first_of(self, const hoop_datagram *datagrams, int count) noexcept:
        """Send all as one, where that can be, or the first: how many were taken, or -errno, about the first."""
        cdef int result
        if count > 1 and datagrams[0].size <= self.longest_joined:
            if not self.is_joining_known or self.is_shared:  # others might set an option of theirs
                if not hoop_datagrams_can_join(self.fd):
                    self.longest_joined = 0
                self.is_joining_known = True
            if self.longest_joined > 0:
                result = hoop_datagrams_send_joined(self.fd, datagrams, count)
                if result == 0:
                    return count
                if not hoop_datagrams_refuse_joining(result):
                    return result
                self.longest_joined = 0 if result == -EIO else datagrams[0].size - 1
        result = hoop_datagram_send(self.fd, datagrams)
        return 1 if result == 0 else result

    cdef int send_through_socket(self, object data, object addr) except -1:
        """Let the socket object send, by its own rules for addr. Looking up a host name blocks, as in asyncio."""
        flush_if_deferred(self.reactor)
        if self.queued is not None:
            return self.queue_datagram(data, addr)
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
        if self.is_connected and (addr is None or self.is_peer_named):
            return ROUTE_PEER
        if self.family != AF_INET and self.family != AF_INET6:
            return ROUTE_SOCKET
        if addr is not None and addr is self.latest_target:
            raw[0] = self.latest_raw
            return ROUTE_RAW
        if self.known is not None and addr is not None and self.known.find(addr, raw):
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
        self.append_datagram(data, addr)
        return self.await_room()

    cdef int append_datagram(self, object data, object addr) except -1:
        cdef bytes copy = PyBytes_FromObject(data)
        if self.queued is None:
            self.queued = collections.deque()
        self.queued.append((copy, addr))
        self.queued_size += len(copy) + HEADER_SIZE
        return 0

    cdef int await_room(self) except -1:
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
        if length == 0:
            return None
        if self.family == AF_UNIX:
            return address_of(<const sockaddr *>address, <socklen_t>length)
        if self.known is None:
            self.known = KnownAddresses()
        return self.known.tuple_of(<const sockaddr *>address, <socklen_t>length)


cdef inline void set_target(hoop_datagram *datagram, Route route, const RawAddress *raw) noexcept:
    if route == ROUTE_RAW:
        datagram.address = <const sockaddr *>&raw.address
        datagram.address_length = raw.length
    else:
        datagram.address = NULL
        datagram.address_length = 0


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
