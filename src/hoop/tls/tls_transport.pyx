"""The application's end of a TLS connection: an asyncio.Transport over a TlsSession."""
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.scheduler cimport check_caller
from hoop.net.chunks cimport append_chunk
from hoop.net.flow_control cimport set_watermarks
from hoop.net.transport cimport TRANSPORT_OPEN
from hoop.net.writing cimport owned_chunk, owned_chunks
from hoop.tls.engine cimport TlsEngine
from hoop.tls.engine_choice cimport new_engine
from hoop.tls.session cimport TlsSession
from hoop.tls.tls_connection cimport TLS_CLOSED, TLS_FLUSHING, TLS_HANDSHAKE, TLS_LOST, TLS_OPEN, TLS_SHUTDOWN
from hoop.tls.tls_writing cimport DEFAULT_TLS_HIGH_WATER

import asyncio
import ssl
import warnings

# Finalizers may run when the interpreter's end has emptied this module, so what they call is no attribute of it.
cdef object warn = warnings.warn

cdef enum:
    DEFAULT_READ_HIGH_WATER = 256 * 1024  # asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_READ


def new_session(loop, protocol, options, waiter=None, is_upgrade=False):
    """A TlsSession, which says what the arguments are, whose app_transport is a TlsTransport.

    ValueError and TypeError for names that no certificate can have, ValueError for timeouts that are not positive.
    """
    cdef object context = default_context(options) if isinstance(options.context, bool) else options.context
    cdef object name = None if options.is_server else options.server_hostname or None
    cdef TlsEngine engine = new_engine(context, bool(options.is_server), name, bool(options.is_safe))
    # Positional: Cython mishandles a lack of memory in calls with keywords.
    cdef TlsSession session = TlsSession(loop, protocol, engine, options, waiter, is_upgrade)
    cdef TlsTransport transport = TlsTransport.__new__(TlsTransport)
    transport.session = session
    transport.sslcontext = context
    transport.set_read_buffer_limits()
    session.transport = transport
    return session


cdef object default_context(object options):
    """What ssl=True means. ValueError for a server, which needs a certificate of its own."""
    if options.is_server:
        raise ValueError("Server side SSL needs a valid SSLContext")
    context = ssl.create_default_context()
    if not options.server_hostname:
        context.check_hostname = False
    return context


class SSLTransport(asyncio.Transport):
    """What isinstance() sees of a TLS transport. Programs look for "ssl" in the name of a transport's class."""

    __slots__ = ()


cdef class TlsTransport:
    """The application's side: an asyncio.Transport whose bytes travel encrypted."""

    _start_tls_compatible = True  # TLS in TLS
    _sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK

    @property
    def __class__(self):
        return SSLTransport

    @property
    def _loop(self):
        return self.session.reactor

    @property
    def _ssl_protocol(self):
        return self.session

    @property
    def _protocol_paused(self):
        return self.session.is_writing_paused

    @property
    def _closed(self):
        return self.is_closing()

    @property
    def _high_water(self):
        return self.session.marks.high

    @property
    def _low_water(self):
        return self.session.marks.low

    cdef int check_ours(self, str method) except -1:
        """A connection that still lives is for its loop's own thread. RuntimeError for others: always without a GIL, in
        debug mode with it."""
        if self.session.state < TLS_LOST:
            check_caller(self.session.reactor, method)
        return 0

    def get_extra_info(self, name, default=None):
        """"ssl_object", "sslcontext", "peercert", "cipher", "compression", "tls_engine" ("direct" or "safe", see
        docs/tls.md), or what the transport below knows."""
        cdef TlsSession session = self.session
        if name == "sslcontext":
            return self.sslcontext
        if name == "tls_engine":
            return session.engine.name
        if session.is_handshaken:
            if name == "ssl_object":
                return session.engine.ssl_object
            if name == "peercert":
                return session.engine.ssl_object.getpeercert()
            if name == "cipher":
                return session.engine.ssl_object.cipher()
            if name == "compression":
                return session.engine.ssl_object.compression()
        return default if session.lower is None else session.lower.get_extra_info(name, default)

    def get_protocol(self):
        """The protocol that the transport calls now."""
        return self.session.protocol

    def set_protocol(self, protocol):
        """Have another protocol called from now on."""
        self.check_ours("transport.set_protocol")
        self.session.flush_queue()
        self.session.bind_protocol(protocol)

    def is_closing(self):
        """Whether close(), abort(), the peer or an error has ended the connection or is about to."""
        cdef TlsSession session = self.session
        return session.state > TLS_OPEN or (session.stream is not None and session.stream.state != TRANSPORT_OPEN)

    def close(self):
        """Deliver what was written, exchange close_notify, close; bounded by ssl_shutdown_timeout."""
        self.check_ours("transport.close")
        self.session.start_close()

    def abort(self):
        """Close at once."""
        self.check_ours("transport.abort")
        self.session.abort(None)

    def _force_close(self, error):
        self.session.abort(error)

    def ref(self):
        """As of the transport below, if it has that: have loop.run() wait for this connection again. Returns self."""
        self.check_ours("transport.ref")
        self.session.lower.ref()
        return self

    def unref(self):
        """Let loop.run() return although this connection is still open. Returns self."""
        self.check_ours("transport.unref")
        self.session.lower.unref()
        return self

    def has_ref(self):
        """Whether loop.run() waits for this connection."""
        return self.session.lower.has_ref()

    def is_reading(self):
        """Whether new data is being delivered."""
        return self.session.state <= TLS_OPEN and not self.session.is_reading_paused

    def pause_reading(self):
        """Deliver no more data until resume_reading(). Idempotent."""
        self.check_ours("transport.pause_reading")
        cdef TlsSession session = self.session
        if session.state == TLS_OPEN and not session.is_reading_paused:
            session.is_reading_paused = True
            session.lower.pause_reading()

    def resume_reading(self):
        """Undo pause_reading(). Idempotent."""
        self.check_ours("transport.resume_reading")
        cdef TlsSession session = self.session
        if session.state == TLS_OPEN and session.is_reading_paused:
            session.is_reading_paused = False
            session.lower.resume_reading()
            session.schedule_reading()  # what was decrypted or fed already

    def write(self, data):
        """Send bytes, bytearray or memoryview; never blocks. The data may be changed or released afterwards.

        TypeError for anything else. After the connection is closed, data is dropped.
        """
        self.check_ours("transport.write")
        if PyBytes_CheckExact(data):
            self.session.write_chunk(data, PyBytes_GET_SIZE(data))
        else:
            chunk = owned_chunk(data)
            self.session.write_chunk(chunk, len(chunk))

    def set_write_deferral(self, enabled):
        """Whether write() may hold bytes until the phase that runs has ended, and encrypt them together then
        (docs/writes.md). If not, it encrypts and sends at once; what is held is sent now. The default is the loop's.
        """
        self.check_ours("transport.set_write_deferral")
        self.session.set_prompt(not enabled)

    def header_received(self):
        """The head of the peer's message is complete: header_timeout (hoop.Limits) no longer applies. Idempotent."""
        cdef TlsSession session = self.session
        if session.stream is not None and session.stream.guard is not None:
            session.stream.guard.on_answer()

    def expect_header(self):
        """The next message may begin: from now on header_timeout (hoop.Limits) applies again."""
        cdef TlsSession session = self.session
        if session.stream is not None and session.stream.guard is not None:
            session.stream.guard.await_head()

    def writelines(self, list_of_data):
        """Send the items of an iterable, in as few records as possible. Nothing is sent if one has a wrong type."""
        self.check_ours("transport.writelines")
        cdef list chunks = owned_chunks(list_of_data)
        cdef TlsSession session = self.session
        for chunk in chunks:
            if session.state > TLS_OPEN:
                session.write_chunk(chunk, len(chunk))  # counts it as dropped
            elif len(chunk) > 0:
                append_chunk(&session.plaintext, chunk, len(chunk))
        if session.plaintext.size > 0 and session.state <= TLS_OPEN:
            session.after_write()

    def write_eof(self):
        """TLS connections are not closed one way. Raises NotImplementedError."""
        self.check_ours("transport.write_eof")
        raise NotImplementedError("a TLS connection cannot be closed one way")

    def can_write_eof(self):
        """False."""
        return False

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the watermarks in bytes: pause_writing() above high, resume_writing() at or below low.

        Defaults are asyncio's for TLS (512 KiB, and a quarter). ValueError unless high >= low >= 0.
        """
        self.check_ours("transport.set_write_buffer_limits")
        cdef TlsSession session = self.session
        set_watermarks(&session.marks, high, low, DEFAULT_TLS_HIGH_WATER)
        if session.stream is not None:
            session.limit_lower()
            session.flush_queue()
            session.stream.flush_deferred()
            session.stream.pause_protocol()
        session.pause_protocol()

    def get_write_buffer_limits(self):
        """(low, high) in bytes."""
        return (self.session.marks.low, self.session.marks.high)

    def get_write_buffer_size(self):
        """Bytes that have not left: plaintext that waits, and ciphertext that hoop's own stream below holds."""
        cdef TlsSession session = self.session
        session.flush_queue()
        if session.stream is not None:
            session.stream.flush_deferred()
        return session.unsent()

    # asyncio's TLS transports have these, too, undocumented.

    def set_read_buffer_limits(self, high=None, low=None):
        """For compatibility: pause_reading() holds the peer up at once, not when this much has piled up.

        ValueError unless high >= low >= 0.
        """
        set_watermarks(&self.reading, high, low, DEFAULT_READ_HIGH_WATER)

    def get_read_buffer_limits(self):
        """(low, high) in bytes."""
        return (self.reading.low, self.reading.high)

    def get_read_buffer_size(self):
        """Bytes of ciphertext that have come and are not decrypted yet: while reading is paused."""
        return self.session.undecrypted()

    def __del__(self):
        if self.session is not None and TLS_HANDSHAKE < self.session.state < TLS_LOST:
            warn(f"unclosed transport {self!r}", ResourceWarning, source=self)

    def __repr__(self):
        cdef TlsSession session = self.session
        names = {TLS_HANDSHAKE: "in handshake", TLS_OPEN: "open", TLS_FLUSHING: "closing", TLS_SHUTDOWN: "closing",
                 TLS_LOST: "closing", TLS_CLOSED: "closed"}
        version = session.engine.ssl_object.version() if session.is_handshaken else None
        words = ["TlsTransport", names[session.state], *([version] if version else [])]
        if session.plaintext.size > 0:
            words.append(f"unencrypted={session.plaintext.size}")
        return f"<{' '.join(words)} over {session.lower!r}>"


refuse_instances(TlsTransport)
