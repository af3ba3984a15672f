from hoop.core.flag cimport flag
from hoop.core.reactor cimport Reactor

cdef struct Watermarks:         # when a protocol is told to pause writing, and when to go on
    Py_ssize_t high             # pause above so many bytes
    Py_ssize_t low              # resume at so many, or fewer


cdef int set_watermarks(Watermarks *marks, object high, object low, Py_ssize_t default_high) except -1
cdef int pause_above(const Watermarks *marks, flag *is_paused, Py_ssize_t unsent, Reactor reactor, object transport,
                     object protocol) except -1
cdef int resume_below(const Watermarks *marks, flag *is_paused, Py_ssize_t unsent, Reactor reactor, object transport,
                      object protocol) except -1
