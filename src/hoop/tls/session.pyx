"""The TLS transport: a protocol on the transport below, an engine in the middle, a transport for the application above.

    HANDSHAKE --> OPEN --close(), the peer's end--> FLUSHING --> SHUTDOWN --> LOST --connection_lost()--> CLOSED
        \\___________\\_____________________________________ abort(), an error ___/

Reading. hoop's own stream shows the ciphertext in the reactor's buffer; the engine takes it, and plaintext is made in
the same buffer and leaves as one exact-size bytes object (or in the buffer of a BufferedProtocol). When more has come than
the engine takes at once, plaintext is made straight in the object that the protocol gets. Pausing pauses the transport
below, at once.

Writing. What one callback writes is held as plaintext until the callback and its microtasks have ended, then encrypted
record by record and given to the transport below, which sends it with one system call. When that one is full, plaintext
waits here, by reference.

Closing takes a bounded time. Until the bytes have left, ssl_shutdown_timeout counts; after that, an application that
chose no timeout waits ANSWER_TIMEOUT_S for the peer's close_notify, which RFC 8446 (6.1) does not make anybody wait for.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from hoop.core.reactor cimport READ_BUFFER_SIZE, Reactor, flush_if_deferred, may_hold
from hoop.core.scheduler cimport deadline_after
from hoop.net.stream cimport StreamTransport
from hoop.net.transport cimport TRANSPORT_LOST
from hoop.net.writing cimport owned_chunk
from hoop.tls.engine cimport TLS_RECORD_SIZE, TLS_WANTS_INPUT, TlsEngine
from hoop.tls.plaintext cimport PlaintextQueue
from hoop.tls.tls_reading cimport Inbound
from libc.stdint cimport int64_t

import asyncio
import ssl
from asyncio.log import logger

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes_object, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize" (const char *text, Py_ssize_t size) except NULL

cdef enum:
    DEFER_BELOW = 64 * 1024           # bytes written by one callback: beyond, they are encrypted at once
    DROPPED_WRITES_UNTIL_WARNING = 5  # asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES

cdef double HANDSHAKE_TIMEOUT_S = 60.0  # asyncio.constants.SSL_HANDSHAKE_TIMEOUT
cdef double SHUTDOWN_TIMEOUT_S = 30.0   # asyncio.constants.SSL_SHUTDOWN_TIMEOUT
cdef double ANSWER_TIMEOUT_S = 5.0

cdef str FATAL = "Fatal error on SSL protocol"


cdef class TlsSession(PlaintextQueue):
    def __cinit__(self, Reactor loop not None, protocol, TlsEngine engine not None, options, waiter, is_upgrade):
        """options: a TlsOptions. waiter: a future that is done with the handshake, or None. is_upgrade: protocol already
        has its connection_made."""
        self.handshake_timeout_s = checked_timeout("ssl_handshake_timeout", options.handshake_timeout,
                                                   HANDSHAKE_TIMEOUT_S)
        self.shutdown_timeout_s = checked_timeout("ssl_shutdown_timeout", options.shutdown_timeout, SHUTDOWN_TIMEOUT_S)
        self.options = options
        self.engine = engine
        self.inbound = Inbound.__new__(Inbound)
        self.reactor = loop
        self.is_prompt = not loop.defers_writes
        self.waiter = waiter
        self.is_connected = is_upgrade
        self.high_water = DEFAULT_TLS_HIGH_WATER
        self.low_water = DEFAULT_TLS_HIGH_WATER // 4
        self.bind_protocol(protocol)
        self.is_filter = self.tells_answers = True

    @property
    def __class__(self):
        return asyncio.Protocol

    @property
    def app_transport(self):
        """What the application uses; None once the connection is closed."""
        return self.transport

    cdef int bind_protocol(self, object protocol) except -1:
        self.protocol = protocol
        self.is_buffered = isinstance(protocol, asyncio.BufferedProtocol)
        return 0

    cdef int set_timer(self, double delay_s, object callback) except -1:
        cdef int64_t deadline_ns = deadline_after(self.reactor.now_ns(), delay_s)
        cdef object context = None if self.stream is None else self.stream.context
        self.stop_timer()
        self.timer = self.reactor.schedule_timer(deadline_ns, callback, NULL, 0, context)
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
            self.is_lower_paused = self.is_paused = self.stream.is_protocol_paused
            self.is_prompt = self.stream.is_prompt
            self.stream.is_prompt = False  # records are collected there, and sent by us
            limit_lower(self)
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

    def data_received(self, data):
        """Ciphertext from a transport that is not hoop's own stream, or from another TLS transport."""
        cdef bytes chunk = PyBytes_FromObject(data)
        self.on_bytes(PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))

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
        self.state = TLS_CLOSED
        self.drop_queue()
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

    def pause_writing(self):
        """The transport below is full."""
        self.is_lower_paused = True
        self.pause_protocol()

    def resume_writing(self):
        """The transport below wants more."""
        self.is_lower_paused = False
        self.flush_queue()

    cdef int close_from_below(self) except -1:
        return self.start_close()

    # ---- handshake -----------------------------------------------------------------------------------------------

    cdef int handshake(self) except -1:
        cdef bint is_complete
        try:
            is_complete = self.engine.handshake()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            return self.handshake_failed(error)
        self.send_output_now()
        if is_complete and self.state == TLS_HANDSHAKE:
            self.handshake_done()
        return 0

    cdef int handshake_done(self) except -1:
        self.stop_timer()
        self.state = TLS_OPEN
        self.is_handshaken = True
        if self.reactor.debug:
            logger.debug("%r: SSL handshake took %.1f ms", self.transport,
                         <double>(self.reactor.now_ns() - self.began_ns) / 1e6)
        if not self.is_connected:
            self.is_connected = True
            try:
                self.protocol.connection_made(self.transport)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                return self.fatal(error, "Fatal error: protocol.connection_made() call failed.")
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

    # ---- reading -------------------------------------------------------------------------------------------------

    cdef int on_bytes(self, char *data, Py_ssize_t size) except -1:
        if self.state >= TLS_LOST:
            return 0
        self.inbound.offer(data, size)
        try:
            self.inbound.feed_more(self.engine)
            self.advance()
        finally:
            self.inbound.keep()
        return 0

    cdef int advance(self) except -1:
        """Do what the bytes fed last allow."""
        while self.state == TLS_HANDSHAKE:
            self.inbound.keep()  # a context may have callbacks
            self.handshake()
            if self.state == TLS_OPEN:
                # What came with the handshake waits until whoever awaited the handshake has gone on.
                return self.schedule_reading() if self.inbound.unfed() + self.engine.pending() > 0 else 0
            if self.state == TLS_HANDSHAKE and not self.inbound.feed_more(self.engine):
                return 0
        if self.state == TLS_OPEN:
            return self.read_plaintext()
        if self.state == TLS_FLUSHING or self.state == TLS_SHUTDOWN:
            return self.discard_input()
        return 0

    cdef int schedule_reading(self) except -1:
        if not self.is_continue_due:
            self.reactor.schedule(self._continue_reading, NULL, 0, None if self.stream is None else self.stream.context)
            self.is_continue_due = True
        return 0

    def _continue_reading(self):
        self.is_continue_due = False
        if self.state == TLS_OPEN:
            self.read_plaintext()

    cdef int read_plaintext(self) except -1:
        """Deliver what can be decrypted, then the end if it has come."""
        cdef bint goes_on = True
        while goes_on and self.state == TLS_OPEN and not self.is_reading_paused:
            if self.is_buffered:
                goes_on = self.deliver_buffered()
            elif self.inbound.offered_size > 0:
                goes_on = self.deliver_bulk()
            else:
                goes_on = self.deliver_bytes()
        if self.state >= TLS_LOST:
            return 0
        self.send_output_now()  # answers of the protocol itself: key updates, tickets, alerts
        if self.is_blocked:
            self.is_blocked = False
            self.flush_queue()
        if self.state == TLS_OPEN and not self.is_reading_paused and (self.has_peer_ended or self.is_eof):
            self.tell_eof()
            self.start_close()
        return 0

    cdef Py_ssize_t fill(self, char *buffer, Py_ssize_t capacity, bint *is_dry) except -2:
        """Decrypt into buffer until it may not take another record, or everything fed is used up."""
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t count
        is_dry[0] = False
        while not is_dry[0] and (size == 0 or capacity - size >= TLS_RECORD_SIZE):
            if not self.engine.has_record():
                is_dry[0] = not self.inbound.feed_more(self.engine)
                continue
            try:
                count = self.engine.decrypt(buffer + size, capacity - size)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                if size == 0:
                    raise
                break  # deliver what came before; the engine fails again when asked again
            if count > 0:
                size += count
            elif count == TLS_WANTS_INPUT:
                is_dry[0] = not self.inbound.feed_more(self.engine)
            else:
                self.has_peer_ended = True
                is_dry[0] = True
        if not is_dry[0]:
            is_dry[0] = not self.engine.has_record() and self.inbound.unfed() == 0
        return size

    cdef int deliver_bytes(self) except -1:
        """One data_received; whether there may be more."""
        cdef char *buffer = self.reactor.read_buffer
        cdef bint is_dry = False
        cdef Py_ssize_t size
        try:
            size = self.fill(buffer, READ_BUFFER_SIZE, &is_dry)
            if size > 0:
                self.protocol.data_received(PyBytes_FromStringAndSize(buffer, size))
        except (SystemExit, KeyboardInterrupt):
            self.schedule_reading()  # of the rest, and of the end if that has come
            raise
        except BaseException as error:
            self.fatal(error, FATAL)
            return 0
        return not is_dry

    cdef int deliver_bulk(self) except -1:
        """As deliver_bytes(), when the reactor's buffer is still in use: straight into the object for the protocol."""
        # No record is longer in the clear.
        cdef Py_ssize_t capacity = self.inbound.unfed() + self.engine.pending()
        cdef PyObject *data = NULL
        cdef bint is_dry = False
        cdef Py_ssize_t size
        try:
            capacity = max(capacity, TLS_RECORD_SIZE)
            data = new_bytes(NULL, capacity)
            try:
                size = self.fill(PyBytes_AS_STRING(<object>data), capacity, &is_dry)
            except BaseException:
                Py_DECREF(<object>data)
                raise
            self.inbound.keep()
            _PyBytes_Resize(&data, size)
            owned = <object>data
            Py_DECREF(owned)
            if size > 0:
                self.protocol.data_received(owned)
        except (SystemExit, KeyboardInterrupt):
            self.schedule_reading()  # of the rest, and of the end if that has come
            raise
        except BaseException as error:
            self.fatal(error, FATAL)
            return 0
        return not is_dry

    cdef int deliver_buffered(self) except -1:
        """One buffer_updated; whether there may be more."""
        cdef Py_buffer view
        cdef bint is_dry = False
        cdef Py_ssize_t size = 0
        self.inbound.keep()
        try:
            PyObject_GetBuffer(self.protocol.get_buffer(-1), &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                if view.len == 0:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                if self.state == TLS_OPEN and not self.is_reading_paused:  # get_buffer() may have changed that
                    size = self.fill(<char *>view.buf, view.len, &is_dry)
            finally:
                PyBuffer_Release(&view)
            if size > 0:
                self.protocol.buffer_updated(size)
        except (SystemExit, KeyboardInterrupt):
            self.schedule_reading()  # of the rest, and of the end if that has come
            raise
        except BaseException as error:
            self.fatal(error, FATAL)
            return 0
        return not is_dry

    cdef int discard_input(self) except -1:
        """While closing: only the peer's close_notify is of interest."""
        cdef bint is_dry = False
        self.inbound.keep()
        while not is_dry and not self.has_peer_ended:
            try:
                self.fill(self.reactor.read_buffer, READ_BUFFER_SIZE, &is_dry)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                self.has_peer_ended = True  # nothing that could be understood comes any more
        if self.state == TLS_SHUTDOWN and self.has_peer_ended:
            return self.finish()
        return 0

    cdef int tell_eof(self) except -1:
        if self.is_eof_told or not self.is_connected:
            return 0
        self.is_eof_told = True
        try:
            if self.protocol.eof_received():
                logger.warning("returning true from eof_received() has no effect when using ssl")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.fatal(error, "Error calling eof_received()")
        return 0

    # ---- writing -------------------------------------------------------------------------------------------------

    cdef int write_chunk(self, object chunk, Py_ssize_t size) except -1:
        if size == 0:
            return 0
        if self.state > TLS_OPEN:
            if self.dropped_writes == DROPPED_WRITES_UNTIL_WARNING:
                logger.warning("SSL connection is closed")
            self.dropped_writes += 1
            return 0
        self.add_chunk(chunk, size)
        return self.after_write()

    cdef int after_write(self) except -1:
        """Bytes were added: wait for the callback's end, or for the transport below, or encrypt now."""
        cdef bint is_prompt = self.is_prompt
        if self.state != TLS_OPEN or self.is_lower_paused or self.is_blocked:
            return self.note_refused()
        if self.reactor.in_callback and not is_prompt and self.queued < DEFER_BELOW:
            if may_hold(self.reactor):
                if not self.is_flush_due:
                    self.reactor.defer_flush(self)
                return 0
            is_prompt = True
        if not is_prompt:
            return self.flush_queue()
        flush_if_deferred(self.reactor)  # what others have written before
        self.flush_queue()
        return flush_if_deferred(self.reactor)

    cdef int set_prompt(self, bint is_prompt) except -1:
        """What set_write_deferral(not is_prompt) does."""
        self.is_prompt = is_prompt
        return flush_if_deferred(self.reactor) if is_prompt else 0

    cdef int on_flush(self, bint is_loop_calling) except -1:
        if self.queued > 0 and self.state < TLS_LOST:
            if is_loop_calling and self.stream is not None:
                self.reactor.enter_context(self.stream.context)
            self.flush_queue()
        return 0

    cdef int flush_queue(self) except -1:
        """Encrypt until nothing is left or the transport below is full; then whatever that allows."""
        cdef Py_ssize_t count
        if self.state != TLS_OPEN and self.state != TLS_FLUSHING:
            return 0
        while self.head is not None and not self.is_lower_paused and not self.is_blocked:
            try:
                count = self.engine.encrypt(self.next_piece())
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                return self.fatal(error, FATAL)
            if count == TLS_WANTS_INPUT:
                self.is_blocked = True
            else:
                self.take_encrypted(count)
                if self.stream is not None and self.stream.guard is not None:
                    self.stream.guard.on_answer()
            self.send_output()
            if self.state >= TLS_LOST:
                return 0
        if self.is_paused:
            self.resume_protocol()
        else:
            self.note_refused()
        if self.state == TLS_FLUSHING and self.head is None:
            self.begin_shutdown()
        return 0

    cdef int send_output(self) except -1:
        """Hand on what the engine has made."""
        cdef object output = self.engine.take_output()
        if output is None or self.lower is None:
            return 0
        if self.stream is not None:
            return self.stream.write_chunk(output, PyBytes_GET_SIZE(output))
        self.lower.write(output)
        return 0

    cdef int send_output_now(self) except -1:
        """The same, when nothing more follows: where nothing is deferred, the transport below sends it now."""
        self.send_output()
        return flush_if_deferred(self.reactor) if self.is_prompt else 0

    cdef Py_ssize_t unsent(self) except -1:
        """Bytes that the application wrote and the kernel (or a foreign transport below) has not taken."""
        return self.queued + (self.stream.held if self.stream is not None else 0)

    cdef int note_refused(self) except -1:
        """Bytes may have to wait: more than the limits allow, or than the high-water mark?"""
        if self.stream is not None and self.stream.guard is not None and (self.is_lower_paused or self.is_blocked):
            self.stream.guard.on_refused(self.unsent())
            if self.stream.state >= TRANSPORT_LOST:
                return 0
        return self.pause_protocol()

    cdef int pause_protocol(self) except -1:
        # Bytes that are only deferred, here or below, do not count.
        if self.is_paused or not self.is_connected or not (self.is_lower_paused or self.is_blocked):
            return 0
        if self.unsent() <= self.high_water or self.state > TLS_OPEN:
            return 0
        self.is_paused = True
        try:
            self.protocol.pause_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.reactor.report({"message": "protocol.pause_writing() failed", "exception": error,
                                 "transport": self.transport, "protocol": self.protocol})
        return 0

    cdef int resume_protocol(self) except -1:
        # Not paused below means that what it holds is under our low-water mark (limit_lower).
        if self.is_lower_paused or self.is_blocked or self.queued > self.low_water:
            return 0
        self.is_paused = False
        try:
            self.protocol.resume_writing()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.reactor.report({"message": "protocol.resume_writing() failed", "exception": error,
                                 "transport": self.transport, "protocol": self.protocol})
        return 0

    # ---- closing -------------------------------------------------------------------------------------------------

    cdef int start_close(self) except -1:
        """close(): deliver what was written, say goodbye, wait a bounded time for the peer's."""
        if self.state == TLS_HANDSHAKE:
            return self.abort(None)
        if self.state != TLS_OPEN:
            return 0
        self.state = TLS_FLUSHING
        self.began_ns = self.reactor.now_ns()
        self.set_timer(self.shutdown_timeout_s if self.options.shutdown_timeout is not None else
                       min(ANSWER_TIMEOUT_S, self.shutdown_timeout_s), self._shutdown_timed_out)
        if self.is_reading_paused:
            self.is_reading_paused = False
            self.lower.resume_reading()  # for the peer's close_notify
        return self.flush_queue()

    cdef int begin_shutdown(self) except -1:
        self.state = TLS_SHUTDOWN
        if self.is_eof and not self.has_peer_ended:
            return self.finish()  # a peer that spared itself the goodbye expects none, as in asyncio
        try:
            self.engine.end()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            pass  # data of the peer's is in the way, or its end is already known; ours is in the output
        self.send_output_now()
        if self.state != TLS_SHUTDOWN:
            return 0
        if self.is_eof:
            return self.finish()
        return self.discard_input()

    def _shutdown_timed_out(self):
        cdef double took_s = <double>(self.reactor.now_ns() - self.began_ns) / 1e9
        cdef bint is_sent = self.queued == 0 and self.lower.get_write_buffer_size() == 0
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
        self.state = TLS_LOST
        self.close_lower(TimeoutError("SSL shutdown timed out"))

    cdef int finish(self) except -1:
        """Both sides are done. The timer goes on: what the transport below still holds may never leave."""
        self.state = TLS_LOST
        self.lower.close()
        return 0

    cdef int abort(self, object error) except -1:
        """Close at once; error is for connection_lost. What was only deferred is still sent."""
        if self.state == TLS_OPEN or self.state == TLS_FLUSHING:
            self.flush_queue()
        if self.state == TLS_CLOSED:
            return 0
        self.state = TLS_LOST
        self.drop_queue()
        return self.close_lower(error)

    cdef int close_lower(self, object error) except -1:
        if self.lower is None:
            return 0
        force_close = getattr(self.lower, "_force_close", None)
        if force_close is not None:
            force_close(error)
        else:
            self.lower.abort()
        return 0

    cdef int fatal(self, object error, str message) except -1:
        """Something failed: tell, and end the connection."""
        if self.state < TLS_LOST:
            self.state = TLS_LOST
            self.close_lower(error)
        if isinstance(error, OSError):
            if self.reactor.debug:
                logger.debug("%r: %s", self.transport, message, exc_info=error)
        elif not isinstance(error, asyncio.CancelledError):
            self.reactor.report({"message": message, "exception": error, "transport": self.transport,
                                 "protocol": self.protocol})
        return 0

    def __repr__(self):
        return f"<TlsSession of {self.transport!r}>"


cdef double checked_timeout(str name, object value, double default) except? -1:
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value


cdef int limit_lower(TlsSession session) except -1:
    """Have the stream below call resume_writing() no later than our own low-water mark asks for."""
    cdef StreamTransport stream = session.stream
    stream.high_water = min(stream.high_water, session.low_water)
    stream.low_water = min(stream.low_water, stream.high_water // 4)
    return 0
