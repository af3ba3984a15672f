from hoop.core.turns cimport Turns


cdef class BaseLoop(Turns):
    cdef int close_reactor(self) except -1
    cdef dict watchers_by_kind(self)
    cdef object add_watch(self, object fd, object callback, tuple args, bint is_writer, str method)
