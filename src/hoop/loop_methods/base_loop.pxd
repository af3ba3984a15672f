from hoop.core.turns cimport Turns


cdef class BaseLoop(Turns):
    cdef dict watchers_by_kind(self)
    cdef object add_watch(self, object fd, object callback, tuple args, bint is_writer, str method)
