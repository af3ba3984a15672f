from hoop.core.reactor cimport Reactor

cdef struct FlowControl:        # when a protocol is told to pause writing, and when to go on
    Py_ssize_t high             # pause above so many bytes
    Py_ssize_t low              # resume at so many, or fewer
    bint is_paused              # the protocol was told to pause, and not yet to resume


cdef int set_watermarks(FlowControl *flow, object high, object low, Py_ssize_t default_high) except -1
cdef int pause_above(FlowControl *flow, Py_ssize_t unsent, Reactor reactor, object transport,
                     object protocol) except -1
cdef int resume_below(FlowControl *flow, Py_ssize_t unsent, Reactor reactor, object transport,
                      object protocol) except -1
