"""Compiled StreamWriter, and the StreamReaderProtocol between a transport and the two halves of a stream.

API and semantics are those of asyncio's (see Lib/asyncio/streams.py). They work on the transports of any loop; hoop's
own stream shows the protocol its bytes where it received them, and the writer writes to it by a compiled call.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from hoop.core.cpython_api cimport instance_dict
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.step_coroutine cimport STEP_ENDS, STEP_GOES_ON, StepCoroutine, StepOutcome
from hoop.net.stream cimport StreamTransport
from hoop.net.transport cimport TRANSPORT_OPEN, Transport, spare_dict
from hoop.streams.reader cimport StreamReader

import asyncio
import warnings

# Finalizers may run when the interpreter's end has emptied this module, so what they call is no attribute of it.
cdef object warn = warnings.warn


cdef class StreamReaderProtocol:
    """Passes on bytes and events between a transport, a reader and a writer. isinstance() sees asyncio's."""

    def __cinit__(self, *arguments, **keywords):
        spare_dict(self)

    def __init__(self, stream_reader, client_connected_cb=None, loop=None):
        self.is_filter = type(self) is StreamReaderProtocol and type(stream_reader) is StreamReader
        self.reader = stream_reader
        self.client_connected_cb = client_connected_cb
        self._loop = asyncio.get_event_loop() if loop is None else loop

    @property
    def __class__(self):
        return asyncio.StreamReaderProtocol

    @property
    def _client_connected_cb(self):
        return self.client_connected_cb

    @property
    def _stream_reader(self):
        return self.reader

    @property
    def _paused(self):
        return self.is_paused

    def _replace_transport(self, transport):
        self.transport = transport
        self.is_over_tls = transport.get_extra_info("sslcontext") is not None

    def connection_made(self, transport):
        """Called by the transport."""
        self._replace_transport(transport)
        self.reader.set_transport(transport)
        if self.client_connected_cb is None:
            return
        try:
            result = self.client_connected_cb(self.reader, StreamWriter(transport, self, self.reader, self._loop))
        except Exception as error:  # a plain function's; cpython#155941
            self._client_failed(error, transport)
            return
        if asyncio.iscoroutine(result):
            self.task = self._loop.create_task(result)
            if isinstance(transport, Transport):
                self.task.add_done_callback(self, context=(<Transport>transport).context)
            else:
                self.task.add_done_callback(self)

    def __call__(self, task):
        """The task of a server's handler is done: close the connection if it was cancelled or has failed; report a
        failure. (Each connection has this callback: the protocol itself, which costs no bound method.)"""
        transport = self.transport
        if self.is_server_draining:
            self.expect_no_answer()
        if task.cancelled():
            if transport is not None:
                transport.close()
            return
        error = task.exception()
        if error is not None:
            self._client_failed(error, transport)

    def _client_failed(self, error, transport):
        self._loop.call_exception_handler({"message": "Unhandled exception in client_connected_cb",
                                           "exception": error, "transport": transport})
        if transport is not None:
            transport.close()

    def connection_lost(self, exc):
        """Called by the transport."""
        if exc is None:
            self.reader.feed_eof()
        else:
            self.reader.set_exception(exc)
        self.is_lost = True
        self.lost_with = exc
        end_future(self.close_waiter, exc)
        for waiter in self.drain_waiters or ():
            end_future(waiter, exc)
        self.task = None
        self.transport = None

    cdef int on_bytes(self, char *data, Py_ssize_t size) except -1:
        return self.reader.feed(PyBytes_FromStringAndSize(data, size))

    cdef int close_from_below(self) except -1:
        if self.transport is not None:
            self.transport.close()
        return 0

    def data_received(self, data):
        """Called by the transport."""
        self.reader.feed_data(data)

    def eof_received(self):
        """Called by the transport; writing stays open except over TLS, which has no half-closed state."""
        self.reader.feed_eof()
        return not self.is_over_tls

    cdef int drain_from_below(self) except -1:
        """Nobody may answer any more what came before the handler returned."""
        self.is_server_draining = True
        if self.task is not None and self.task.done():
            self.expect_no_answer()
        return 0

    cdef int expect_no_answer(self) except -1:
        if isinstance(self.transport, StreamTransport):
            return (<StreamTransport>self.transport).expect_no_answer()
        return 0

    def pause_writing(self):
        """Called by the transport."""
        self.is_paused = True

    def resume_writing(self):
        """Called by the transport."""
        self.is_paused = False
        for waiter in self.drain_waiters or ():
            end_future(waiter, None)

    async def _drain_helper(self):
        if self.is_lost:
            raise ConnectionResetError("Connection lost")
        if not self.is_paused:
            return
        waiter = self._loop.create_future()
        if self.drain_waiters is None:
            self.drain_waiters = []
        self.drain_waiters.append(waiter)
        try:
            await waiter
        finally:
            self.drain_waiters.remove(waiter)

    def _get_close_waiter(self, stream):
        if self.close_waiter is None:
            self.close_waiter = self._loop.create_future()
            if self.is_lost:
                end_future(self.close_waiter, self.lost_with)
        return self.close_waiter

    def __del__(self):
        if self.close_waiter is not None and self.close_waiter.done() and not self.close_waiter.cancelled():
            self.close_waiter.exception()  # perhaps no caller has asked: that is no error to log


cdef int end_future(object future, object error) except -1:
    """Set the result (None) or the error of a future, unless it is absent or done."""
    if future is None or future.done():
        return 0
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
    return 0


cdef class StreamWriter:
    """The writing half of a stream."""

    def __cinit__(self, *arguments, **keywords):
        spare_dict(self)

    def __init__(self, transport, protocol, reader, loop):
        self.protocol = protocol
        self.reader = reader
        self.stream_transport = transport

    @property
    def __class__(self):
        return asyncio.StreamWriter

    @property
    def transport(self):
        """The transport underneath."""
        return self.stream_transport

    @property
    def _transport(self):
        return self.stream_transport

    @property
    def _loop(self):
        return self.protocol._loop

    @property
    def _reader(self):
        return self.reader

    @property
    def _protocol(self):
        return self.protocol

    cdef StreamTransport plain_stream(self):
        """The transport, if it is hoop's own stream, and the user has not patched this one; else None."""
        cdef PyObject *attributes
        if type(self.stream_transport) is not StreamTransport:
            return None
        attributes = instance_dict(self.stream_transport)[0]
        if attributes != NULL and len(<dict>attributes) > 0:
            return None
        return <StreamTransport>self.stream_transport

    def write(self, data):
        """Send data; drain() tells when to go on."""
        cdef StreamTransport stream = self.plain_stream() if type(data) is bytes else None
        if stream is not None:
            stream.write_chunk(data, PyBytes_GET_SIZE(data))
        else:
            self.stream_transport.write(data)

    def writelines(self, data):
        """Send the items of an iterable of bytes."""
        self.stream_transport.writelines(data)

    def write_eof(self):
        """Close the writing direction once everything written is delivered."""
        return self.stream_transport.write_eof()

    def can_write_eof(self):
        """Whether the transport knows half-closed connections."""
        return self.stream_transport.can_write_eof()

    def close(self):
        """Close the stream; wait_closed() tells when that is done."""
        return self.stream_transport.close()

    def is_closing(self):
        """Whether the stream is closed or being closed."""
        return self.stream_transport.is_closing()

    async def wait_closed(self):
        """Wait until the connection has ended; raises what ended it, if that was an error."""
        await self.protocol._get_close_waiter(self)

    def get_extra_info(self, name, default=None):
        """Return what the transport's get_extra_info() returns."""
        return self.stream_transport.get_extra_info(name, default)

    def drain(self):
        """A coroutine: wait until the write buffer is below its high-water mark. Raises what ended the connection."""
        cdef DrainCoroutine draining = DrainCoroutine.__new__(DrainCoroutine)
        draining.subject = self
        return draining

    cdef bint is_closing_now(self) except -1:
        cdef StreamTransport stream = self.plain_stream()
        if stream is not None:
            return stream.state != TRANSPORT_OPEN
        return self.stream_transport.is_closing()

    async def _drain_slowly(self):
        if self.stream_transport.is_closing():
            await asyncio.sleep(0)  # let connection_lost() run first, so that a loop of writes learns of it
        await self.protocol._drain_helper()

    async def start_tls(self, sslcontext, *, server_hostname=None, ssl_handshake_timeout=None,
                        ssl_shutdown_timeout=None):
        """Switch the connection to TLS, as loop.start_tls() does."""
        server_side = self.protocol.client_connected_cb is not None
        await self.drain()
        transport = await self.protocol._loop.start_tls(
            self.stream_transport, self.protocol, sslcontext, server_side=server_side, server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)
        self.stream_transport = transport
        self.reader.transport = transport
        self.protocol._replace_transport(transport)

    def __repr__(self):
        return f"<StreamWriter transport={self.stream_transport!r} reader={self.reader!r}>"

    def __del__(self):
        if self.stream_transport is None or self.stream_transport.is_closing():
            return
        if self.protocol._loop.is_closed():
            warn("loop is closed", ResourceWarning)
        else:
            try:
                self.close()
            except RuntimeError:  # the collector runs in another thread than the loop
                self.protocol._loop.call_soon_threadsafe(self.stream_transport.close)
            warn(f"unclosed {self!r}", ResourceWarning)


cdef class DrainCoroutine(StepCoroutine):
    """StreamWriter.drain()."""

    cdef str name(self):
        return "StreamWriter.drain"

    cdef StepOutcome begin(self) except *:
        cdef StreamWriter writer = <StreamWriter>self.subject
        if writer.reader is not None and writer.reader.error is not None:
            raise writer.reader.error
        if writer.protocol is None:  # a subclass that forgot super().__init__()
            raise RuntimeError("StreamWriter.__init__() was not called")
        if writer.protocol.is_paused or writer.protocol.is_lost or writer.is_closing_now():
            self.target = writer._drain_slowly().__await__()
            return STEP_GOES_ON
        return STEP_ENDS


refuse_instances(DrainCoroutine)
