"""A TLS session: a protocol on the transport below, an engine in the middle, a transport for the application above.

This file has the handshake, the shutdown, and what moves the connection from state to state (tls_connection.pyx has the
drawing); tls_writing.pyx and tls_reading.pyx are the two halves.

Closing takes a bounded time. Until the bytes have left, ssl_shutdown_timeout counts; after that, an application that
chose no timeout waits ANSWER_TIMEOUT_S for the peer's close_notify; RFC 8446 (6.1) does not ask for any wait.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from hoop.core.errors cimport pass_exits_on
from hoop.core.reactor cimport Reactor
from hoop.core.scheduler cimport deadline_after
from hoop.net.chunks cimport drop_chunks
from hoop.net.stream cimport StreamTransport
from hoop.tls.engine cimport TlsEngine
from hoop.tls.tls_connection cimport TLS_CLOSED, TLS_FLUSHING, TLS_HANDSHAKE, TLS_LOST, TLS_OPEN, TLS_SHUTDOWN
from hoop.tls.tls_reading cimport TlsReading
from libc.stdint cimport int64_t

import asyncio
import ssl
from asyncio.log import logger

cdef double HANDSHAKE_TIMEOUT_S = 60.0  # asyncio.constants.SSL_HANDSHAKE_TIMEOUT
cdef double SHUTDOWN_TIMEOUT_S = 30.0   # asyncio.constants.SSL_SHUTDOWN_TIMEOUT
cdef double ANSWER_TIMEOUT_S = 5.0

cdef tuple STATE_NAMES = ("HANDSHAKE", "OPEN", "FLUSHING", "SHUTDOWN", "LOST", "CLOSED")


cdef class TlsSession(TlsReading):
    def __cinit__(self, Reactor loop not None, protocol, TlsEngine engine not None, options, waiter, is_upgrade):
        """options: a TlsOptions. waiter: a future that is done with the handshake, or None. is_upgrade: protocol has
        had its connection_made."""
        self.handshake_timeout_s = checked_timeout("ssl_handshake_timeout", options.handshake_timeout,
                                                   HANDSHAKE_TIMEOUT_S)
        self.shutdown_timeout_s = checked_timeout("ssl_shutdown_timeout", options.shutdown_timeout, SHUTDOWN_TIMEOUT_S)
        self.options = options
        self.is_prompt = not loop.defers_writes
        self.waiter = waiter
        self.is_connected = is_upgrade
        self.bind_protocol(protocol)

    @property
    def __class__(self):
        return asyncio.Protocol

    @property
    def app_transport(self):
        """What the application uses; None once the connection is closed."""
        return self.transport

    cdef int set_timer(self, double delay_s, object callback) except -1:
        cdef int64_t deadline_ns = deadline_after(self.reactor.now_ns(), delay_s)
        self.stop_timer()
        self.timer = self.reactor.schedule_timer(deadline_ns, callback, NULL, 0, self.context())
        return 0

    cdef int stop_timer(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return 0

    # ---- called by the transport below ---------------------------------------------------------------------------

    def connection_made(self, transport):
        """Begin the handshake."""
        if self.state != TLS_HANDSHAKE:
            transport.abort()  # given up before it began
            return
        self.lower = transport
        if isinstance(transport, StreamTransport):
            self.stream = <StreamTransport>transport
            self.is_lower_paused = self.is_writing_paused = self.stream.is_writing_paused
            self.is_prompt = self.stream.is_prompt
            self.stream.is_prompt = False  # records are collected there, and sent by us
            self.limit_lower()
        self.began_ns = self.reactor.now_ns()
        if self.reactor.debug:
            logger.debug("%r starts SSL handshake", self.transport)
        self.set_timer(self.handshake_timeout_s, self._handshake_timed_out)
        if self.stream is not None and self.stream.is_eof_received:
            self.handshake_failed(ConnectionResetError())
        else:
            self.advance()

    def begin_upgrade(self, transport, bytes early):
        """start_tls: take over a transport that another protocol had, and what it had already received."""
        transport.set_protocol(self)
        self.inbound.offer(PyBytes_AS_STRING(early), PyBytes_GET_SIZE(early))
        self.inbound.keep()
        self.connection_made(transport)
        if self.state < TLS_LOST:
            transport.resume_reading()

    def eof_received(self):
        """Nothing more comes from below; whether the transport is to be kept open."""
        self.is_eof = True
        if self.state == TLS_HANDSHAKE:
            self.handshake_failed(ConnectionResetError())
        elif self.state == TLS_OPEN:
            self.read_plaintext()  # unless reading is paused: then resume_reading() finds the end
        elif self.state == TLS_SHUTDOWN:
            self.finish()
        return self.state == TLS_OPEN or self.state == TLS_FLUSHING

    def connection_lost(self, error):
        """The end of everything."""
        cdef bint was_handshake = not self.is_handshaken
        cdef object protocol = self.protocol
        self.stop_timer()
        self.enter(TLS_CLOSED)
        drop_chunks(&self.plaintext)
        self.inbound.drop()
        self.protocol = None
        self.transport = None
        try:
            if self.is_connected:
                self.is_connected = False
                protocol.connection_lost(error)
        finally:
            if error is None and was_handshake:
                error = ConnectionAbortedError("the connection was closed during the TLS handshake")
            self.wake_waiter(error)

    cdef int close_from_below(self) except -1:
        return self.start_close()

    # ---- handshake -----------------------------------------------------------------------------------------------

    cdef int advance(self) except -1:
        if self.state == TLS_HANDSHAKE:
            self.inbound.keep()  # a context may have callbacks
            self.handshake()
            # What came with the handshake waits until the caller who awaited it has gone on.
            return self.schedule_reading() if self.state == TLS_OPEN and self.undecrypted() > 0 else 0
        if self.state == TLS_OPEN:
            return self.read_plaintext()
        if self.state == TLS_FLUSHING or self.state == TLS_SHUTDOWN:
            return self.discard_input()
        return 0

    cdef int handshake(self) except -1:
        cdef bint is_complete
        self.is_engine_busy = True
        try:
            is_complete = self.engine.handshake(self.inbound.next_piece())
        except BaseException as error:
            self.is_engine_busy = False
            pass_exits_on(error)
            return self.handshake_failed(error)
        self.is_engine_busy = False
        self.send_output_now()
        if is_complete and self.state == TLS_HANDSHAKE:
            self.handshake_done()
        return 0

    cdef int handshake_done(self) except -1:
        self.stop_timer()
        self.enter(TLS_OPEN)
        self.is_handshaken = True
        if self.reactor.debug:
            logger.debug("%r: SSL handshake took %.1f ms", self.transport,
                         <double>(self.reactor.now_ns() - self.began_ns) / 1e6)
        if not self.is_connected:
            self.is_connected = True
            try:
                self.protocol.connection_made(self.transport)
            except BaseException as error:
                return self.callback_failed(error, "Fatal error: protocol.connection_made() call failed.")
            if self.stream is not None and self.stream.server is not None and self.stream.server._is_ending:
                self.stream.ask_to_drain()
        self.wake_waiter(None)
        return self.flush_queue()

    cdef int handshake_failed(self, object error) except -1:
        cdef str message = "SSL handshake failed"
        if isinstance(error, ssl.CertificateError):
            message = "SSL handshake failed on verifying the certificate"
        if self.state != TLS_HANDSHAKE:
            return 0  # a callback of the context has given up before
        self.stop_timer()
        self.send_output_now()  # the alert that tells the peer why
        self.fatal(error, message)
        return self.wake_waiter(error)

    def _handshake_timed_out(self):
        self.timer = None
        if self.state == TLS_HANDSHAKE:
            timeout = HANDSHAKE_TIMEOUT_S if self.options.handshake_timeout is None else self.options.handshake_timeout
            self.fatal(ConnectionAbortedError(f"SSL handshake is taking longer than {timeout} seconds: aborting the "
                                              "connection"), "Fatal error on transport")

    cdef int wake_waiter(self, object error) except -1:
        cdef object waiter = self.waiter
        self.waiter = None
        if waiter is None or waiter.done():
            return 0
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
        return 0

    # ---- closing -------------------------------------------------------------------------------------------------

    cdef int start_close(self) except -1:
        """close(): deliver what was written, say goodbye, wait a bounded time for the peer's."""
        if self.state == TLS_HANDSHAKE:
            return self.abort(None)
        if self.state != TLS_OPEN:
            return 0
        self.enter(TLS_FLUSHING)
        self.began_ns = self.reactor.now_ns()
        self.set_timer(self.shutdown_timeout_s if self.options.shutdown_timeout is not None else
                       min(ANSWER_TIMEOUT_S, self.shutdown_timeout_s), self._shutdown_timed_out)
        if self.is_reading_paused:
            self.is_reading_paused = False
            self.lower.resume_reading()  # for the peer's close_notify
        return self.flush_queue()

    cdef int begin_shutdown(self) except -1:
        self.enter(TLS_SHUTDOWN)
        if self.is_eof and not self.has_peer_ended:
            return self.finish()  # a peer that spared itself the goodbye expects none, as in asyncio
        self.is_engine_busy = True
        try:
            self.engine.end()
        except BaseException as error:
            pass_exits_on(error)  # else the peer's data is in the way or its end is known: the output is good
        finally:
            self.is_engine_busy = False
        self.send_output_now()
        if self.state != TLS_SHUTDOWN:
            return 0
        if self.is_eof:
            return self.finish()
        return self.discard_input()

    def _shutdown_timed_out(self):
        cdef double took_s = <double>(self.reactor.now_ns() - self.began_ns) / 1e9
        cdef bint is_sent = self.plaintext.size == 0 and self.lower.get_write_buffer_size() == 0
        self.timer = None
        if self.state == TLS_CLOSED:
            return
        if self.options.shutdown_timeout is None:
            if is_sent and self.state == TLS_SHUTDOWN:
                self.finish()  # all is delivered, only the answer is missing
                return
            if took_s < self.shutdown_timeout_s:
                self.set_timer(min(ANSWER_TIMEOUT_S, self.shutdown_timeout_s - took_s), self._shutdown_timed_out)
                return
        self.enter(TLS_LOST)
        self.close_lower(TimeoutError("SSL shutdown timed out"))

    cdef int finish(self) except -1:
        """Both sides are done. The timer goes on: what the transport below still holds may never leave."""
        self.enter(TLS_LOST)
        self.lower.close()
        return 0

    cdef int abort(self, object error) except -1:
        """Close at once; error is for connection_lost. What was only deferred is still sent."""
        if self.state == TLS_OPEN or self.state == TLS_FLUSHING:
            self.flush_queue()
        if self.state == TLS_CLOSED:
            return 0
        self.enter(TLS_LOST)
        drop_chunks(&self.plaintext)
        return self.close_lower(error)

    def __repr__(self):
        return f"<TlsSession {STATE_NAMES[self.state]} of {self.transport!r}>"


cdef double checked_timeout(str name, object value, double default) except? -1:
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value
