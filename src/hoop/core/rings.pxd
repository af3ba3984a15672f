# rings.pxd: rings of owned references. Inline, since they run for each callback.
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.core.csrc cimport hoop_ring, hoop_ring_free, hoop_ring_grow, hoop_ring_pop, hoop_ring_push, hoop_ring_size


cdef inline int push(hoop_ring *queue, object entry) except -1:
    if hoop_ring_push(queue, <void *>entry) < 0:
        raise MemoryError()
    Py_INCREF(entry)
    return 0


cdef inline int make_room(hoop_ring *queue) except -1:
    """For the next push, which will not fail."""
    if hoop_ring_size(queue) == queue.capacity and hoop_ring_grow(queue) < 0:
        raise MemoryError()
    return 0


cdef inline int push_owned(hoop_ring *queue, PyObject *entry) except -1:
    """As push, for a reference that the caller owns and gives away, also when this fails."""
    if hoop_ring_push(queue, entry) < 0:
        Py_DECREF(<object>entry)
        raise MemoryError()
    return 0


cdef inline int drain(hoop_ring *queue) except -1:
    """Release every entry, and the ring's memory. Finalizers run, so each entry is out before it is released."""
    cdef PyObject *entry = <PyObject *>hoop_ring_pop(queue)
    while entry != NULL:
        Py_DECREF(<object>entry)
        entry = <PyObject *>hoop_ring_pop(queue)
    hoop_ring_free(queue)
    return 0
