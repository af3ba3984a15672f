"""What every transport is: a protocol bound to a descriptor, watermarks, and the states from open to closed.

    CLOSED --adopt()--> OPEN --close()--> CLOSING --all delivered--> LOST --connection_lost()--> CLOSED
    OPEN, CLOSING --abort(), an error--> LOST

connection_lost() comes in the next turn. A transport that cannot begin, or that is thrown away, goes to CLOSED at once.

From adopt() on, the transport alone owns the descriptor. It closes a caller's socket object through that object; one
made for get_extra_info("socket") it detaches before it closes the descriptor.
"""
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from hoop.core.cpython_api cimport PyContext_CopyCurrent, instance_dict
from hoop.core.csrc cimport AF_UNIX, getpeername, getsockname, hoop_net_close, sockaddr
from hoop.core.errors cimport error_saying, os_error, pass_exits_on
from hoop.core.handle cimport new_handle
from hoop.core.ownership cimport IS_FREE_THREADED
from hoop.core.reactor cimport Reactor, Watcher, flush_if_deferred
from hoop.core.scheduler cimport check_caller
from hoop.core.timeouts cimport Guard
from hoop.net.addresses cimport KeptAddress, family_of, forget_address, keep_address, kept_address_of, read_address
from hoop.net.flow_control cimport pause_above, resume_below, set_watermarks
from libc.errno cimport EBADF

import asyncio
import socket as socket_module
import warnings
from asyncio.log import logger
from asyncio.trsock import TransportSocket

from hoop.net.connection_socket import ConnectionSocket, ProxiedSocket

# Finalizers may run when the interpreter's end has emptied this module, so what they call is no attribute of it.
cdef object warn = warnings.warn

cdef object NO_ERROR = object()  # owed to connection_lost() after an ordinary end


cdef enum:
    DEFAULT_HIGH_WATER = 64 * 1024
    DROPPED_WRITES_UNTIL_WARNING = 5  # asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES


class shown:
    """Decorates the getter of a private name of asyncio's. Unlike a property, it lets an instance have the name."""

    def __init__(self, read):
        self.read = read

    def __get__(self, instance, owner=None):
        return self if instance is None else self.read(instance)


cdef int spare_dict(object item) except -1:
    """Drop the __dict__ that Cython makes for each instance at once: Python makes one for the first attribute."""
    cdef PyObject **slot = instance_dict(item)
    cdef PyObject *attributes = slot[0]
    slot[0] = NULL
    Py_XDECREF(attributes)
    return 0


cdef class Transport(Watcher):
    def __cinit__(self):
        spare_dict(self)
        self.marks.high = DEFAULT_HIGH_WATER
        self.marks.low = DEFAULT_HIGH_WATER // 4
        self.enter(TRANSPORT_CLOSED)

    @property
    def __class__(self):
        return asyncio.Transport

    cdef int adopt(self, Reactor reactor, int fd, object sock, object protocol, object context, object server,
                   dict extra) except -1:
        """Take over fd (and sock, the object around it, if there is one). It must be non-blocking.

        On failure, the transport owns nothing, and the caller closes what it brought: so what may fail comes first.
        """
        cdef object peer = None
        cdef object local = None
        if context is None:
            context = PyContext_CopyCurrent()
        if self.peer == 0 and (extra is None or "peername" not in extra):
            peer = read_address(getpeername, fd, &self.peer)
        if self.local == 0 and (extra is None or "sockname" not in extra):
            local = read_address(getsockname, fd, &self.local)
        if peer is not None or local is not None:
            extra = {"peername": peer, "sockname": local, **(extra or {})}
        self.bind_protocol(protocol)  # isinstance() asks it
        if server is not None:
            server._attach(self)
        self.enter(TRANSPORT_OPEN)
        self.reactor = reactor
        self.is_prompt = not reactor.defers_writes
        self.fd = fd
        self.sock = sock
        self.closer = BARE if sock is None else OWNED
        self.server = server
        self.extra = extra
        self.context = context
        if server is not None:
            reactor.board.accepts += 1
            reactor.board.connections += 1
        return 0

    cdef int enter(self, TransportState state) except -1:
        """Go on to state: the one assignment to it. RuntimeError for a way back, once it has adopted a descriptor."""
        if state <= self.state and self.reactor is not None:
            raise RuntimeError(f"a transport in state {self.state} cannot go to {state}")
        self.state = state
        return 0

    cdef int offer_peer(self, const sockaddr *address, socklen_t length) except -1:
        """Before adopt(): keep the address that accept(2) gave. A socket that was reset no longer knows its peer."""
        cdef object name = keep_address(address, length, &self.peer)
        if name is not None:
            self.extra = {"peername": name}
        return 0

    cdef int know_peer(self, object address) except -1:
        """After adopt(): the address that was connected to, for a connection that was reset before any caller asked."""
        if self.peer == 0 and (self.extra is None or self.extra.get("peername") is None):
            self.extra = {**(self.extra or {}), "peername": address}
        return 0

    cdef int show_proxied(self, const sockaddr *source, socklen_t source_length, const sockaddr *destination,
                          socklen_t destination_length, dict extra) except -1:
        """Before adopt(): the addresses at the far ends of a proxied connection, if they have a length, and what else
        get_extra_info() is to show."""
        if source_length > 0:
            extra["peername"] = keep_address(source, source_length, &self.peer)
            extra["sockname"] = keep_address(destination, destination_length, &self.local)
            if self.peer != 0:
                del extra["peername"]
            if self.local != 0:
                del extra["sockname"]
        elif self.extra is not None:
            extra.update(self.extra)
        self.extra = extra
        return 0

    # ---- what kinds of transport define --------------------------------------------------------------------------

    cdef int bind_protocol(self, object protocol) except -1:
        self.protocol = protocol
        return 0

    cdef Py_ssize_t held_bytes(self) noexcept:
        """How many bytes write() accepted and the kernel has not taken yet."""
        return 0

    cdef int flush_deferred(self) except -1:
        """Give the kernel what was deferred, not refused: of all transports of the loop, in the order of writes."""
        return 0

    cdef int discard_held(self) except -1:
        return 0

    cdef int update_interest(self) except -1:
        """Ask the poller for what the transport's state waits for."""
        return 0

    cdef int want(self, unsigned interest) except -1:
        """Wait for interest. If the poller refuses the descriptor, the transport ends."""
        if self.is_watched:
            return self.reactor.set_interest(self, interest)
        try:
            self.reactor.watch(self, interest)
        except (OSError, MemoryError) as error:
            self.fatal(error, "Fatal error on transport: the poller refused its descriptor")
        return 0

    # ---- the protocol's life -------------------------------------------------------------------------------------

    cdef int begin_life(self, object waiter) except -1:
        """Schedule connection_made, reading and waiter: for a connection made outside of the I/O phase."""
        cdef Reactor reactor = self.reactor
        reactor.schedule(self._connection_made, NULL, 0, self.context)
        reactor.schedule(self._begin_reading, NULL, 0, self.context)
        if waiter is not None:
            reactor.schedule_method(waiter_done, waiter, None)
        return 0

    def _connection_made(self):
        """Call connection_made, as a callback of its own. The caller reports an exception."""
        if self.state == TRANSPORT_CLOSED:
            return  # begin_life() failed on the way
        self.is_protocol_connected = True
        try:
            self.protocol.connection_made(self)
        except BaseException as error:
            if not isinstance(error, (SystemExit, KeyboardInterrupt)):
                self.flush_deferred()
                self.lose(error)
            raise

    def _begin_reading(self):
        if self.state == TRANSPORT_OPEN:
            self.start_reading()

    def _call_connection_lost(self, error):
        try:
            if self.is_protocol_connected:
                self.is_protocol_connected = False
                self.protocol.connection_lost(error)
        finally:
            self.release()

    cdef int connection_made_now(self) except -1:
        """Call connection_made and begin reading, inside a callback of the loop (an accepted connection)."""
        self.reactor.enter_context(self.context)
        try:
            self._connection_made()
        except BaseException as error:
            return self.reactor.handle_failed(
                new_handle(self.reactor, self._connection_made, NULL, 0, self.context), error)
        self._begin_reading()
        return 0

    cdef int begin_close(self) except -1:
        """Stop reading, deliver what write() accepted, then lose the connection: close()."""
        if self.state != TRANSPORT_OPEN:
            return 0
        self.flush_deferred()
        if self.state != TRANSPORT_OPEN:
            return 0  # that failed
        self.enter(TRANSPORT_CLOSING)
        self.stop_reading()
        return self.end_delivered() if self.held_bytes() == 0 else 0

    cdef int end_delivered(self) except -1:
        """close() was called, and the kernel has all that was written: lose the connection."""
        return self.lose(None)

    cdef int lose(self, object error) except -1:
        """End the connection; connection_lost(error) comes in the next turn. Only the first cause counts."""
        if self.state >= TRANSPORT_LOST:
            return 0
        self.enter(TRANSPORT_LOST)
        self.discard_held()
        self.reactor.unwatch(self)
        if not self.reactor.closed:
            try:
                self.reactor.schedule_method(self._call_connection_lost, error, self.context)
            except MemoryError:
                self.owed = NO_ERROR if error is None else error
                self.reactor.run_errand_later(self)
        return 0

    cdef int on_errand(self) except -1:
        """Call connection_lost, as a callback of the loop."""
        cdef object error = self.owed
        if error is None or self.state != TRANSPORT_LOST:
            return 0
        self.owed = None
        if error is NO_ERROR:
            error = None
        self.reactor.enter_context(self.context)
        try:
            self._call_connection_lost(error)
        except BaseException as failure:
            return self.reactor.callback_failed(failure, "Exception in connection_lost()", self, None)
        return 0

    cdef int fatal(self, object error, str message) except -1:
        """Report a failed system call, or a protocol that raised; then lose the connection."""
        if isinstance(error, OSError):
            if self.reactor.debug:
                logger.debug("%r: %s", self, message, exc_info=error)
        else:
            self.reactor.report_failure(message, error, self, self.protocol)
        return self.lose(error)

    cdef int callback_failed(self, object error, str message) except -1:
        """End the connection with what a method of the protocol has raised, unless that leaves the loop. What was
        written before is sent, as in asyncio."""
        pass_exits_on(error)
        if self.state < TRANSPORT_LOST:
            self.flush_deferred()
        return self.fatal(error, message)

    cdef int release(self) except -1:
        """Close the descriptor, and let go of protocol, server and guard."""
        cdef object server = self.server
        cdef object sock = self.sock
        cdef Guard guard = self.guard
        cdef int fd = self.fd
        if self.state == TRANSPORT_CLOSED:
            return 0
        self.enter(TRANSPORT_CLOSED)
        self.discard_held()
        if self.reactor is not None:
            self.reactor.unwatch(self)
            self.reactor.must_poll = True
        self.fd = -1
        self.server = None
        self.bind_protocol(None)
        if sock is not None and self.closer != BORROWED:
            if self.closer == DUPLICATE and fd >= 0:
                hoop_net_close(fd)
            sock.close()
        else:
            if sock is not None and sock.detach() < 0:
                fd = -1  # the collector has come to the socket object first, and that has closed it
            if fd >= 0:
                hoop_net_close(fd)
        if guard is not None:
            self.guard = None
            guard.on_released()
        if server is not None:
            self.reactor.board.connections -= 1
            server._detach(self)
        return 0

    cdef int disown(self) except -1:
        """Give descriptor and socket object back to the caller: a step after adopt() has failed. Call no protocol."""
        if self.reactor is not None:
            self.reactor.unwatch(self)
        self.fd = -1
        self.sock = None
        return self.release()

    def _release(self):
        """For a finalizer that ran in a foreign thread. Other code may have ended the transport since."""
        if self.state != TRANSPORT_LOST or self.reactor.closed:  # else connection_lost() is on its way, and releases
            self.release()

    cdef int on_failed(self, object error) except -1:
        """Handle an error of an event that no code has caught: mostly a failed allocation."""
        return self.fatal(error, "Fatal error on transport")

    cdef int on_watch_failed(self, int error) except -1:
        return self.fatal(os_error(-error), "Fatal error on transport: the poller refused its descriptor")

    cdef int on_descriptor_lost(self) except -1:
        """Other code has closed our descriptor, and the number is in use again: never touch it."""
        if self.sock is not None:
            self.sock.detach()
        return self.fatal(error_saying(-EBADF, "the transport's descriptor was closed behind its back"),
                          "Fatal error on transport")

    def __del__(self):
        if self.state == TRANSPORT_CLOSED:
            return
        if self.state == TRANSPORT_LOST and not self.reactor.closed:
            return  # a finalizer of the same garbage has closed it: connection_lost() is on its way, and releases
        try:
            warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
        finally:  # under -W error the warning raises
            if self.reactor is None or self.reactor.closed or self.reactor.may_touch():
                self.release()
            else:  # the collector runs in a foreign thread
                self.reactor.keep_idle(self)  # else the table's pointer would dangle if the loop closed first
                try:
                    self.reactor.post(self._release, NULL, 0, None)
                except RuntimeError:
                    pass  # its thread closes the loop just now, and lets go of all that it watches: see __dealloc__()

    def __dealloc__(self):
        """Close the descriptor where the loop was closed before it ran what the finalizer posted.

        A socket object closes its own.
        """
        if self.state != TRANSPORT_CLOSED and self.fd >= 0 and (self.closer == BARE or self.closer == DUPLICATE):
            hoop_net_close(self.fd)
        forget_address(&self.peer)
        forget_address(&self.local)

    # ---- reading: two flags, which update_interest() translates for the poller ------------------------------------

    cdef int start_reading(self) except -1:
        self.is_reading_started = True
        return self.update_interest()

    cdef int stop_reading(self) except -1:
        """Deliver nothing more: the transport is closing."""
        return self.update_interest()

    def is_reading(self):
        """Whether new data is being delivered."""
        return self.state == TRANSPORT_OPEN and not self.is_reading_paused

    def pause_reading(self):
        """Deliver no more data until resume_reading(). Idempotent."""
        self.check_ours("transport.pause_reading")
        if self.is_reading_paused or self.state != TRANSPORT_OPEN:
            return
        self.is_reading_paused = True
        self.update_interest()

    def resume_reading(self):
        """Undo pause_reading(). Idempotent."""
        self.check_ours("transport.resume_reading")
        if not self.is_reading_paused or self.state != TRANSPORT_OPEN:
            return
        self.is_reading_paused = False
        self.update_interest()

    # ---- watermarks ----------------------------------------------------------------------------------------------

    cdef int pause_protocol(self) except -1:
        """The kernel has refused more than the high-water mark. Runs in the current context."""
        return pause_above(&self.marks, &self.is_writing_paused, self.held_bytes(), self.reactor, self, self.protocol)

    cdef int resume_protocol(self) except -1:
        return resume_below(&self.marks, &self.is_writing_paused, self.held_bytes(), self.reactor, self, self.protocol)

    cdef int note_dropped_write(self) except -1:
        return count_dropped_write(&self.dropped_writes, "socket.send() raised exception.")

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the watermarks in bytes: pause_writing() above high, resume_writing() at or below low.

        Defaults are asyncio's (64 KiB, and a quarter). ValueError unless high >= low >= 0.
        """
        self.check_ours("transport.set_write_buffer_limits")
        set_watermarks(&self.marks, high, low, DEFAULT_HIGH_WATER)
        self.flush_deferred()
        self.pause_protocol()

    def get_write_buffer_limits(self):
        """(low, high) in bytes."""
        return (self.marks.low, self.marks.high)

    def get_write_buffer_size(self):
        """Bytes that the kernel has not taken yet."""
        self.flush_deferred()
        return self.held_bytes()

    def set_write_deferral(self, enabled):
        """Let write() and sendto() hold bytes until the running phase has ended (docs/writes.md), or not: then they
        send at once, as asyncio's do; what is held is sent now. The default is the loop's; pipes have it switched off.
        """
        self.check_ours("transport.set_write_deferral")
        self.is_prompt = not enabled
        if self.is_prompt and self.state < TRANSPORT_LOST:
            self.flush_deferred()

    # ---- asyncio.BaseTransport -----------------------------------------------------------------------------------

    def get_protocol(self):
        """The protocol that the transport calls now."""
        return self.protocol

    def set_protocol(self, protocol):
        """Call another protocol from now on."""
        self.check_ours("transport.set_protocol")
        self.flush_deferred()
        self.bind_protocol(protocol)

    def is_closing(self):
        """Whether close(), abort() or an error has ended the connection or is about to."""
        return self.state != TRANSPORT_OPEN

    cdef int check_ours(self, str method) except -1:
        """A connection that still lives is for its loop's own thread. RuntimeError for others: always without a GIL, in
        debug mode with it."""
        if self.state < TRANSPORT_LOST and self.reactor is not None:
            check_caller(self.reactor, method)
        return 0

    def close(self):
        """Deliver what was written, then close. Receive no more data."""
        self.check_ours("transport.close")
        self.begin_close()

    def abort(self):
        """Close at once; what the kernel has not taken is lost."""
        self.check_ours("transport.abort")
        self._force_close(None)

    def _force_close(self, error):
        """Abort, and tell connection_lost the reason. asyncio.sslproto and our own TLS call this."""
        if self.state < TRANSPORT_LOST:
            self.flush_deferred()
        self.lose(error)

    def get_extra_info(self, name, default=None):
        """"socket", "peername", "sockname", or what the transport's maker provided; else default."""
        cdef object value
        if (name == "socket" or name == "pipe") and self.reactor is not None:
            flush_if_deferred(self.reactor)  # what is done with it comes after what was written before
        if self.extra is not None and name in self.extra:
            return self.extra[name]
        if name == "peername":
            value = kept_address_of(self.peer)
        elif name == "sockname":
            value = kept_address_of(self.local)
        elif name == "socket":
            self.check_ours('transport.get_extra_info("socket")')
            value = self.transport_socket()
        else:
            return default
        if value is None:
            return default
        if IS_FREE_THREADED and self.reactor is not None and not self.reactor.is_ours():
            return value  # a name for a log, perhaps: its loop alone keeps it
        if self.extra is None:
            self.extra = {}
        self.extra[name] = value
        return value

    cdef object transport_socket(self):
        if self.sock is None:
            if self.fd < 0:
                return closed_socket(self.local)
            sock = socket_module.socket(fileno=self.fd)
            self.sock = sock
            self.closer = BORROWED
            sock.setblocking(False)  # else dup() would set the blocking mode of the open file, which both share
        if self.extra is not None and "proxy_peername" in self.extra:
            return ProxiedSocket(
                self.sock, self.reactor, self.get_extra_info("peername"), self.get_extra_info("sockname"))
        return ConnectionSocket(self.sock, self.reactor)

    # Names of asyncio's that programs read although asyncio never promised them. For looking at, not for changing.

    @property
    def _loop(self):
        return self.reactor

    @property
    def _protocol(self):
        return self.protocol

    @property
    def _protocol_paused(self):
        return self.is_writing_paused

    @property
    def _protocol_connected(self):
        return self.is_protocol_connected

    @property
    def _server(self):
        return self.server

    @property
    def _extra(self):
        for name in ("peername", "sockname", "socket"):
            self.get_extra_info(name)
        return self.extra

    @property
    def _sock(self):
        return None if self.state == TRANSPORT_CLOSED else self.get_extra_info("socket")

    @property
    def _sock_fd(self):
        return self.fd

    @property
    def _closing(self):
        return self.state != TRANSPORT_OPEN

    @property
    def _paused(self):
        return self.is_reading_paused

    @property
    def _conn_lost(self):
        return self.dropped_writes + (self.state >= TRANSPORT_LOST)

    @property
    def _high_water(self):
        return self.marks.high

    @property
    def _low_water(self):
        return self.marks.low

    def __repr__(self):
        names = {TRANSPORT_OPEN: "open", TRANSPORT_CLOSING: "closing", TRANSPORT_LOST: "closing",
                 TRANSPORT_CLOSED: "closed"}
        words = [type(self).__name__, names[self.state]]
        if self.fd >= 0:
            words.append(f"fd={self.fd}")
        peer = self.get_extra_info("peername")
        if peer:
            words.append(f"peer={peer!r}")
        if self.held_bytes() > 0:
            words.append(f"unsent={self.held_bytes()}")
        return f"<{' '.join(words)}>"


cdef int count_dropped_write(unsigned char *dropped_writes, str warning) except -1:
    """Count a write dropped after the end. Warn a program that goes on writing: once, where asyncio repeats itself."""
    if dropped_writes[0] == DROPPED_WRITES_UNTIL_WARNING:
        logger.warning(warning)
    if dropped_writes[0] < 255:
        dropped_writes[0] += 1
    return 0


def waiter_done(waiter):
    """The transport is ready: wake the caller of create_connection()."""
    if not waiter.done():
        waiter.set_result(None)


cdef object closed_socket(KeptAddress local):
    """Show a socket whose descriptor is gone to a caller that asks only now; None where no socket can be made."""
    try:
        sock = socket_module.socket(family_of(local) if local != 0 else AF_UNIX)
    except OSError:
        return None
    sock.setblocking(False)
    sock.close()
    return TransportSocket(sock)


# ---- owners of a descriptor ----------------------------------------------------------------------------------------

cdef int descriptor_of(object fileobj) except -1:
    """As selectors does it: an int, or an object with fileno(). ValueError for anything else."""
    if isinstance(fileobj, int):
        number = fileobj
    else:
        try:
            number = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if number < 0:
        raise ValueError(f"Invalid file descriptor: {number}")
    return number  # OverflowError beyond an int


cdef object in_use(Watcher watcher):
    """The error for a caller that wants the descriptor of watcher for something else."""
    owner = f"used by transport {watcher!r}" if isinstance(watcher, Transport) else f"in use: {watcher!r}"
    return RuntimeError(f"File descriptor {watcher.fd!r} is {owner}")


cdef int check_unowned(Reactor reactor, object sock) except -1:
    """RuntimeError if another watcher (a transport, say) owns sock's descriptor; the application's own gives way."""
    cdef Watcher watcher = reactor.watcher_of(descriptor_of(sock))
    if watcher is not None and not watcher.is_users_fd and not has_lost_descriptor(watcher):
        raise in_use(watcher)
    return 0


cdef bint has_lost_descriptor(Watcher watcher) except -1:
    """Whether the collector, in another thread, has come to a transport's socket object and closed it: the transport is
    about to be released, and the number may be another file's already."""
    cdef object sock = (<Transport>watcher).sock if isinstance(watcher, Transport) else None
    return type(sock) is socket_module.socket and sock.fileno() != watcher.fd
