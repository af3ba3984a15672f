"""Compiled StreamReader with the API and the semantics of asyncio's (see Lib/asyncio/streams.py). It works on any loop.

The reader keeps what arrived as it arrived: a read that takes a whole chunk hands out the very bytes object that came
from the transport. A read that needs more than one chunk copies them once. Only a search across chunks joins them for
good.
"""
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from hoop.core.csrc cimport hoop_ring_size
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.step_coroutine cimport STEP_ENDS, STEP_GOES_ON, STEP_WAITS, StepCoroutine, StepOutcome
from hoop.net.chunks cimport append_chunk, copy_chunks, drop_chunks, take_chunks
from hoop.net.transport cimport spare_dict

import asyncio
import sys
from asyncio import format_helpers

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

    # Names of asyncio's that programs read although asyncio never promised them.

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
        """Remove and return the first size bytes, or all if there are fewer."""
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
        """Join all unread bytes in one bytearray. feed() adds to it until the application has read everything."""
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

    # ---- what the protocol calls ---------------------------------------------------------------------------------

    def set_transport(self, transport):
        """Set the transport to pause and resume. Call it once."""
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
        """Mark the end: the peer sends no more data."""
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
        """Return the future of more data. One coroutine at a time may wait."""
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
        cdef Py_ssize_t size = PyNumber_AsSsize_t(n, NULL)  # before there is a coroutine, which no caller would await
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


refuse_instances(ReadCoroutine)
