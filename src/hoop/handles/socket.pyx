"""Socket: a connection as Node.js and libuv show it, with callbacks instead of a protocol.

A Socket is the protocol of the very transport that asyncio's connections have (StreamTransport, for TLS with the TlsTransport
over it): reading, writing, watermarks, closing and limits are theirs. Here is only what makes events of their calls.

The events of a connection, each with the socket as first argument: on_connect (outgoing ones); any number of on_data; at
most one on_end, when the peer has ended its direction; on_drain, after write() has returned False, unless end() was called
since; on_timeout, after a silence of set_timeout()'s length; on_error, at most once; and last, always, on_close. After each
of them microtasks run.
"""
cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from hoop.core.cpython_api cimport PyContext_CopyCurrent
from hoop.core.csrc cimport hoop_net_set_nodelay
from hoop.core.errors cimport check
from hoop.core.reactor cimport Reactor
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
    CONNECTING_HIGH_WATER = 64 * 1024  # bytes written before there is a connection, until write() says False
    UNREAD_HIGH_WATER = 64 * 1024      # bytes that nobody wants yet, until no more are taken from the kernel


@cython.auto_pickle(False)
cdef class Socket:
    """One TCP or UNIX connection. Made by loop.connect_tcp() and its kin, or handed to a server's on_connection.

    What comes before on_data is set or resume() is called, or during pause(), is kept, 64 KiB and the read that
    reaches them; the rest stays with the kernel. An open socket is its loop's: it lives until it is closed, whoever else
    holds it. docs/handles.md has a table of what ends it. (Node: net.Socket; libuv: uv_stream_t)
    """

    def __init__(self, Reactor loop not None, on_connection=None, *, bint allow_half_open=False):
        if self.reactor is not None:
            raise RuntimeError("a Socket is initialised once")
        self.reactor = loop
        self.on_connection = on_connection
        self.is_half_open_allowed = allow_half_open
        self.state = SOCKET_CONNECTING

    # ---- the events ----------------------------------------------------------------------------------------------

    @property
    def on_data(self):
        """Called as on_data(socket, data) with each piece of bytes that arrives. Setting it begins reading."""
        return self.data_callback

    @on_data.setter
    def on_data(self, callback):
        self.data_callback = callback
        if callback is not None:
            self.is_flow_wanted = True
        self.update_flow()

    # ---- called by the transport ---------------------------------------------------------------------------------

    def connection_made(self, transport):
        """The transport's: the connection stands, with TLS after the handshake."""
        cdef StreamTransport stream = stream_below(transport)
        self.check_made()
        if stream is None:
            raise TypeError(f"a Socket is the protocol of a stream connection or of TLS over one, not of {transport!r}")
        if self.state != SOCKET_CONNECTING:
            transport.abort()  # destroyed in the meantime
            return
        self.transport = transport
        self.is_tls = transport is not stream
        self.stream = stream
        self.reactor.keep_idle(stream)
        self.state = SOCKET_OPEN
        if self.is_unreferenced:
            transport.unref()
        self.update_flow()
        if self.wishes is not None:
            wishes, self.wishes = self.wishes, None
            for method, arguments in wishes:
                method(*arguments)
        if self.on_connection is not None:
            on_connection, self.on_connection = self.on_connection, None
            on_connection(self)
            return
        self.send_waiting()
        if self.on_connect is not None:
            self.on_connect(self)
        if self.is_drain_due and not self.is_write_paused:
            if self.reactor.after_is_due:
                self.reactor.settle()
            self.resume_writing()

    def data_received(self, bytes data not None):
        """The transport's: bytes have come."""
        self.bytes_read += PyBytes_GET_SIZE(data)
        if not self.is_flowing:
            self.keep_unread(data)
        elif self.data_callback is not None:
            self.data_callback(self, data)

    def eof_received(self):
        """The transport's: the peer sends no more. Whether the connection stays open for writing."""
        if self.unread is not None:
            self.is_end_unread = True
            return True
        self.tell_end()
        return self.is_half_open_allowed and not self.is_ended and not self.is_tls

    cdef int tell_end(self) except -1:
        self.is_peer_ended = True
        if self.on_end is not None:
            self.on_end(self)
        return 0

    def pause_writing(self):
        """The transport's: the kernel refuses more than the high-water mark."""
        self.is_write_paused = True

    def resume_writing(self):
        """The transport's: most of that has gone."""
        self.is_write_paused = False
        if self.is_drain_due and not self.is_ended:
            self.is_drain_due = False
            if self.on_drain is not None:
                self.on_drain(self)

    def connection_lost(self, error):
        """The transport's, or a failed attempt to connect: on_error if there was one, then on_close."""
        self.check_made()
        if self.state == SOCKET_CLOSED:
            return
        self.state = SOCKET_CLOSED
        self.connecting = self.waiting = self.wishes = self.unread = None
        self.is_flowing = False
        if error is not None:
            self.error = error
            if self.on_error is not None:
                self.call(self.on_error, (self, error), "on_error")
            elif self.transport is None or isinstance(error, OSError):  # of others the transport has told
                self.reactor.report({"message": f"a socket without on_error has failed: {self!r}", "exception": error})
            if self.reactor.after_is_due:
                self.reactor.settle()
        if self.on_close is not None:
            self.call(self.on_close, (self,), "on_close")

    cdef int check_made(self) except -1:
        if self.reactor is None:  # a subclass that forgot super().__init__()
            raise RuntimeError("Socket.__init__() was not called")
        return 0

    cdef int call(self, object callback, tuple arguments, str name) except -1:
        """Call one of the last two; whatever it raises, the socket is closed all the same."""
        try:
            callback(*arguments)
        except BaseException as error:
            return self.reactor.callback_failed(error, f"Exception in {name} of a socket", self.transport, None)
        return 0

    # ---- connecting ----------------------------------------------------------------------------------------------

    def _connect_with(self, task):
        """The loop's: task makes the connection, with this socket as its protocol."""
        if not task.done():
            self.connecting = task

    def _failed(self, error):
        """The loop's: there will be no connection."""
        self.connecting = None
        self.schedule_lost(error)

    cdef int schedule_lost(self, object error) except -1:
        if self.state != SOCKET_CONNECTING:
            return 0
        self.reactor.schedule_method(self.connection_lost, error, self.context)
        self.state = SOCKET_GIVEN_UP
        return 0

    cdef int wish(self, object method, tuple arguments) except -1:
        """Call method once there is a connection."""
        self.check_made()
        if self.state == SOCKET_CONNECTING:
            if self.wishes is None:
                self.wishes = []
            self.wishes.append((method, arguments))
        return 0

    cdef int send_waiting(self) except -1:
        """What was written while connecting, and end() if that was called too."""
        cdef list waiting = self.waiting
        if waiting is not None:
            self.waiting = None
            self.waiting_size = 0
            self.transport.writelines(waiting)
        if self.is_ended:
            self.finish()
        return 0

    # ---- writing -------------------------------------------------------------------------------------------------

    def write(self, data):
        """Send bytes, bytearray or memoryview; never blocks. False when it is time to wait for on_drain.

        Nothing is refused: what the kernel has no room for is kept. While connecting, data waits for the connection.
        TypeError for other data, RuntimeError after end(). On a closed socket data is dropped, and the answer is False.
        """
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
            if self.waiting is None:
                self.waiting = []
            self.waiting.append(chunk)
            self.waiting_size += size
            self.bytes_written += size
            if self.waiting_size <= CONNECTING_HIGH_WATER:
                return True
        else:
            self.check_made()
            return False
        self.is_drain_due = True
        return False

    def end(self, data=None):
        """Send data, if given, then end this direction: the peer sees the end of the stream. Reading goes on until the peer
        ends too; then the socket is closed. Idempotent without data. (A TLS connection ends in both directions.)
        """
        if data is not None:
            self.write(data)
        if self.is_ended:
            return
        self.is_ended = True
        if self.state == SOCKET_OPEN:
            self.finish()

    cdef int finish(self) except -1:
        if self.is_peer_ended or self.is_tls:
            self.transport.close()
        else:
            self.transport.write_eof()
        return 0

    def destroy(self, error=None):
        """Close at once: what the kernel has not taken is lost. on_error(socket, error) if one is given, then on_close.

        Idempotent. TypeError for an error that is no exception.
        """
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
            self.check_made()

    # ---- reading -------------------------------------------------------------------------------------------------

    def pause(self):
        """Call on_data no more until resume(); what comes meanwhile is kept, up to a limit. Idempotent."""
        self.is_paused = True
        self.update_flow()

    def resume(self):
        """Undo pause(), or begin reading without on_data: what comes is then dropped. Idempotent."""
        self.is_paused = False
        self.is_flow_wanted = True
        self.update_flow()

    # The transport reads on while nothing is wanted: else the peer's end or a reset would never be seen (as Node does).

    cdef bint is_wanting(self) except -1:
        return self.is_flow_wanted and not self.is_paused and self.state == SOCKET_OPEN and not self.is_closing()

    cdef int update_flow(self) except -1:
        self.check_made()
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
        if self.is_tls or self.unread_size >= UNREAD_HIGH_WATER:  # TLS ends as a whole: its end must stay behind the data
            self.transport.pause_reading()
        return 0

    def _take_unread(self):
        """start_tls()'s: what came and was not shown belongs to the handshake."""
        unread = b"".join(self.unread or ())
        self.unread = None
        self.unread_size = 0
        return unread

    def _show_unread(self):
        """What came before it was wanted, then the end if that has come, too."""
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
                self.tell_end()
                if not self.is_half_open_allowed or self.is_ended:
                    self.transport.close()
        except (SystemExit, KeyboardInterrupt):
            self.update_flow()  # the rest comes when the loop runs again
            raise
        except BaseException as error:
            self.reactor.report_failure("Fatal error: on_data or on_end of a socket failed.", error, self.transport, self)
            if self.state == SOCKET_OPEN:
                self.transport._force_close(error)
        self.update_flow()

    # ---- options -------------------------------------------------------------------------------------------------

    def set_timeout(self, seconds, callback=None):
        """Call on_timeout(socket) once nothing was received or sent for that long; then again after the next activity.

        The socket stays open: that is for the callback to decide. None or 0 switches it off. A callback becomes on_timeout.
        ValueError or TypeError for what is no time. (Node: socket.setTimeout, in milliseconds there)
        """
        check_seconds("the timeout", seconds or None)
        if callback is not None:
            self.on_timeout = callback
        self.timeout = seconds or None
        if self.state == SOCKET_OPEN:
            set_quiet_timeout(self.stream, seconds or 0, self._timed_out)
        else:
            self.wish(self.set_timeout, (seconds,))

    def _timed_out(self):
        if self.on_timeout is not None:
            self.on_timeout(self)

    def set_write_deferral(self, enabled):
        """Whether write() may hold bytes until the callback that runs has ended (docs/writes.md). If not, it sends at once;
        what is held is sent now. The default is the loop's.
        """
        if self.state == SOCKET_OPEN:
            self.transport.set_write_deferral(enabled)
        else:
            self.wish(self.set_write_deferral, (enabled,))

    def set_keepalive(self, enabled=True, *, idle=None, interval=None, count=None):
        """Have TCP probe a silent peer: after idle seconds, every interval seconds, count times. (tcp(7))

        None leaves an option as it is. OSError for what the kernel does not take.
        """
        if self.state == SOCKET_OPEN:
            if self.stream.fd < 0:
                return  # closed in the meantime
            sock = self.transport.get_extra_info("socket")
            if not enabled:
                sock.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_KEEPALIVE, 0)
            elif idle is None and interval is None and count is None:
                sock.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_KEEPALIVE, 1)
            else:
                set_keepalive(sock, idle, interval, count)
        else:
            self.wish(self._set_keepalive, (enabled, idle, interval, count))

    def _set_keepalive(self, enabled, idle, interval, count):
        self.set_keepalive(enabled, idle=idle, interval=interval, count=count)

    def set_nodelay(self, enabled=True):
        """Send small packets at once (TCP_NODELAY), as is the default here; False: collect them (Nagle). No-op for UNIX."""
        if self.state == SOCKET_OPEN:
            if self.stream.state < TRANSPORT_LOST:
                check(hoop_net_set_nodelay(self.stream.fd, bool(enabled)))
        else:
            self.wish(self.set_nodelay, (enabled,))

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
        self.is_unreferenced = False
        if self.transport is not None:
            self.transport.ref()
        return self

    def unref(self):
        """Let loop.run() return although this socket is open (once it is connected). Returns self."""
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
        """Whether on_close has been called or is about to; also while an end() or destroy() is under way."""
        return self.state != SOCKET_CONNECTING and (self.state != SOCKET_OPEN or self.is_closing())

    cdef bint is_closing(self) except -1:
        """Of an open socket: whether its transport takes nothing any more."""
        return self.stream.state != TRANSPORT_OPEN or (self.is_tls and self.transport.is_closing())

    @property
    def write_buffer_size(self):
        """Bytes that were written and that the kernel has not taken. (Node: writableLength)"""
        if self.state == SOCKET_OPEN:
            return self.transport.get_write_buffer_size()
        return self.waiting_size

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
