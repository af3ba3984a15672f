"""BaseLoop: the part of the asyncio surface that runs per callback or per packet. calls.pyx schedules, loop.py adds the
rest.
"""
from cpython.object cimport PyObject, PyTypeObject
from hoop.core.cpython_api cimport PyCFunction, PyCFunction_Check, PyCFunction_GetFunction, PyDescr_NewMethod, \
    PyObject_GenericSetAttr, PyThread_get_thread_ident, method_descriptor, tuple_items
from hoop.core.csrc cimport hoop_board_carry, hoop_board_detach, hoop_clock_ns, hoop_histogram_count_from, \
    hoop_meter, hoop_meter_reset, hoop_poller_close, hoop_ring_size, hoop_send_batch_close, hoop_timers_referenced, \
    hoop_waker_close
from hoop.core.garbage cimport show_to_collector
from hoop.core.handle cimport Handle, new_handle
from hoop.core.reactor cimport Watcher, flush_if_deferred
from hoop.core.ownership cimport IS_FREE_THREADED, hoop_exchange_if, hoop_load, hoop_look_at, hoop_set, hoop_store, \
    hoop_store_bint
from hoop.core.scheduler cimport check_caller
from hoop.core.turns cimport Turns
from hoop.jobs.pool cimport durations
from hoop.loop_methods.calls cimport add_calls, check_schedulable
from hoop.net.fd_watcher cimport add_callback, fd_watcher, remove_callback
from hoop.net.sockops cimport receive, send_all
from libc.stdint cimport int64_t, uint64_t

import asyncio
from operator import methodcaller
from types import MethodDescriptorType

from hoop.net import sockops

cdef PyCFunction own_time = NULL  # the code of BaseLoop.time(), which tells it from a replacement


cdef class BaseLoop(Turns):
    # ---- time and state ------------------------------------------------------------------------------------------

    def time(self):
        """Seconds of the loop's monotonic clock, to the nanosecond.

        A derived class may define its own, and a test may set another as the loop's attribute: timers ask the
        replacement.
        """
        if self.given_clock is None:
            return <double>hoop_clock_ns() / 1e9
        return <double><int64_t>self.given_clock() / 1e9

    cdef bint has_other_time(self) except -1:
        method = self.time
        return not (PyCFunction_Check(method) and method.__self__ is self
                    and PyCFunction_GetFunction(method) == own_time)

    def __setattr__(self, name, value):
        PyObject_GenericSetAttr(self, name, <PyObject *>value)
        if name == "time" or name == "__class__":
            self.look_at_time()

    def __delattr__(self, name):
        PyObject_GenericSetAttr(self, name, NULL)
        if name == "time":
            self.look_at_time()

    def create_future(self):
        """An asyncio.Future of this loop."""
        return self.new_future()

    def stop(self):
        """End run_forever() after the callbacks of the turn that is running."""
        check_caller(self, "stop")
        self.stopping = True

    def is_running(self):
        """Whether run_forever() or run_until_complete() is active."""
        return hoop_load(&self.thread_id) != 0

    def is_closed(self):
        """Whether close() was called."""
        return hoop_look_at(&self.closed)

    # ---- descriptors ---------------------------------------------------------------------------------------------

    def add_reader(self, fd, callback, *args):
        """Call callback(*args) whenever fd is readable. Replaces the callback that was there.

        fd is a number or an object with fileno(). ValueError for neither; OSError if the kernel cannot watch it
        (PermissionError for a regular file, with epoll); RuntimeError if a transport owns it.
        """
        return self.add_watch(fd, callback, args, False, "add_reader")

    def remove_reader(self, fd):
        """Stop calling. Returns whether there was a callback."""
        check_caller(self, "remove_reader")
        return remove_callback(self, fd, False)

    def add_writer(self, fd, callback, *args):
        """Call callback(*args) whenever fd is writable. As add_reader."""
        return self.add_watch(fd, callback, args, True, "add_writer")

    def remove_writer(self, fd):
        """Stop calling. Returns whether there was a callback."""
        check_caller(self, "remove_writer")
        return remove_callback(self, fd, True)

    cdef object add_watch(self, object fd, object callback, tuple args, bint is_writer, str method):
        cdef Handle handle
        check_schedulable(self, callback, method)
        handle = new_handle(self, callback, tuple_items(args, 0), len(args), None)
        add_callback(self, fd, handle, is_writer)
        return None

    # ---- sockets -------------------------------------------------------------------------------------------------
    # Each attempt looks the method up anew, as asyncio does: the program may have replaced it meanwhile.

    def sock_recv(self, sock, n):
        """Receive up to n bytes; b"" at end of stream."""
        return receive(self, sock, n)

    def sock_recv_into(self, sock, buf):
        """Receive into a writable buffer. Returns the number of bytes."""
        return sockops.sock_call(self, sock, False, methodcaller("recv_into", buf), sock)

    def sock_recvfrom(self, sock, bufsize):
        """Receive a datagram of up to bufsize bytes: (data, address)."""
        return sockops.sock_call(self, sock, False, methodcaller("recvfrom", bufsize), sock)

    def sock_recvfrom_into(self, sock, buf, nbytes=0):
        """Receive a datagram into a writable buffer: (number of bytes, address)."""
        return sockops.sock_call(self, sock, False, methodcaller("recvfrom_into", buf, nbytes or len(buf)), sock)

    def sock_sendall(self, sock, data):
        """Send all of data. After an error the caller cannot know how much was sent."""
        return send_all(self, sock, data)

    def sock_sendto(self, sock, data, address):
        """Send a datagram. Returns the number of bytes."""
        return sockops.sock_call(self, sock, True, methodcaller("sendto", data, address), sock)

    def sock_accept(self, sock):
        """Accept a connection: (non-blocking socket, address). sock must be listening."""
        return sockops.sock_call(self, sock, False, accept_nonblocking, sock, kind="accept")

    def _sock_connect_resolved(self, sock, address):
        return sockops.sock_connected(self, sock, address)

    # ---- running -------------------------------------------------------------------------------------------------

    cdef bint is_alive(self) except -1:
        """Whether run() goes on. A task that waits (for another thread, perhaps) counts too; ask for those last."""
        return Turns.is_alive(self) or len(asyncio.all_tasks(self)) > 0

    def _check_caller(self, str method not None):
        """RuntimeError in another thread than the loop's: always without a GIL, in debug mode with it."""
        check_caller(self, method)

    def _is_ours(self):
        """Whether the loop belongs to this thread: it runs it or, while none does, has run or made it last."""
        return self.is_ours()

    def _own(self):
        """This thread is about to run the loop, which does not run: it belongs to this thread."""
        self.own()

    def _begin_run(self):
        """This thread runs the loop, until _run_turns() ends, or _end_run(). RuntimeError if another one has begun."""
        self.claim()

    def _end_run(self):
        """Undo _begin_run(). Idempotent."""
        if self.thread_id == PyThread_get_thread_ident():
            hoop_store(&self.thread_id, 0)

    def _run_turns(self, bint until_idle=False):
        if self.thread_id == 0:
            self.claim()
        self.run_turns(until_idle)

    def _ref(self):
        """Count one more reason for run() to wait that no queue, timer or descriptor shows; _unref() ends it."""
        self.ref()

    def _unref(self):
        self.unref()

    def _reference_reader(self, fd, is_referenced):
        """Set whether run() waits for a descriptor of hoop's own that was added with add_reader."""
        fd_watcher(self, fd).set_referenced(is_referenced)

    def _close_reactor(self):
        """Release all callbacks and descriptors. Idempotent; RuntimeError if another thread has started the loop."""
        if self.closed:
            return
        cdef unsigned long nobody = 0
        if not hoop_exchange_if(&self.thread_id, &nobody, PyThread_get_thread_ident()):
            raise RuntimeError("Cannot close a running event loop")
        try:
            self.close_reactor()
        finally:
            hoop_store(&self.thread_id, 0)

    def _check_closer(self):
        """Without a GIL: RuntimeError if another thread has the loop, and lives."""
        if IS_FREE_THREADED and not self.forked:
            self.claim_abandoned("close")

    cdef int close_reactor(self) except -1:
        cdef int fd
        cdef Watcher watcher
        for fd in range(self.watcher_capacity):
            watcher = self.watcher_of(fd)
            if watcher is not None and not self.forked:
                watcher.on_loop_closed()
        hoop_store_bint(&self.closed, True)
        if IS_FREE_THREADED:
            self.await_posters()
        hoop_board_detach(&self.board)
        self.board_memory = None
        self.release_everything()
        self.cached_files = None  # it has descriptors
        hoop_poller_close(&self.poller)
        hoop_waker_close(&self.waker)
        hoop_send_batch_close(self.batch)
        self.batch = NULL
        self.batches_sends = False
        return 0

    def _flush_deferred(self):
        """Send what the running phase has written. Call it before anything that peers or other processes can see.
        Cheap when there is nothing to send; does nothing in another thread."""
        flush_if_deferred(self)

    def _is_entered(self, context):
        """Whether the running callback was called inside this very Context."""
        return self.entered is context

    def _mark_forked(self):
        """Called in a child after fork(): leave the kernel's poller alone from now on, it is the parent's."""
        self.forked = True
        self.in_callback = False  # defer no more writes: the child may end by os._exit(), which no hook sees
        hoop_board_detach(&self.board)

    def _measured(self):
        """Return the fields of hoop.stats.Metrics, except for the pool's."""
        cdef hoop_meter *meter = &self.meter
        cdef int64_t uncounted_ns = 0
        if hoop_load(&self.thread_id) != 0:
            uncounted_ns = self.now_ns() - meter.counted_ns
        return {
            "turns": meter.turns, "callbacks": meter.callbacks, "events": meter.events, "polls": meter.polls,
            "sleeps": meter.sleeps, "busy_ns": meter.busy_ns + uncounted_ns, "idle_ns": meter.idle_ns,
            "lag": durations(&meter.lag), "timer_lateness": durations(&meter.lateness),
            "ready": hoop_ring_size(&self.ready), "timers": self.timers.size,
            "unreferenced_timers": self.timers.size - hoop_timers_referenced(&self.timers),
            "jobs_in_flight": self.jobs_in_flight, "watchers": self.watchers_by_kind(),
        }

    cdef dict watchers_by_kind(self):
        cdef int fd
        cdef dict counts = {}
        for fd in range(self.table_size()):
            watcher = self.watcher_of(fd)  # from any thread
            if watcher is not None:
                kind = type(watcher).__name__
                counts[kind] = counts.get(kind, 0) + 1
        return counts

    def _reset_meter(self):
        hoop_board_carry(&self.board, &self.meter)
        hoop_meter_reset(&self.meter, self.now_ns())

    def _pulse(self, threshold_ns):
        """For a watchdog in another thread: (a number that changes whenever the loop moves on, the thread that runs a
        callback or 0, nanoseconds since the loop last looked for work, the count of lags of at least threshold_ns).
        """
        cdef hoop_meter *meter = &self.meter
        cdef uint64_t beats = meter.callbacks + meter.events + meter.polls + meter.turns
        cdef unsigned long holder = hoop_load(&self.thread_id) if self.in_callback else 0
        cdef int64_t looked_ago_ns = hoop_clock_ns() - meter.looked_ns if self.clock is None else 0
        return beats, holder, looked_ago_ns, hoop_histogram_count_from(&meter.lag, threshold_ns)

    def _set_debug_flag(self, bint enabled):
        hoop_set(&self.debug, enabled)

    def get_debug(self):
        """Whether debug mode is on."""
        return hoop_look_at(&self.debug)

    @property
    def _debug(self):
        return hoop_look_at(&self.debug)

    @property
    def _closed(self):
        return hoop_look_at(&self.closed)

    @property
    def _stopping(self):
        return self.stopping

    def _check_closed(self):
        self.check_open()

    @property
    def _thread_id(self):
        return hoop_load(&self.thread_id) or None

    @property
    def poller_name(self):
        """The back end in use: "epoll", "kqueue" or "poll"; None once closed."""
        return None if self.poller.backend == NULL else self.poller.backend.name.decode("ascii")


def accept_nonblocking(sock):
    connection, address = sock.accept()
    connection.setblocking(False)
    return connection, address


add_calls(BaseLoop)
own_time = (<method_descriptor *><PyObject *>BaseLoop.__dict__["time"]).d_method.ml_meth
show_to_collector(BaseLoop)


def own_methods(kind):
    """Give a class derived from BaseLoop the compiled methods that it inherits as methods of its own.

    A call of a type's own method needs no search for BaseLoop among the many bases, and the interpreter has faster
    instructions for it.
    """
    if not issubclass(kind, BaseLoop):
        raise TypeError(f"a class derived from BaseLoop was expected, not {kind!r}")
    for name, method in list(BaseLoop.__dict__.items()):
        if type(method) is MethodDescriptorType and getattr(kind, name) is method:
            definition = (<method_descriptor *><PyObject *>method).d_method
            setattr(kind, name, PyDescr_NewMethod(<PyTypeObject *>kind, definition))
