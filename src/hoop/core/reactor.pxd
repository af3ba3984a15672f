from cpython.object cimport PyObject
from hoop.core.csrc cimport hoop_board_writer, hoop_clock_ns, hoop_datagram_reader, hoop_poller, hoop_ring, \
    hoop_ring_size, hoop_send_batch, hoop_spin
from hoop.core.flag cimport flag
from hoop.core.handle cimport Handle, invoke
from hoop.core.ownership cimport hoop_mutex
from hoop.core.scheduler cimport Errand, Scheduler
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    READ_BUFFER_SIZE = 98304    # 64 KiB over TLS, and more; malloc(3) maps no memory for a copy

    # A phase of the turn ends with what its callbacks have written, unless one of these sends it earlier.
    LONGEST_HOLD_NS = 2000000   # since the first held write
    MOST_HELD = 64              # objects with held writes
    MOST_HELD_BYTES = 64 * 1024  # more would leave the cache before the kernel copies it

    # What a callback has written leaves with its next write, when it has gone on for so long.
    LONGEST_RUN_NS = 250000

    # A callback that has kept others' writes waiting for so long may not be the last one: for this many times as long,
    # with a limit, nothing is held from one callback to the next.
    SLOW_NS = 1000000
    WARY_TIMES = 10
    LONGEST_WARY_NS = 1000000000


cdef class Deferred(Errand):
    """An object whose writes the reactor flushes when the running phase of the turn has ended. (docs/writes.md)"""
    cdef int on_flush(self, bint is_loop_calling) except -1  # send what was deferred; the loop calls between callbacks
    cdef int on_flush_failed(self, object error) except -1   # its on_flush() has raised this
    cdef bint offer(self, hoop_send_batch *batch) noexcept   # add what on_flush() would send; False: it cannot go so
    cdef int on_sent(self, Py_ssize_t result) except -1      # of what was offered: bytes, or -errno; on_flush() follows


cdef class Watcher(Deferred):
    """An object that the reactor tells when its descriptor is ready.

    A watcher with an interest keeps loop.run() from returning, unless it is unreferenced. The reactor counts: a
    subclass gets this, and the Python methods ref(), unref() and has_ref(), without doing anything.
    """
    cdef Reactor reactor
    cdef int fd                 # -1 when it owns or watches none (any more)
    cdef flag is_watched        # it stands in the reactor's table under fd
    cdef flag is_held           # and the table owns a reference to it
    cdef flag is_kept_idle      # the table keeps its reference while the interest is 0
    cdef flag is_unreferenced   # the user's wish: run() does not wait for it
    cdef flag is_users_fd       # the user owns the descriptor (add_reader): a transport may take it over
    cdef flag is_counted        # in the reactor's references: it has an interest and is referenced

    cdef int set_referenced(self, bint is_referenced) except -1  # what ref() and unref() do; at any time, idempotent

    cdef int on_events(self, unsigned events) except -1   # HOOP_READABLE | HOOP_WRITABLE, masked by interest
    cdef int on_watch_failed(self, int error) except -1   # the kernel refused an interest; error is a positive errno
    cdef int on_failed(self, object error) except -1      # its on_events() has raised this, or the kernel refused it
    cdef int on_loop_closed(self) except -1               # the loop closes, and lets go of it next
    cdef int on_descriptor_lost(self) except -1           # another owner of fd closed it, and the number is reused


cdef class Reactor(Scheduler):
    cdef hoop_ring flushes      # Deferred: writes of the phase that is running
    cdef hoop_send_batch *batch  # sends what many of them hold; NULL until that many do
    cdef bint batches_sends     # there may be a batch
    cdef hoop_poller poller
    cdef PyObject **watchers    # Watcher by descriptor number, or NULL
    cdef hoop_mutex table       # without a GIL: while the table changes, or a watcher that it does not own is taken
    cdef int watcher_capacity
    cdef char *read_buffer      # shared by the transports: each copies what it has read before anything else runs
    cdef hoop_datagram_reader *datagram_reader  # likewise, for datagrams; NULL until the first
    cdef object entered         # the context left entered between two callbacks, or None
    cdef bint in_callback       # the loop's thread is running callbacks: writes may be deferred
    cdef bint defers_writes     # the default of a new transport
    cdef int64_t noted_ns       # a recent reading of the monotonic clock, also where the loop has a clock of its own
    cdef int64_t held_since_ns  # the first in `flushes` came there then or later
    cdef int64_t looked_ns      # when the running callback began, or earlier if that is not known
    cdef uint64_t looked_at     # the callback that had ended then: how many had run, and how many events
    cdef Py_ssize_t held_bytes  # at least what those in `flushes` hold
    cdef int64_t wary_until_ns  # until then, each callback's writes leave when it has ended
    cdef bint has_held          # the running callback has added to them
    cdef bint knows_begin       # looked_ns is right
    cdef bint forked            # we are in a child: the kernel's poller belongs to the parent
    cdef bint must_poll         # the next turn polls: the loop changed an interest, wrote to or closed a descriptor
    cdef hoop_spin event_spin   # whether to wait for events with open eyes
    cdef hoop_spin job_spin     # the same for the results of jobs in flight; the pool sets its limit
    cdef hoop_board_writer board  # counts connections; and tells a watching process what the loop does, if one watches
    cdef object board_memory    # the Board that has its place; None: nobody watches
    cdef public double slow_callback_duration
    cdef public object _current_handle
    cdef public object _task_factory  # kept for create_task (calls.pyx): None, or what set_task_factory() was given

    # Floors above keep these here. The core holds them, releases them when the loop closes, and never looks into
    # them.
    cdef object timeout_queues  # timeouts: its TimeoutQueue by length, weakly; None until the first
    cdef object jobs_pool       # pool: the loop's Pool; None until its first use
    cdef object jobs_pool_size  # pool: the size of a pool of the loop's own
    cdef bint owns_jobs_pool    # pool: close it with the loop
    cdef object spare_watcher   # fd_watcher: one that has ended, for the next add_reader(); None: there is none
    cdef set crews              # pool: every Crew that has had jobs of this loop; None until the first
    cdef object cached_files    # fs_jobs: its CachedFiles; None until the first read
    cdef bint reads_cached_files  # fs_jobs: whether to use them

    cdef int watch(self, Watcher watcher, unsigned interest) except -1
    cdef int rewatch(self, Watcher watcher, unsigned interest) except -1
    cdef int unwatch(self, Watcher watcher) except -1
    cdef int set_interest(self, Watcher watcher, unsigned interest) except -1
    cdef unsigned interest(self, Watcher watcher) noexcept
    cdef Watcher watcher_of(self, int fd)
    cdef int table_size(self) noexcept
    cdef Watcher taken(self, int fd)
    cdef int check_watching(self) except -1
    cdef int drop_watcher(self, int fd) except -1
    cdef int keep_idle(self, Watcher watcher) except -1
    cdef int count_watcher(self, Watcher watcher, bint is_waiting) except -1
    cdef int grow_watchers(self, int fd) except -1

    cdef int enter_context(self, object context) except -1
    cdef int leave_context(self) except -1
    cdef int report(self, dict context) except -1
    cdef int report_failure(self, str message, object error, object transport, object protocol) except -1
    cdef int callback_failed(self, object error, str message, object transport, object protocol) except -1

    cdef int run_handle(self, Handle handle) except -1
    cdef int run_handle_timed(self, Handle handle) except -1
    cdef int handle_failed(self, Handle handle, object error) except -1
    cdef int settle(self) except -1
    cdef int end_phase(self) except -1
    cdef bint may_go_on_holding(self) noexcept
    cdef int defer_flush(self, Deferred deferred) except -1
    cdef int flush_deferred(self) except -1
    cdef int flush_writes(self, bint is_loop_calling) except -1
    cdef int send_together(self) except -1
    cdef int release_everything(self) except -1


# ---- callbacks ----------------------------------------------------------------------------------------------------

cdef int switch_context(Reactor reactor, PyObject *context) noexcept
cdef int call_failed(Reactor reactor, Handle handle) except -1


cdef inline int call_handle(Reactor reactor, Handle handle) except -1:
    """Call without a try block, which would save and restore the state of exceptions around each callback."""
    if reactor.entered is not handle.context and switch_context(reactor, <PyObject *>handle.context) < 0:
        return call_failed(reactor, handle)
    if invoke(handle) < 0:
        return call_failed(reactor, handle)
    return 0


cdef inline int call_one(Reactor reactor, Handle handle) except -1:
    reactor.meter.callbacks += 1
    if reactor.debug:
        return reactor.run_handle_timed(handle)
    return call_handle(reactor, handle)


cdef inline double seconds_since(int64_t began_ns) noexcept:
    return <double>(hoop_clock_ns() - began_ns) / 1e9


# ---- deferred writes (docs/writes.md) ------------------------------------------------------------------------------

cdef inline bint may_hold(Reactor reactor, Py_ssize_t size) noexcept:
    """Whether the latest write, of size bytes, may wait for the end of the phase. If not, the running callback goes on
    for long: send all. The first write takes noted_ns for its time, which saves a look at the clock: that cannot be too
    late, and if it is much too early, the second write is sent for nothing, and the third finds it fresh. The first
    write of a later callback takes the look that settle() had at the end of the one before."""
    cdef int64_t now_ns
    if hoop_ring_size(&reactor.flushes) == 0:
        reactor.held_since_ns = reactor.looked_ns = reactor.noted_ns
        reactor.knows_begin = reactor.meter.callbacks + reactor.meter.events <= reactor.looked_at + 1
        reactor.held_bytes = size
        reactor.has_held = True
        return True
    reactor.held_bytes += size
    if not reactor.has_held:
        reactor.has_held = True
        return True
    now_ns = hoop_clock_ns()
    reactor.noted_ns = now_ns
    return now_ns - reactor.looked_ns <= LONGEST_RUN_NS


cdef inline int flush_if_deferred(Reactor reactor) except -1:
    """Call this before anything that others can see: earlier writes must not come after it. In the loop's thread."""
    if hoop_ring_size(&reactor.flushes) > 0:
        return reactor.flush_deferred()
    return 0
