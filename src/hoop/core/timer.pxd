from hoop.core.handle cimport ScheduledHandle
from hoop.core.reactor cimport Reactor
from cpython.object cimport PyObject
from libc.stdint cimport int64_t


cdef class Timer(ScheduledHandle):
    cdef Reactor reactor
    cdef double delay_s         # as it was given
    cdef int64_t period_ns      # the delay, rounded up
    cdef int64_t deadline_ns    # the latest one

    cdef int start(self) except -1
    cdef int set_deadline(self, int64_t deadline_ns) except -1


cdef Timer set_timeout(Reactor reactor, double delay_s, object callback, PyObject **arguments, Py_ssize_t count,
                       object context)
cdef Timer set_interval(Reactor reactor, double period_s, object callback, PyObject **arguments, Py_ssize_t count,
                        object context)
