"""The reactor: which watcher has which descriptor, how a callback runs, and what follows it. It knows no transport.

A callback runs in its context. After each, of any kind, comes settle(): microtasks (all next_ticks, then all
microtasks, until both are empty); after a phase of the turn, end_phase(): deferred writes. The turn decides when
callbacks run (turns.pyx).

Ownership: like the scheduler's queues, the ring of flushes and the table of watchers own one reference to each entry.
The garbage collector sees all of them (garbage.pyx), so it collects an abandoned loop with everything that it holds.
"""
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from hoop.core.cpython_api cimport PyContext_Exit, raw_context_enter, raw_context_exit, raw_decref, raw_incref
from hoop.core.csrc cimport *
from hoop.core.errors cimport check, os_error, pass_exits_on, raise_what_is_set
from hoop.core.handle cimport Handle, callback_source, described
from hoop.core.ownership cimport IS_FREE_THREADED, hoop_let_borrow, hoop_load_flag, hoop_look_at, hoop_mutex_lock, \
    hoop_mutex_unlock, hoop_try_incref
from hoop.core.poller_choice cimport open_poller
from hoop.core.rings cimport drain, push
from hoop.core.scheduler cimport Errand, Scheduler, check_caller
from libc.errno cimport ENOENT
from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.string cimport memset

from asyncio.log import logger


cdef class Deferred(Errand):
    cdef int on_flush(self, bint is_loop_calling) except -1:
        raise NotImplementedError("who defers must say what is flushed")

    cdef int on_flush_failed(self, object error) except -1:
        raise error

    cdef bint offer(self, hoop_send_batch *batch) noexcept:
        return False

    cdef int on_sent(self, Py_ssize_t result) except -1:
        return 0


cdef class Watcher(Deferred):
    def __cinit__(self):
        self.fd = -1

    cdef int on_events(self, unsigned events) except -1:
        raise NotImplementedError("a watcher must handle its events")

    cdef int on_flush_failed(self, object error) except -1:
        return self.on_failed(error)

    cdef int on_watch_failed(self, int error) except -1:
        return self.on_failed(os_error(-error))

    cdef int on_failed(self, object error) except -1:
        return self.reactor.report_failure(f"Error while a descriptor's event was handled: {self!r}", error, None, None)

    cdef int on_loop_closed(self) except -1:
        return 0

    cdef int on_descriptor_lost(self) except -1:
        return 0

    cdef int set_referenced(self, bint is_referenced) except -1:
        self.is_unreferenced = not is_referenced
        if self.is_watched:
            self.reactor.count_watcher(self, self.reactor.interest(self) != 0)
        return 0

    def ref(self):
        """Have loop.run() wait for this again, as it does by default. Returns self. (libuv: uv_ref)"""
        if self.reactor is not None:
            check_caller(self.reactor, "ref")
        self.set_referenced(True)
        return self

    def unref(self):
        """Let loop.run() return although this is still open; nothing else changes. Returns self. (libuv: uv_unref)"""
        if self.reactor is not None:
            check_caller(self.reactor, "unref")
        self.set_referenced(False)
        return self

    def has_ref(self):
        """Whether loop.run() waits for this as long as it is open and waits for something itself."""
        return not self.is_unreferenced


ctypedef int (*flush_without_raising)(Reactor, bint, PyObject **) noexcept  # flush_each; -1 with the exception set


cdef class Reactor(Scheduler):
    def __cinit__(self, *args, **kwargs):
        hoop_ring_init(&self.flushes)
        self.slow_callback_duration = 0.1

    def __init__(self, poller, clock, cached_reads, defer_writes, io_uring):
        if clock is not None and not callable(clock):
            raise TypeError(f"clock must be a callable returning nanoseconds, not {clock!r}")
        if self.read_buffer != NULL:
            raise RuntimeError("an event loop is initialised once")
        self.given_clock = clock
        self.look_at_time()
        self.defers_writes = defer_writes
        self.batches_sends = io_uring
        self.reads_cached_files = cached_reads
        hoop_allocator_expect_large_blocks()
        self.read_buffer = <char *>PyMem_Malloc(READ_BUFFER_SIZE)
        if self.read_buffer == NULL:
            raise MemoryError()
        open_poller(&self.poller, poller)
        cdef int result = hoop_waker_open(&self.waker)
        if result >= 0:
            self.drains_waker = not (hoop_waker_is_counter(&self.waker) and hoop_poller_tells_edges(&self.poller))
            result = hoop_poller_add(&self.poller, self.waker.read_fd, HOOP_READABLE | HOOP_EDGE)
        if result < 0:
            hoop_waker_close(&self.waker)
            hoop_poller_close(&self.poller)
            raise os_error(result)
        self.closed = False

    def __dealloc__(self):
        # The collector may visit once more before the object is gone (a debug build does): hide from it what we free.
        cdef PyObject **watchers
        self.release_everything()
        watchers = self.watchers
        self.watchers = NULL
        self.watcher_capacity = 0
        PyMem_Free(watchers)
        hoop_waker_close(&self.waker)
        hoop_poller_close(&self.poller)
        hoop_send_batch_close(self.batch)
        PyMem_Free(self.read_buffer)
        hoop_datagram_reader_close(self.datagram_reader)

    cdef int report(self, dict context) except -1:
        """Pass a problem to the loop's exception handler: the only overridable method that the core calls."""
        self.leave_context()
        self.call_exception_handler(context)
        return 0

    cdef int report_failure(self, str message, object error, object transport, object protocol) except -1:
        """Report error with the connection that it is about; None for an unknown part."""
        cdef dict context = {"message": message, "exception": error}
        if transport is not None:
            context["transport"] = transport
        if protocol is not None:
            context["protocol"] = protocol
        return self.report(context)

    cdef int callback_failed(self, object error, str message, object transport, object protocol) except -1:
        """Report what user code has raised: it concerns only its own connection, unless it must leave the loop."""
        pass_exits_on(error)
        return self.report_failure(message, error, transport, protocol)

    # ---- descriptors ----------------------------------------------------------------------------------------------

    cdef int watch(self, Watcher watcher, unsigned interest) except -1:
        """Enter watcher under its fd. A former watcher of it has lost its descriptor: the number was reused."""
        cdef int fd = watcher.fd
        if self.forked:
            raise RuntimeError("this event loop belongs to the parent process; make a new one after fork()")
        self.check_open()
        if IS_FREE_THREADED:
            self.check_watching()
        cdef Watcher former = self.watcher_of(fd)
        if former is not None:
            hoop_poller_forget(&self.poller, fd)
            self.drop_watcher(fd)
            former.fd = -1
            former.on_descriptor_lost()
        check(hoop_poller_add(&self.poller, fd, interest))
        if fd >= self.watcher_capacity:
            try:
                self.grow_watchers(fd)
            except MemoryError:
                hoop_poller_remove(&self.poller, fd)
                raise
        hoop_let_borrow(<void *>watcher)
        hoop_mutex_lock(&self.table)
        self.watchers[fd] = <PyObject *>watcher
        hoop_mutex_unlock(&self.table)
        watcher.is_watched = True
        self.count_watcher(watcher, interest != 0)
        keep_alive(self, watcher, interest != 0 or watcher.is_kept_idle)
        self.must_poll = True
        return 0

    cdef int rewatch(self, Watcher watcher, unsigned interest) except -1:
        """Set the interest at once, in case fd is no longer the file it was."""
        cdef int result = hoop_poller_rearm(&self.poller, watcher.fd, interest)
        if result < 0:
            if hoop_poller_generation(&self.poller, watcher.fd) == 0:
                self.drop_watcher(watcher.fd)
            raise os_error(result)
        self.count_watcher(watcher, interest != 0)
        self.must_poll = True
        return 0

    cdef int unwatch(self, Watcher watcher) except -1:
        """Forget watcher; its descriptor stays open. Idempotent."""
        if not watcher.is_watched:
            return 0
        if IS_FREE_THREADED:
            self.check_watching()
        if self.forked or self.poller.backend == NULL:
            hoop_poller_forget(&self.poller, watcher.fd)
        else:
            hoop_poller_remove(&self.poller, watcher.fd)  # fails by -ENOENT only: the kernel had refused it
        self.drop_watcher(watcher.fd)
        self.must_poll = True  # the caller is likely to close it, and we may watch its peer
        return 0

    cdef int set_interest(self, Watcher watcher, unsigned interest) except -1:
        cdef int result
        if not watcher.is_watched:
            return 0
        if IS_FREE_THREADED:
            self.check_watching()
        result = hoop_poller_set(&self.poller, watcher.fd, interest)
        if result < 0 and result != -ENOENT:
            raise os_error(result)
        self.must_poll = True
        self.count_watcher(watcher, interest != 0)
        keep_alive(self, watcher, interest != 0 or watcher.is_kept_idle)
        return 0

    cdef int check_watching(self) except -1:
        """Without a GIL: RuntimeError in another thread than the loop's. Callers further up say so in better words."""
        if IS_FREE_THREADED and not self.is_ours() and not hoop_look_at(&self.closed) and not self.forked:
            self.refuse_thread("what changes a loop's descriptors, as this")
        return 0

    cdef unsigned interest(self, Watcher watcher) noexcept:
        return hoop_poller_interest(&self.poller, watcher.fd) if watcher.is_watched else 0

    cdef Watcher watcher_of(self, int fd):
        if IS_FREE_THREADED:
            return self.taken(fd)  # whoever asks: without the mutex the table may move meanwhile
        if fd < 0 or fd >= self.watcher_capacity or self.watchers[fd] == NULL:
            return None
        return <Watcher>self.watchers[fd]

    cdef int table_size(self) noexcept:
        """From any thread: descriptors from there on have no watcher."""
        hoop_mutex_lock(&self.table)
        cdef int size = self.watcher_capacity
        hoop_mutex_unlock(&self.table)
        return size

    cdef Watcher taken(self, int fd):
        """From any thread, the watcher of fd. None for one that the table does not own and that another thread just now
        lets go of: it is about to be finalized."""
        cdef PyObject *entry = NULL
        cdef Watcher watcher
        hoop_mutex_lock(&self.table)
        if 0 <= fd < self.watcher_capacity and self.watchers[fd] != NULL and hoop_try_incref(self.watchers[fd]):
            entry = self.watchers[fd]
        hoop_mutex_unlock(&self.table)
        if entry == NULL:
            return None
        watcher = <Watcher>entry
        raw_decref(entry)
        return watcher

    cdef int drop_watcher(self, int fd) except -1:
        cdef Watcher watcher = self.taken(fd) if IS_FREE_THREADED else <Watcher>self.watchers[fd]
        hoop_mutex_lock(&self.table)
        self.watchers[fd] = NULL
        hoop_mutex_unlock(&self.table)
        if IS_FREE_THREADED and watcher is None:
            return 0
        watcher.is_watched = False
        self.count_watcher(watcher, False)
        keep_alive(self, watcher, False)
        return 0

    cdef int keep_idle(self, Watcher watcher) except -1:
        """Have the table own watcher until unwatch(), even while it waits for nothing."""
        watcher.is_kept_idle = True
        if watcher.is_watched:
            keep_alive(self, watcher, True)
        return 0

    cdef int count_watcher(self, Watcher watcher, bint is_waiting) except -1:
        cdef bint counts = is_waiting and not watcher.is_unreferenced
        if counts != watcher.is_counted:
            watcher.is_counted = counts
            if counts:
                self.references += 1
            else:
                self.references -= 1
        return 0

    cdef int grow_watchers(self, int fd) except -1:
        """Make room for fd, an open descriptor: the kernel keeps those small."""
        cdef int capacity = max(64, self.watcher_capacity)
        while capacity <= fd:
            capacity = capacity * 2 if capacity < 0x3fffffff else fd + 1
        cdef PyObject **grown
        hoop_mutex_lock(&self.table)
        grown = <PyObject **>PyMem_Realloc(self.watchers, <size_t>capacity * sizeof(PyObject *))
        if grown != NULL:
            memset(grown + self.watcher_capacity, 0, (capacity - self.watcher_capacity) * sizeof(PyObject *))
            self.watchers = grown
            self.watcher_capacity = capacity
        hoop_mutex_unlock(&self.table)
        if grown == NULL:
            raise MemoryError()
        return 0

    # ---- contexts -------------------------------------------------------------------------------------------------

    cdef int enter_context(self, object context) except -1:
        """Enter context, until a callback needs another one or the batch ends."""
        if self.entered is context:
            return 0
        return switch_context(self, <PyObject *>context)

    cdef int leave_context(self) except -1:
        cdef object context = self.entered
        if context is not None:
            self.entered = None
            PyContext_Exit(context)
        return 0

    # ---- callbacks ------------------------------------------------------------------------------------------------

    cdef int run_handle(self, Handle handle) except -1:
        return call_handle(self, handle)

    cdef int run_handle_timed(self, Handle handle) except -1:
        """Debug mode: log callbacks that hold the loop for long."""
        self._current_handle = handle
        cdef int64_t began_ns = hoop_clock_ns()
        try:
            self.run_handle(handle)
        finally:
            self._current_handle = None
        cdef double took_s = seconds_since(began_ns)
        if took_s >= self.slow_callback_duration:
            logger.warning("Executing %s took %.3f seconds", described(handle), took_s)
        return 0

    cdef int handle_failed(self, Handle handle, object error) except -1:
        """The handle's callback has raised error."""
        pass_exits_on(error)
        context = {"message": f"Exception in callback {callback_source(handle)}", "exception": error, "handle": handle}
        if handle.source_traceback:
            context["source_traceback"] = handle.source_traceback
        return self.report(context)

    cdef int settle(self) except -1:
        """After every callback: run microtasks until none is left. Then flush the writes of this phase, if they must
        not wait for its end; again if that made microtasks."""
        while True:
            run_microtasks(self)
            if hoop_ring_size(&self.flushes) == 0:
                break
            if self.may_go_on_holding():
                return 0  # after_is_due stays: the next callback is followed by a look at the bounds, too
            self.flush_writes(True)
        self.after_is_due = False
        return 0

    cdef int end_phase(self) except -1:
        """After the last callback of a phase, and before the loop may block: nothing stays held. Again if that made
        protocols write or queue microtasks."""
        while True:
            run_microtasks(self)
            if hoop_ring_size(&self.flushes) == 0:
                break
            self.flush_writes(True)
        self.after_is_due = False
        return 0

    # ---- deferred writes ------------------------------------------------------------------------------------------

    cdef int defer_flush(self, Deferred deferred) except -1:
        """Have deferred.on_flush() called when the running phase has ended, or earlier where a bound is reached."""
        if deferred.is_flush_due:
            return 0
        push(&self.flushes, deferred)
        deferred.is_flush_due = True
        self.after_is_due = True
        return 0

    cdef int flush_deferred(self) except -1:
        """Send what the running phase has written, in the order of the first writes. Callers that are about to do
        something that others can see call this first, whichever transport holds the bytes. Does nothing outside of the
        loop's thread: another thread may look at a socket object."""
        return self.flush_writes(False) if self.may_touch() else 0

    cdef bint may_go_on_holding(self) noexcept:
        """Between two callbacks of a phase: whether what is held may wait for the next one. Reads the clock each time,
        since the callback that has ended may have been slow: whether it was is known if its beginning is."""
        cdef int64_t now_ns, took_ns
        cdef bint knew_begin = self.knows_begin
        self.has_held = False
        self.knows_begin = True
        if hoop_ring_size(&self.flushes) >= MOST_HELD or self.held_bytes >= MOST_HELD_BYTES:
            return False
        now_ns = hoop_clock_ns()
        took_ns = now_ns - self.looked_ns
        self.noted_ns = self.looked_ns = now_ns
        self.looked_at = self.meter.callbacks + self.meter.events
        if knew_begin and took_ns > SLOW_NS:
            self.wary_until_ns = now_ns + min(WARY_TIMES * took_ns, <int64_t>LONGEST_WARY_NS)
        return now_ns - self.held_since_ns <= LONGEST_HOLD_NS and now_ns >= self.wary_until_ns

    cdef int flush_writes(self, bint is_loop_calling) except -1:
        """Flush each object in the queue. What fails is its own affair, and the next one has its turn."""
        cdef PyObject *flushed = NULL
        # What TLS encrypts now goes behind it in this queue, however long that takes.
        self.looked_ns = INT64_MAX
        # Without a try block, which would save and restore the state of exceptions in each phase.
        while (<flush_without_raising><void *>flush_each)(self, is_loop_calling, &flushed) < 0:
            flush_failed(flushed)
        return 0

    cdef int send_together(self) except -1:
        """Send what the first objects in the queue hold by one system call, as far as it can go that way. They stay in
        the queue: on_flush() does for each what remains. No Python code runs meanwhile. Returns how many they were."""
        cdef Py_ssize_t results[HOOP_SEND_BATCH_MAX]
        cdef hoop_ring *queue = &self.flushes
        cdef uint32_t first = queue.head
        cdef uint32_t behind = first
        cdef int count, i
        if self.batch == NULL:
            self.batch = hoop_send_batch_open()
            self.batches_sends = self.batch != NULL
            if not self.batches_sends:
                return 0
        while behind != queue.tail and in_queue(queue, behind).offer(self.batch):
            behind += 1
        count = hoop_send_batch_count(self.batch)
        if count < HOOP_SEND_BATCH_LEAST:
            hoop_send_batch_clear(self.batch)
            return count
        if hoop_send_batch_send(self.batch, results) < 0:
            hoop_send_batch_close(self.batch)
            self.batch = NULL
            self.batches_sends = False
        for i in range(count):
            in_queue(queue, first + <uint32_t>i).on_sent(results[i])
        self.must_poll = True  # a peer may be watched by this very loop
        return count

    # ---- the end --------------------------------------------------------------------------------------------------

    cdef int release_everything(self) except -1:
        """Release every callback and watcher. Runs user code (finalizers), so take each out before releasing it."""
        cdef int fd
        self.future_keywords = None
        self.errands = None
        self.spare_watcher = None
        self.release_queues()
        drain(&self.flushes)
        for fd in range(self.watcher_capacity):
            if self.watchers[fd] != NULL:
                hoop_poller_forget(&self.poller, fd)
                self.drop_watcher(fd)
        return 0


# ---- parts of the above ------------------------------------------------------------------------------------------

cdef int keep_alive(Reactor reactor, Watcher watcher, bint wanted) except -1:
    """Take or drop the table's reference: users alone keep a watcher that waits for nothing, as in asyncio."""
    if wanted == watcher.is_held and not IS_FREE_THREADED:
        return 0
    hoop_mutex_lock(&reactor.table)  # a finalizer in another thread may call keep_idle()
    if wanted == watcher.is_held:
        hoop_mutex_unlock(&reactor.table)
        return 0
    watcher.is_held = wanted
    hoop_mutex_unlock(&reactor.table)
    if wanted:
        Py_INCREF(watcher)
    else:
        Py_DECREF(watcher)
    return 0


cdef int flush_each(Reactor reactor, bint is_loop_calling, PyObject **flushed) except -1:
    """Empty the queue. When this raises, `flushed` is whose on_flush() did, and the caller owns the reference."""
    cdef PyObject *entry
    cdef int offered = 0
    while hoop_ring_size(&reactor.flushes) > 0:
        if offered == 0 and reactor.batches_sends and hoop_ring_size(&reactor.flushes) >= HOOP_SEND_BATCH_LEAST:
            offered = reactor.send_together() + 1  # and the one that could not go so
        offered -= offered > 0
        entry = <PyObject *>hoop_ring_pop(&reactor.flushes)
        flushed[0] = entry
        (<Deferred>entry).is_flush_due = False
        (<Deferred>entry).on_flush(is_loop_calling)
        raw_decref(entry)
    return 0


cdef inline Deferred in_queue(const hoop_ring *queue, uint32_t place):
    return <Deferred><PyObject *>queue.items[place & (queue.capacity - 1)]


cdef int flush_failed(PyObject *flushed) except -1:
    """Tell the Deferred, whose reference is given away, the exception that is set, or let it pass."""
    cdef Deferred deferred = <Deferred>flushed
    Py_DECREF(deferred)  # the queue's; ours, which may be the last, goes when it has been told
    try:
        raise_what_is_set()
    except BaseException as error:
        pass_exits_on(error)
        deferred.on_flush_failed(error)
    return 0


cdef int switch_context(Reactor reactor, PyObject *context) noexcept:
    """Leave the entered context, if there is one, and enter another; -1 with the exception set."""
    cdef PyObject *former = <PyObject *>reactor.entered
    cdef int result
    if former != <PyObject *>None:
        raw_incref(former)
        reactor.entered = None
        result = raw_context_exit(former)
        raw_decref(former)
        if result < 0:
            return -1
    reactor.entered = <object>context  # counted before PyContext_Enter() does the same, see cpython_api.pxd
    if raw_context_enter(context) < 0:
        reactor.entered = None
        return -1
    return 0


cdef int call_failed(Reactor reactor, Handle handle) except -1:
    """Report the exception that is set, or let it pass."""
    try:
        raise_what_is_set()
    except BaseException as error:
        return reactor.handle_failed(handle, error)


cdef int run_microtasks(Reactor reactor) except -1:
    while hoop_ring_size(&reactor.next_ticks) > 0 or hoop_ring_size(&reactor.microtasks) > 0:
        while hoop_ring_size(&reactor.next_ticks) > 0:
            run_queued(reactor, &reactor.next_ticks)
        while hoop_ring_size(&reactor.microtasks) > 0:
            run_queued(reactor, &reactor.microtasks)
    return 0


cdef int run_queued(Reactor reactor, hoop_ring *queue) except -1:
    cdef Handle handle
    cdef PyObject *entry = <PyObject *>hoop_ring_pop(queue)
    handle = <Handle>entry
    Py_DECREF(handle)
    if hoop_load_flag(&handle.is_cancelled):
        return 0
    return call_one(reactor, handle)
