cdef bint is_asyncio_stream(object protocol)
cdef bint feed_asyncio_reader(object protocol, const char *data, Py_ssize_t size) except -1
