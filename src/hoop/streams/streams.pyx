"""Compiled StreamReader and StreamWriter with the API and the semantics of asyncio's (see Lib/asyncio/streams.py).

The reader keeps what arrived as it arrived: a read that takes a whole chunk hands out the very bytes object that came
from the transport. One that needs more than one chunk copies them once. Only a search across chunks joins them for
good.

They work on the transports of any loop. hoop's own stream shows the protocol its bytes where they were received, and is
written to by a compiled call.
"""
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from hoop.core.cpython_api cimport instance_dict
from hoop.core.csrc cimport hoop_ring_size
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.step_coroutine cimport STEP_ENDS, STEP_GOES_ON, STEP_WAITS, StepCoroutine, StepOutcome
from hoop.net.chunks cimport append_chunk, copy_chunks, drop_chunks, take_chunks
from hoop.net.stream cimport StreamTransport
from hoop.net.transport cimport TRANSPORT_OPEN, spare_dict

import asyncio
import sys
import warnings
from asyncio import format_helpers

# Finalizers may run when the interpreter's end has emptied this module, so what they call is no attribute of it.
cdef object warn = warnings.warn

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *overflow) except? -1  # NULL: cut what does not fit

cdef enum:
    DEFAULT_LIMIT = 64 * 1024

TAKES_SEPARATOR_TUPLES = sys.version_info >= (3, 13)


cdef class StreamReader:
    """The reading half of a stream. `limit`, in bytes, bounds a line; reading pauses at twice that much unread data."""

    def __cinit__(self, *arguments, **keywords):
        spare_dict(self)

    def __dealloc__(self):
        drop_chunks(&self.unread)

    def __init__(self, limit=DEFAULT_LIMIT, loop=None):
        if limit <= 0:
            raise ValueError("Limit cannot be <= 0")
        self._limit = int(min(limit, <Py_ssize_t>PY_SSIZE_T_MAX))  # as for asyncio, infinity is a limit
        self.loop = asyncio.get_event_loop() if loop is None else loop
        if self.loop.get_debug():
            self.source_traceback = format_helpers.extract_stack(sys._getframe(0))

    @property
    def __class__(self):
        return asyncio.StreamReader

    # Names of asyncio's that programs read although nobody promised them.

    @property
    def _loop(self):
        return self.loop

    @property
    def _exception(self):
        return self.error

    @property
    def _paused(self):
        return self.is_paused

    @property
    def _transport(self):
        return self.transport

    @property
    def _waiter(self):
        return self.waiter

    @property
    def _source_traceback(self):
        return self.source_traceback

    # ---- what arrived --------------------------------------------------------------------------------------------

    cdef Py_ssize_t available(self) noexcept:
        return self.unread.size if self.joined is None else PyByteArray_GET_SIZE(self.joined)

    cdef bytes take_unread(self, Py_ssize_t size):
        """The first size bytes (at most what is there), read and gone."""
        cdef bytes data
        if self.joined is None:
            return take_chunks(&self.unread, size)
        size = min(size, PyByteArray_GET_SIZE(self.joined))
        data = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(self.joined), size)
        if size == PyByteArray_GET_SIZE(self.joined):
            self.joined = None
        else:
            del self.joined[:size]
        return data

    cdef Py_ssize_t find_unread(self, bytes separator, Py_ssize_t offset) except -2:
        """Where separator begins in what is unread, from offset on; -1 if nowhere."""
        cdef Py_ssize_t found
        if self.joined is None:
            if self.unread.head == NULL:
                return -1
            if hoop_ring_size(&self.unread.rest) == 0:
                found = (<bytes>self.unread.head).find(separator, offset + self.unread.head_used)
                return found - self.unread.head_used if found >= 0 else -1
            self.join_unread()
        return self.joined.find(separator, offset)

    cdef int join_unread(self) except -1:
        """All that is unread into one bytearray: what comes is added there, until everything was read."""
        cdef bytearray joined
        if self.joined is None:
            joined = PyByteArray_FromStringAndSize(NULL, self.unread.size)
            if self.unread.size > 0:
                copy_chunks(&self.unread, PyByteArray_AS_STRING(joined), self.unread.size)
                drop_chunks(&self.unread)
            self.joined = joined
        return 0

    @property
    def _buffer(self):
        self.join_unread()
        return self.joined

    # ---- the transport's side ------------------------------------------------------------------------------------

    def set_transport(self, transport):
        """Tell which transport to pause and resume. Once."""
        assert self.transport is None, "Transport already set"
        self.transport = transport

    def exception(self):
        """What set_exception() was given, or None."""
        return self.error

    def set_exception(self, exc):
        """Have every read from now on raise exc."""
        cdef object waiter = self.waiter
        self.error = exc
        if waiter is not None:
            self.waiter = None
            if not waiter.cancelled():
                waiter.set_exception(exc)

    def feed_eof(self):
        """No more data will come."""
        self._eof = True
        self.wake_reader()

    def at_eof(self):
        """Whether the end has come and everything was read."""
        return self._eof and self.available() == 0

    def feed_data(self, data):
        """Add received bytes. Pauses the transport at twice the limit."""
        assert not self._eof, "feed_data after feed_eof"
        if data:
            self.feed(PyBytes_FromObject(data))

    cdef int feed(self, bytes data) except -1:
        """Add data, which is not empty."""
        if self.joined is None:
            append_chunk(&self.unread, data, PyBytes_GET_SIZE(data))
        else:
            self.joined += data
        self.wake_reader()
        # not 2 * _limit: sys.maxsize is a limit
        if self.transport is not None and not self.is_paused and self.available() - self._limit > self._limit:
            try:
                self.transport.pause_reading()
            except NotImplementedError:
                self.transport = None  # it cannot be paused: do not ask again
            else:
                self.is_paused = True
        return 0

    cdef int wake_reader(self) except -1:
        cdef object waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.cancelled():
                waiter.set_result(None)
        return 0

    cdef int resume_if_low(self) except -1:
        if self.is_paused and self.available() <= self._limit:
            self.is_paused = False
            self.transport.resume_reading()
        return 0

    cdef object begin_wait(self, str caller):
        """The future of more data. One coroutine at a time may wait."""
        if self.waiter is not None:
            raise RuntimeError(f"{caller}() called while another coroutine is already waiting for incoming data")
        assert not self._eof, "_wait_for_data after EOF"
        if self.is_paused:  # else a separator beyond the limit would never come
            self.is_paused = False
            self.transport.resume_reading()
        self.waiter = self.loop.create_future()
        return self.waiter

    async def _wait_for_data(self, func_name):
        waiter = self.begin_wait(func_name)
        try:
            await waiter
        finally:
            self.waiter = None

    # ---- reading -------------------------------------------------------------------------------------------------

    def read(self, n=-1):
        """A coroutine: up to n bytes, as soon as there are any; everything until the end for -1; b"" at the end."""
        cdef Py_ssize_t size = PyNumber_AsSsize_t(n, NULL)  # before there is a coroutine that nobody would await
        cdef ReadCoroutine reading = ReadCoroutine.__new__(ReadCoroutine)
        reading.size = size
        reading.subject = self
        return reading

    async def _read_all(self):
        blocks = []
        while block := await self.read(self._limit):
            blocks.append(block)
        return b"".join(blocks)

    async def readexactly(self, n):
        """Exactly n bytes. asyncio.IncompleteReadError, with what came, if the end comes first."""
        cdef Py_ssize_t size = PyNumber_AsSsize_t(n, NULL)
        if size < 0:
            raise ValueError("readexactly size can not be less than zero")
        if self.error is not None:
            raise self.error
        if size == 0:
            return b""
        while self.available() < size:
            if self._eof:
                raise asyncio.IncompleteReadError(self.take_unread(self.available()), n)
            waiter = self.begin_wait("readexactly")
            try:
                await waiter
            finally:
                self.waiter = None
        data = self.take_unread(size)
        self.resume_if_low()
        return data

    async def readline(self):
        """A line with its b"\\n"; what there is if the end comes first. ValueError if the line exceeds the limit."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            if self.find_unread(b"\n", error.consumed) == error.consumed:
                self.take_unread(error.consumed + 1)
            else:
                self.take_unread(self.available())
            self.resume_if_low()
            raise ValueError(error.args[0])

    async def readuntil(self, separator=b"\n"):
        """Everything up to and with separator (Python 3.13+: or the first of a tuple of separators to end).

        asyncio.LimitOverrunError, leaving the data, if that is longer than the limit; asyncio.IncompleteReadError if
        the end comes first; ValueError for an empty separator.
        """
        cdef Py_ssize_t offset = 0, start, end
        cdef Py_ssize_t shortest, longest
        separators = checked_separators(separator)
        shortest = len(separators[0])
        longest = len(separators[len(separators) - 1])
        if self.error is not None:
            raise self.error
        while True:
            if self.available() - offset >= shortest:
                start, end = first_match(self, separators, offset)
                if start >= 0:
                    break
                offset = max(0, self.available() + 1 - longest)  # a separator may have begun before the end
                if offset > self._limit:
                    raise asyncio.LimitOverrunError("Separator is not found, and chunk exceed the limit", offset)
            if self._eof:
                raise asyncio.IncompleteReadError(self.take_unread(self.available()), None)
            waiter = self.begin_wait("readuntil")
            try:
                await waiter
            finally:
                self.waiter = None
        if start > self._limit:
            raise asyncio.LimitOverrunError("Separator is found, but chunk is longer than limit", start)
        data = self.take_unread(end)
        self.resume_if_low()
        return data

    def __aiter__(self):
        return self

    async def __anext__(self):
        line = await self.readline()
        if line == b"":
            raise StopAsyncIteration
        return line

    def __repr__(self):
        words = ["StreamReader"]
        if self.available():
            words.append(f"{self.available()} bytes")
        if self._eof:
            words.append("eof")
        if self._limit != DEFAULT_LIMIT:
            words.append(f"limit={self._limit}")
        if self.waiter is not None:
            words.append(f"waiter={self.waiter!r}")
        if self.error is not None:
            words.append(f"exception={self.error!r}")
        if self.transport is not None:
            words.append(f"transport={self.transport!r}")
        if self.is_paused:
            words.append("paused")
        return f"<{' '.join(words)}>"


cdef class ReadCoroutine(StepCoroutine):
    """StreamReader.read()."""

    cdef str name(self):
        return "StreamReader.read"

    cdef StepOutcome begin(self) except *:
        cdef StreamReader reader = <StreamReader>self.subject
        if reader.error is not None:
            raise reader.error
        if self.size == 0:
            self.result = b""
            return STEP_ENDS
        if self.size < 0:
            self.target = reader._read_all().__await__()
            return STEP_GOES_ON
        if reader.available() == 0 and not reader._eof:
            self.target = reader.begin_wait("read")
            return STEP_WAITS
        return self.take(reader)

    cdef StepOutcome wake(self, object future) except *:
        cdef StreamReader reader = <StreamReader>self.subject
        reader.waiter = None
        future.result()
        return self.take(reader)

    cdef StepOutcome take(self, StreamReader reader) except *:
        self.result = reader.take_unread(self.size)
        reader.resume_if_low()
        return STEP_ENDS

    cdef int forget(self, object future) except -1:
        cdef StreamReader reader = <StreamReader>self.subject
        if reader.waiter is future:
            reader.waiter = None
        return 0


cdef tuple checked_separators(object separator):
    """Separators as bytes, the shortest first."""
    if type(separator) is bytes:
        separators = (separator,)
    elif isinstance(separator, tuple) and TAKES_SEPARATOR_TUPLES:
        separators = tuple(sorted((PyBytes_FromObject(item) for item in separator), key=len))
        if not separators:
            raise ValueError("Separator should contain at least one element")
    else:
        separators = (bytes(memoryview(separator)),)
    if len(separators[0]) == 0:
        raise ValueError("Separator should be at least one-byte string")
    return separators


cdef tuple first_match(StreamReader reader, tuple separators, Py_ssize_t offset):
    """(start, end) of the separator that ends first, or (-1, -1)."""
    cdef Py_ssize_t start = -1, end = -1, found
    for separator in separators:
        found = reader.find_unread(separator, offset)
        if found >= 0 and (end < 0 or found + len(separator) < end):
            start = found
            end = found + len(separator)
    return start, end


cdef class StreamReaderProtocol:
    """Between a transport and a reader and writer. asyncio.StreamReaderProtocol to isinstance()."""

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
            self.task.add_done_callback(self._client_done)

    def _client_done(self, task):
        """The server's handler has ended: one that failed leaves no connection behind."""
        transport = self.transport
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
            self.close_waiter.exception()  # nobody may have asked: that is no error to log


cdef int end_future(object future, object error) except -1:
    """End a future that may be absent or cancelled."""
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
        self.bind_transport(transport)
        self.protocol = protocol
        self.reader = reader
        self._loop = loop

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
    def _reader(self):
        return self.reader

    @property
    def _protocol(self):
        return self.protocol

    cdef int bind_transport(self, object transport) except -1:
        self.stream_transport = transport
        self.stream = <StreamTransport>transport if type(transport) is StreamTransport else None
        return 0

    cdef bint is_stream_plain(self) except -1:
        """Whether the transport is hoop's own stream, and nobody has patched this one."""
        cdef PyObject *attributes
        if self.stream is None:
            return False
        attributes = instance_dict(self.stream)[0]
        return attributes == NULL or len(<dict>attributes) == 0

    def write(self, data):
        """Send data; drain() tells when to go on."""
        if type(data) is bytes and self.is_stream_plain():
            self.stream.write_chunk(data, PyBytes_GET_SIZE(data))
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
        """As the transport's."""
        return self.stream_transport.get_extra_info(name, default)

    def drain(self):
        """A coroutine: wait until the write buffer is below its high-water mark. Raises what ended the connection."""
        cdef DrainCoroutine draining = DrainCoroutine.__new__(DrainCoroutine)
        draining.subject = self
        return draining

    cdef bint is_closing_now(self) except -1:
        if self.is_stream_plain():
            return self.stream.state != TRANSPORT_OPEN
        return self.stream_transport.is_closing()

    async def _drain_slowly(self):
        if self.stream_transport.is_closing():
            await asyncio.sleep(0)  # let connection_lost() come first, so that a loop of writes learns of it
        await self.protocol._drain_helper()

    async def start_tls(self, sslcontext, *, server_hostname=None, ssl_handshake_timeout=None,
                        ssl_shutdown_timeout=None):
        """Go on over TLS. As loop.start_tls()."""
        server_side = self.protocol.client_connected_cb is not None
        await self.drain()
        transport = await self._loop.start_tls(
            self.stream_transport, self.protocol, sslcontext, server_side=server_side, server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout)
        self.bind_transport(transport)
        self.reader.transport = transport
        self.protocol._replace_transport(transport)

    def __repr__(self):
        return f"<StreamWriter transport={self.stream_transport!r} reader={self.reader!r}>"

    def __del__(self):
        if self.stream_transport is None or self.stream_transport.is_closing():
            return
        if self._loop.is_closed():
            warn("loop is closed", ResourceWarning)
        else:
            self.close()
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


refuse_instances(ReadCoroutine)
refuse_instances(DrainCoroutine)
