"""Compiled StreamReader with the API and the semantics of asyncio's (see Lib/asyncio/streams.py). It works on any loop.

The reader keeps what arrived as it arrived: a read that takes a whole chunk hands out the very bytes object that came
from the transport. A read that needs more than one chunk copies them once. Only a search for several bytes across
chunks joins them for good.
"""
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from hoop.core.csrc cimport hoop_ring_size
from hoop.core.refuse_instances cimport refuse_instances
from hoop.core.step_coroutine cimport STEP_ENDS, STEP_GOES_ON, STEP_WAITS, StepCoroutine, StepOutcome
from hoop.net.chunks cimport append_chunk, chunk_start, copy_chunks, drop_chunks, find_byte, take_chunks
from hoop.net.transport cimport spare_dict

import asyncio
import sys
from asyncio import format_helpers

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t needle_size)

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *overflow) except? -1  # NULL: cut what does not fit

cdef enum:
    DEFAULT_LIMIT = 64 * 1024

cdef bytes NEWLINE = b"\n"

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
            vars(self)["_source_traceback"] = format_helpers.extract_stack(sys._getframe(0))

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
        return vars(self).get("_source_traceback")

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
        cdef const char *start
        cdef const char *found
        cdef Py_ssize_t size
        if self.joined is None and hoop_ring_size(&self.unread.rest) > 0:
            if PyBytes_GET_SIZE(separator) == 1:
                return find_byte(&self.unread, PyBytes_AS_STRING(separator)[0], offset)
            self.join_unread()
        if self.joined is not None:
            start = PyByteArray_AS_STRING(self.joined)
        elif self.unread.head != NULL:
            start = chunk_start(self.unread.head, &size) + self.unread.head_used
        else:
            return -1
        size = self.available() - offset
        if size <= 0:
            return -1
        found = <const char *>memmem(start + offset, <size_t>size, PyBytes_AS_STRING(separator),
                                     <size_t>PyBytes_GET_SIZE(separator))
        return found - start if found != NULL else -1

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

    @property
    def _is_untouched(self):
        """Whether nothing is unread, and nothing but reading can come next: no end, no error."""
        return self.available() == 0 and not self._eof and self.error is None

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
        if self.waiter is not None:
            if self.available() < self.wanted:
                return 0
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

    cdef object begin_wait(self, str caller, Py_ssize_t wanted):
        """Return the future of more data, of wanted unread bytes in all. One coroutine at a time may wait."""
        if self.waiter is not None:
            raise RuntimeError(f"{caller}() called while another coroutine is already waiting for incoming data")
        if self.error is not None:  # it came after the data that woke the caller, and nothing comes after it
            raise self.error
        assert not self._eof, "_wait_for_data after EOF"
        if self.is_paused:  # else a separator beyond the limit would never come
            self.is_paused = False
            self.transport.resume_reading()
        self.wanted = wanted
        self.waiter = self.loop.create_future()
        return self.waiter

    async def _wait_for_data(self, func_name):
        waiter = self.begin_wait(func_name, 0)
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

    def readexactly(self, n):
        """A coroutine: exactly n bytes. asyncio.IncompleteReadError, with what came, if the end comes first."""
        cdef Py_ssize_t size = PyNumber_AsSsize_t(n, NULL)  # before there is a coroutine, which no caller would await
        cdef ReadExactlyCoroutine reading = ReadExactlyCoroutine.__new__(ReadExactlyCoroutine)
        reading.size = size
        reading.result = n
        reading.subject = self
        return reading

    def readuntil(self, separator=b"\n"):
        """A coroutine: all up to and with separator (Python 3.13+: or the first of a tuple of separators to end).

        asyncio.LimitOverrunError, leaving the data, if that is longer than the limit; asyncio.IncompleteReadError if
        the end comes first; ValueError for an empty separator.
        """
        cdef ReadUntilCoroutine reading = ReadUntilCoroutine.__new__(ReadUntilCoroutine)
        reading.result = separator
        reading.subject = self
        return reading

    def readline(self):
        """A coroutine: a line with its b"\n"; what there is if the end comes first. ValueError, and the line is gone,
        if it exceeds the limit."""
        cdef ReadLineCoroutine reading = ReadLineCoroutine.__new__(ReadLineCoroutine)
        reading.result = NEWLINE
        reading.subject = self
        return reading

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef NextLineCoroutine reading = NextLineCoroutine.__new__(NextLineCoroutine)
        reading.result = NEWLINE
        reading.subject = self
        return reading

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


# ---- the coroutines ------------------------------------------------------------------------------------------------

cdef class ReadingCoroutine(StepCoroutine):
    """A read: attempts to take what it wants, and again whenever more has come."""

    cdef StepOutcome begin(self) except *:
        cdef StreamReader reader = <StreamReader>self.subject
        if reader.error is not None:
            raise reader.error
        return self.attempt(reader)

    cdef StepOutcome wake(self, object future) except *:
        cdef StreamReader reader = <StreamReader>self.subject
        reader.waiter = None
        if reader.error is not None:
            future.result()  # raises it, unless data had come before
        return self.attempt(reader)

    cdef StepOutcome attempt(self, StreamReader reader) except *:
        raise NotImplementedError("each read says what it takes")

    cdef StepOutcome wait(self, StreamReader reader, str caller, Py_ssize_t wanted) except *:
        self.target = reader.begin_wait(caller, wanted)
        return STEP_WAITS

    cdef StepOutcome take(self, StreamReader reader, Py_ssize_t size) except *:
        """End with the first size bytes, or with all if there are fewer."""
        self.result = reader.take_unread(size)
        if reader.is_paused:
            reader.resume_if_low()
        return STEP_ENDS

    cdef int forget(self, object future) except -1:
        cdef StreamReader reader = <StreamReader>self.subject
        if reader.waiter is future:
            reader.waiter = None
        return 0


cdef class ReadCoroutine(ReadingCoroutine):
    """StreamReader.read()."""

    cdef str name(self):
        return "StreamReader.read"

    cdef StepOutcome attempt(self, StreamReader reader) except *:
        if self.size < 0:
            self.target = reader._read_all().__await__()
            return STEP_GOES_ON
        if self.size > 0 and reader.available() == 0 and not reader._eof:
            return self.wait(reader, "read", 0)
        return self.take(reader, self.size)


cdef class ReadExactlyCoroutine(ReadingCoroutine):
    """StreamReader.readexactly(). The reader wakes it when all has come."""

    cdef str name(self):
        return "StreamReader.readexactly"

    cdef StepOutcome begin(self) except *:
        if self.size < 0:
            raise ValueError("readexactly size can not be less than zero")
        return ReadingCoroutine.begin(self)

    cdef StepOutcome attempt(self, StreamReader reader) except *:
        if reader.available() >= self.size:
            return self.take(reader, self.size)
        if reader._eof:
            raise asyncio.IncompleteReadError(reader.take_unread(reader.available()), self.result)
        return self.wait(reader, "readexactly", self.size)


cdef class ReadUntilCoroutine(ReadingCoroutine):
    """StreamReader.readuntil(): `result` is the separator until it ends, `size` the bytes in which none begins."""

    cdef str name(self):
        return "StreamReader.readuntil"

    cdef StepOutcome begin(self) except *:
        if type(self.result) is not bytes or PyBytes_GET_SIZE(self.result) == 0:
            self.result = checked_separators(self.result)
        return ReadingCoroutine.begin(self)

    cdef StepOutcome attempt(self, StreamReader reader) except *:
        cdef Py_ssize_t start, end, longest
        longest = find_separator(reader, self.result, self.size, &start, &end)
        if start > reader._limit:
            return self.overrun(reader, "Separator is found, but chunk is longer than limit", start)
        if start >= 0:
            return self.take(reader, end)
        self.size = max(0, reader.available() + 1 - longest)  # a separator may have begun before the end
        if self.size > reader._limit:
            return self.overrun(reader, "Separator is not found, and chunk exceed the limit", self.size)
        if reader._eof:
            return self.cut_short(reader, reader.take_unread(reader.available()))
        return self.wait(reader, "readuntil", 0)

    cdef StepOutcome cut_short(self, StreamReader reader, bytes partial) except *:
        """End, since the stream has ended before a separator came."""
        raise asyncio.IncompleteReadError(partial, None)

    cdef StepOutcome overrun(self, StreamReader reader, str message, Py_ssize_t consumed) except *:
        """End, since no separator begins within the limit, nor in the first consumed bytes."""
        raise asyncio.LimitOverrunError(message, consumed)


cdef class ReadLineCoroutine(ReadUntilCoroutine):
    """StreamReader.readline()."""

    cdef str name(self):
        return "StreamReader.readline"

    cdef StepOutcome cut_short(self, StreamReader reader, bytes partial) except *:
        self.result = partial
        return STEP_ENDS

    cdef StepOutcome overrun(self, StreamReader reader, str message, Py_ssize_t consumed) except *:
        if reader.find_unread(NEWLINE, consumed) == consumed:
            reader.take_unread(consumed + 1)
        else:
            reader.take_unread(reader.available())
        reader.resume_if_low()
        raise ValueError(message)


cdef class NextLineCoroutine(ReadLineCoroutine):
    """StreamReader.__anext__()."""

    cdef str name(self):
        return "StreamReader.__anext__"

    cdef StepOutcome cut_short(self, StreamReader reader, bytes partial) except *:
        if len(partial) == 0:
            raise StopAsyncIteration
        return ReadLineCoroutine.cut_short(self, reader, partial)


cdef object checked_separators(object separator):
    """One separator, or several, as bytes, the shortest first."""
    if isinstance(separator, tuple) and TAKES_SEPARATOR_TUPLES:
        separators = tuple(sorted((PyBytes_FromObject(item) for item in separator), key=len))
        if not separators:
            raise ValueError("Separator should contain at least one element")
        shortest = separators[0]
    else:
        shortest = separators = bytes(memoryview(separator))
    if len(shortest) == 0:
        raise ValueError("Separator should be at least one-byte string")
    return separators


cdef Py_ssize_t find_separator(StreamReader reader, object separators, Py_ssize_t offset, Py_ssize_t *start,
                               Py_ssize_t *end) except -1:
    """Set start and end of the separator that ends first, from offset on; start is -1 if there is none. Returns the
    length of the longest separator."""
    cdef Py_ssize_t found, longest = 0
    cdef bytes separator
    if type(separators) is bytes:
        start[0] = reader.find_unread(<bytes>separators, offset)
        end[0] = start[0] + PyBytes_GET_SIZE(separators)
        return PyBytes_GET_SIZE(separators)
    start[0] = -1
    for separator in separators:
        longest = max(longest, PyBytes_GET_SIZE(separator))
        found = reader.find_unread(separator, offset)
        if found >= 0 and (start[0] < 0 or found + PyBytes_GET_SIZE(separator) < end[0]):
            start[0] = found
            end[0] = found + PyBytes_GET_SIZE(separator)
    return longest


refuse_instances(ReadingCoroutine)
refuse_instances(ReadCoroutine)
refuse_instances(ReadExactlyCoroutine)
refuse_instances(ReadUntilCoroutine)
refuse_instances(ReadLineCoroutine)
refuse_instances(NextLineCoroutine)
