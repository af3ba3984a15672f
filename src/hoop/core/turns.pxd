from hoop.core.csrc cimport hoop_event
from hoop.core.reactor cimport Reactor, Watcher
from libc.stdint cimport int64_t

cdef enum:
    EVENT_CAPACITY = 256        # of one look; the next reports what does not fit


cdef class Turns(Reactor):
    """A reactor that runs."""
    cdef hoop_event[EVENT_CAPACITY] events  # of the latest look
    cdef bint poll_every_turn
    cdef int skipped_polls
    cdef int vain_probes        # looks without blocking, in a row, that a sleep had to follow
    cdef int64_t gave_way_ns    # when other threads last could have the GIL because the loop let them
    cdef size_t last_batch      # callbacks run by the latest turn
    cdef bint is_telling        # we are telling a watcher of its event: what is raised now is its error
    cdef bint has_stale         # an event of this wait was of a registration that no watcher has
    cdef int stale_waits        # waits in a row that reported such a registration

    cdef int run_turns(self, bint until_idle) except -1
    cdef int turn(self) except -1
    cdef int turn_failed(self, object error) except -1
    cdef int poll(self, bint may_block) except -1
    cdef int hear_signals(self) except -1
    cdef int give_way(self) except -1
    cdef int sleep(self, bint has_probed) except -1
    cdef int drain_waker(self) noexcept nogil
    cdef int run_ready(self, size_t count) except -1
    cdef int run_due(self, size_t count) except -1
    cdef int run_immediates(self, size_t count) except -1
    cdef int dispatch(self, int count) except -1
    cdef int dispatch_from(self, int *done, int count) except -1
    cdef int event_failed(self, int index, object error) except -1
    cdef int dispatch_timed(self, Watcher watcher, unsigned events) except -1
