from hoop.core.csrc cimport hoop_histogram
from hoop.core.reactor cimport Reactor
from hoop.jobs.crew cimport Crew, Job


cdef class Pool:
    cdef Crew crew
    cdef object __weakref__

    cdef Crew its_crew(self)
    cdef object submit(self, Reactor reactor, Job job)   # the asyncio future; cancelling it takes a queued job back


cdef Pool pool_of(Reactor reactor)      # the loop's, made at its first use; RuntimeError once the loop is closed
cdef object durations(const hoop_histogram *histogram)  # a hoop.stats.Durations
