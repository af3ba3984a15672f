"""Received bytes on their way to an asyncio.StreamReader, without a bytes object and four Python functions between.

feed_asyncio_reader() does what asyncio's StreamReaderProtocol.data_received(), StreamReader.feed_data() and
_wakeup_waiter() do (Lib/asyncio/streams.py), in their order, and only while they are asyncio's own, as this file knows
them. For a derived class, a class or an object that a program has patched, and a Python whose functions use other
names, its caller has to call data_received().
"""
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from hoop.core.cpython_api cimport type_slots
from libc.string cimport memcpy

from asyncio import streams

cdef extern from "Python.h":
    dict PyObject_GenericGetDict(object thing, void *context)
    object PyObject_CallNoArgs(object function)
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    void *generic_getattr "PyObject_GenericGetAttr"
    void *generic_setattr "PyObject_GenericSetAttr"

# Neither the classes nor their functions are attributes of this module, which the interpreter's end may have emptied.
cdef object StreamReaderProtocol = streams.StreamReaderProtocol
cdef object StreamReader = streams.StreamReader


cdef enum:
    ATTRIBUTES_OF_READER = 8    # outside of debug mode; with another number we look more closely


cdef struct Verdict:            # about a class: a cache, which can always be found anew
    unsigned version            # the class's, which changes with each change of it or of its bases; 0: has none
    bint is_plain


cdef Verdict of_protocol
cdef Verdict of_reader


cdef bint is_asyncio_stream(object protocol):
    """Whether it is worth trying feed_asyncio_reader() with it."""
    return type(protocol) is StreamReaderProtocol and KNOWS_ASYNCIO


cdef bint feed_asyncio_reader(object protocol, const char *data, Py_ssize_t size) except -1:
    """As protocol.data_received(), which may raise. False: it has to be called, and nothing has happened."""
    cdef dict fields
    cdef object reader
    cdef PyObject *reference
    if type(protocol) is not StreamReaderProtocol or not is_plain(StreamReaderProtocol, &of_protocol, OF_PROTOCOL):
        return False
    fields = PyObject_GenericGetDict(protocol, NULL)
    reference = PyDict_GetItemWithError(fields, "_stream_reader_wr")
    if reference == NULL or PyDict_GetItemWithError(fields, "data_received") != NULL:
        return False
    reader = <object>reference
    if reader is not None:
        reader = PyObject_CallNoArgs(reader)
    if reader is None:
        return True  # no code can read it any more
    if type(reader) is not StreamReader or not is_plain(StreamReader, &of_reader, OF_READER):
        return False
    return feed(reader, PyObject_GenericGetDict(reader, NULL), data, size)


cdef bint feed(object reader, dict fields, const char *data, Py_ssize_t size) except -1:
    cdef PyObject *found = PyDict_GetItemWithError(fields, "_buffer")
    cdef object buffer, waiter
    if found == NULL or type(<object>found) is not bytearray or has_more_to_do(fields):
        return False
    buffer = <object>found
    extend(buffer, data, size)
    found = PyDict_GetItemWithError(fields, "_waiter")
    waiter = <object>found if found != NULL else reader._waiter
    if waiter is not None:
        fields["_waiter"] = None
        if not waiter.cancelled():
            waiter.set_result(None)
    if is_beyond_limit(reader, fields, PyByteArray_GET_SIZE(buffer)):
        pause_reading(reader)
    return True


cdef bint has_more_to_do(dict fields) except -1:
    """Whether feed_data() would fail, since the end has come, or is another one, as the object's own attribute."""
    cdef PyObject *has_ended = PyDict_GetItemWithError(fields, "_eof")
    if has_ended == NULL or <object>has_ended is not False:
        return True
    if len(fields) == ATTRIBUTES_OF_READER:
        return False  # those that asyncio has given it
    return "feed_data" in fields or "_wakeup_waiter" in fields


cdef int extend(object buffer, const char *data, Py_ssize_t size) except -1:
    """buffer.extend(data): BufferError while a view of it exists."""
    cdef Py_ssize_t end = PyByteArray_GET_SIZE(buffer)
    PyByteArray_Resize(buffer, end + size)
    memcpy(PyByteArray_AS_STRING(buffer) + end, data, <size_t>size)
    return 0


cdef bint is_beyond_limit(object reader, dict fields, Py_ssize_t size) except -1:
    cdef PyObject *limit = PyDict_GetItemWithError(fields, "_limit")
    cdef long long half
    cdef int overflow
    if limit != NULL and type(<object>limit) is int:
        half = PyLong_AsLongLongAndOverflow(<object>limit, &overflow)
        if overflow > 0 or (half >= 0 and half >= size - half):
            return False
    return reader._transport is not None and not reader._paused and len(reader._buffer) > 2 * reader._limit


cdef int pause_reading(object reader) except -1:
    try:
        reader._transport.pause_reading()
    except NotImplementedError:
        reader._transport = None  # it cannot be paused: do not ask again
    else:
        reader._paused = True
    return 0


# ---- whether asyncio's classes are as this file knows them ----------------------------------------------------------

cdef tuple names_of(object function):
    """What its code names, without what only an assert statement names: -O leaves those out."""
    return tuple(sorted(set(function.__code__.co_names) - {"_eof"}))


cdef inline bint is_plain(object kind, Verdict *verdict, dict functions) except -1:
    cdef unsigned version = (<type_slots *>kind).tp_version_tag
    if version != 0 and version == verdict.version:
        return verdict.is_plain
    return look_at(kind, verdict, functions)


cdef bint look_at(object kind, Verdict *verdict, dict functions) except -1:
    verdict.version = 0
    verdict.is_plain = has_plain_attributes(kind, functions)
    verdict.version = (<type_slots *>kind).tp_version_tag  # given by a look at attributes, if there was none
    return verdict.is_plain


cdef bint has_plain_attributes(object kind, dict functions) except -1:
    """Whether kind has these functions, and its objects their attributes in nothing but a __dict__."""
    cdef type_slots *slots = <type_slots *>kind
    if slots.tp_getattro != <void *>&generic_getattr or slots.tp_setattro != <void *>&generic_setattr:
        return False
    for name, function in functions.items():
        if vars(kind).get(name) is not function:
            return False
    for name in FIELDS:
        if hasattr(kind, name):
            return False
    return True


cdef tuple FIELDS = ("_buffer", "_eof", "_limit", "_paused", "_stream_reader_wr", "_transport", "_waiter")
cdef dict OF_PROTOCOL = {name: vars(StreamReaderProtocol).get(name) for name in ("data_received", "_stream_reader")}
cdef dict OF_READER = {name: vars(StreamReader).get(name) for name in ("feed_data", "_wakeup_waiter")}


cdef bint knows_asyncio() except -1:
    """Whether these functions use the names that feed_asyncio_reader() uses, from Python 3.11 to 3.15 the same; not
    where a program has patched them before."""
    try:
        return ((names_of(OF_PROTOCOL["data_received"]), names_of(OF_PROTOCOL["_stream_reader"].fget),
                 names_of(OF_READER["feed_data"]), names_of(OF_READER["_wakeup_waiter"]))
                == (("_stream_reader", "feed_data"), ("_stream_reader_wr",),
                    ("NotImplementedError", "_buffer", "_limit", "_paused", "_transport", "_wakeup_waiter", "extend",
                     "len", "pause_reading"),
                    ("_waiter", "cancelled", "set_result")))
    except AttributeError:
        return False


cdef bint KNOWS_ASYNCIO = knows_asyncio()
