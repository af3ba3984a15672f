"""Socket: a connection as Node.js and libuv show it, with callbacks instead of a protocol.

A Socket is the protocol of the very transport that asyncio's connections have (StreamTransport, for TLS with the
TlsTransport over it): the transports do the reading, writing, watermarks, closing and limits. This file only makes
events of their calls.

    UNMADE --__init__()--> CONNECTING --connection_made()--> OPEN --connection_lost()--> CLOSED
    CONNECTING --destroy(), an error--> GIVEN_UP --connection_lost()--> CLOSED

A connection has these events, each with the socket as first argument: on_connect (outgoing ones); any number of
on_data; at most one on_end, when the peer has ended its direction; on_drain, after write() has returned False, unless
end() was called since; on_timeout, after a silence of set_timeout()'s length; on_drain_requested, at most once, when
the server drains; on_error, at most once; and last, always, on_close. Microtasks run after each.
"""
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from hoop.core.cpython_api cimport PyContext_CopyCurrent
from hoop.core.csrc cimport hoop_net_set_nodelay
from hoop.core.errors cimport check
from hoop.core.reactor cimport Reactor
from hoop.core.scheduler cimport check_caller
from hoop.net.admission cimport set_quiet_timeout
from hoop.net.stream cimport StreamTransport
from hoop.net.transport cimport TRANSPORT_LOST, TRANSPORT_OPEN
from hoop.net.writing cimport owned_chunk
from hoop.tls.tls_transport cimport TlsTransport

import collections
import socket as socket_module

from hoop.core.checks import check_seconds
from hoop.net.keepalive import set_keepalive

cdef enum:
    CONNECTING_HIGH_WATER = 64 * 1024  # bytes written while connecting, until write() returns False
    UNREAD_HIGH_WATER = 64 * 1024      # bytes kept for a user who wants none yet, until reading pauses


cdef class Socket:
    """One TCP or UNIX connection. loop.connect_tcp() and connect_unix() return one, and a server hands one to its
    on_connection.

    The socket keeps what comes before on_data is set or resume() is called, or during pause(): 64 KiB and the read that
    reaches them; the rest stays with the kernel. The loop owns an open socket, which lives until it is closed even if
    the user drops it. docs/handles.md has a table of what ends it. (Node: net.Socket; libuv: uv_stream_t)
    """

    def __init__(self, Reactor loop not None, on_connection=None, *, bint allow_half_open=False):
        if self.reactor is not None:
            raise RuntimeError("a Socket is initialised once")
        self.reactor = loop
        self.on_connection = on_connection
        self.is_half_open_allowed = allow_half_open
        self.enter(SOCKET_CONNECTING)

    cdef int check_ours(self, str method) except -1:
        """An open socket is for its loop's own thread. RuntimeError for others, without a GIL or in debug mode."""
        if self.reactor is not None and self.state < SOCKET_CLOSED:
            check_caller(self.reactor, method)
        return 0

    cdef int enter(self, SocketState state) except -1:
        """Go on to state: the one assignment to it. RuntimeError for a way back."""
        if state <= self.state:
            raise RuntimeError(f"a socket in state {self.state} cannot go to {state}")
        self.state = state
        return 0

    # ---- the events ----------------------------------------------------------------------------------------------

    @property
    def on_data(self):
        """The socket calls on_data(socket, data) with each piece of bytes that arrives. Setting it begins reading."""
        return self.data_callback

    @on_data.setter
    def on_data(self, callback):
        self.data_callback = callback
        if callback is not None:
            self.is_flow_wanted = True
        self.update_flow()

    # ---- called by the transport ---------------------------------------------------------------------------------

    def connection_made(self, transport):
        """The transport calls this once the connection stands, with TLS after the handshake."""
        cdef StreamTransport stream = stream_below(transport)
        self.check_initialised()
        if stream is None:
            raise TypeError(f"a Socket is the protocol of a stream connection or of TLS over one, not of {transport!r}")
        if self.state != SOCKET_CONNECTING:
            transport.abort()  # the user has destroyed the socket in the meantime
            return
        self.transport = transport
        self.is_tls = transport is not stream
        self.stream = stream
        self.reactor.keep_idle(stream)
        self.enter(SOCKET_OPEN)
        if self.is_unreferenced:
            transport.unref()
        self.update_flow()
        if self.calls_once_open is not None:
            calls_once_open, self.calls_once_open = self.calls_once_open, None
            for method, arguments in calls_once_open:
                method(*arguments)
        if self.on_connection is not None:
            on_connection, self.on_connection = self.on_connection, None
            on_connection(self)
            return
        self.send_unsent()
        if self.on_connect is not None:
            self.on_connect(self)
        if self.is_drain_due and not self.is_write_paused:
            if self.reactor.after_is_due:
                self.reactor.settle()
            self.resume_writing()

    def data_received(self, bytes data not None):
        """The transport calls this with bytes that have come."""
        self.bytes_read += PyBytes_GET_SIZE(data)
        if not self.is_flowing:
            self.keep_unread(data)
        elif self.data_callback is not None:
            self.data_callback(self, data)

    def eof_received(self):
        """The transport calls this when the peer sends no more. Whether the connection stays open for writing."""
        if self.unread is not None:
            self.is_end_unread = True
            return True
        self.note_peer_end()
        return self.is_half_open_allowed and not self.is_ended and not self.is_tls

    cdef int note_peer_end(self) except -1:
        self.is_peer_ended = True
        if self.on_end is not None:
            self.on_end(self)
        return 0

    def pause_writing(self):
        """The transport calls this when the kernel refuses more than the high-water mark."""
        self.is_write_paused = True

    def resume_writing(self):
        """The transport calls this when the kernel has taken most of that."""
        self.is_write_paused = False
        if self.is_drain_due and not self.is_ended:
            self.is_drain_due = False
            if self.on_drain is not None:
                self.on_drain(self)

    def drain_requested(self):
        """Called when the server begins to drain."""
        if self.on_drain_requested is not None:
            self.on_drain_requested(self)

    def connection_lost(self, error):
        """The transport, or an attempt to connect that has failed, calls this: on_error if there was one, then
        on_close."""
        self.check_initialised()
        if self.state == SOCKET_CLOSED:
            return
        self.enter(SOCKET_CLOSED)
        self.connecting = self.unsent = self.calls_once_open = self.unread = None
        self.is_flowing = False
        if error is not None:
            self.error = error
            if self.on_error is not None:
                self.call(self.on_error, (self, error), "on_error")
            elif self.transport is None or isinstance(error, OSError):  # the transport has reported the others
                self.reactor.report({"message": f"a socket without on_error has failed: {self!r}", "exception": error})
            if self.reactor.after_is_due:
                self.reactor.settle()
        if self.on_close is not None:
            self.call(self.on_close, (self,), "on_close")

    cdef int check_initialised(self) except -1:
        if self.reactor is None:  # a subclass that forgot super().__init__()
            raise RuntimeError("Socket.__init__() was not called")
        return 0

    cdef int call(self, object callback, tuple arguments, str name) except -1:
        """Call on_error or on_close; whatever it raises, the socket is closed all the same."""
        try:
            callback(*arguments)
        except BaseException as error:
            return self.reactor.callback_failed(error, f"Exception in {name} of a socket", self.transport, None)
        return 0

    # ---- connecting ----------------------------------------------------------------------------------------------

    def _connect_with(self, task):
        """The loop calls this: task makes the connection, with this socket as its protocol."""
        if not task.done():
            self.connecting = task

    def _failed(self, error):
        """The loop calls this when there will be no connection."""
        self.connecting = None
        self.schedule_lost(error)

    cdef int schedule_lost(self, object error) except -1:
        if self.state != SOCKET_CONNECTING:
            return 0
        self.reactor.schedule_method(self.connection_lost, error, self.context)
        self.enter(SOCKET_GIVEN_UP)
        return 0

    cdef int call_once_open(self, object method, tuple arguments) except -1:
        """Call method once there is a connection."""
        self.check_initialised()
        if self.state == SOCKET_CONNECTING:
            if self.calls_once_open is None:
                self.calls_once_open = []
            self.calls_once_open.append((method, arguments))
        return 0

    cdef int send_unsent(self) except -1:
        """Send what the user has written while connecting; then end, if the user has called end() too."""
        cdef list unsent = self.unsent
        if unsent is not None:
            self.unsent = None
            self.unsent_size = 0
            self.transport.writelines(unsent)
        if self.is_ended:
            self.end_writing()
        return 0

    # ---- writing -------------------------------------------------------------------------------------------------

    def write(self, data):
        """Send bytes, bytearray or memoryview; never blocks. False when it is time to wait for on_drain.

        The socket keeps what the kernel has no room for, and refuses nothing. While connecting, data waits for the
        connection.
        TypeError for other data, RuntimeError after end(). On a closed socket data is dropped, and the answer is False.
        """
        self.check_ours("Socket.write")
        cdef object chunk = data if PyBytes_CheckExact(data) else owned_chunk(data)
        cdef Py_ssize_t size = len(chunk)
        if self.is_ended:
            raise RuntimeError("write() after end()")
        if self.state == SOCKET_OPEN:
            if self.is_closing():
                return False
            self.bytes_written += size
            if self.is_tls:
                self.transport.write(chunk)
            else:
                self.stream.write_chunk(chunk, size)
            if not self.is_write_paused:
                return self.stream.state == TRANSPORT_OPEN  # unless that has failed at once
        elif self.state == SOCKET_CONNECTING:
            if self.unsent is None:
                self.unsent = []
            self.unsent.append(chunk)
            self.unsent_size += size
            self.bytes_written += size
            if self.unsent_size <= CONNECTING_HIGH_WATER:
                return True
        else:
            self.check_initialised()
            return False
        self.is_drain_due = True
        return False

    def end(self, data=None):
        """Send data, if given, then end this direction: the peer sees the end of the stream. Reading goes on until the
        peer ends too; then the socket closes. Idempotent without data. (A TLS connection ends in both directions.)
        """
        self.check_ours("Socket.end")
        if data is not None:
            self.write(data)
        if self.is_ended:
            return
        self.is_ended = True
        if self.state == SOCKET_OPEN:
            self.end_writing()

    cdef int end_writing(self) except -1:
        if self.is_peer_ended or self.is_tls:
            self.transport.close()
        else:
            self.transport.write_eof()
        return 0

    def destroy(self, error=None):
        """Close at once and drop what the kernel has not taken. on_error(socket, error) if one is given, then on_close.

        Idempotent. TypeError for an error that is no exception.
        """
        self.check_ours("Socket.destroy")
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"the error must be an exception or None, not {error!r}")
        if self.state == SOCKET_OPEN:
            self.transport._force_close(error)
        elif self.state == SOCKET_CONNECTING:
            task, self.connecting = self.connecting, None
            self.schedule_lost(error)
            if task is not None:
                task.cancel()
        else:
            self.check_initialised()

    # ---- reading -------------------------------------------------------------------------------------------------

    def pause(self):
        """Call on_data no more until resume(); keep what comes meanwhile, up to a limit. Idempotent."""
        self.check_ours("Socket.pause")
        self.is_paused = True
        self.update_flow()

    def resume(self):
        """Undo pause(), or begin reading without on_data, which drops what comes. Idempotent."""
        self.check_ours("Socket.resume")
        self.is_paused = False
        self.is_flow_wanted = True
        self.update_flow()

    # The transport reads on while the user wants nothing: else it would never see the peer's end or a reset (as in
    # Node).

    cdef bint is_wanting(self) except -1:
        return self.is_flow_wanted and not self.is_paused and self.state == SOCKET_OPEN and not self.is_closing()

    cdef int update_flow(self) except -1:
        self.check_initialised()
        if not self.is_wanting():
            self.is_flowing = False
        elif self.unread is None and not self.is_end_unread:
            self.is_flowing = True
            self.transport.resume_reading()
        elif not self.is_show_due:
            self.reactor.schedule(self._show_unread, NULL, 0, self.stream.context)
            self.is_show_due = True
        return 0

    cdef int keep_unread(self, object data) except -1:
        if self.state != SOCKET_OPEN:
            return 0
        if self.unread is None:
            self.unread = collections.deque()
        self.unread.append(data)
        self.unread_size += len(data)
        if self.is_tls or self.unread_size >= UNREAD_HIGH_WATER:
            self.transport.pause_reading()  # TLS ends as a whole, so its end must stay behind the data
        return 0

    def _take_unread(self):
        """start_tls() calls this: bytes that on_data has not seen belong to the handshake."""
        unread = b"".join(self.unread or ())
        self.unread = None
        self.unread_size = 0
        return unread

    def _show_unread(self):
        """Give on_data what came before the user wanted it, then call on_end if the peer's end has come, too."""
        self.is_show_due = False
        try:
            while self.unread is not None and self.is_wanting():
                data = self.unread.popleft()
                self.unread_size -= len(data)
                if not self.unread:
                    self.unread = None
                if self.data_callback is not None:
                    self.data_callback(self, data)
                if self.reactor.after_is_due:
                    self.reactor.settle()
            if self.unread is None and self.is_end_unread and self.state == SOCKET_OPEN and not self.is_closing():
                self.is_end_unread = False
                self.note_peer_end()
                if not self.is_half_open_allowed or self.is_ended:
                    self.transport.close()
        except (SystemExit, KeyboardInterrupt):
            self.update_flow()  # the next run of the loop gives the rest
            raise
        except BaseException as error:
            self.reactor.report_failure("Fatal error: on_data or on_end of a socket failed.", error, self.transport,
                                        self)
            if self.state == SOCKET_OPEN:
                self.transport._force_close(error)
        self.update_flow()

    # ---- options -------------------------------------------------------------------------------------------------

    def set_timeout(self, seconds, callback=None):
        """Call on_timeout(socket) after so many seconds without a byte received or sent; then again after the next
        activity.

        The socket stays open: the callback decides. None or 0 switches the timeout off. A callback becomes on_timeout.
        ValueError or TypeError for what is no time. (Node: socket.setTimeout, in milliseconds there)
        """
        self.check_ours("Socket.set_timeout")
        check_seconds("the timeout", seconds or None)
        if callback is not None:
            self.on_timeout = callback
        self.timeout = seconds or None
        if self.state == SOCKET_OPEN:
            set_quiet_timeout(self.stream, seconds or 0, self._timed_out)
        else:
            self.call_once_open(self.set_timeout, (seconds,))

    def _timed_out(self):
        if self.on_timeout is not None:
            self.on_timeout(self)

    def set_write_deferral(self, enabled):
        """Whether write() may hold bytes until the running phase has ended (docs/writes.md). If not, write() sends
        at once, and held bytes go now. The default is the loop's.
        """
        if self.state == SOCKET_OPEN:
            self.transport.set_write_deferral(enabled)
        else:
            self.call_once_open(self.set_write_deferral, (enabled,))

    def set_keepalive(self, enabled=True, *, idle=None, interval=None, count=None):
        """Have TCP probe a silent peer: after idle seconds, every interval seconds, count times. (tcp(7))

        None leaves an option as it is. OSError for a value that the kernel refuses.
        """
        if self.state == SOCKET_OPEN:
            if self.stream.fd < 0:
                return  # the socket has closed in the meantime
            sock = self.transport.get_extra_info("socket")
            if not enabled:
                sock.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_KEEPALIVE, 0)
            elif idle is None and interval is None and count is None:
                sock.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_KEEPALIVE, 1)
            else:
                set_keepalive(sock, idle, interval, count)
        else:
            self.call_once_open(self._set_keepalive, (enabled, idle, interval, count))

    def _set_keepalive(self, enabled, idle, interval, count):
        self.set_keepalive(enabled, idle=idle, interval=interval, count=count)

    def set_nodelay(self, enabled=True):
        """Send small packets at once (TCP_NODELAY), the default here; False: collect them (Nagle). No-op for UNIX."""
        if self.state == SOCKET_OPEN:
            if self.stream.state < TRANSPORT_LOST:
                check(hoop_net_set_nodelay(self.stream.fd, bool(enabled)))
        else:
            self.call_once_open(self.set_nodelay, (enabled,))

    def header_received(self):
        """The head of the peer's message is complete: header_timeout (hoop.Limits) no longer applies."""
        if self.state == SOCKET_OPEN:
            self.transport.header_received()

    def expect_header(self):
        """The next message may begin: from now on header_timeout (hoop.Limits) applies again."""
        if self.state == SOCKET_OPEN:
            self.transport.expect_header()

    def ref(self):
        """Have loop.run() wait for this socket again, as it does by default. Returns self."""
        self.check_ours("Socket.ref")
        self.is_unreferenced = False
        if self.transport is not None:
            self.transport.ref()
        return self

    def unref(self):
        """Let loop.run() return although this socket is open (once it is connected). Returns self."""
        self.check_ours("Socket.unref")
        self.is_unreferenced = True
        if self.transport is not None:
            self.transport.unref()
        return self

    def has_ref(self):
        """Whether loop.run() waits for this socket while it is open."""
        return not self.is_unreferenced

    # ---- state ---------------------------------------------------------------------------------------------------

    @property
    def is_connecting(self):
        """Whether there is no connection yet."""
        return self.state == SOCKET_CONNECTING

    @property
    def is_closed(self):
        """Whether the socket has called on_close or is about to; also while an end() or destroy() is under way."""
        return self.state != SOCKET_CONNECTING and (self.state != SOCKET_OPEN or self.is_closing())

    cdef bint is_closing(self) except -1:
        """Whether the transport of an open socket takes no more data."""
        return self.stream.state != TRANSPORT_OPEN or (self.is_tls and self.transport.is_closing())

    @property
    def write_buffer_size(self):
        """Written bytes that the kernel has not taken. (Node: writableLength)"""
        if self.state == SOCKET_OPEN:
            return self.transport.get_write_buffer_size()
        return self.unsent_size

    @property
    def remote_address(self):
        """The peer's address as the socket module shows it; None while connecting."""
        return None if self.transport is None else self.transport.get_extra_info("peername")

    @property
    def local_address(self):
        """Our address; None while connecting."""
        return None if self.transport is None else self.transport.get_extra_info("sockname")

    def __repr__(self):
        if self.transport is None:
            return f"<Socket {'closed' if self.state == SOCKET_CLOSED else 'connecting'}>"
        return f"<Socket over {self.transport!r}>"


cdef StreamTransport stream_below(object transport):
    """The stream that carries it; None for what a Socket cannot be the protocol of."""
    cdef TlsTransport tls
    if isinstance(transport, StreamTransport):
        return transport
    if isinstance(transport, TlsTransport):
        tls = transport
        return None if tls.session is None else tls.session.stream
    return None


def new_client_socket(Reactor loop not None, bint allow_half_open):
    """A Socket that is not connected yet."""
    cdef Socket socket = Socket(loop, None, allow_half_open=allow_half_open)
    socket.context = PyContext_CopyCurrent()
    return socket
