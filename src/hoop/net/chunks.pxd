# chunks.pxd: a queue of bytes in the chunks that they came in, kept by reference; the first may be partly used. A chunk
# is bytes or a memoryview of bytes, neither of which can be part of a cycle, so the collector need not see them.
# Inline, since this runs for each write and each read.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.core.csrc cimport hoop_ring, hoop_ring_free, hoop_ring_pop, hoop_ring_size, iovec
from hoop.core.rings cimport drain, push
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcpy

cdef struct Chunks:             # all zero: empty
    PyObject *head              # the first chunk, owned; NULL when there is none
    hoop_ring rest              # the chunks behind it, owned
    Py_ssize_t head_used        # bytes of head already consumed
    Py_ssize_t size             # bytes in all not yet consumed


cdef inline char *chunk_start(PyObject *chunk, Py_ssize_t *size) noexcept:
    """Return where the bytes of a chunk begin; size is how many there are."""
    cdef Py_buffer *view
    if PyBytes_CheckExact(<object>chunk):
        size[0] = PyBytes_GET_SIZE(<object>chunk)
        return PyBytes_AS_STRING(<object>chunk)
    view = PyMemoryView_GET_BUFFER(<object>chunk)
    size[0] = view.len
    return <char *>view.buf


cdef inline int append_chunk(Chunks *chunks, object chunk, Py_ssize_t size) except -1:
    """Append a chunk of size bytes, more than 0. MemoryError changes nothing."""
    if chunks.head == NULL:
        Py_INCREF(chunk)
        chunks.head = <PyObject *>chunk
    else:
        push(&chunks.rest, chunk)
    chunks.size += size
    return 0


cdef inline int drop_chunks(Chunks *chunks) except -1:
    """Release everything."""
    cdef PyObject *head = chunks.head
    chunks.head = NULL
    chunks.head_used = chunks.size = 0
    if head != NULL:
        Py_DECREF(<object>head)
        if chunks.rest.capacity > 0:
            drain(&chunks.rest)
    return 0


cdef inline int consume_chunks(Chunks *chunks, Py_ssize_t count) except -1:
    """Drop the first count bytes, and release the chunks that they fill. An empty queue keeps no memory."""
    cdef PyObject *done
    cdef Py_ssize_t size
    if count == chunks.size:
        return drop_chunks(chunks)
    chunks.size -= count
    while chunks.head != NULL:
        chunk_start(chunks.head, &size)
        if count < size - chunks.head_used:
            chunks.head_used += count
            return 0
        count -= size - chunks.head_used
        done = chunks.head
        chunks.head = <PyObject *>hoop_ring_pop(&chunks.rest)
        chunks.head_used = 0
        Py_DECREF(<object>done)
    if chunks.rest.capacity > 0:
        hoop_ring_free(&chunks.rest)
    return 0


cdef inline int chunk_buffers(const Chunks *chunks, iovec *buffers, int capacity, Py_ssize_t *total) noexcept:
    """Describe the first chunks in buffers. Returns how many fit; total is their bytes. The queue must not be empty."""
    cdef Py_ssize_t size
    cdef uint32_t i
    cdef int count = 1
    buffers[0].iov_base = chunk_start(chunks.head, &size) + chunks.head_used
    total[0] = size - chunks.head_used
    buffers[0].iov_len = <size_t>total[0]
    i = chunks.rest.head
    while i != chunks.rest.tail and count < capacity:
        buffers[count].iov_base = chunk_start(<PyObject *>chunks.rest.items[i & (chunks.rest.capacity - 1)], &size)
        buffers[count].iov_len = <size_t>size
        total[0] += size
        count += 1
        i += 1
    return count


cdef inline int copy_chunks(const Chunks *chunks, char *target, Py_ssize_t count) noexcept:
    """Copy the first count bytes to target; the queue must have them."""
    cdef Py_ssize_t size
    cdef const char *start = chunk_start(chunks.head, &size) + chunks.head_used
    cdef uint32_t i = chunks.rest.head
    size -= chunks.head_used
    while count > size:
        memcpy(target, start, <size_t>size)
        target += size
        count -= size
        start = chunk_start(<PyObject *>chunks.rest.items[i & (chunks.rest.capacity - 1)], &size)
        i += 1
    memcpy(target, start, <size_t>count)
    return 0


cdef inline Py_ssize_t find_byte(const Chunks *chunks, char byte, Py_ssize_t offset) noexcept:
    """Where byte stands first, from offset on; -1 if nowhere."""
    cdef Py_ssize_t size, base = 0
    cdef const char *found
    cdef const char *start
    cdef uint32_t i = chunks.rest.head
    if chunks.head == NULL:
        return -1
    start = chunk_start(chunks.head, &size) + chunks.head_used
    size -= chunks.head_used
    while True:
        if offset < base + size:
            found = <const char *>memchr(start + max(offset - base, 0), byte, <size_t>(size - max(offset - base, 0)))
            if found != NULL:
                return base + (found - start)
        if i == chunks.rest.tail:
            return -1
        base += size
        start = chunk_start(<PyObject *>chunks.rest.items[i & (chunks.rest.capacity - 1)], &size)
        i += 1


cdef inline object take_chunks(Chunks *chunks, Py_ssize_t count):
    """Consume the first count bytes (or all there are) and return them; a whole chunk of bytes is returned as is."""
    cdef object data
    count = min(count, chunks.size)
    if count == 0:
        return b""
    if (chunks.head_used == 0 and PyBytes_CheckExact(<object>chunks.head)
            and PyBytes_GET_SIZE(<object>chunks.head) == count):
        data = <object>chunks.head
    else:
        data = PyBytes_FromStringAndSize(NULL, count)
        copy_chunks(chunks, PyBytes_AS_STRING(data), count)
    consume_chunks(chunks, count)
    return data


cdef inline list views_of_chunks(const Chunks *chunks):
    """Return views of all chunks, for inspection."""
    cdef uint32_t i = chunks.rest.head
    cdef list views = []
    if chunks.head != NULL:
        views.append(memoryview(<object>chunks.head)[chunks.head_used:])
    while i != chunks.rest.tail:
        views.append(memoryview(<object><PyObject *>chunks.rest.items[i & (chunks.rest.capacity - 1)]))
        i += 1
    return views
