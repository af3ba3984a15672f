from hoop.core.csrc cimport hoop_job, hoop_pool
from hoop.core.handle cimport PostedHandle
from hoop.core.reactor cimport Reactor
from libc.stdint cimport int64_t


cdef class Job(PostedHandle):
    """What a pool runs. A subclass for each kind holds the C structure with the hoop_job in it, and points to it."""
    cdef hoop_job *job          # set by the subclass's __cinit__, after hoop_job_init()
    cdef object future          # while it is in flight
    cdef Crew crew              # likewise

    cdef object result(self)    # on the loop's thread, after run(): the result, or raises
    cdef int deliver_to(self, object future) except -1  # what result() gives or raises


cdef class PythonJob(Job):
    """func(*args), on a thread of the pool."""
    cdef hoop_job own
    cdef object func
    cdef tuple args
    cdef object value
    cdef object error

    cdef int call(self) noexcept


cdef class Crew:
    """A queue and the threads that serve it. The threads hold their crew, so it ends after them; its Pool stops it."""
    cdef hoop_pool *core
    cdef int size
    cdef size_t queue_limit     # 0: none
    cdef int64_t spin_ns        # how long to look before sleeping; 0: not at all
    cdef bint holds_gil         # the threads run Python jobs only, one after another without letting go of the GIL
    cdef bint forked            # this is a child's copy: lock and threads belong to the parent
    cdef bint stopped
    cdef str name
    cdef list threads
    cdef object hiring          # a lock, while a thread is being started
    cdef int hired
    cdef object __weakref__

    cdef object submit(self, Reactor reactor, Job job)
    cdef int start(self, Job job) except -1
    cdef int hire(self) except -1
    cdef int forget_thread(self, object thread) except -1
    cdef int serve_python(self) except? -1
    cdef int take_back(self, Job job) except -1
    cdef int check_usable(self) except -1
    cdef int detach(self, Reactor reactor) except -1
    cdef int disown(self, Reactor reactor) except -1
    cdef int give_back(self, bint if_stranded) except -1
    cdef int stop(self) except -1
    cdef bint is_over(self) except -1
    cdef int join(self) except -1
