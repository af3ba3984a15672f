from hoop.reactor cimport Reactor


cdef class BaseLoop(Reactor):
    cdef public object _task_factory  # None, or what loop.py's set_task_factory() was given

    cdef dict watchers_by_kind(self)
    cdef int check_schedulable(self, object callback, str method) except -1
    cdef object add_watch(self, object fd, object callback, tuple args, bint is_writer, str method)
