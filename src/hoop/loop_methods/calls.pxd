from hoop.core.reactor cimport Reactor


cdef int add_calls(object kind) except -1
cdef int check_schedulable(Reactor loop, object callback, str method) except -1  # what callback may be given to
